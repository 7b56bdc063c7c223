package pubsub

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// A tailed stream is what a tail has seen of it.
type tailed struct {
	mu   sync.Mutex
	seen []string
}

func (h *tailed) take(batch []*filterd.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range batch {
		text := m.ID + " " + string(m.Payload)
		if m.Entry != nil {
			text += " " + m.Entry.Fault.Error()
		}
		h.seen = append(h.seen, text)
	}
}

func (h *tailed) want(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, "the entries come", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.seen) >= len(want)
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.seen, want) {
		t.Fatalf("got  %q\nwant %q", h.seen, want)
	}
}

func tail(t *testing.T, rdb redis.UniversalClient, stream string, options StreamTailOptions) (*tailed, func() error) {
	t.Helper()
	options.Logger = (&log{}).logger()
	tail, err := NewStreamTail(rdb, options)
	if err != nil {
		t.Fatal(err)
	}
	h := &tailed{}
	return h, run(t, func(ctx context.Context) error { return tail.Run(ctx, stream, h.take) })
}

// A tail sees each entry once, in order, over lost connections, and takes none
// from the groups.
func TestStreamTail(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("XADD", "s", "1-1", "event", "a")
	server.Do("XADD", "s", "1-2", "other", "b")
	server.Do("XADD", "s", "2-0", "event", strings.Repeat("x", 100_000))
	rdb := client(t, server.Addr)
	all, stopAll := tail(t, rdb, "s", StreamTailOptions{From: "0", MaxMessage: 1000})
	want := []string{"1-1 a", `1-2 {"other":"b"} s: entry: want one field, "event", not "other"`, "2-0  s: size: 100000 bytes of an entry are over the limit of 1000"}
	all.want(t, want...)
	some, stopSome := tail(t, rdb, "s", StreamTailOptions{From: "1-2", Field: "other"})
	eventually(t, "the other one has begun", func() bool { some.mu.Lock(); defer some.mu.Unlock(); return len(some.seen) == 2 })
	later, stopLater := tail(t, rdb, "s", StreamTailOptions{})
	eventually(t, "all wait", func() bool { return strings.Count(server.Do("CLIENT", "LIST"), "flags=b ") == 3 })
	server.Do("XADD", "s", "3-0", "event", "c")
	want = append(want, "3-0 c")
	all.want(t, want...)
	later.want(t, "3-0 c")
	sever(server)
	server.Do("XADD", "s", "4-0", "event", "d")
	all.want(t, append(want, "4-0 d")...)
	later.want(t, "3-0 c", "4-0 d")
	for _, stop := range []func() error{stopAll, stopSome, stopLater} {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if groups := server.Do("XINFO", "GROUPS", "s"); groups != "" {
		t.Errorf("groups: %s", groups)
	}
}

// A tail begins with the entry it is told, or the next one there is.
func TestStreamTailFrom(t *testing.T) {
	for _, test := range []struct{ from, want string }{
		{"0", "0-0"}, {"0-0", "0-0"}, {"5-2", "5-1"}, {"5-0", "4-18446744073709551615"}, {"5", "4-18446744073709551615"},
		{"5-", "want"}, {"-1", "want"}, {"$", "want"}, {"1-2-3", "want"}, {"18446744073709551616", "want"},
	} {
		got, err := before(test.from)
		if err != nil {
			got = "want"
		}
		if got != test.want {
			t.Errorf("%s: %s, %v", test.from, got, err)
		}
	}
}

func TestStreamTailRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("SET", "text", "x")
	rdb := client(t, server.Addr)
	tail, err := NewStreamTail(rdb, StreamTailOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, tail.Run(t.Context(), "text", nil), "stream text: WRONGTYPE Operation against a key holding the wrong kind of value")
}
