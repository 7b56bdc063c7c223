package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A shadow does all but send.
func TestShadow(t *testing.T) {
	rule := engine.Rule{
		Name: "r", From: []string{"in"}, When: when(`data.n > 1`), To: append(to("out"), call("take")...),
		Set: []engine.Member{{Name: "x", Constant: []byte("1")}}, OnError: engine.OnErrorDeadLetter, DeadLetter: "dead", OnGap: true, Shadow: true,
	}
	staged, halting, passing := rule, rule, rule
	staged.Name, staged.Stage = "staged", &scripted{}
	halting.Name, halting.OnError, halting.DeadLetter = "halting", engine.OnErrorHalt, ""
	passing.Name, passing.OnError, passing.DeadLetter = "passing", engine.OnErrorPass, ""
	live := engine.Rule{Name: "live", From: []string{"in"}, To: to("live")}
	called := false
	sink := &recorder{}
	e := newEngine(t, engine.Config{
		Table: compile(t, engine.Definition{
			Registry:  registry(t, filterd.Contract{Channel: "dead", Schema: schema(t, `false`)}),
			Rules:     []engine.Rule{rule, staged, halting, passing, live},
			Callbacks: map[string]engine.Callback{"take": func(context.Context, *filterd.Message) error { called = true; return nil }},
		}),
		Sink: sink,
	})
	tapped := tap(t, e, engine.TapOptions{Rule: "r", Outcomes: []engine.TapOutcome{engine.TapKept}})
	for _, payload := range []string{`{"n":2,"do":"keep"}`, `{"n":1}`, `{}`, `{"n":3,"do":"emit"}`} {
		if err := e.Process(t.Context(), message("in", payload)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := seen(t, tapped), `kept in {"n":2,"do":"keep"} → out {"n":2,"do":"keep","x":1} → take {"n":2,"do":"keep","x":1}`; got != want {
		t.Errorf("the tap shows %s, want %s", got, want)
	}
	now := time.Now()
	if err := e.Run(t.Context(), gapsOnly{{Channels: []string{"in"}, From: now, To: now}}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`live {"n":2,"do":"keep"}`, `live {"n":1}`, `live {}`, `live {"n":3,"do":"emit"}`}, sink.take()); diff != "" || called {
		t.Errorf("sent (-want +got, callback called: %v):\n%s", called, diff)
	}
	stats := e.Stats()
	want := map[string]engine.RuleStats{
		"r":       {Matched: 2, Errors: 1, Shadowed: 4, Gaps: 1},
		"staged":  {Matched: 2, Filtered: 1, Errors: 1, Shadowed: 4, Gaps: 1},
		"halting": {Matched: 2, Errors: 1, Shadowed: 4, Gaps: 1},
		"passing": {Matched: 2, Errors: 1, Shadowed: 6, Gaps: 1},
		"live":    {Matched: 4, Delivered: 4},
	}
	if diff := cmp.Diff(want, stats.Rules); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if stats.DeadLetters != 0 || stats.DeadLettersLost != 0 || e.Halted() != nil {
		t.Errorf("%d dead letters, %d lost, %v", stats.DeadLetters, stats.DeadLettersLost, e.Halted())
	}
}
