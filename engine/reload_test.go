package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A stage that several tables have is closed when the last message of all of
// them is done, in whatever order they come and go.
func TestStageOfSeveralTables(t *testing.T) {
	next := make(chan struct{})
	shared := &scripted{}
	shared.before = func(*filterd.Message) {
		<-next
		if shared.closed.Load() > 0 {
			t.Error("closed while messages wait for it")
		}
	}
	other := &scripted{}
	rules := func(stage filterd.Stage) *engine.Table {
		return table(t, engine.Rule{Name: "r", From: []string{"in"}, Stage: stage, To: to("out")})
	}
	e := newEngine(t, engine.Config{Table: rules(shared), Sink: &recorder{}})
	ended, cancel := context.WithCancel(t.Context())
	cancel() // the messages hold their tables
	process := func() {
		t.Helper()
		if err := e.Process(t.Context(), message("in", `{"do":"keep"}`)); err != nil {
			t.Fatal(err)
		}
	}
	process()
	eventually(t, "the stage has the first message", func() bool { return shared.running.Load() == 1 })
	for _, stage := range []filterd.Stage{shared, other} {
		if stage == other {
			process() // waits under the second table
		}
		if err := e.Reload(ended, rules(stage)); err != nil {
			t.Fatal(err)
		}
	}
	next <- struct{}{}
	eventually(t, "the first message is done", func() bool { return e.Stats().Rules["r"].Delivered == 1 })
	next <- struct{}{}
	eventually(t, "closed", func() bool { return shared.closed.Load() == 1 })
	process()
	if err := e.Reload(t.Context(), rules(other)); err != nil {
		t.Fatal(err)
	}
	if other.closed.Load() != 0 || shared.closed.Load() != 1 {
		t.Errorf("closed %d and %d times", other.closed.Load(), shared.closed.Load())
	}
}

// Reloads that came to nothing are counted, with what the last one failed on.
func TestRefusedReloads(t *testing.T) {
	rule := engine.Rule{Name: "r", From: []string{"in"}, To: logTo(-4)}
	e := newEngine(t, engine.Config{Table: table(t, rule)})
	if s := e.Stats(); s.Reloads != 0 || s.RefusedReloads != 0 || s.LastRefusal != nil {
		t.Errorf("at first: %+v", s)
	}
	if err := e.Reload(t.Context(), table(t, rule)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("rules.r: broken")
	e.RefuseReload(broken)
	if s := e.Stats(); s.Generation != 2 || s.Reloads != 1 || s.RefusedReloads != 1 || s.LastRefusal.Err != broken || s.LastRefusal.Time.IsZero() {
		t.Errorf("refused before there was a table: %+v", s)
	}
	rule.To = to("out")
	err := e.Reload(t.Context(), table(t, rule))
	if s := e.Stats(); err == nil || s.Generation != 2 || s.RefusedReloads != 2 || s.LastRefusal.Err != err {
		t.Errorf("a table that needs a sink: %v, %+v", err, s)
	}
}
