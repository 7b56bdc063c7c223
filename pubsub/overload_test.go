package pubsub

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// Redis cuts a subscriber that falls behind. The source learns of it only when
// it has read what was on its way; the gap must begin before the cut all the
// same.
func TestSourceGapBeginsBeforeOverload(t *testing.T) {
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 1mb 0 0")
	rdb := client(t, server.Addr)
	s := NewSource(rdb, SourceOptions{Logger: (&log{}).logger()})
	r := &recorder{block: make(chan struct{})}
	s.Subscribe(filterd.Subscriptions{Channels: []string{"c"}})
	run(t, func(ctx context.Context) error { return s.Run(ctx, r) })
	ready(t, s)

	payload := strings.Repeat("x", 16<<10)
	sent := 0
	for cut := false; !cut; sent++ {
		receivers, err := rdb.Publish(t.Context(), "c", payload).Result()
		if err != nil || sent > 1<<20 {
			t.Fatal(sent, err)
		}
		cut = receivers == 0
	}
	cut := time.Now()
	time.Sleep(300 * time.Millisecond) // a span that a naive gap would not cover
	close(r.block)
	eventually(t, "the gap", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.gaps) > 0
	})
	if gap := r.lastGap(); gap.From.After(cut) {
		t.Errorf("gap from %v, but Redis had cut the connection by %v", gap.From, cut)
	}
	if got := len(r.got()); got >= sent {
		t.Errorf("got %d of %d messages, want this test to lose some", got, sent)
	}
	ready(t, s)
}

// A handler that is busy for long is no silent peer, and in the end nothing is
// lost.
func TestSourceBusyHandler(t *testing.T) {
	const interval = time.Second
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	s := NewSource(rdb, SourceOptions{ProbeInterval: interval, Logger: (&log{}).logger()})
	r := &recorder{block: make(chan struct{})}
	s.Subscribe(filterd.Subscriptions{Channels: []string{"c"}})
	run(t, func(ctx context.Context) error { return s.Run(ctx, r) })
	ready(t, s)
	const count = 10 * maxBatch
	pipeline := rdb.Pipeline()
	for range count {
		pipeline.Publish(t.Context(), "c", "m")
	}
	if _, err := pipeline.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * interval)
	close(r.block)
	eventually(t, "all messages", func() bool { return len(r.got()) >= count })
	if got := server.Do("PUBSUB", "NUMSUB", "c"); got != "c\n1" {
		t.Errorf("PUBSUB NUMSUB: got %q", got)
	}
}
