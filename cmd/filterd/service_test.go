//go:build unix

package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
)

// A systemdSocket is what is told to the socket of a service manager.
type systemdSocket struct {
	*testing.T
	told  chan string
	pings int // of the watchdog, that were skipped
}

func listenAsSystemd(t *testing.T) *systemdSocket {
	t.Helper()
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	socket, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", address.Name)
	messages := make(chan string, 1000)
	go func() { // ends with the socket
		defer close(messages)
		for {
			var b [4096]byte
			n, err := socket.Read(b[:])
			if err != nil {
				return
			}
			messages <- string(b[:n])
		}
	}()
	t.Cleanup(func() { _ = socket.Close() })
	return &systemdSocket{T: t, told: messages}
}

// next returns the next message but those to the watchdog.
func (s *systemdSocket) next() string {
	s.Helper()
	for {
		select {
		case message := <-s.told:
			if message != "WATCHDOG=1" {
				return message
			}
			s.pings++
		case <-time.After(patience):
			s.Fatal("systemd is told nothing")
		}
	}
}

// systemd is told when the rules are at work, of reloads, refused ones too, of the
// end, and in between that the daemon lives.
func TestSystemdIsTold(t *testing.T) {
	systemd := listenAsSystemd(t)
	t.Setenv("WATCHDOG_USEC", "60000000") // the first ping comes at once
	d := newDaemon(t)
	t.Cleanup(func() { // the daemon has ended
		for systemd.next() != "STOPPING=1\nSTATUS=delivering what was read" { // fails where it never comes
		}
		if systemd.pings == 0 {
			t.Error("the watchdog heard nothing")
		}
	})
	d.write("filterd.yaml", rules("v1"))
	d.start("env", "-u", "WATCHDOG_PID")
	if got := systemd.next(); got != "READY=1\nSTATUS=1 rule, generation 1" {
		t.Fatalf("when it is ready: %q", got)
	}
	reload := func(text, status string) {
		t.Helper()
		d.write("filterd.yaml", text)
		d.must(d.cmd.Process.Signal(syscall.SIGHUP))
		begin := systemd.next()
		if usec, ok := strings.CutPrefix(begin, "RELOADING=1\nMONOTONIC_USEC="); !ok || len(usec) < 4 || !strings.HasSuffix(usec, "\nSTATUS=reloading") {
			t.Fatalf("when it reloads: %q", begin)
		}
		if got := systemd.next(); got != "READY=1\nSTATUS="+status {
			t.Fatalf("when it has reloaded: %q, want status %q", got, status)
		}
	}
	reload(rules("v2"), "1 rule, generation 2")
	reload("rules: {}\nnonsense: 1\n", "1 rule, generation 2; the files were refused, see the log")
}

// A hangingSink hangs until it may go on.
type hangingSink struct{ called, release chan struct{} }

func (s hangingSink) Deliver(context.Context, []filterd.Delivery) {
	s.called <- struct{}{}
	<-s.release
}

// A onceSource delivers one batch as a source of channels or one of streams does,
// then waits for the end.
type onceSource struct{ stream bool }

func (onceSource) Subscribe(filterd.Subscriptions) {}
func (s onceSource) Run(ctx context.Context, h filterd.Handler) error {
	m := &filterd.Message{Channel: "c", Payload: []byte("1")}
	if s.stream {
		h = h.(filterd.Forker).Fork()
		m.ID, m.Entry = "1-1", &filterd.Entry{}
		m.Entry.Init("c", "g", "1-1", func(*filterd.Entry) {})
	}
	h.Messages(ctx, []*filterd.Message{m})
	<-ctx.Done()
	return nil
}

// The watchdog hears nothing while a batch of a channel or stream hangs, and again
// when it goes on.
func TestWatchdogOfWhatHangs(t *testing.T) {
	for name, from := range map[string]string{"channel": "c", "stream": "{stream: c, group: g}"} {
		t.Run(name, func(t *testing.T) {
			told := listenAsSystemd(t).told
			file, err := config.Parse("rules.yaml", []byte("rules: {r: {from: "+from+", to: d}}"))
			if err != nil {
				t.Fatal(err)
			}
			sink := hangingSink{make(chan struct{}, 1), make(chan struct{})}
			eng, err := file.Engine(engine.Config{Logger: slog.New(slog.DiscardHandler), Sink: sink, Attend: true})
			if err != nil {
				t.Fatal(err)
			}
			defer eng.Close()
			s := &service{logger: slog.New(slog.DiscardHandler), watchdog: 30 * time.Millisecond}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- eng.Run(ctx, onceSource{stream: name == "stream"}) }()
			watched := make(chan struct{})
			go func() { s.watch(ctx, eng); close(watched) }()
			defer func() { cancel(); <-watched }()

			<-sink.called
			for hung := false; !hung; {
				got := <-told
				if hung = strings.HasPrefix(got, "STATUS=hangs: "); !hung && got != "WATCHDOG=1" {
					t.Fatalf("told %q", got)
				}
			}
			select {
			case got := <-told:
				t.Fatalf("told %q while a batch hangs", got)
			case <-time.After(5 * s.watchdog): // a watchdog that hears of it does so within one
			}
			close(sink.release)
			if got := <-told; got != "WATCHDOG=1" {
				t.Fatalf("told %q when it goes on", got)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		})
	}
}
