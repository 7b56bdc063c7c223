package exprfilter

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// explained writes an explanation as a script would show it.
func explained(t *testing.T, source, payload string) string {
	t.Helper()
	f, err := Compile(source, Full())
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	e, err := f.Explain(&filterd.Message{Channel: "c", Payload: []byte(payload)})
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	var b strings.Builder
	for _, s := range e.Steps {
		mark := " "
		if s.Decided {
			mark = "*"
		}
		value := s.Value
		switch {
		case !s.Evaluated:
			value = "-"
		case s.Err != nil:
			value = "! " + s.Err.Error()
		}
		fmt.Fprintf(&b, "%s%s%s: %s\n", mark, strings.Repeat("  ", s.Depth), s.Source, value)
	}
	return b.String()
}

func TestExplain(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{`data.s startsWith "a" and data.n * data.n > 10_000`, `
 data.s startsWith "a" and data.n * data.n > 10_000: false
   data.s startsWith "a": true
     data.s: "abc"
*  data.n * data.n > 10_000: false
     data.n * data.n: 9
       data.n: 3
       data.n: 3
`},
		{`(data.s == 'abc') and data.n  in  [1, 3] && // and
	not (data.s == "x")`, `
 (data.s == 'abc') and data.n in [1, 3] && not (data.s == "x"): true
*  data.s == 'abc': true
     data.s: "abc"
*  data.n in [1, 3]: true
     data.n: 3
   not (data.s == "x"): true
*    data.s == "x": false
       data.s: "abc"
`},
		{`(data.s == "x" or data.n not in [2]) and (data.n == 1 or data.items[1] == 3)`, `
 (data.s == "x" or data.n not in [2]) and (data.n == 1 or data.items[1] == 3): false
   data.s == "x" or data.n not in [2]: true
     data.s == "x": false
       data.s: "abc"
     data.n not in [2]: true
       data.n: 3
   data.n == 1 or data.items[1] == 3: false
*    data.n == 1: false
       data.n: 3
*    data.items[1] == 3: false
       data.items[1]: 2
         data.items: [1,2]
`},
		// The second operand fails; what comes before and after did not decide.
		{`data.n > 1 and (data.x > 1 or data.b?.c.d == 5) and data.s == "x"`, `
 data.n > 1 and (data.x > 1 or data.b?.c.d == 5) and data.s == "x": ! 1:24: data.x is missing or null: > needs a value (write (data.x ?? 0), or ask data.x != nil first)
   data.n > 1: true
     data.n: 3
   data.x > 1 or data.b?.c.d == 5: ! 1:24: data.x is missing or null: > needs a value (write (data.x ?? 0), or ask data.x != nil first)
*    data.x > 1: ! 1:24: data.x is missing or null: > needs a value (write (data.x ?? 0), or ask data.x != nil first)
       data.x: null
     data.b?.c.d == 5: -
       data.b?.c.d: -
         data.b?.c: -
           data.b: -
   data.s == "x": -
     data.s: -
`},
		{`data.n and data.s != ""`, `
 data.n and data.s != "": ! 1:8: data.n is a number: and takes a boolean
*  data.n: 3
   data.s != "": -
     data.s: -
`},
		// What yields no bool fails as a whole.
		{`data.n`, `
*data.n: 3
`},
		{`data.x ?? (data.n > 2)`, `
 data.x ?? (data.n > 2): true
   data.x: null
*  data.n > 2: true
     data.n: 3
`},
		{`data.yes ?? false`, `
*data.yes ?? false: false
   data.yes: null
`},
		{`let v = (data.n + 1); v > 2 ? data.s == "x" : any(data.items, .x > 1)`, `
 let v = (data.n + 1): 4
   data.n: 3
 v > 2 ? data.s == "x" : any(data.items, .x > 1): false
*  v > 2: true
     v: 4
*  data.s == "x": false
     data.s: "abc"
   any(data.items, .x > 1): -
     data.items: -
`},
		{`let v = data.x + 1; v > 2`, `
*let v = data.x + 1: ! 1:16: data.x is missing or null: + needs a value (write (data.x ?? 0), or ask data.x != nil first)
   data.x: null
 v > 2: -
   v: -
`},
		{`if data.n > 1 { let x = 2; x > data.n } else if true { data.s[0:1] == "a" } else { false }`, `
 if data.n > 1 { let x = 2; x > data.n } else if true { data.s[0:1] == "a" } else { false }: false
*  data.n > 1: true
     data.n: 3
   let x = 2: 2
*  x > data.n: false
     x: 2
     data.n: 3
   if true { data.s[0:1] == "a" } else { false }: -
     true: -
     data.s[0:1] == "a": -
       data.s[0:1]: -
         data.s: -
     false: -
`},
		// expr's optimizer removes what makes no difference.
		{`data.x > 5 && false`, `
 data.x > 5 && false: false
   data.x > 5: ! 1:8: data.x is missing or null: > needs a value (write (data.x ?? 0), or ask data.x != nil first)
     data.x: null
*  false: false
`},
		{`data?.o?.x.y[data.n] == 1`, `
 data?.o?.x.y[data.n] == 1: ! 1:13: data?.o?.x.y is missing or null: it has no element data.n (write data?.o?.x.y?.[data.n])
*  data?.o?.x.y[data.n]: ! 1:13: data?.o?.x.y is missing or null: it has no element data.n (write data?.o?.x.y?.[data.n])
     data?.o?.x.y: null
       data?.o?.x: -
         data?.o: null
     data.n: 3
`},
		{`(data.items | filter(# > 1) | len()) == ::len(data.items) - 1 and now() != nil`, `
 (data.items | filter(# > 1) | len()) == ::len(data.items) - 1 and now() != nil: true
*  (data.items | filter(# > 1) | len()) == ::len(data.items) - 1: true
     data.items | filter(# > 1) | len(): 1
       data.items | filter(# > 1): [2]
         data.items: [1,2]
     ::len(data.items) - 1: 1
       ::len(data.items): 2
         data.items: [1,2]
*  now() != nil: true
     now(): now
`},
		{`0 < data.n < 2`, `
 0 < data.n < 2: false
   0 < data.n: true
     data.n: 3
*  data.n < 2: false
     data.n: 3
`},
		{`{"a": data.n, (data.s): 1}.abc == 2; "é" == channel`, `
 {"a": data.n, (data.s): 1}.abc == 2: false
   {"a": data.n, (data.s): 1}.abc: 1
     {"a": data.n, (data.s): 1}: {"a":3,"abc":1}
       data.n: 3
       data.s: "abc"
*"é" == channel: false
   channel: "c"
`},
	} {
		got := explained(t, test.source, `{"s":"abc","n":3,"items":[1,2]}`)
		got = regexp.MustCompile(`now\(\): "[^"]+"`).ReplaceAllString(got, "now(): now")
		if "\n"+got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.source, got, test.want)
		}
	}
}

// Values are short, and are told even if they are not JSON.
func TestExplainValues(t *testing.T) {
	payload := `{"s":"` + strings.Repeat("é", 500) + `","n":0,"h":"<a>"}`
	for _, test := range []struct{ source, want string }{
		{`data.s == ""`, "*data.s == \"\": false\n   data.s: \"" + strings.Repeat("é", 99) + "…\n"},
		{`data.n / data.n == 1`, "*data.n / data.n == 1: false\n   data.n / data.n: NaN\n     data.n: 0\n     data.n: 0\n"},
		{`data.h == ""`, "*data.h == \"\": false\n   data.h: \"<a>\"\n"},
	} {
		if got := explained(t, test.source, payload); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.source, got, test.want)
		}
	}
}

// Expressions as deep as they can be take no more than a moment.
func TestExplainDeep(t *testing.T) {
	for _, source := range []string{
		strings.Repeat("!", 9_000) + "data.b",
		"data.n" + strings.Repeat(" - data.n", 1500) + " < 1",
	} {
		f := MustCompile(source)
		e, err := f.Explain(&filterd.Message{Payload: []byte(`{"n":1,"b":true}`)})
		if err != nil || !e.Kept {
			t.Errorf("%.20s: kept %v, %v", source, e.Kept, err)
		}
		for _, s := range e.Steps {
			if s.Depth >= maxPartDepth {
				t.Errorf("%.20s: depth %d", source, s.Depth)
			}
		}
	}
}

func TestExplainWithoutMessage(t *testing.T) {
	if _, err := MustCompile("data.n > 1").Explain(&filterd.Message{Payload: []byte("{")}); err == nil {
		t.Error("no error for what can't be decoded")
	}
}

// The parts, each evaluated by itself, add up to what encoding/json and plain
// expr say of the whole, and some of them decide it.
func TestExplainAgrees(t *testing.T) {
	for seed := range uint64(iterations()) {
		g := grammar{rand.New(rand.NewPCG(seed, 7))}
		for range 10 {
			f := g.filters(1)[0].(*Filter)
			m := &filterd.Message{Channel: "a", Payload: []byte(g.message())}
			if _, err := m.Data(); err != nil {
				continue
			}
			e, err := f.Explain(m)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(e.Kept)
			if e.Err != nil {
				got = e.Err.Error()
			}
			want := plain(f.program, m)
			fail := func(format string, args ...any) {
				t.Helper()
				t.Fatalf("seed %d: %s\non %s\nis %s\n%s\n%s", seed, f, m.Payload, want, fmt.Sprintf(format, args...), explained(t, f.String(), string(m.Payload)))
			}
			if got != want {
				fail("got %s", got)
			}
			o, root, err := newOutline(f.String())
			if err != nil {
				t.Fatal(err)
			}
			env, err := environmentOf(m)
			if err != nil {
				t.Fatal(err)
			}
			(&explainer{outline: o, env: env, program: f.program}).evaluate(root, nil)
			_, isBool := root.value.(bool)
			switch {
			case root.err != nil: // perhaps at another place: see run
				_, got, _ = strings.Cut(root.err.Error(), " ")
				_, want, _ = strings.Cut(want, " ")
			case !isBool && root.value != nil:
				got = e.Err.Error() // no bool: only the whole has to yield one
			default:
				got = fmt.Sprint(root.value == true)
			}
			if got != want {
				fail("the parts add up to %s", got)
			}
			decided := 0
			for _, s := range e.Steps {
				if !s.Decided {
					continue
				}
				decided++
				if !s.Evaluated || s.Err != nil && (e.Err == nil || s.Err.Error() != e.Err.Error()) {
					fail("which %q does not decide", s.Source)
				}
			}
			if decided == 0 || root.err != nil && decided > 1 {
				fail("%d steps decide", decided)
			}
		}
	}
}

// FuzzExplain explains whatever compiles.
func FuzzExplain(f *testing.F) {
	for seed := range uint64(50) {
		g := grammar{rand.New(rand.NewPCG(seed, 8))}
		f.Add(g.rule(), g.message())
	}
	f.Add("let v = (data.n); if v > 1 { ::len(data.s[1:]) == 2 } else { {a: [v], (data.s): 1}?.a[0] == 1 }", `{"n":1,"s":"x"}`)
	f.Add("data.n ?: (data?.a.b(1) ?? any(data.items, {let x = #; x not in [1,]}))", `{"items":[1]}`)
	f.Fuzz(func(t *testing.T, source, payload string) {
		m := &filterd.Message{Channel: "a", Payload: []byte(payload)}
		filter, err := Compile(source)
		if _, invalid := m.Data(); err != nil || invalid != nil || len(source) > 1000 || len(payload) > 10_000 {
			return
		}
		e, err := filter.Explain(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range e.Steps {
			if s.Decided {
				return
			}
		}
		t.Errorf("%s\non %s: no step decides\n%s", source, payload, explained(t, source, payload))
	})
}
