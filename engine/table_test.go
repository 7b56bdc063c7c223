package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

func nop(context.Context, *filterd.Message) error { return nil }

func TestCompileFaults(t *testing.T) {
	many := make([]engine.Target, 33)
	for i := range many {
		many[i] = engine.Target{Channel: fmt.Sprint("c", i)}
	}
	declared := registry(t, filterd.Contract{Channel: "PRICE_DATA"}, filterd.Contract{Channel: "raw.*", Envelope: filterd.EnvelopeBytes})
	for _, test := range []struct {
		name   string
		rules  []engine.Rule
		strict bool
		want   string
	}{
		{"no rules", nil, false, `a table needs at least one rule`},
		{"nothing", []engine.Rule{{}}, false, `rule "": name: a rule needs a name
rule "": from: a rule needs a channel or a stream to take messages from
rule "": to: a rule needs a target`},
		{"same name", []engine.Rule{{Name: "a", From: []string{"x"}, To: to("y")}, {Name: "a", From: []string{"x"}, To: to("z")}}, false, `rule "a": name: another rule has this name`},
		{"from", []engine.Rule{{Name: "a", From: []string{"x", "", "x"}, To: to("y")}}, false, `rule "a": from: the name of a channel is not empty
rule "a": from: x is listed twice`},
		{"to", []engine.Rule{{Name: "a", From: []string{"x"}, To: []engine.Target{{}, {Channel: "y*"}, {Callback: "nobody"}}}}, false, `rule "a": to: the name of a channel is not empty
rule "a": to: y* is a pattern: a target is one channel
rule "a": to: callback nobody is not registered by the program`},
		{"too many", []engine.Rule{{Name: "a", From: []string{"x"}, To: many}}, false, `rule "a": to: 33 targets are over the limit of 32`},
		{"allow", []engine.Rule{{Name: "a", From: []string{"x"}, To: []engine.Target{{Computed: value(t, `"y"`)}}}}, false, `rule "a": allow: a computed target needs the list of channels it may yield`},
		{"on_error", []engine.Rule{{Name: "a", From: []string{"x"}, To: to("y"), OnError: "explode", Overflow: "spill"}}, false, `rule "a": on_error: unknown reaction "explode": want drop, pass, dead_letter or halt
rule "a": overflow: unknown policy "spill": want drop_oldest, drop_newest, conflate or block`},
		{"no dead letter", []engine.Rule{{Name: "a", From: []string{"x"}, To: to("y"), OnError: engine.OnErrorDeadLetter}}, false, `rule "a": on_error: dead_letter needs the channel: add dead_letter to the rule`},
		{"bounded dead letter channel", []engine.Rule{{Name: "a", From: []string{"x"}, To: to("y"), OnError: engine.OnErrorDeadLetter, DeadLetter: "z", DeadLetterMaxLen: 3}}, false, `rule "a": dead_letter: maxlen 3: want 1 or more, and a stream`},
		{"negative maxlen", []engine.Rule{{Name: "a", From: []string{"x"}, To: to("y"), OnError: engine.OnErrorDeadLetter, DeadLetter: "z", DeadLetterStream: true, DeadLetterMaxLen: -3}}, false, `rule "a": dead_letter: maxlen -3: want 1 or more, and a stream`},
		{"idle dead letter", []engine.Rule{{Name: "a", From: []string{"x"}, To: to("y"), DeadLetter: "z"}}, false, `rule "a": dead_letter: nothing goes there: on_error is drop`},
		{"set", []engine.Rule{{Name: "a", From: []string{"x"}, To: to("y"), Set: []engine.Member{{Name: "m", Constant: []byte("1")}, {Name: "m", Constant: []byte("1")}}}}, false, `rule "a": set: member m is set twice`},
		{"set on bytes", []engine.Rule{{Name: "a", From: []string{"raw.x", "r*"}, To: to("y"), Set: []engine.Member{{Name: "m", Constant: []byte("1")}}}}, false, `rule "a": set: channel raw.x has envelope bytes: its data has no members
rule "a": set: channel r* has envelope bytes: its data has no members`},
		{"strict", []engine.Rule{{Name: "a", From: []string{"PRICE_DATE", "PRICE_DATA", "PRICE*"}, To: []engine.Target{{Channel: "raw.x"}, {Channel: "nowhere"}}, OnError: engine.OnErrorDeadLetter, DeadLetter: "d"}}, true, `rule "a": from: channel PRICE_DATE is not declared: did you mean PRICE_DATA?
rule "a": to: channel nowhere is not declared: declare it, or take strict_channels back
rule "a": dead_letter: channel d is not declared: declare it, or take strict_channels back`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := engine.Compile(engine.Definition{Registry: declared, Rules: test.rules, StrictChannels: test.strict})
			if err == nil {
				t.Fatal("compiled")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoops(t *testing.T) {
	rule := func(name, from, target string) engine.Rule {
		return engine.Rule{Name: name, From: strings.Fields(from), To: to(target)}
	}
	contracts := registry(t, filterd.Contract{Channel: "PRICE", DeadLetter: "bad"})
	for _, test := range []struct {
		name  string
		rules []engine.Rule
		want  string
	}{
		{"none", []engine.Rule{rule("a", "x", "y"), rule("b", "y", "z"), rule("c", "x y z", "end")}, ""},
		{"itself", []engine.Rule{rule("a", "x", "x")}, `rule "a": to: messages would go round in a cycle: a → x → a`},
		{"by a glob", []engine.Rule{rule("a", "x.*", "x.out")}, `rule "a": to: messages would go round in a cycle: a → x.out → x.* → a`},
		{"two", []engine.Rule{rule("a", "x", "y"), rule("b", "y", "x"), rule("c", "y", "z")}, `rule "a": to: messages would go round in a cycle: a → y → b → x → a
rule "b": to: messages would go round in a cycle: b → x → a → y → b`},
		{"by what allow lets through", []engine.Rule{{Name: "a", From: []string{"alerts.btc"}, To: []engine.Target{{Computed: value(t, `"alerts." + data.s`)}}, Allow: []string{"alerts.*"}}},
			`rule "a": to: messages would go round in a cycle: a → alerts.* → alerts.btc → a`},
		{"by two globs that meet", []engine.Rule{{Name: "a", From: []string{"*.btc"}, To: []engine.Target{{Computed: value(t, `"alerts." + data.s`)}}, Allow: []string{"alerts.*"}}},
			`rule "a": to: messages would go round in a cycle: a → alerts.* → *.btc → a`},
		{"by globs that don't", []engine.Rule{{Name: "a", From: []string{"*.btc"}, To: []engine.Target{{Computed: value(t, `"alerts." + data.s`)}}, Allow: []string{"alerts.[^b]*", "x"}}},
			`rule "a": to: messages would go round in a cycle: a → alerts.[^b]* → *.btc → a`},
		{"by globs that really don't", []engine.Rule{{Name: "a", From: []string{"*.btc"}, To: []engine.Target{{Computed: value(t, `data.s`)}}, Allow: []string{"alerts.[^b]"}}}, ``},
		{"by a rule's dead letter", []engine.Rule{{Name: "a", From: []string{"x.*"}, To: to("y"), OnError: engine.OnErrorDeadLetter, DeadLetter: "x.failed"}},
			`rule "a": to: messages would go round in a cycle: a → x.failed → x.* → a`},
		{"by a contract's dead letter", []engine.Rule{rule("a", "PRICE", "y"), rule("b", "bad", "PRICE")}, `rule "a": to: messages would go round in a cycle: a → bad → b → PRICE → a
rule "b": to: messages would go round in a cycle: b → PRICE → a → bad → b`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := engine.Compile(engine.Definition{Registry: contracts, Rules: test.rules})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			for i := range test.rules {
				test.rules[i].LoopAllowed = true
			}
			table, err := engine.Compile(engine.Definition{Registry: contracts, Rules: test.rules})
			if err != nil {
				t.Fatalf("with loop allowed: %v", err)
			}
			var warnings []string
			for _, w := range table.Warnings() {
				warnings = append(warnings, w.Error())
			}
			if diff := cmp.Diff(test.want, strings.Join(warnings, "\n")); diff != "" {
				t.Errorf("warnings: %s", diff)
			}
		})
	}
}

// The fault stands at the target that leads on to the cycle.
func TestLoopTarget(t *testing.T) {
	_, err := engine.Compile(engine.Definition{Rules: []engine.Rule{{Name: "a", From: []string{"x"}, To: []engine.Target{{Channel: "y"}, {Channel: "x"}}}}})
	fault, ok := err.(interface{ Unwrap() []error }).Unwrap()[0].(*engine.RuleError)
	if !ok || fault.Field != "to" || fault.Index != 1 {
		t.Errorf("%#v", fault)
	}
}

// Sets of rules that are made to be slow to check are checked in time that
// grows as their size does, not as its square.
func TestCompilePathologicalLoops(t *testing.T) {
	chain := func(n int, close bool) []engine.Rule {
		rules := make([]engine.Rule, n)
		for i := range rules {
			rules[i] = engine.Rule{Name: fmt.Sprint("r", i), From: []string{fmt.Sprint("c", i)}, To: to(fmt.Sprint("c", i+1))}
		}
		if close {
			rules[n-1].To = to("c0")
		}
		return rules
	}
	hub := func(n int) []engine.Rule {
		rules := make([]engine.Rule, n)
		for i := range rules {
			rules[i] = engine.Rule{Name: fmt.Sprint("r", i), From: []string{"*"}, To: to(fmt.Sprint("c", i))}
		}
		return rules
	}
	measure := func(rules []engine.Rule) (time.Duration, error) {
		start := time.Now()
		_, err := engine.Compile(engine.Definition{Rules: rules})
		return time.Since(start), err
	}
	for name, rules := range map[string]func(int) []engine.Rule{
		"chain": func(n int) []engine.Rule { return chain(n, false) },
		"ring":  func(n int) []engine.Rule { return chain(n, true) },
		"hub":   hub,
	} {
		var err error
		ratio := 0.0
		for range 5 { // the machine may be busy: one good try is proof
			small, _ := measure(rules(1000))
			large, failure := measure(rules(10000))
			err, ratio = failure, float64(large)/float64(small)
			if ratio < 50 {
				break
			}
		}
		if ratio >= 50 {
			t.Errorf("%s: 10 times the rules take %.0f times as long", name, ratio)
		}
		if name == "ring" && !strings.Contains(err.Error(), `rule "r9999": to: messages would go round in a cycle: 10000 rules`) {
			t.Errorf("%.200v", err)
		}
	}
}
