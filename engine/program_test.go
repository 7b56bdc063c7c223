package engine_test

import (
	"fmt"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
)

// counted is an expression whose kind counts how many it compiles.
type counted struct {
	*exprfilter.Filter
	kind countingKind
}

func (f counted) Kind() filterd.Kind { return f.kind }

type countingKind struct{ compiled *int }

func (countingKind) Name() string { return "counted" }

func (k countingKind) Compile(filters []filterd.Filter) (filterd.Set, error) {
	*k.compiled += len(filters)
	inner := make([]filterd.Filter, len(filters))
	for i, f := range filters {
		inner[i] = f.(counted).Filter
	}
	return exprfilter.Kind{}.Compile(inner)
}

// Rules of a glob are compiled once, however many of its channels have rules
// of their own; and they say what they say alone.
func TestManyRulesOnAGlobAndChannels(t *testing.T) {
	const many, channels = 2000, 80
	compiled := 0
	kind := countingKind{&compiled}
	expression := func(source string) filterd.Filter { return counted{exprfilter.MustCompile(source), kind} }
	var rules []engine.Rule
	for i := range many {
		rules = append(rules, engine.Rule{Name: fmt.Sprintf("glob%d", i), From: []string{"prices.*"}, When: expression(fmt.Sprintf("data.x == %d", i)), To: to("out")})
	}
	for i := range channels {
		rules = append(rules, engine.Rule{Name: fmt.Sprintf("own%d", i), From: []string{fmt.Sprintf("prices.%d", i)}, When: expression("data.y > 1"), To: to("out")})
	}
	// Between the others, so that a crowd's rules are not neighbours.
	rules[5], rules[many+5] = rules[many+5], rules[5]
	sink := &recorder{}
	e := newEngine(t, engine.Config{Table: table(t, rules...), Sink: sink})
	for round := range 3 {
		for i := range channels + 5 {
			if err := e.Process(t.Context(), message(fmt.Sprintf("prices.%d", i), fmt.Sprintf(`{"x":%d,"y":2}`, i))); err != nil {
				t.Fatal(err)
			}
			want := 2 // the glob's rule, and the channel's own
			if i >= channels {
				want = 1
			}
			if sent := sink.take(); len(sent) != want {
				t.Fatalf("round %d, channel %d: %d sent, want %d", round, i, len(sent), want)
			}
		}
	}
	if compiled > 2*(many+channels) {
		t.Errorf("%d conditions of %d were compiled", compiled, many+channels)
	}
	stats := e.Stats()
	for name, want := range map[string]uint64{"own7": 3, "glob7": 3, "glob81": 3, "glob100": 0} {
		if got := stats.Rules[name].Matched; got != want {
			t.Errorf("%s matched %d times, want %d", name, got, want)
		}
	}
}
