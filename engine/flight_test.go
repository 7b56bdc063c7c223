package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A starter is a sink whose outcomes come when they are asked for.
type starter struct {
	started, finished, delivered int // batches
	err                          error
}

type startedBatch struct {
	sink  *starter
	batch []filterd.Delivery
}

func (s *starter) Deliver(_ context.Context, batch []filterd.Delivery) {
	s.delivered++
	s.settle(batch)
}

func (s *starter) settle(batch []filterd.Delivery) {
	for i := range batch {
		batch[i].Receivers, batch[i].Err = 1, s.err
	}
}

func (s *starter) Start(_ context.Context, batch []filterd.Delivery) filterd.Started {
	s.started++
	return &startedBatch{s, batch}
}

func (b *startedBatch) Finish() {
	b.sink.finished++
	b.sink.settle(b.batch)
}

// What was published is counted when its outcome is known: with the next batch,
// or at the end; by then the messages are others.
func TestFlight(t *testing.T) {
	var logged strings.Builder
	sink := &starter{}
	e := newEngine(t, engine.Config{Sink: sink, Logger: slog.New(slog.NewTextHandler(&logged, nil)), Table: table(t,
		engine.Rule{Name: "r", From: []string{"in"}, When: when(`data > 0`), To: to("out")},
		engine.Rule{Name: "letters", From: []string{"careful"}, To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"},
	)})
	next := table(t, engine.Rule{Name: "r", From: []string{"in"}, To: to("out")})
	expect := func(what string, started, finished, delivered int, of engine.RuleStats) {
		t.Helper()
		if sink.started != started || sink.finished != finished || sink.delivered != delivered {
			t.Errorf("%s: started %d, finished %d, delivered %d", what, sink.started, sink.finished, sink.delivered)
		}
		got := e.Stats().Rules["r"]
		if got.Matched != of.Matched || got.Delivered != of.Delivered || got.Undelivered != of.Undelivered || got.Errors != of.Errors {
			t.Errorf("%s: %+v", what, got)
		}
	}
	err := e.Run(t.Context(), sourceFunc(func(ctx context.Context, h filterd.Handler) error {
		b, ok := h.(filterd.Beginner)
		if !ok {
			t.Fatal("the engine can't begin")
		}
		m := message("in", `1`)
		begin := func(payload string) {
			m.Reset([]byte(payload))
			b.Begin(ctx, []*filterd.Message{m})
			m.Reset(nil)
		}
		begin(`1`)
		expect("the first", 1, 0, 0, engine.RuleStats{Matched: 1})
		begin(`2`)
		expect("the second", 2, 1, 0, engine.RuleStats{Matched: 2, Delivered: 1})
		begin(`0`)
		expect("one that is not kept", 2, 2, 0, engine.RuleStats{Matched: 2, Delivered: 2})
		b.End()
		begin(`3`)
		sink.err = errors.New("no reply")
		b.End()
		b.End()
		expect("one that failed", 3, 3, 0, engine.RuleStats{Matched: 3, Delivered: 2, Undelivered: 1, Errors: 1})
		sink.err = nil
		if !strings.Contains(logged.String(), `rule=r channel=in on_error=drop error="no reply"`) {
			t.Errorf("logged %s", &logged)
		}
		// The dead letter would hold the message: that is waited for.
		begin(`4`)
		b.Begin(ctx, []*filterd.Message{message("careful", `5`)})
		expect("one with a dead letter", 4, 4, 1, engine.RuleStats{Matched: 4, Delivered: 3, Undelivered: 1, Errors: 1})
		h.Messages(ctx, []*filterd.Message{message("in", `6`)})
		expect("a source that does not begin", 5, 5, 1, engine.RuleStats{Matched: 5, Delivered: 4, Undelivered: 1, Errors: 1})
		// A reload waits for the flight under the old table.
		begin(`7`)
		reloaded := make(chan error, 1)
		go func() { reloaded <- e.Reload(ctx, next) }()
		for e.Stats().Generation == 1 {
		}
		select {
		case <-reloaded:
			t.Error("the old table was given up while its messages were on their way")
		default:
		}
		begin(`-8`)
		if err := <-reloaded; err != nil {
			t.Error(err)
		}
		expect("one under the new table", 7, 6, 1, engine.RuleStats{Matched: 7, Delivered: 5, Undelivered: 1, Errors: 1})
		b.End()
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	expect("the end", 7, 7, 1, engine.RuleStats{Matched: 7, Delivered: 6, Undelivered: 1, Errors: 1})
}

// Entries are held until their outcomes are known. What is sent of them waits
// for those of earlier ones, and is held back if these were postponed.
func TestFlightOfEntries(t *testing.T) {
	sink := &starter{}
	e := newEngine(t, engine.Config{Sink: sink, Table: table(t,
		engine.Rule{Name: "r", Streams: []filterd.Stream{{Name: "in"}}, When: when(`data > 0`), To: []engine.Target{{Stream: "out"}}})})
	next := table(t, engine.Rule{Name: "r", Streams: []filterd.Stream{{Name: "in"}}, To: to("out")})
	var settled []string
	begin := func(h filterd.Handler, id, payload string) {
		m := entry("in", filterd.DefaultGroup, id, payload, func(e *filterd.Entry) { settled = append(settled, fmt.Sprint(e.ID, "=", e.Outcome())) })
		h.(filterd.Beginner).Begin(t.Context(), []*filterd.Message{m})
		m.Reset(nil)
		m.Entry.Release()
		m.Entry = nil
	}
	want := func(what string, started int, want ...string) {
		t.Helper()
		if !slices.Equal(settled, want) || sink.started != started {
			t.Errorf("%s: settled %q, want %q; started %d, want %d", what, settled, want, sink.started, started)
		}
		settled = nil
	}
	err := e.Run(t.Context(), sourceFunc(func(ctx context.Context, h filterd.Handler) error {
		begin(h, "1", "1")
		want("the first", 1)
		begin(h, "2", "2")
		want("the second", 2, "1=0")
		begin(h, "3", "0")
		want("one that is not kept", 2, "2=0", "3=0")
		begin(h, "4", "4")
		sink.err = errors.New("no connection")
		begin(h, "5", "5")
		want("behind one that failed", 3, "4=1", "5=1")
		sink.err = nil
		begin(h, "4", "4")
		sink.err = errors.New("no connection")
		// They keep their order over a reload, too.
		reloaded := make(chan error, 1)
		go func() { reloaded <- e.Reload(ctx, next) }()
		for e.Stats().Generation == 1 {
		}
		begin(h, "5", "5")
		want("behind one that failed under the old table", 4, "4=1", "5=1")
		if err := <-reloaded; err != nil {
			t.Error(err)
		}
		sink.err = nil
		begin(h, "4", "4")
		h.(filterd.Beginner).End()
		want("under the new table", 5, "4=0")
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Stats().Rules["r"]; got.Delivered != 3 || got.Undelivered != 2 {
		t.Errorf("%+v", got)
	}
}
