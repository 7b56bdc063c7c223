package exprfilter_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

func TestCompileErrors(t *testing.T) {
	full := "; profile: full allows it)"
	for _, test := range []struct{ source, want string }{
		{`data.price >`, `1:12: unexpected token EOF`},
		{`dat.price > 1`, `1:1: unknown name dat (an expression sees data, event and channel)`},
		{`type == "x"`, `1:6: invalid operation: == (mismatched types func(interface {}) string and string)`},
		{`channel == 5`, `1:9: invalid operation: == (mismatched types string and int)`},
		{`"é" + data.x +`, `1:14: unexpected token EOF`},
		{"data.a\n and and", `2:6: unexpected token Operator("and")`},
		{`1 + 1`, `1:1: expected bool, but got int`},
		{``, `1:1: unexpected token EOF`},
		{`let data = 1; data`, `1:5: cannot redeclare data`},

		{`repeat(data.s, 3) == "x"`, `1:1: repeat is not in the default profile: its work or its result is not bounded by the message (profile: full allows it)`},
		{`len(uniq(data.a)) > 1`, `1:5: uniq is not in the default profile: its work or its result is not bounded by the message (profile: full allows it)`},
		{`data.x in 1..1001`, `1:12: a range has constant bounds and at most 1000 elements (compare with < and >` + full},
		{`data.x in 1..data.n`, `1:12: a range has constant bounds and at most 1000 elements (compare with < and >` + full},
		{`data.s matches data.p`, `1:8: matches needs a constant pattern (write the pattern as a string` + full},
		{`any(data.a, any(#, # > 1))`, `1:13: any within a predicate: its work grows with the square of the message (profile: full allows it)`},
		{`any(data.a, # in data.b)`, `1:15: this would read the message again for every element (compute it once, before the predicate, with let` + full},
		{`any(data.a, data.s contains #)`, `1:20: this would read the message again for every element (compute it once, before the predicate, with let` + full},
		{`any(data.a, #index < len(data.a))`, `1:22: this would read the message again for every element (compute it once, before the predicate, with let` + full},
		{`len(map(data.a, data.s + #)) > 1`, `1:24: + may join a string for every element (for numbers write float(a) + b` + full},
		{`len(map(data.a, data.s)) > 1`, `1:5: map would repeat the message for every element (map to parts of the element` + full},
		{`reduce(data.a, #acc + #, "") == ""`, `1:21: + may join a string for every element (for numbers write float(a) + b` + full},
		{`len(reduce(1..99, [#acc, #acc], data)) > 1`, `1:19: this would read the message again for every element (compute it once, before the predicate, with let` + full},
		{`let a = data.s + data.s; let b = a + a + a + a; let c = b + b + b + b; let d = c + c + c + c; d == ""`,
			`1:86: this could grow to more than 64 times the message (profile: full allows it)`},
		{`toJSON(toJSON(toJSON(data))) == ""`, `1:1: this could grow to more than 64 times the message (profile: full allows it)`},
	} {
		_, err := exprfilter.Compile(test.source)
		if err == nil {
			t.Errorf("%s: compiled, want %s", test.source, test.want)
		} else if err.Error() != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.source, err, test.want)
		}
		var positioned *filterd.SourceError
		if !errors.As(err, &positioned) {
			t.Errorf("%s: error is a %T", test.source, err)
		}
	}
}

func TestFullProfile(t *testing.T) {
	for _, source := range []string{
		`repeat(data.s, 3) == "x"`, `data.x in 1..2000`, `data.s matches data.p`,
		`any(data.a, any(#, # in data.b))`, `len(map(data.a, data.s + #)) > 1`,
	} {
		if _, err := exprfilter.Compile(source); err == nil {
			t.Errorf("%s: compiles in the default profile", source)
		}
		if _, err := exprfilter.Compile(source, exprfilter.Full()); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// What people write must not be caught by the default profile.
func TestDefaultProfileAllows(t *testing.T) {
	for _, source := range []string{
		`data.symbol startsWith "BTC" and data.price * data.qty > 10_000`,
		`any(data.items, .price > 10 and .side == data.side)`,
		`sum(data.items, .price * .qty) > 100`,
		`sum(data.items, float(.price) + .fee) > 100`,
		`all(data.items, .name matches "^[a-z]+$")`,
		`let n = len(data.items); any(data.items, # > n - 2)`,
		`len(filter(data.items, .tag in ["a", "b"])) > 2`,
		`"id-" + data.id == event.subject`,
		`len(map(data.items, "id-" + .id)) > 1`,
		`reduce(data.items, #acc + float(#), 0) > 1`,
		`upper(data.s) contains "X" ? data?.a?.b == 1 : (data.b ?? 3) in 1..10`,
		`data["odd key"] != nil and channel == "c" and event.type == "t" and $env["data"] != nil`,
		`now() - date("2020-01-01") > duration("1h")`,
		`data.items[0].x == get(data.items, 1) or data.items[1:2] == []`,
	} {
		if _, err := exprfilter.Compile(source); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// Parser recursion is fatal and can't be recovered; the cap on the source must
// keep every form of nesting below it.
func TestDeepNesting(t *testing.T) {
	huge := strings.Repeat("(", 500_000) + "true" + strings.Repeat(")", 500_000)
	if _, err := exprfilter.Compile(huge); err == nil || err.Error() != "1:16385: expression of 1000004 bytes is over the limit of 16384" {
		t.Errorf("1 MB of parentheses: %v", err)
	}
	for _, open := range []string{"(", "!", "-", "[", "{a:", "1+", "true?true:", "len(", "data.x[", "any(data,", "let a=1;", "if true {", "data?.x|map("} {
		for _, opts := range [][]exprfilter.Option{nil, {exprfilter.Full()}} {
			_, _ = exprfilter.Compile(strings.Repeat(open, exprfilter.MaxSource/len(open)), opts...)
		}
	}
}

// The middle of a < b < c stands in the tree twice: within each other that
// doubles what it takes to compile, which a second is not enough for.
func TestChainedComparisons(t *testing.T) {
	for _, wrap := range []string{"1 < (%s ? 1 : 2) < 3", "1 < len(filter(data, %s)) < 3", "1 < len(repeat(string(%s), 2)) < 3"} {
		source := "data.x"
		for range 100 {
			source = fmt.Sprintf(wrap, source)
		}
		for _, opts := range [][]exprfilter.Option{nil, {exprfilter.Full()}} {
			if _, err := exprfilter.Compile(source, opts...); err == nil {
				t.Errorf("%s compiles", wrap)
			} else if opts != nil && !strings.Contains(err.Error(), "too many chains of comparisons, as in a < b < c, stand within each other (write a < b and b < c)") {
				t.Error(err)
			}
		}
	}
	if _, err := exprfilter.Compile("1 < data.a < (2 < data.b < 3 ? 5 : 6) < 7"); err != nil {
		t.Error(err)
	}
}

// In the default profile no expression makes more of a message than a small
// multiple of it, whatever the message.
func TestBoundedMemory(t *testing.T) {
	items := strings.Repeat(`"",`, 100_000)
	big := strings.Repeat("x", 500_000)
	payload := []byte(`{"items":[` + items + `""],"big":"` + big + `"}`)
	for _, source := range []string{
		`len(map(data.items, "` + strings.Repeat("y", 100) + `" + #)) > 0`,
		`let a = data.big + data.big; let b = a + a; let c = b + b; len(c) > 1`,
		`len(toJSON(data)) > 0`,
		`len(groupBy(data.items, #)) > 0`,
		`all(data.items, # != data.big)`,
	} {
		f, err := exprfilter.Compile(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		m := &filterd.Message{Payload: payload}
		if _, err := m.Data(); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if keep, err := f.Matcher().Match(m); err != nil || !keep {
			t.Errorf("%s: %v, %v", source, keep, err)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > uint64(100*len(payload)) {
			t.Errorf("%s: allocated %d bytes for a message of %d", source, grown, len(payload))
		}
	}
}

// A matcher leaves a message bound to what it was bound to, and says what is
// wrong with one that can't be read.
func TestMatcherLeavesTheMessage(t *testing.T) {
	projection := filterd.NewProjection([]filterd.Path{"data.a", "data.b"})
	m := &filterd.Message{Payload: []byte(`{"a":1,"b":2}`)}
	m.Bind(projection)
	if keep, err := exprfilter.MustCompile(`data.b == 2`).Matcher().Match(m); !keep || err != nil {
		t.Errorf("%v, %v", keep, err)
	}
	if f := m.Lookup(0); string(f.Text) != "1" {
		t.Errorf("slot 0 is %q, want 1", f.Text)
	}
	m.Reset([]byte(`{"b":2`))
	if keep, err := exprfilter.MustCompile(`data.b == 2`).Matcher().Match(m); keep || err == nil {
		t.Errorf("half a message: %v, %v", keep, err)
	}
}

// A variable means the same wherever it is used, although what is joined with
// it becomes one condition.
func TestVariablesAreNotChanged(t *testing.T) {
	for source, want := range map[string]bool{
		`let c = data.s == "a"; (c or data.s == "b") and not c`: true,
		`let c = data.x > 1; (c and data.x < 3) and c`:          true,
		`let c = data.x > 1; not (c and data.x < 2) and c`:      true,
	} {
		m := &filterd.Message{Payload: []byte(`{"s":"b","x":2}`)}
		if keep, err := exprfilter.MustCompile(source).Matcher().Match(m); keep != want || err != nil {
			t.Errorf("%s: %v, %v", source, keep, err)
		}
	}
}
