package engine

import (
	"context"
	"testing"
	"time"

	"github.com/filterd/filterd"
)

func TestLatencyBuckets(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		took time.Duration
		want int
	}{
		{-time.Hour, 0}, {0, 0}, {1, 0}, {16384, 0}, {16385, 1}, {32768, 1}, {32769, 2},
		{LatencyBound(20), 20}, {LatencyBound(20) + 1, 21}, {1 << 62, 21},
	} {
		var c latencyCounters
		c.observe(now.Add(-test.took), now, nil)
		if l := c.snapshot(); l.Buckets[test.want] != 1 || l.Count() != 1 {
			t.Errorf("%v is in %v, not in bucket %d", test.took, l.Buckets, test.want)
		}
	}
}

func TestLatencyQuantile(t *testing.T) {
	l := Latency{}
	if got := l.Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	l.Buckets[1], l.Buckets[3] = 90, 10
	for _, test := range []struct {
		part float64
		want time.Duration
	}{
		{0, LatencyBound(0)},
		{0.45, LatencyBound(0) + LatencyBound(0)/2},
		{0.9, LatencyBound(1)},
		{0.95, LatencyBound(2) + LatencyBound(2)/2},
		{1, LatencyBound(3)},
	} {
		if got := l.Quantile(test.part); got != test.want {
			t.Errorf("quantile %v is %v, want %v", test.part, got, test.want)
		}
	}
}

// TestLatencyIsCounted counts what is published and what callbacks take, but
// not what nobody has received.
func TestLatencyIsCounted(t *testing.T) {
	taken := make(chan bool, 1)
	table, err := Compile(Definition{
		Rules: []Rule{
			{Name: "published", From: []string{"in"}, To: []Target{{Channel: "out"}, {Channel: "out2"}}},
			{Name: "called", From: []string{"in"}, To: []Target{{Callback: "take"}}},
		},
		Callbacks: map[string]Callback{"take": func(context.Context, *filterd.Message) error { taken <- true; return nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Table: table, Sink: filterd.SinkFunc(func(context.Context, []filterd.Delivery) {})})
	if err != nil {
		t.Fatal(err)
	}
	for _, received := range []time.Time{{}, time.Now().Add(-time.Second)} {
		if err := e.Process(t.Context(), &filterd.Message{Channel: "in", Payload: []byte("1"), Received: received}); err != nil {
			t.Fatal(err)
		}
		<-taken
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for rule, want := range map[string]uint64{"published": 2, "called": 1} {
		l := e.Stats().Rules[rule].Latency
		if l.Count() != want || l.Sum < time.Duration(want)*time.Second {
			t.Errorf("%s: %d messages in %v, want %d", rule, l.Count(), l.Sum, want)
		}
	}
}
