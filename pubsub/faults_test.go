package pubsub

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// scripted is a server that answers as Redis does until it has confirmed a
// SUBSCRIBE for the first time. Then it calls misbehave, and ends the connection
// when that returns; from then on it is as Redis again.
func scripted(t *testing.T, misbehave func(conn net.Conn, commands *bufio.Reader)) (addr string) {
	t.Helper()
	return scriptedWith(t, "subscribe", misbehave)
}

// scriptedWith misbehaves on another command; instead of a reply, if that is
// PUBLISH.
func scriptedWith(t *testing.T, on string, misbehave func(conn net.Conn, commands *bufio.Reader)) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	serve := func(conn net.Conn) {
		defer conn.Close()
		commands := bufio.NewReader(conn)
		for {
			command, err := readCommand(commands)
			if err != nil {
				return
			}
			misbehaved, name := false, strings.ToLower(command[0])
			do := func() { misbehaved = true; misbehave(conn, commands) }
			switch name {
			case "ping":
				_, err = io.WriteString(conn, "+PONG\r\n")
			case "subscribe", "unsubscribe":
				if strings.HasPrefix(command[1], reserved) {
					_, err = io.WriteString(conn, "-NOPERM no probes here\r\n")
					break
				}
				for i, channel := range command[1:] {
					_, err = fmt.Fprintf(conn, "*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:%d\r\n", len(name), name, len(channel), channel, i)
				}
				if name == on {
					once.Do(do)
				}
			case "publish":
				if name == on {
					once.Do(do)
				}
				if !misbehaved {
					_, err = io.WriteString(conn, ":1\r\n")
				}
			default:
				_, err = io.WriteString(conn, "-ERR unknown command\r\n")
			}
			if err != nil || misbehaved {
				return
			}
		}
	}
	var running sync.WaitGroup
	running.Go(func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(conn) }) // ends with the connection
		}
	})
	t.Cleanup(func() { // after those of the clients
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// What is wrong on a connection is named in its gap, and the next connection
// works.
func TestSourceSurvives(t *testing.T) {
	write := func(text string) func(net.Conn, *bufio.Reader) {
		return func(conn net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(conn, text) }
	}
	message := "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n1\r\n"
	for name, test := range map[string]struct {
		misbehave func(net.Conn, *bufio.Reader)
		reason    string
		before    []string // what comes before the gap
	}{
		"garbage":         {write(message + "HTTP/1.1 400 Bad Request\r\n\r\n"), `the server does not speak RESP2: want an array, a status, an error or a number, got "HTTP/1.1 400 Bad Request\r\n\r\n"`, []string{"a 1"}},
		"half a frame":    {write(message + message[:20]), "the server closed the connection in the middle of a message", []string{"a 1"}},
		"another command": {write("*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"), `unexpected reply: subscribe "x"`, nil},
		"a number":        {write(":7\r\n"), "unexpected reply: 7", nil},
		"loading":         {write("-LOADING Redis is loading the dataset in memory\r\n"), "LOADING Redis is loading the dataset in memory", nil},
		"half a frame, then silence": {
			func(conn net.Conn, commands *bufio.Reader) {
				_, _ = io.WriteString(conn, message+message[:20])
				_, _ = io.Copy(io.Discard, commands) // until the source gives up
			},
			"no answer to PING within 300ms", []string{"a 1"},
		},
		"a frame that never ends": {
			func(conn net.Conn, commands *bufio.Reader) {
				_, _ = io.WriteString(conn, "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$536870912\r\nand then")
				_, _ = io.Copy(io.Discard, commands)
			},
			"no answer to PING within 300ms", []string{"gap a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, r, _ := start(t, client(t, scripted(t, test.misbehave)), SourceOptions{ProbeInterval: 300 * time.Millisecond}, []string{"a"}, nil)
			r.want(t, append(test.before, "gap a")...)
			if gap := r.lastGap(); !strings.Contains(gap.Reason, test.reason) || gap.Length() <= 0 {
				t.Errorf("gap: %+v", gap)
			}
			ready(t, s)
		})
	}
}

// A message over the limit is a gap of its own, and the rest is read.
func TestSourceOversizeMessage(t *testing.T) {
	const limit = 1 << 20
	addr := scripted(t, func(conn net.Conn, commands *bufio.Reader) {
		for _, size := range []int{10, 2 * limit, 10} {
			_, _ = fmt.Fprintf(conn, "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%s\r\n", size, strings.Repeat("x", size))
		}
		_, _ = io.Copy(io.Discard, commands)
	})
	logged := &log{}
	_, r, _ := start(t, client(t, addr), SourceOptions{MaxMessage: limit, Logger: logged.logger(), ProbeInterval: patience, DrainTimeout: time.Millisecond}, []string{"a"}, nil)
	r.want(t, "a xxxxxxxxxx", "gap a", "a xxxxxxxxxx")
	const reason = "2097152 bytes of a message are over the limit of 1048576"
	if gap := r.lastGap(); gap.Reason != reason || gap.Length() != 0 {
		t.Errorf("gap: %+v", gap)
	}
	if !strings.Contains(logged.String(), reason) {
		t.Errorf("log without the reason:\n%s", logged)
	}
}

// another is a client that only its user knows.
type another struct{ redis.UniversalClient }
