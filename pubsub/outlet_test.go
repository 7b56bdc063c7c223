package pubsub

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/faultproxy"
	"github.com/filterd/filterd/internal/redistest"
)

// deliver delivers one message.
func deliver(ctx context.Context, sink *Sink, channel, payload string) error {
	batch := []filterd.Delivery{{Channel: channel, Payload: []byte(payload)}}
	sink.Deliver(ctx, batch)
	return batch[0].Err
}

// A connection that ended while nobody used it costs no message.
func TestSinkNoticesTheEnd(t *testing.T) {
	server := redistest.Start(t)
	sink := NewSink(client(t, server.Addr))
	for i := range 3 {
		if err := deliver(t.Context(), sink, "c", "m"); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		server.Restart()
	}
}

func TestSinkClose(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	sink := NewSink(rdb)
	publishers := func() int { return strings.Count(server.Do("CLIENT", "LIST"), "cmd=publish") }
	for range 2 {
		if err := deliver(t.Context(), sink, "c", "m"); err != nil || publishers() != 1 {
			t.Fatalf("%v, %d connections, want 1", err, publishers())
		}
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "the end of the connection", func() bool { return publishers() == 0 })
	}
	if err := deliver(t.Context(), sink, "c", "m"); err != nil {
		t.Error(err)
	}
	rdb.Close()
	eventually(t, "the end with the client", func() bool { return publishers() == 0 })
	wantError(t, deliver(t.Context(), sink, "c", "m"), `publish to "c": redis: client is closed`)
}

// Batches of many go out together, each with its own outcomes and in order.
func TestSinkTogether(t *testing.T) {
	const callers, messages = 16, 200
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	names := make([]string, callers)
	for i := range names {
		names[i] = fmt.Sprint("c", i)
	}
	source, r, _ := start(t, rdb, SourceOptions{}, names[:callers/2], nil)
	ready(t, source)
	sink := NewSink(rdb)
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			for j := range messages {
				batch := []filterd.Delivery{{Channel: name, Payload: fmt.Append(nil, j)}, {Channel: "nobody"}}
				sink.Deliver(t.Context(), batch)
				want := int64(1)
				if i >= callers/2 {
					want = 0
				}
				if batch[0].Err != nil || batch[0].Receivers != want || batch[1].Err != nil || batch[1].Receivers != 0 {
					t.Errorf("%s: %+v", name, batch)
				}
			}
		})
	}
	all.Wait()
	eventually(t, "all messages", func() bool { return len(r.got()) == callers/2*messages })
	next := make(map[string]int)
	for _, m := range r.got() {
		name, payload, _ := strings.Cut(m, " ")
		if payload != fmt.Sprint(next[name]) {
			t.Fatalf("%s: got %s, want %d", name, payload, next[name])
		}
		next[name]++
	}
}

// When the connection ends in the middle of a large batch, what was written and
// not answered is an error, and the rest goes out on another one. Nothing is
// sent twice, and nothing is lost without an error.
func TestSinkGoesOn(t *testing.T) {
	const count, size = 400, 256 << 10 // more than the sockets hold
	addr, published := breaker(t, 3)
	sink := NewSink(client(t, addr))
	batch := make([]filterd.Delivery, count)
	filler := bytes.Repeat([]byte("x"), size)
	for i := range batch {
		batch[i] = filterd.Delivery{Channel: "c", Payload: strconv.AppendInt(nil, int64(i), 10)}
		batch[i].Payload = append(append(batch[i].Payload, ' '), filler...)
	}
	sink.Deliver(t.Context(), batch)
	got := make(map[string]int)
	for _, payload := range published() {
		name, _, _ := strings.Cut(payload, " ")
		got[name]++
	}
	failed := 0
	for i, d := range batch {
		switch times := got[strconv.Itoa(i)]; {
		case times > 1:
			t.Errorf("message %d was sent %d times", i, times)
		case d.Err == nil && times == 0:
			t.Errorf("message %d was not sent, and has no error", i)
		case d.Err != nil:
			failed++
			if !strings.HasPrefix(d.Err.Error(), `publish to "c": no reply: `) {
				t.Errorf("message %d: %v", i, d.Err)
			}
		}
	}
	if failed == 0 || failed == count || batch[count-1].Err != nil {
		t.Errorf("%d of %d failed, the last with %v", failed, count, batch[count-1].Err)
	}
}

// Contexts and the client's timeouts bound a delivery; who only waited for its
// turn has sent nothing.
func TestSinkTimeouts(t *testing.T) {
	server := redistest.Start(t)
	source, r, _ := start(t, client(t, server.Addr), SourceOptions{ProbeInterval: patience}, []string{"c"}, nil)
	ready(t, source)
	sink := NewSink(client(t, server.Addr))
	if err := deliver(t.Context(), sink, "c", "1"); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := deliver(ended, sink, "c", "never"); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}

	server.Pause()
	first, err := make(chan error), error(nil)
	leader, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	go func() { first <- deliver(leader, sink, "c", "2") }() // ends with its context
	o := sink.to.(*outlet)
	eventually(t, "the first leads", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.led && len(o.waiting) == 0
	})
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if err = deliver(short, sink, "c", "never"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting: %v", err)
	}
	if err = <-first; !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), `publish to "c": no reply: `) {
		t.Errorf("leading: %v", err)
	}
	server.Resume()
	if err := deliver(t.Context(), sink, "c", "3"); err != nil {
		t.Error(err)
	}
	eventually(t, "the third", func() bool { return strings.HasSuffix(strings.Join(r.got(), " "), "c 3") })
	if got := strings.Join(r.got(), " "); strings.Contains(got, "never") {
		t.Errorf("got %s", got)
	}
}

// What is no reply to a PUBLISH is named, and the next connection works.
func TestSinkSurvives(t *testing.T) {
	for name, test := range map[string]struct{ reply, want string }{
		"garbage":       {"HTTP/1.1 400\r\n", `publish to "c": no reply: the server does not speak RESP2: want an array, a status, an error or a number, got "HTTP/1.1 400\r\n"`},
		"another reply": {"+OK\r\n", `publish to "c": no reply: unexpected reply:  OK`},
		"half a reply":  {":1", `publish to "c": no reply: unexpected EOF`},
		"no memory":     {"-OOM command not allowed when used memory > 'maxmemory'.\r\n", `publish to "c": OOM command not allowed when used memory > 'maxmemory'.`},
	} {
		t.Run(name, func(t *testing.T) {
			addr := replying(t, test.reply)
			sink := NewSink(client(t, addr))
			wantError(t, deliver(t.Context(), sink, "c", "1"), test.want)
			if o := sink.to.(*outlet); o.wire != nil {
				eventually(t, "the server hangs up", func() bool { return !o.wire.peek.quiet() })
			}
			if err := deliver(t.Context(), sink, "c", "2"); err != nil {
				t.Errorf("the next message: %v", err)
			}
		})
	}
}

// replying is a server that gives this reply to the first PUBLISH, and then ends
// the connection.
func replying(t *testing.T, reply string) (addr string) {
	t.Helper()
	return scriptedWith(t, "publish", func(conn net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(conn, reply) })
}

// Publishing needs no memory of the database.
func TestSinkWithoutMemory(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	if err := deliver(t.Context(), NewSink(client(t, server.Addr)), "c", "m"); err != nil {
		t.Error(err)
	}
}

// Connections that are cut again and again: every message has one outcome, and
// those without an error arrived.
func TestSinkUnderCuts(t *testing.T) {
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	source, r, _ := start(t, client(t, server.Addr), SourceOptions{}, []string{"c"}, nil)
	ready(t, source)
	sink := NewSink(client(t, proxy.Addr()))
	defer sink.Close()
	good := make(map[string]bool)
	for i := range 200 {
		batch := make([]filterd.Delivery, 50)
		for j := range batch {
			batch[j] = filterd.Delivery{Channel: "c", Payload: fmt.Appendf(nil, "%d.%d", i, j)}
		}
		var cut sync.WaitGroup
		if i%10 == 0 {
			cut.Go(proxy.Cut)
		}
		sink.Deliver(t.Context(), batch)
		cut.Wait()
		for _, d := range batch {
			if d.Err == nil {
				good["c "+string(d.Payload)] = true
				if d.Receivers != 1 {
					t.Errorf("%s: %d receivers", d.Payload, d.Receivers)
				}
			}
		}
	}
	say(t, server, "c", "end", 1)
	eventually(t, "the end", func() bool { got := r.got(); return len(got) > 0 && got[len(got)-1] == "c end" })
	seen := make(map[string]bool)
	for _, m := range r.got() {
		if seen[m] {
			t.Errorf("%s came twice", m)
		}
		seen[m] = true
		delete(good, m)
	}
	if len(good) > 0 {
		t.Errorf("%d messages without an error never came", len(good))
	}
}

func TestSinkAllocations(t *testing.T) {
	server := redistest.Start(t)
	sink := NewSink(client(t, server.Addr))
	batch := make([]filterd.Delivery, maxBatch)
	for i := range batch {
		batch[i] = filterd.Delivery{Channel: "c", Payload: []byte("m")}
	}
	if got := testing.AllocsPerRun(20, func() { sink.Deliver(context.Background(), batch) }); got > 10 {
		t.Errorf("%v allocations for a batch of %d, want at most 10", got, maxBatch)
	}
}
