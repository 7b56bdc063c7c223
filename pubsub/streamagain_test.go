package pubsub

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// A holder is a handler that keeps all entries.
type holder struct {
	streamHandler
	held []*filterd.Entry // guarded by mu
}

func newHolder() *holder {
	h := &holder{}
	h.do = func(m *filterd.Message) {
		m.Entry.Hold()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held = append(h.held, m.Entry)
	}
	return h
}

func (h *holder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.held {
		e.Release()
	}
	h.held = nil
}

// sever closes all connections but that of the server's own client.
func sever(server *redistest.Server) {
	server.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
}

// An entry that a handler has is not delivered a second time, although its group
// was lost, and made again from before it, and the connection as well. The
// stream goes on meanwhile.
func TestStreamHeldAndGroupIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := newHolder()
	s, stop := readStreams(t, client(t, server.Addr), "me", &h.streamHandler, filterd.Stream{Name: "s"})
	add(server, "s", "1")
	h.want(t, "1")
	server.Do("XGROUP", "DESTROY", "s", filterd.DefaultGroup)
	add(server, "s", "2")
	h.want(t, "1", "2")
	sever(server)
	add(server, "s", "3")
	h.want(t, "1", "2", "3")
	if held := s.Stats()[0].Held; held != 3 {
		t.Errorf("%d held", held)
	}
	pendingIs(t, server, "s", 3)
	h.release()
	pendingIs(t, server, "s", 0)
	if err := stop(); err != nil {
		t.Error(err)
	}
	h.want(t, "1", "2", "3")
}

// An entry that a handler has was claimed by another consumer, which died. It
// is ours again, and is not delivered again.
func TestStreamHeldAndClaimed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := newHolder()
	s, stop := readStreams(t, client(t, server.Addr), "me", &h.streamHandler, filterd.Stream{Name: "s", ClaimIdle: 300 * time.Millisecond})
	ids := add(server, "s", "1")
	h.want(t, "1")
	server.Do("XCLAIM", "s", filterd.DefaultGroup, "other", "0", ids[0])
	eventually(t, "it is ours again", func() bool {
		return strings.HasPrefix(server.Do("XPENDING", "s", filterd.DefaultGroup, "-", "+", "9"), ids[0]+"\nme\n")
	})
	sever(server)
	add(server, "s", "2")
	h.want(t, "1", "2")
	if stats := s.Stats()[0]; stats.Redelivered != 0 || stats.Claimed != 1 {
		t.Errorf("%+v", stats)
	}
	h.release()
	pendingIs(t, server, "s", 0)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A group that was lost together with the connection, as after a failover, is
// made again from where it was.
func TestStreamGroupAndConnectionAreGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprint(i))
	}
	add(server, "s", want...)
	h := &streamHandler{}
	readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s"})
	h.want(t, want...)
	pendingIs(t, server, "s", 0)
	both := client(t, server.Addr).TxPipeline()
	both.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes")
	both.Do(t.Context(), "xgroup", "destroy", "s", filterd.DefaultGroup)
	if _, err := both.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(server, "s", "50")
	h.want(t, append(want, "50")...)
	// A stream with lower IDs is another one: all of its entries are new.
	server.Do("DEL", "s")
	server.Do("XADD", "s", "1-1", "event", "51")
	h.want(t, append(want, "50", "51")...)
}

// An entry that was only ever postponed is excused each time, however others
// fare that are postponed as well.
func TestStreamPostponedIsExcused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	ids := add(server, "s", "a", "b")
	server.Do("XGROUP", "CREATE", "s", filterd.DefaultGroup, "0")
	server.Do("XREADGROUP", "GROUP", filterd.DefaultGroup, "me", "STREAMS", "s", ">")
	server.Do("XCLAIM", "s", filterd.DefaultGroup, "me", "0", ids[0], "RETRYCOUNT", "0") // so each has a run of its own
	var up atomic.Bool
	h := &streamHandler{do: func(m *filterd.Message) {
		if !up.Load() { // the sink can't be reached
			m.Entry.Postpone()
		}
	}}
	s, _ := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s", MaxDeliveries: 2})
	eventually(t, "some tries", func() bool { return len(h.got()) > 4 })
	up.Store(true)
	pendingIs(t, server, "s", 0)
	if stats := s.Stats()[0]; stats.Poison != 0 {
		t.Errorf("%+v", stats)
	}
	got := h.got()
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("nothing was wrong with the entries: %q", got)
	}
}

// What was treated well is not delivered again because another entry is.
func TestStreamDoneIsDone(t *testing.T) {
	t.Parallel()
	const entries = 3000
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	pipeline := rdb.Pipeline()
	pipeline.Do(t.Context(), "xadd", "s", "*", "event", "bad")
	for i := range entries {
		pipeline.Do(t.Context(), "xadd", "s", "*", "event", fmt.Sprint(i))
	}
	if _, err := pipeline.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	lane := make(chan *filterd.Entry, 600) // a queue that blocks, and a target behind it
	var target sync.WaitGroup
	target.Go(func() {
		for e := range lane {
			time.Sleep(500 * time.Microsecond)
			e.Release()
		}
	})
	seen := make(map[string]int)
	var failures atomic.Int32
	h := &streamHandler{do: func(m *filterd.Message) {
		if string(m.Payload) == "bad" && failures.Add(1) < 4 {
			m.Entry.Fail()
			return
		}
		seen[string(m.Payload)]++
		m.Entry.Hold()
		lane <- m.Entry
	}}
	_, stop := readStreams(t, rdb, "me", h, filterd.Stream{Name: "s", MaxDeliveries: 1 << 30})
	eventually(t, "all of them", func() bool { return len(h.got()) >= entries+4 })
	pendingIs(t, server, "s", 0)
	if err := stop(); err != nil {
		t.Error(err)
	}
	close(lane)
	target.Wait()
	if len(seen) != entries+1 || len(h.got()) != entries+4 {
		t.Errorf("%d entries, delivered %d times", len(seen), len(h.got()))
	}
}

// Entries that are too large are not read, but become dead letters, and those
// around them are treated.
func TestStreamOversize(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	server := redistest.Start(t)
	add(server, "s", "1", strings.Repeat("x", limit+besides), "2")
	add(server, "s", slices.Repeat([]string{strings.Repeat("y", limit)}, 40)...)
	fields := []string{"XADD", "s", "*"}
	for i := range 600 {
		fields = append(fields, fmt.Sprint(i), "")
	}
	server.Do(fields...)
	add(server, "s", "3")
	h := &streamHandler{}
	h.do = func(m *filterd.Message) {
		if len(m.Payload) == limit { // two in a row are as many as there are in memory at a time
			h.mu.Lock()
			h.entries[len(h.entries)-1] = "y"
			h.mu.Unlock()
		}
	}
	for name, rdb := range map[string]redis.UniversalClient{"own": client(t, server.Addr), "lent": another{client(t, server.Addr)}} {
		t.Run(name, func(t *testing.T) {
			h.mu.Lock()
			h.entries = nil
			h.mu.Unlock()
			s := NewStreamSource(rdb, StreamOptions{Consumer: "me", MaxMessage: limit, Logger: (&log{}).logger()})
			s.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{{Name: "s", Group: name}}})
			stop := run(t, func(ctx context.Context) error { return s.Run(ctx, h) })
			large := fmt.Sprintf(" s: size: %d bytes of an entry are over the limit of %d", limit+besides, limit)
			want := append([]string{"1", large, "2"}, slices.Repeat([]string{"y"}, 40)...)
			h.want(t, append(want, " s: size: it has more than 512 fields", "3")...)
			if err := stop(); err != nil {
				t.Error(err)
			}
			if stats := s.Stats()[0]; stats.Malformed != 2 || stats.Acknowledged != 45 {
				t.Errorf("%+v", stats)
			}
		})
	}
}
