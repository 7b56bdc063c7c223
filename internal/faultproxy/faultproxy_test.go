package faultproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo starts a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends when the listener is closed
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // until the client closes
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// roundTrip sends a text and reads as many bytes back.
func roundTrip(conn net.Conn, text string, patience time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	reply := make([]byte, len(text))
	n, err := io.ReadFull(conn, reply)
	return string(reply[:n]), err
}

func TestFaults(t *testing.T) {
	const long, short = 10 * time.Second, 100 * time.Millisecond
	p := Start(t, echo(t))
	conn := dial(t, p.Addr())
	if got, err := roundTrip(conn, "hello", long); got != "hello" || err != nil {
		t.Fatalf("without a fault: got %q, %v", got, err)
	}

	for name, f := range map[string]Fault{
		"requests": {LoseRequests: true}, "replies": {LoseReplies: true}, "both": {LoseRequests: true, LoseReplies: true},
	} {
		p.Set(f)
		if got, err := roundTrip(conn, "lost", short); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("losing %s: got %q, %v, want silence on an open connection", name, got, err)
		}
	}

	p.Set(Fault{Delay: short})
	begin := time.Now()
	if got, err := roundTrip(conn, "late", long); got != "late" || err != nil {
		t.Errorf("with a delay: got %q, %v", got, err)
	}
	if took := time.Since(begin); took < 2*short {
		t.Errorf("with a delay of %v each way: took %v", short, took)
	}

	p.Set(Fault{})
	p.Cut()
	if _, err := roundTrip(conn, "cut", long); err == nil {
		t.Error("after Cut: the connection still works")
	}

	p.Set(Fault{Refuse: true})
	if _, err := roundTrip(dial(t, p.Addr()), "refused", long); err == nil {
		t.Error("with Refuse: a new connection works")
	}
	p.Set(Fault{})
	if got, err := roundTrip(dial(t, p.Addr()), "again", long); got != "again" || err != nil {
		t.Errorf("after the faults: got %q, %v", got, err)
	}
	if got := p.Links(); got < 1 {
		t.Errorf("Links: got %d, want the open connection", got)
	}
}
