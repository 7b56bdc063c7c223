package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A sharded channel and a channel of the same name have nothing to do with each
// other, and neither have their gaps.
func TestShardedChannelsAreNotChannels(t *testing.T) {
	sink, source := &recorder{}, newSource()
	contracts := registry(t, filterd.Contract{Channel: "a", Stamped: true})
	e := newEngine(t, engine.Config{Sink: sink, Table: compile(t, engine.Definition{Registry: contracts, Rules: []engine.Rule{
		{Name: "channel", From: []string{"a", "?"}, To: to("x.1"), OnGap: true},
		{Name: "sharded", Sharded: []string{"a", "b"}, To: []engine.Target{{Sharded: "c"}}, OnGap: true},
		{Name: "both", From: []string{"c"}, Sharded: []string{"a"}, To: to("x.2")},
	}})})
	sharded := func(m *filterd.Message) *filterd.Message { m.Sharded = true; return m }
	stop := run(e, source)
	source.batches <- []*filterd.Message{message("a", "1"), sharded(message("a", "2")), sharded(message("b", "3")), sharded(message("z", "4"))}
	source.batches <- []*filterd.Message{stamped("a", "p", 1), sharded(stamped("a", "p", 7)), stamped("a", "p", 2)}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	sink.take()
	stats := e.Stats()
	got := make(map[string]uint64)
	for rule, s := range stats.Rules {
		got[rule] = s.Delivered
	}
	if diff := cmp.Diff(map[string]uint64{"channel": 3, "sharded": 3, "both": 2}, got); diff != "" {
		t.Error(diff)
	}
	if stats.Unrouted != 1 || stats.Channels["a"].Received != 5 || stats.Channels["a"].Lost != 0 {
		t.Errorf("%+v", stats)
	}
	for _, sharded := range []bool{false, true} {
		gap := filterd.Gap{Channels: []string{"a"}, From: time.Unix(1, 0), To: time.Unix(2, 0), Sharded: sharded}
		if err := e.Run(t.Context(), gapSource(gap)); err != nil {
			t.Fatal(err)
		}
	}
	stats = e.Stats()
	if a, b := stats.Rules["channel"].Gaps, stats.Rules["sharded"].Gaps; a != 1 || b != 1 {
		t.Errorf("told of %d and %d gaps, want 1 each", a, b)
	}
}

// What goes to a sharded channel says so.
func TestShardedDelivery(t *testing.T) {
	var got []filterd.Delivery
	sink := filterd.SinkFunc(func(_ context.Context, batch []filterd.Delivery) { got = append(got, batch...) })
	e := newEngine(t, engine.Config{Sink: sink, Table: table(t, engine.Rule{
		Name: "r", From: []string{"a"}, To: []engine.Target{{Sharded: "b"}, {Channel: "b"}},
	})})
	if err := e.Process(t.Context(), message("a", "1")); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !got[0].Sharded || got[1].Sharded || got[0].Channel != "b" {
		t.Errorf("%+v", got)
	}
}
