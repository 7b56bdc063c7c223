package pubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// Of two who take a lost group back, the second does not take it forward, past
// what the first one has to take again.
func TestJoinMovesNoGroupForward(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	for i := range 5 {
		server.Do("XADD", "s", fmt.Sprintf("%d-1", i+1), "event", fmt.Sprint(i+1))
	}
	reader := func(name string, again ...string) *streamReader {
		s := NewStreamSource(rdb, StreamOptions{Consumer: name, Logger: (&log{}).logger()})
		r := newStreamReader(s, filterd.Stream{Name: "s"}.WithDefaults(), func() {})
		r.rdb, r.joined, r.lost, r.last = rdb, true, true, "5-1" // as after a NOGROUP
		for _, id := range again {
			r.again[id] = retry{filterd.EntryFailed, 0}
		}
		return r
	}
	a, b := reader("a", "1-1", "2-1"), reader("b", "5-1")
	for _, r := range []*streamReader{a, b} {
		if err := r.join(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := server.Do("XREADGROUP", "GROUP", "filterd", "a", "STREAMS", "s", ">")
	if !strings.Contains(got, "1-1") {
		t.Errorf("1-1 and 2-1 are in a.again (%d of them left) and not delivered any more; the group goes on with:\n%s", len(a.again), got)
	}
}

// Another consumer makes a lost group anew from where it was itself. What this
// one had postponed comes again all the same.
func TestStreamGroupMadeByAnother(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var open atomic.Bool
	a := &streamHandler{do: func(m *filterd.Message) {
		if !open.Load() {
			m.Entry.Postpone()
		}
	}}
	add(server, "s", "1", "2") // before it reads, so that it has both
	readStreams(t, client(t, server.Addr), "a", a, filterd.Stream{Name: "s"})
	eventually(t, "some tries", func() bool { return len(a.got()) > 10 }) // so that the next wait is long
	b := &streamHandler{}
	readStreams(t, client(t, server.Addr), "b", b, filterd.Stream{Name: "s"})
	add(server, "s", "3")
	b.want(t, "3")
	n := len(a.got())
	eventually(t, "one more try", func() bool { return len(a.got()) > n })
	server.Do("XGROUP", "DESTROY", "s", "filterd")
	eventually(t, "b makes the group", func() bool { return strings.Contains(server.Do("XINFO", "GROUPS", "s"), "filterd") })
	open.Store(true)
	n = len(a.got())
	for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if len(a.got()) >= n+2 || len(b.got()) >= 3 {
			return
		}
	}
	t.Errorf("1 and 2 were postponed, and never came again; b has %q, pending: %s", b.got(), server.Do("XPENDING", "s", "filterd"))
}

// At the end of Run what was asked for ahead stays pending behind what was
// postponed.
func TestStreamEndKeepsOrder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for i := range 64 {
		add(server, "s", fmt.Sprint(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done []string
	postponed := 0
	h := &streamHandler{do: func(m *filterd.Message) {
		if len(done) == 0 && postponed < firstBatch { // the first batch: the sink is away
			postponed++
			cancel()
			m.Entry.Postpone()
			return
		}
		done = append(done, string(m.Payload))
	}}
	s := NewStreamSource(client(t, server.Addr), StreamOptions{Consumer: "me", Logger: (&log{}).logger()})
	s.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{{Name: "s"}}})
	if err := s.Run(ctx, h); err != nil {
		t.Fatal(err)
	}
	if len(done) > 0 {
		t.Errorf("%d entries were postponed, and those behind them written: %q", postponed, done)
	}
}

// Of the reply to an XCLAIM nothing is delivered behind a part that was postponed.
func TestStreamPartsKeepOrder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("XGROUP", "CREATE", "s", "filterd", "0", "MKSTREAM")
	for i := range 8 {
		add(server, "s", fmt.Sprint(i)+strings.Repeat("x", 100<<10))
	}
	server.Do("XREADGROUP", "GROUP", "filterd", "me", "STREAMS", "s", ">")
	first := true
	done := make(chan string, 100)
	h := &batchHandler{do: func(batch []*filterd.Message) {
		for _, m := range batch {
			if first {
				m.Entry.Postpone()
			} else {
				done <- string(m.Payload[:1])
			}
		}
		first = false
	}}
	s := NewStreamSource(client(t, server.Addr), StreamOptions{Consumer: "me", Logger: (&log{}).logger()})
	s.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{{Name: "s"}}})
	run(t, func(ctx context.Context) error { return s.Run(ctx, h) })
	pendingIs(t, server, "s", 0)
	var got []string
	for range 8 {
		got = append(got, <-done)
	}
	if !slices.IsSorted(got) {
		t.Errorf("order %q", got)
	}
}

type batchHandler struct{ do func([]*filterd.Message) }

func (h *batchHandler) Messages(_ context.Context, batch []*filterd.Message) { h.do(batch) }
func (h *batchHandler) Gap(filterd.Gap)                                      {}

// Of a batch that takes two runs of the script nothing is written behind the one
// that failed for now.
func TestGuardRunsKeepOrder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := client(t, server.Addr).(*redis.Client)
	entries := pendingEntries(t, server, "in", rdb, 600)
	rdb.AddHook(&failFirst{command: "evalsha"})
	batch := make([]filterd.Delivery, len(entries))
	for i, e := range entries {
		batch[i] = filterd.Delivery{Channel: "out", Stream: true, Payload: []byte("x"), Entry: e}
	}
	NewSink(rdb).Deliver(t.Context(), batch)
	failed := 0
	for i := range batch {
		if batch[i].Err != nil {
			failed++
		} else if failed > 0 {
			t.Fatalf("%d entries could not be written for now, and those behind them were", failed)
		}
	}
}

type failFirst struct {
	command string
	failed  atomic.Bool
}

func (f *failFirst) DialHook(next redis.DialHook) redis.DialHook { return next }
func (f *failFirst) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (f *failFirst) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == f.command && f.failed.CompareAndSwap(false, true) {
			cmd.SetErr(io.EOF) // the connection was lost
			return io.EOF
		}
		return next(ctx, cmd)
	}
}

// Replies that get lost make no poison of entries that nobody has had.
func TestStreamUnseenIsNoPoison(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var cuts atomic.Int32
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &cutConn{Conn: conn, cuts: &cuts}, err
	}})
	t.Cleanup(func() { rdb.Close() })
	add(server, "s", "1")
	h := &streamHandler{}
	s, _ := readStreams(t, rdb, "me", h, filterd.Stream{Name: "s"})
	eventually(t, "it is treated", func() bool { return len(h.got()) > 0 })
	if got := h.got(); !slices.Equal(got, []string{"1"}) {
		t.Errorf("got %q: %+v", got, s.Stats())
	}
}

// A cutConn loses the replies to the first commands that deliver entries.
type cutConn struct {
	net.Conn
	cuts *atomic.Int32
	cut  atomic.Bool
}

func (c *cutConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if bytes.Contains(p, []byte("XREADGROUP")) || bytes.Contains(p, []byte("XCLAIM")) {
		if c.cuts.Add(1) <= 5 {
			c.cut.Store(true)
		}
	}
	return n, err
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.cut.Load() {
		return 0, io.EOF
	}
	return n, err
}

// An entry that a rule halts on comes again as a whole: others write nothing of
// it.
func TestStreamHaltWritesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	in := []filterd.Stream{{Name: "in"}}
	table, err := engine.Compile(engine.Definition{Rules: []engine.Rule{
		{Name: "halts", Streams: in, When: exprfilter.MustCompile("data.a.b > 1"), OnError: engine.OnErrorHalt, To: []engine.Target{{Stream: "other"}}},
		{Name: "fine", Streams: in, To: []engine.Target{{Stream: "out"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	add(server, "in", `{"a":1}`)
	for range 2 {
		e, err := engine.New(engine.Config{Table: table, Sink: NewSink(rdb), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var halted *engine.HaltError
		if err := e.Run(t.Context(), NewStreamSource(rdb, StreamOptions{Consumer: "me", Logger: (&log{}).logger()})); !errors.As(err, &halted) {
			t.Fatal(err)
		}
		_ = e.Close()
	}
	if got := server.Do("XLEN", "out"); got != "0" {
		t.Errorf("out has %s entries", got)
	}
}

// Redis before 7 says where in the script what it denies was called.
func TestGuardErrorOfOldRedis(t *testing.T) {
	t.Parallel()
	err := guardError("@user_script: 19: -OOM command not allowed when used memory > 'maxmemory'.\r\n")
	if errors.Is(err, filterd.ErrRefused) {
		t.Errorf("taken for a refusal for good: %q", err)
	}
}

// With a short ClaimIdle entries of an idle stream are not put off: nobody could
// have claimed them.
func TestStreamShortClaimIdle(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := &streamHandler{}
	s, _ := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s", ClaimIdle: 300 * time.Millisecond})
	if err := s.WaitReady(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		time.Sleep(330 * time.Millisecond)
		add(server, "s", fmt.Sprint(i))
	}
	eventually(t, "all", func() bool { return len(h.got()) == 10 })
	if st := s.Stats()[0]; st.Redelivered > 0 {
		t.Errorf("%d of 10 were delivered again: %+v", st.Redelivered, st)
	}
}

// While the sink is away consumers don't take what was postponed from each other,
// until it counts as delivered in vain.
func TestStreamPostponedStaysOurs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var up atomic.Bool
	h := &streamHandler{do: func(m *filterd.Message) {
		if !up.Load() && m.Entry.Fault == nil {
			m.Entry.Postpone()
		}
	}}
	stream := filterd.Stream{Name: "s", ClaimIdle: 200 * time.Millisecond}
	a, _ := readStreams(t, client(t, server.Addr), "a", h, stream)
	b, _ := readStreams(t, client(t, server.Addr), "b", h, stream)
	ready(t, a)
	ready(t, b)
	add(server, "s", "1")
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if a.Stats()[0].Poison+b.Stats()[0].Poison > 0 {
			t.Fatalf("it was only ever postponed: %q", h.got())
		}
	}
	up.Store(true)
}

// What was let go of is acknowledged while the handler waits for room.
func TestStreamAcknowledgesWhileBlocked(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	room := make(chan struct{})
	var once sync.Once
	entered := make(chan struct{})
	var first *filterd.Entry
	h := &streamHandler{do: func(m *filterd.Message) {
		if first == nil {
			first = m.Entry
			m.Entry.Hold()
			return
		}
		once.Do(func() { close(entered) })
		<-room // a full queue
	}}
	readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s"})
	defer close(room)
	add(server, "s", "1")
	h.want(t, "1")
	add(server, "s", "2")
	<-entered
	first.Release() // the webhook has it
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if strings.HasPrefix(server.Do("XPENDING", "s", "filterd"), "1\n") {
			return
		}
	}
	t.Error("an entry that every target has is still pending after 3 s")
}

// A reload takes a stream out of the rules: what is read of it at that moment
// stays pending.
func TestStreamGoesAndComesBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	const entries = 20000
	pipeline := rdb.Pipeline()
	for i := range entries {
		pipeline.XAdd(t.Context(), &redis.XAddArgs{Stream: "in", Values: []any{"event", i}})
	}
	if _, err := pipeline.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	compile := func(rules ...engine.Rule) *engine.Table {
		table, err := engine.Compile(engine.Definition{Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	with := compile(engine.Rule{Name: "r", Streams: []filterd.Stream{{Name: "in", ClaimIdle: time.Second}}, To: []engine.Target{{Stream: "out"}}})
	without := compile(engine.Rule{Name: "other", Streams: []filterd.Stream{{Name: "elsewhere"}}, To: []engine.Target{{Stream: "out2"}}})
	e, err := engine.New(engine.Config{Table: with, Sink: NewSink(rdb), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	run(t, func(ctx context.Context) error {
		return e.Run(ctx, NewStreamSource(rdb, StreamOptions{Consumer: "me", Logger: (&log{}).logger()}))
	})
	for range 10 { // the stream goes, and comes back
		n := server.Do("XLEN", "out")
		eventually(t, "some", func() bool { return server.Do("XLEN", "out") != n || n == fmt.Sprint(entries) })
		_ = e.Reload(t.Context(), without)
		_ = e.Reload(t.Context(), with)
	}
	eventually(t, "all are acknowledged", func() bool {
		groups, err := rdb.XInfoGroups(t.Context(), "in").Result()
		return err == nil && len(groups) == 1 && groups[0].Pending == 0 && groups[0].Lag == 0
	})
	if got := server.Do("XLEN", "out"); got != fmt.Sprint(entries) {
		t.Errorf("%s of %d were written; unrouted: %d", got, entries, e.Stats().Unrouted)
	}
}

// A group is lost twice, the second time before what was to come again was read.
func TestJoinAfterTwoLosses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	for i := range 5 {
		server.Do("XADD", "s", fmt.Sprintf("%d-1", i+1), "event", fmt.Sprint(i+1))
	}
	s := NewStreamSource(rdb, StreamOptions{Consumer: "me", Logger: (&log{}).logger()})
	r := newStreamReader(s, filterd.Stream{Name: "s"}.WithDefaults(), func() {})
	r.rdb, r.joined, r.last = rdb, true, "5-1"
	for _, id := range []string{"1-1", "2-1"} {
		r.again[id] = retry{filterd.EntryPostponed, 0}
	}
	for range 2 {
		server.Do("XGROUP", "DESTROY", "s", "filterd")
		if err := r.join(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Do("XREADGROUP", "GROUP", "filterd", "me", "STREAMS", "s", ">"); !strings.Contains(got, "1-1") {
		t.Errorf("1-1 and 2-1 never come again; the group goes on with %q", got)
	}
}
