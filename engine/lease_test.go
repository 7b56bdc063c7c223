package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A lease is held for so many looks at it; from 1000 on, for good.
type lease struct{ looks atomic.Int64 }

func (l *lease) Held() (fence uint64, held bool) {
	n := l.looks.Load()
	if n > 0 && n < 1000 {
		l.looks.Add(-1)
	}
	return 7, n > 0
}

// A process without the lease counts channels' messages, and no rule sees them.
// With it, IDs tell of the fence.
func TestStandby(t *testing.T) {
	contracts := registry(t, filterd.Contract{Channel: "p", Stamped: true})
	rules := []engine.Rule{
		{Name: "all", From: []string{"p", "a.*"}, Streams: []filterd.Stream{{Name: "s"}}, To: append(to("out"), call("f")...)},
		{Name: "gaps", From: []string{"p"}, Sharded: []string{"sh"}, OnGap: true, When: when("false"), To: to("gaps")},
		{Name: "fails", From: []string{"a.*"}, When: when("data.x.y > 1"), To: to("never"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"},
	}
	var called atomic.Int64
	callback := func(context.Context, *filterd.Message) error { called.Add(1); return nil }
	held, sink, source := &lease{}, &recorder{}, newSource()
	e := newEngine(t, engine.Config{
		Table: compile(t, engine.Definition{Registry: contracts, Rules: rules, Callbacks: map[string]engine.Callback{"f": callback}}),
		Sink:  sink, Lease: held,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, source) }() // ends with ctx
	viaGlob := message("a.1", "{}")
	viaGlob.Pattern = "a.*"
	source.batches <- []*filterd.Message{stamped("p", "x", 1), viaGlob, entry("s", "filterd", "1-1", "1", func(*filterd.Entry) {})}
	source.batches <- []*filterd.Message{stamped("p", "x", 2), message("p", "not JSON")}
	source.batches <- []*filterd.Message{stamped("p", "x", 4)} // 1 is missing, and there is nobody to tell
	if err := e.Process(ctx, message("p", "{}")); !errors.Is(err, engine.ErrStandby) {
		t.Errorf("Process: %v", err)
	}
	source.batches <- nil                                             // the others are done
	if diff := cmp.Diff([]string{"out 1"}, sink.take()); diff != "" { // the stream's
		t.Error(diff)
	}
	stats := e.Stats()
	want := map[string]engine.ChannelStats{
		"p":   {Standby: 5, Lost: 1, Invalid: map[filterd.Reason]uint64{}},
		"a.*": {Standby: 1, Invalid: map[filterd.Reason]uint64{}},
		"s":   {Received: 1, Invalid: map[filterd.Reason]uint64{}},
	}
	if diff := cmp.Diff(want, stats.Channels); diff != "" {
		t.Error(diff)
	}
	if r := stats.Rules["all"]; r.Matched != 1 || stats.Rules["gaps"].Gaps != 0 || stats.DeadLetters != 0 {
		t.Errorf("rules %+v, dead letters %d", stats.Rules, stats.DeadLetters)
	}

	held.looks.Store(1000)
	now := time.Now()
	e.MissedAll(filterd.Gap{From: now.Add(-time.Second), To: now, Reason: "taken over"})
	sent := sink.take()
	if len(sent) != 2 || !strings.Contains(sent[0], `"id":"7-`) || !strings.Contains(sent[0], `"channels":["p"]`) || !strings.Contains(sent[1], `"channels":["sh"]`) {
		t.Errorf("gaps: %q", sent)
	}
	source.batches <- []*filterd.Message{stamped("p", "x", 5), viaGlob}
	source.batches <- nil
	sent = sink.take()
	if len(sent) != 3 || !strings.HasPrefix(sent[0], "out ") || !strings.HasPrefix(sent[1], "out ") || !strings.Contains(sent[2], `"id":"7-`) {
		t.Errorf("with the lease: %q", sent)
	}
	if lost := e.Stats().Channels["p"].Lost; lost != 1 {
		t.Errorf("%d lost: what came before the lease was taken is no loss", lost)
	}
	cancel()
	if err := errors.Join(<-ended, e.Close()); err != nil {
		t.Error(err)
	}
	if n := called.Load(); n != 3 {
		t.Errorf("called %d times", n)
	}
	if gaps := e.Stats().ChannelGaps; gaps["p"].Gaps != 1 || gaps["a.*"].Gaps != 1 || gaps["sh"].Gaps != 1 {
		t.Errorf("gaps %+v", gaps)
	}
}

// What is to be published when the lease has ended stays here: but for what
// streams' entries became of.
func TestLeaseEndsInABatch(t *testing.T) {
	rules := []engine.Rule{
		{Name: "out", From: []string{"in"}, Streams: []filterd.Stream{{Name: "s"}}, To: to("out")},
		{Name: "fails", From: []string{"in"}, When: when("data.x.y > 1"), To: to("never"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"},
	}
	held, sink, source := &lease{}, &recorder{}, newSource()
	e := newEngine(t, engine.Config{Table: table(t, rules...), Sink: sink, Lease: held})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, source) }() // ends with ctx
	held.looks.Store(3)                         // by run, and for two IDs
	source.batches <- []*filterd.Message{message("in", "{}"), message("in", "{}"), entry("s", "filterd", "1-1", "1", func(*filterd.Entry) {})}
	source.batches <- nil
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"out 1"}, sink.take()); diff != "" {
		t.Error(diff)
	}
	stats := e.Stats()
	if r := stats.Rules["out"]; r.Withheld != 2 || r.Delivered != 1 || r.Errors != 0 || r.Undelivered != 0 || stats.DeadLettersLost != 2 {
		t.Errorf("%+v, dead letters lost %d", r, stats.DeadLettersLost)
	}
}

// A gap that begins before the lease was last renewed, and ends after that, is
// part of the one in which nobody led: there was nobody to tell the rules.
func TestMissedAllBeginsWithTheConnectionsGap(t *testing.T) {
	held, sink := &lease{}, &recorder{}
	e := newEngine(t, engine.Config{Table: table(t, engine.Rule{Name: "r", From: []string{"a"}, OnGap: true, To: to("gaps")}), Sink: sink, Lease: held})
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	for _, gap := range []filterd.Gap{
		{Channels: []string{"a"}, From: at(1), To: at(3), Reason: "the leader of then has told of it"},
		{Channels: []string{"a"}, From: at(4), To: at(8), Reason: "the server closed the connection"},
	} {
		if err := e.Run(t.Context(), gapSource(gap)); err != nil {
			t.Fatal(err)
		}
	}
	if sent := sink.take(); len(sent) > 0 {
		t.Errorf("on standby: %q", sent)
	}
	held.looks.Store(1000)
	e.MissedAll(filterd.Gap{From: at(5), To: at(9), Reason: "taken over"})
	sent := sink.take()
	if len(sent) != 1 || !strings.Contains(sent[0], `"from":"2026-01-01T00:00:04Z","to":"2026-01-01T00:00:09Z","length":5,"reason":"taken over"`) {
		t.Errorf("%q", sent)
	}
}
