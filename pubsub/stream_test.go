package pubsub

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// A streamHandler writes down the entries it gets, and does with each what do
// says.
type streamHandler struct {
	do func(*filterd.Message)

	mu      sync.Mutex // guards what follows
	entries []string   // "payload", with the fault behind it if there is one
	ids     []string
	gaps    []filterd.Gap
}

func (h *streamHandler) Messages(_ context.Context, batch []*filterd.Message) {
	for _, m := range batch {
		text := string(m.Payload)
		if m.Entry.Fault != nil {
			text += " " + m.Entry.Fault.Error()
		}
		if m.ID != m.Entry.ID || m.Channel != m.Entry.Stream || m.Received.IsZero() {
			text += fmt.Sprintf(" %+v", m)
		}
		h.mu.Lock()
		h.entries, h.ids = append(h.entries, text), append(h.ids, m.ID)
		h.mu.Unlock()
		if h.do != nil {
			h.do(m)
		}
	}
}

func (h *streamHandler) Gap(gap filterd.Gap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gaps = append(h.gaps, gap)
}

func (h *streamHandler) got() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.entries)
}

// want waits until the handler has had exactly these entries.
func (h *streamHandler) want(t *testing.T, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(h.got()) < len(want) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if got := h.got(); !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// readStreams runs a source over streams.
func readStreams(t *testing.T, rdb redis.UniversalClient, consumer string, h *streamHandler, streams ...filterd.Stream) (*StreamSource, func() error) {
	t.Helper()
	s := NewStreamSource(rdb, StreamOptions{Consumer: consumer, Logger: (&log{}).logger()})
	s.Subscribe(filterd.Subscriptions{Streams: streams})
	return s, run(t, func(ctx context.Context) error { return s.Run(ctx, h) })
}

func add(server *redistest.Server, stream string, payloads ...string) (ids []string) {
	for _, payload := range payloads {
		ids = append(ids, server.Do("XADD", stream, "*", "event", payload))
	}
	return ids
}

// pendingIs waits for how many entries are pending in the default group.
func pendingIs(t *testing.T, server *redistest.Server, stream string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d pending in %s", want, stream), func() bool {
		first, _, _ := strings.Cut(server.Do("XPENDING", stream, filterd.DefaultGroup), "\n")
		return first == fmt.Sprint(want)
	})
}

// A new group begins with the oldest entry. What is no message has a fault, and
// is acknowledged all the same.
func TestStreamSource(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	add(server, "s", "1", "2")
	server.Do("XADD", "s", "*", "other", "3")
	server.Do("XADD", "s", "*", "event", "4", "more", "\xff")
	server.Do("XADD", "s", "*", "event", "5", "event", "6")
	h := &streamHandler{}
	s, stop := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s"})
	want := []string{"1", "2",
		`{"other":"3"} s: entry: want one field, "event", not "other"`,
		`{"event":"4","more":"\ufffd"} s: entry: want one field, "event", not "event", "more"`,
		`{"event":"6"} s: entry: want one field, "event", not "event", "event"`}
	h.want(t, want...)
	add(server, "s", "7")
	h.want(t, append(want, "7")...)
	pendingIs(t, server, "s", 0)
	eventually(t, "all are counted as acknowledged", func() bool { return s.Stats()[0].Acknowledged == 6 })
	if got := fmt.Sprintf("%+v", s.Stats()); got != "[{Stream:s Group:filterd Consumer:me Read:6 Redelivered:0 Claimed:0 Acknowledged:6 Malformed:3 Poison:0 Trimmed:0 Held:0 Wanted:true Err:<nil>}]" {
		t.Error(got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := server.Do("XINFO", "CONSUMERS", "s", "filterd"); got != "" {
		t.Errorf("the consumer is still there: %s", got)
	}
	if got := fmt.Sprintf("%+v", s.Stats()); !strings.Contains(got, "Read:6") {
		t.Error(got)
	}
}

// An entry that is postponed comes again, as often as it takes, before anything
// new does; it does not count as delivered in vain.
func TestStreamPostponed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	left := 4
	h := &streamHandler{}
	h.do = func(m *filterd.Message) {
		if string(m.Payload) == "2" && left > 0 {
			if left--; left == 3 {
				add(server, "s", "4")
			}
			m.Entry.Postpone()
		}
	}
	add(server, "s", "1", "2", "3")
	s, _ := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s", MaxDeliveries: 2})
	h.want(t, "1", "2", "3", "2", "2", "2", "2", "4")
	pendingIs(t, server, "s", 0)
	if stats := s.Stats()[0]; stats.Redelivered != 4 || stats.Poison != 0 {
		t.Errorf("%+v", stats)
	}
}

// An entry that fails comes again, and others don't wait for it. In the end it
// is poison.
func TestStreamFailed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := &streamHandler{do: func(m *filterd.Message) {
		if string(m.Payload) == "1" && m.Entry.Fault == nil {
			m.Entry.Fail()
		}
	}}
	add(server, "s", "1")
	s, _ := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s", MaxDeliveries: 2})
	h.want(t, "1")
	add(server, "s", "2")
	h.want(t, "1", "2", "1", "1 s: poison: delivered 2 times in vain")
	pendingIs(t, server, "s", 0)
	if stats := s.Stats()[0]; stats.Redelivered != 2 || stats.Poison != 1 {
		t.Errorf("%+v", stats)
	}
}

// An entry that is held is acknowledged when it is let go of. However long that
// takes, it does not get idle: no other consumer claims it.
func TestStreamHeld(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	held := make(chan *filterd.Entry, 2)
	h := &streamHandler{do: func(m *filterd.Message) {
		m.Entry.Hold()
		held <- m.Entry
	}}
	stream := filterd.Stream{Name: "s", ClaimIdle: 3 * time.Second}
	_, stop := readStreams(t, client(t, server.Addr), "me", h, stream)
	ids := add(server, "s", "1", "2")
	first, second := <-held, <-held
	other := &streamHandler{}
	readStreams(t, client(t, server.Addr), "other", other, stream)
	time.Sleep(stream.ClaimIdle + time.Second) // the other one looks several times
	if got := other.got(); len(got) > 0 {
		t.Errorf("the other consumer has got %q", got)
	}
	second.Release()
	pendingIs(t, server, "s", 1)
	if got := server.Do("XPENDING", "s", "filterd", "-", "+", "9"); !strings.HasPrefix(got, ids[0]+"\nme\n") {
		t.Errorf("pending: %s", got)
	}
	// The end waits for what is held.
	go func() {
		time.Sleep(50 * time.Millisecond)
		first.Release()
	}()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	pendingIs(t, server, "s", 0)
	h.want(t, "1", "2")
}

// What this consumer has left behind comes first; what others have, when it is
// idle; and what was deleted meanwhile is a loss.
func TestStreamPending(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("XGROUP", "CREATE", "s", "filterd", "0", "MKSTREAM")
	ids := add(server, "s", "1", "2", "3", "4", "5")
	server.Do("XREADGROUP", "GROUP", "filterd", "me", "COUNT", "2", "STREAMS", "s", ">")
	server.Do("XREADGROUP", "GROUP", "filterd", "dead", "COUNT", "2", "STREAMS", "s", ">")
	server.Do("XDEL", "s", ids[1])
	server.Do("XDEL", "s", ids[2])
	h := &streamHandler{}
	s, _ := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s", ClaimIdle: 500 * time.Millisecond})
	h.want(t, "1", "5", "4")
	pendingIs(t, server, "s", 0)
	eventually(t, "the loss is counted", func() bool { return s.Stats()[0].Trimmed == 2 })
	if got := fmt.Sprintf("%+v", s.Stats()); got != "[{Stream:s Group:filterd Consumer:me Read:1 Redelivered:2 Claimed:1 Acknowledged:3 Malformed:0 Poison:0 Trimmed:2 Held:0 Wanted:true Err:<nil>}]" {
		t.Error(got)
	}
	eventually(t, "the loss is reported", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.gaps) == 2
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.gaps) != 2 || h.gaps[0].Reason != "entry "+ids[1]+" was deleted or trimmed while it was pending in group filterd" || h.gaps[0].Length() <= 0 {
		t.Errorf("%+v", h.gaps)
	}
}

// A group that is gone is made again from where it was, not from the end.
func TestStreamGroupIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := &streamHandler{}
	s, _ := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s"})
	add(server, "s", "1", "2")
	h.want(t, "1", "2")
	pendingIs(t, server, "s", 0)
	server.Do("XGROUP", "DESTROY", "s", "filterd")
	add(server, "s", "3", "4")
	h.want(t, "1", "2", "3", "4")
	server.Do("DEL", "s")
	add(server, "s", "5")
	h.want(t, "1", "2", "3", "4", "5")
	server.Restart() // empty
	add(server, "s", "6")
	h.want(t, "1", "2", "3", "4", "5", "6")
	if stats := s.Stats()[0]; stats.Read != 6 || stats.Redelivered != 0 {
		t.Errorf("%+v", stats)
	}
}

// Streams come and go, and those that stay are not touched.
func TestStreamSubscribe(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := &streamHandler{}
	a, b := filterd.Stream{Name: "a"}, filterd.Stream{Name: "b", Group: "g"}
	s, _ := readStreams(t, client(t, server.Addr), "me", h, a)
	add(server, "a", "1")
	h.want(t, "1")
	s.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{a, b}})
	add(server, "b", "2")
	h.want(t, "1", "2")
	b.Field = "body"
	s.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{b}})
	eventually(t, "b has other settings", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.readers[b.WithDefaults()] != nil
	})
	eventually(t, "a is left", func() bool { return server.Do("XINFO", "CONSUMERS", "a", "filterd") == "" })
	add(server, "a", "not read")
	server.Do("XADD", "b", "*", "body", "3")
	h.want(t, "1", "2", "3")
	s.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{a}})
	h.want(t, "1", "2", "3", "not read")
	if stats := s.Stats(); len(stats) != 2 || stats[0].Read != 2 || stats[1].Read != 2 {
		t.Errorf("%+v", stats)
	}
}

// Two processes share a group; a stopped one's entries go to the other.
func TestStreamManyEntries(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	const entries = 3000
	pipeline := rdb.Pipeline()
	for i := range entries {
		pipeline.XAdd(t.Context(), &redis.XAddArgs{Stream: "s", Values: []any{"event", i}})
	}
	if _, err := pipeline.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := &streamHandler{}
	readStreams(t, rdb, "a", h, filterd.Stream{Name: "s"})
	readStreams(t, client(t, server.Addr), "b", h, filterd.Stream{Name: "s"})
	eventually(t, "all are there", func() bool { return len(h.got()) == entries })
	pendingIs(t, server, "s", 0)
	got := h.got()
	slices.Sort(got)
	if unique := slices.Compact(got); len(unique) != entries {
		t.Errorf("%d of %d", len(unique), entries)
	}
}

// Large entries come in smaller batches.
func TestStreamLargeEntries(t *testing.T) {
	t.Parallel()
	parts := func(n, size int) []entryPart { // two of a reply
		all := make([]streamEntry, n)
		for i := range all {
			all[i].fields = [][]byte{[]byte("event"), make([]byte, size)}
		}
		return []entryPart{{entries: all[:n/2]}, {entries: all[n/2:], last: true}}
	}
	s := batchSize{count: maxBatch}
	for i, step := range []struct {
		n, size, want int
		full          bool
	}{
		{256, 100 << 10, 128, true}, {128, 100 << 10, 64, true}, {64, 100 << 10, 64, true}, {64, 1 << 10, 128, true}, {100, 1, 128, false},
		{128, 1, 256, true}, {256, 1, 256, true}, {1, 16 << 20, 128, false},
	} {
		for _, part := range parts(step.n, step.size) {
			s.add(part)
		}
		if s.count != step.want || s.full != step.full {
			t.Errorf("step %d: %+v, want %+v", i, s, step)
		}
	}
	s.count = 1
	for _, part := range parts(1, 16<<20) {
		if s.add(part); s.count != 1 {
			t.Error(s.count)
		}
	}
}

// In a Cluster a stream is read from the server that has it. What goes to
// streams with its hash tag is written once, and to others at least once.
func TestStreamCluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	rdb := clientWith(t, Options{Mode: ModeCluster, Addrs: []string{nodes[0].Addr}})
	ctx := deadline(t)
	sink := NewSink(rdb)
	outcomes := make(chan string, 10)
	h := &streamHandler{do: func(m *filterd.Message) {
		to := "{a}out"
		if string(m.Payload) == "elsewhere" {
			to = "{b}out"
		}
		batch := []filterd.Delivery{{Channel: to, Stream: true, Payload: m.Payload, Entry: m.Entry}}
		sink.Deliver(context.Background(), batch)
		outcomes <- fmt.Sprint(to, " ", batch[0].Err, " ", m.Entry.Outcome())
	}}
	s, stop := readStreams(t, rdb, "me", h, filterd.Stream{Name: "{a}in"}, filterd.Stream{Name: "{b}in"}, filterd.Stream{Name: "{c}in"})
	for _, stream := range []string{"{a}in", "{b}in", "{c}in"} {
		if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []any{"event", stream}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: "{a}in", Values: []any{"event", "elsewhere"}}).Err(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 4 {
		select {
		case outcome := <-outcomes:
			got = append(got, outcome)
		case <-ctx.Done():
			t.Fatalf("only %q", got)
		}
	}
	slices.Sort(got)
	want := []string{"{a}out <nil> 0", "{a}out <nil> 0", "{a}out <nil> 3", "{b}out <nil> 0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"{a}in", "{b}in", "{c}in"} {
		if pending, err := rdb.XPending(ctx, stream, filterd.DefaultGroup).Result(); err != nil || pending.Count != 0 {
			t.Errorf("%s: %+v, %v", stream, pending, err)
		}
	}
	if stats := s.Stats(); len(stats) != 3 || stats[0].Read != 2 || stats[0].Acknowledged != 2 {
		t.Errorf("%+v", stats)
	}
}
