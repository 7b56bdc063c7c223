package engine_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// manyFailing are rules that all fail on a message without a price, in what
// way on_error says.
func manyFailing(n int) []engine.Rule {
	var rules []engine.Rule
	for i := range n {
		r := engine.Rule{Name: fmt.Sprintf("r%d", i), From: []string{"in"}, When: when(fmt.Sprintf("data.price > %d", i)), To: to("out")}
		switch i % 10 {
		case 3:
			r.OnError = engine.OnErrorPass
		case 7:
			r.OnError, r.DeadLetter = engine.OnErrorDeadLetter, "dead"
		}
		rules = append(rules, r)
	}
	return append(rules, engine.Rule{Name: "other", From: []string{"in"}, When: when(`data.symbol == "X"`), To: to("out")})
}

// Rules that fail together are counted together; each has its count, and what
// it does on an error.
func TestRulesFailTogether(t *testing.T) {
	var log bytes.Buffer
	sink := &recorder{}
	e := newEngine(t, engine.Config{Table: table(t, manyFailing(50)...), Sink: sink, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		if err := e.Process(t.Context(), message("in", `{"symbol":"X"}`)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(errors uint64) {
		t.Helper()
		stats := e.Stats().Rules
		for i := range 50 {
			if r := stats[fmt.Sprintf("r%d", i)]; r.Errors != errors || r.Matched != 0 {
				t.Errorf("rule %d: %+v, want %d errors", i, r, errors)
			}
		}
	}
	check(3)
	if other := e.Stats().Rules["other"]; other.Matched != 3 || other.Errors != 0 {
		t.Errorf("the other rule: %+v", other)
	}
	dead := 0
	sent := sink.take()
	for _, s := range sent {
		if strings.HasPrefix(s, "dead ") {
			dead++
			if !strings.Contains(s, "nil") || !strings.Contains(s, `"rule":"r`) {
				t.Errorf("dead letter %s", s)
			}
		}
	}
	if dead != 15 || len(sent) != 3*(5+5+1) {
		t.Errorf("%d sent, of which %d dead letters; want 33, 15", len(sent), dead)
	}
	if lines := log.String(); strings.Count(lines, "other_rules=39") != 1 || !strings.Contains(lines, "rule=r0 ") || !strings.Contains(lines, "when: 1:12: data.price is missing or null") {
		t.Errorf("the log tells\n%s", lines)
	}

	// What a reload retires keeps what it has counted.
	for range 3 {
		if err := e.Reload(t.Context(), table(t, manyFailing(50)...)); err != nil {
			t.Fatal(err)
		}
		check(3)
	}
	if err := e.Process(t.Context(), message("in", `{}`)); err != nil {
		t.Fatal(err)
	}
	check(4)
}

// A dry run tells of every rule.
func TestRulesFailTogetherInADryRun(t *testing.T) {
	rules := manyFailing(20)
	result, err := table(t, rules...).NewProcessor().Process(message("in", `{"price":null,"symbol":"X"}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Outcomes) != 21 {
		t.Fatalf("%d outcomes, want 21", len(result.Outcomes))
	}
	for i, o := range result.Outcomes {
		if o.Rule != rules[i].Name || (o.Err != nil) != (i < 20) || o.Matched != (i == 20) {
			t.Errorf("outcome %d: %+v", i, o)
		}
	}
}

// Groups of programs that come and go are not kept, and their counts not lost.
func TestManyFailingGroups(t *testing.T) {
	var rules []engine.Rule
	for i := range 3000 {
		rules = append(rules, engine.Rule{Name: fmt.Sprintf("r%d", i), From: []string{fmt.Sprintf("in%d", i)}, When: when("data.price > 1"), To: to("out")})
	}
	e := newEngine(t, engine.Config{Table: table(t, rules...), Sink: &recorder{}})
	for range 2 {
		for i := range rules {
			if err := e.Process(t.Context(), message(fmt.Sprintf("in%d", i), `{}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, r := range e.Stats().Rules {
		if r.Errors != 2 {
			t.Errorf("%s: %d errors, want 2", name, r.Errors)
		}
	}
}

// An engine tells how conditions are evaluated, over reloads, and not what
// dry runs of its tables did.
func TestEvaluations(t *testing.T) {
	rules := []engine.Rule{
		{Name: "compiled", From: []string{"in"}, When: when(`data.a + data.b > 1`), To: to("out")},
		{Name: "pruned", From: []string{"in"}, When: when(`len(data.items) > 1`), To: to("out")},
		{Name: "whole", From: []string{"in"}, When: when(`len(data.items[0].x) > 1`), To: to("out")},
	}
	first := table(t, rules...)
	payload := `{"a":1,"b":2,"items":[1,2]}`
	if _, err := first.NewProcessor().Process(message("in", payload)); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, engine.Config{Table: first, Sink: &recorder{}})
	check := func(want filterd.Evaluations) {
		t.Helper()
		if got := e.Stats().Evaluations; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	check(filterd.Evaluations{})
	once := filterd.Evaluations{Compiled: 3, Pruned: 2, Whole: 2} // the third fails, and is asked once more why
	process := func() {
		if err := e.Process(t.Context(), message("in", payload)); err != nil {
			t.Fatal(err)
		}
	}
	process()
	check(once)
	for _, next := range []*engine.Table{table(t, rules...), first} {
		if err := e.Reload(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		check(once)
	}
	process()
	check(once.Add(once))
	if linear := e.Stats().Linear; linear != 2 {
		t.Errorf("%d linear rules, want 2", linear)
	}
}
