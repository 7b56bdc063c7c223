package exprfilter

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
)

// A grammar makes random expressions and messages that have to do with each
// other.
type grammar struct{ *rand.Rand }

func (g grammar) pick(options ...string) string { return options[g.IntN(len(options))] }

func (g grammar) place() string {
	return g.pick("data.s", "data.s", "data.n", "data.n", "data.n", "data.m", "data.b", "data.o.x", "data.o.y", "data.o", `data["odd key"]`,
		"data?.s", "data?.o?.x", "data.o?.x", "data?.o.x", "data.items[0]", "data.items[1].x", "data.s[0]", "event.subject", "event.n", "channel", "data",
		"data.items", "event", "event.subject.x", "data.é")
}

func (g grammar) number() string {
	return g.pick("0", "1", "2", "-1", "2.5", "10", "1e3", "9007199254740993", "9007199254740992", "-0.0")
}

func (g grammar) text() string {
	return g.pick(`""`, `"a"`, `"ab"`, `"abc"`, `"b"`, `"é"`, `"\ufffd"`, `"BTC-USD"`)
}

func (g grammar) scalar() string {
	switch g.IntN(6) {
	case 0, 1:
		return g.number()
	case 2, 3:
		return g.text()
	case 4:
		return g.pick("true", "false")
	}
	return "nil"
}

func (g grammar) value(depth int) string {
	if depth == 0 {
		if g.IntN(3) == 0 {
			return g.scalar()
		}
		return g.place()
	}
	switch g.IntN(14) {
	case 0:
		return "(" + g.value(depth-1) + g.pick(" + ", " - ", " * ", " / ", " ** ") + g.value(depth-1) + ")"
	case 1:
		return "(" + g.place() + g.pick(" + ", " - ", " * ", " / ", " % ") + g.number() + ")"
	case 2:
		return "(" + g.place() + " ?? " + g.scalar() + ")"
	case 3:
		return "(" + g.condition(depth-1) + " ? " + g.value(depth-1) + " : " + g.value(depth-1) + ")"
	case 4:
		return "-" + g.place()
	case 5:
		return "(" + g.condition(depth-1) + ")"
	case 6:
		return g.pick("len", "upper", "string", "int", "float", "abs", "type", "+") + "(" + g.place() + ")"
	}
	return g.place()
}

func (g grammar) list() string {
	var elements []string
	switch g.IntN(4) {
	case 0:
		for range g.IntN(4) {
			elements = append(elements, g.text())
		}
	case 1:
		for range g.IntN(4) {
			elements = append(elements, g.number())
		}
	case 2:
		return g.pick("0..3", "-1..1", "2..2", "3..1")
	default:
		for range g.IntN(4) {
			elements = append(elements, g.scalar())
		}
	}
	return "[" + strings.Join(elements, ", ") + "]"
}

func (g grammar) condition(depth int) string {
	if depth > 0 {
		switch g.IntN(10) {
		case 0, 1, 2:
			return "(" + g.condition(depth-1) + g.pick(" and ", " && ") + g.condition(depth-1) + ")"
		case 3, 4:
			return "(" + g.condition(depth-1) + g.pick(" or ", " || ") + g.condition(depth-1) + ")"
		case 5:
			return g.pick("not ", "!") + "(" + g.condition(depth-1) + ")"
		case 6:
			return "(" + g.condition(depth-1) + " ? " + g.condition(depth-1) + " : " + g.condition(depth-1) + ")"
		}
	}
	switch g.IntN(16) {
	case 0, 1, 2, 3:
		return g.place() + g.pick(" == ", " == ", " != ", " < ", " <= ", " > ", " >= ") + g.scalar()
	case 4:
		return g.number() + g.pick(" == ", " != ", " < ", " <= ", " > ", " >= ") + g.place()
	case 5, 6:
		return g.value(depth) + g.pick(" == ", " != ", " < ", " <= ", " > ", " >= ") + g.value(depth)
	case 7, 8:
		return g.place() + g.pick(" in ", " not in ") + g.list()
	case 9:
		return g.value(depth) + " in " + g.list()
	case 10, 11:
		return g.place() + g.pick(" startsWith ", " endsWith ", " contains ") + g.text()
	case 12:
		return g.place() + " matches " + g.pick(`"^a"`, `"b$"`, `"."`, `"^$"`)
	case 13:
		return g.pick(`any(data.items, # == 1)`, `len(data.items) > 1`, `"s" in data`, `data == event`, `$env.data.s == "a"`, `any(data.items, .x == data.n)`, `get(data, "n") == 1`, `data.items == [1]`, `data.o == {"x": 1}`)
	case 14:
		return g.place() + " > 1 and " + g.place() + " < 10"
	}
	return g.place()
}

func (g grammar) rule() string {
	if g.IntN(12) == 0 {
		return "let v = " + g.value(1) + "; " + strings.NewReplacer("data.n", "v").Replace(g.condition(2))
	}
	return g.condition(g.IntN(4))
}

func (g grammar) json(depth int) string {
	switch g.IntN(16) {
	case 0, 1, 2:
		return g.pick("0", "1", "2", "-1", "2.5", "10", "1e3", "-0", "1e-400", "9007199254740993", "0.1e1", "123456789012345678901234567890")
	case 3, 4, 5:
		return g.pick(`""`, `"a"`, `"ab"`, `"abc"`, `"b"`, `"é"`, `"\u0061b"`, "\"\xff\"", `"\ud800"`, `"BTC-USD"`, `"a\n"`)
	case 6:
		return g.pick("true", "false")
	case 7:
		return "null"
	}
	if depth == 0 {
		return g.pick("1", `"a"`, "{}", "[]")
	}
	if g.IntN(3) == 0 {
		var elements []string
		for range g.IntN(4) {
			elements = append(elements, g.json(depth-1))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	}
	return g.object(depth - 1)
}

func (g grammar) object(depth int) string {
	var members []string
	for range g.IntN(8) {
		name := g.pick("s", "n", "m", "b", "o", "x", "y", "items", "odd key", "é", `\u0073`, "data", "subject")
		v := ""
		switch {
		case name == "s" && g.IntN(4) > 0:
			v = g.pick(`"a"`, `"ab"`, `"abc"`, `""`, `"BTC-USD"`)
		case name == "n" && g.IntN(4) > 0:
			v = g.pick("1", "2", "10", "0", "2.5")
		case name == "b" && g.IntN(4) > 0:
			v = g.pick("true", "false")
		case name == "o" && g.IntN(4) > 0 && depth > 0:
			v = g.object(depth - 1)
		default:
			v = g.json(depth)
		}
		members = append(members, `"`+name+`": `+v)
	}
	return "{" + strings.Join(members, ", ") + "}"
}

func (g grammar) message() string {
	switch g.IntN(8) {
	case 0:
		return g.json(2)
	case 1, 2, 3:
		return `{"specversion":"1.0","id":"1","source":"/s","type":"t"` + g.pick("", `,"subject":"a"`, `,"subject":null`, `,"n":1`) + g.pick("", `,"data_base64":"YWI="`, `,"data":`+g.json(2), `,"data":`+g.object(2), `,"data":`+g.object(2)) + "}"
	}
	return g.object(2)
}

// plain is what encoding/json and expr say of a program and a message.
func plain(p *program, m *filterd.Message) string {
	env, err := environmentOf(m)
	if err != nil {
		return err.Error()
	}
	result, err := vm.Run(p.vm, env)
	if err != nil {
		return p.failed(err).Error()
	}
	return fmt.Sprint(result == true)
}

// compare holds what a set says against the oracle.
func checkSet(t *testing.T, filters []filterd.Filter, payloads []string) {
	t.Helper()
	compiled, err := Kind{}.Compile(filters)
	if err != nil {
		t.Fatal(err)
	}
	s := compiled.(*set)
	projection := filterd.NewProjection(s.paths)
	matcher := s.bind(projection.Slots(s.paths))
	for _, payload := range payloads {
		m := &filterd.Message{Channel: "a", Payload: []byte(payload)}
		if _, err := m.Data(); err != nil {
			continue
		}
		got := make([]string, len(filters))
		for i := range got {
			got[i] = "false"
		}
		bound := &filterd.Message{Channel: "a", Payload: []byte(payload)}
		bound.Bind(projection)
		last := -1
		grouped := make(map[int]bool)
		for _, v := range matcher.Match([]*filterd.Message{bound}, nil) {
			if v.Group > 0 {
				for _, r := range s.groups[v.Group-1] {
					if got[r] != "false" || grouped[r] {
						t.Fatalf("%s: rule %d has two verdicts", payload, r)
					}
					grouped[r] = true
					got[r] = fmt.Sprint(matcher.Failure(bound, r))
				}
				continue
			}
			if v.Rule <= last || grouped[v.Rule] {
				t.Fatalf("%s: rule %d after %d", payload, v.Rule, last)
			}
			last = v.Rule
			got[v.Rule] = "true"
			if v.Err != nil {
				got[v.Rule] = v.Err.Error()
			}
		}
		for i, f := range filters {
			p := f.(*Filter).program
			if want := plain(p, m); got[i] != want {
				t.Errorf("%s\non %s\n got %s\nwant %s", p.source, payload, got[i], want)
			}
		}
	}
}

func (g grammar) filters(n int) []filterd.Filter {
	var filters []filterd.Filter
	for len(filters) < n {
		if f, err := Compile(g.rule(), Full()); err == nil {
			filters = append(filters, f)
		}
	}
	return filters
}

func TestDifferential(t *testing.T) {
	for seed := range uint64(iterations()) {
		g := grammar{rand.New(rand.NewPCG(seed, 1))}
		filters := g.filters(1 + g.IntN(60))
		var payloads []string
		for range 30 {
			payloads = append(payloads, g.message())
		}
		checkSet(t, filters, payloads)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// Rules that are much alike share the index's depth: postings under postings.
func TestDifferentialAlike(t *testing.T) {
	for seed := range uint64(iterations() / 2) {
		g := grammar{rand.New(rand.NewPCG(seed, 2))}
		shapes := make([]string, 1+g.IntN(3))
		for i := range shapes {
			shapes[i] = strings.Join([]string{g.condition(0), g.condition(0), g.condition(0)}[:1+g.IntN(3)], g.pick(" and ", " and ", " or "))
		}
		var filters []filterd.Filter
		for range 100 {
			source := shapes[g.IntN(len(shapes))]
			source = strings.NewReplacer(`"a"`, g.text(), "1", g.pick("1", "2", "3"), "10", "7").Replace(source)
			if f, err := Compile(source, Full()); err == nil {
				filters = append(filters, f)
			}
		}
		var payloads []string
		for range 40 {
			payloads = append(payloads, g.message())
		}
		checkSet(t, filters, payloads)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// Values are those of plain expr, to the type.
func TestDifferentialValues(t *testing.T) {
	computed := 0
	for seed := range uint64(iterations()) {
		g := grammar{rand.New(rand.NewPCG(seed, 4))}
		var payloads []string
		for range 20 {
			payloads = append(payloads, g.message())
		}
		for range 20 {
			source := g.value(3)
			if g.IntN(4) == 0 {
				source = g.condition(2)
			}
			v, err := CompileValue(source, Full())
			if err != nil {
				continue
			}
			if v.compute != nil {
				computed++
			}
			projection := filterd.NewProjection(v.Paths())
			evaluator := v.Bind(projection.Slots(v.Paths()))
			for _, payload := range payloads {
				m := &filterd.Message{Channel: "a", Payload: []byte(payload)}
				m.Bind(projection)
				got, gotErr := evaluator.Evaluate(m)
				env, err := environmentOf(&filterd.Message{Channel: "a", Payload: []byte(payload)})
				var want any
				if err == nil {
					want, err = vm.Run(v.program.vm, env)
				}
				if (gotErr == nil) != (err == nil) || !reflect.DeepEqual(got, want) && fmt.Sprint(got, want) != "NaN NaN" {
					t.Fatalf("%s on %s: %T %v, %v, want %T %v, %v", source, payload, got, got, gotErr, want, want, err)
				}
			}
		}
	}
	if computed == 0 {
		t.Error("no value was computed without expr")
	}
}

// What a cover says must hold wherever the outcome occurs.
func TestCoversAreSound(t *testing.T) {
	for seed := range uint64(iterations()) {
		g := grammar{rand.New(rand.NewPCG(seed, 3))}
		for _, f := range g.filters(10) {
			p := f.(*Filter).program
			tr := newTranslator()
			condition := tr.condition(p.vm.Node(), true)
			c := newCoverer()
			b := &c
			covers := b.covers(condition)
			certain := b.certain(condition)
			s := &set{rules: []rule{{program: p}}, places: tr.places, paths: paths(tr.places)}
			for _, a := range b.attributes {
				s.attributes = append(s.attributes, compileValue(a.term))
			}
			projection := filterd.NewProjection(s.paths)
			matcher := s.bind(projection.Slots(s.paths))
			for range 20 {
				payload := g.message()
				m := &filterd.Message{Channel: "a", Payload: []byte(payload)}
				if _, err := m.Data(); err != nil {
					continue
				}
				outcome := plain(p, m)
				m.Bind(projection)
				matcher.load(m)
				holds := func(atoms []atom) bool { return slices.ContainsFunc(atoms, matcher.holds) }
				unknown := slices.ContainsFunc(b.attributes, func(a *attribute) bool { return matcher.attribute(a).class == classUnknown })
				cover := covers.fail
				switch outcome {
				case "true":
					cover = covers.yes
				case "false":
					cover = covers.no
				}
				if !cover.unknown && !unknown && !holds(cover.atoms) {
					t.Fatalf("seed %d: %s\non %s\nis %s, which its cover excludes: %v", seed, p.source, payload, outcome, cover)
				}
				if outcome != "true" && covers.yes.exact && !covers.yes.unknown && !unknown && holds(covers.yes.atoms) {
					t.Fatalf("seed %d: %s\non %s\nis %s, where its exact cover says true", seed, p.source, payload, outcome)
				}
				if (outcome == "true" || outcome == "false") && holds(certain) {
					t.Fatalf("seed %d: %s\non %s\nis %s, where it should fail for certain", seed, p.source, payload, outcome)
				}
			}
		}
	}
}

// holds reports whether an atom holds of the message at hand.
func (m *setMatcher) holds(a atom) bool {
	v := m.attribute(a.attribute)
	if a.set.classes.has(v.class) {
		return true
	}
	switch v.class {
	case classString:
		return slices.Contains(a.set.strings, string(v.text)) || slices.ContainsFunc(a.set.prefixes, func(p string) bool { return strings.HasPrefix(string(v.text), p) })
	case classNumber:
		return slices.Contains(a.set.numbers, v.number) || slices.ContainsFunc(a.set.intervals, func(i interval) bool { return i.contains(v.number) })
	}
	return false
}

func iterations() int {
	if testing.Short() || slow {
		return 50
	}
	return 200
}

// FuzzSet holds sets of random rules against encoding/json and plain expr, on
// the payload and on random messages.
func FuzzSet(f *testing.F) {
	for seed := range uint64(20) {
		g := grammar{rand.New(rand.NewPCG(seed, 4))}
		f.Add(seed, g.message())
	}
	f.Fuzz(func(t *testing.T, seed uint64, payload string) {
		if len(payload) > 10_000 {
			return
		}
		g := grammar{rand.New(rand.NewPCG(seed, 5))}
		filters := g.filters(1 + g.IntN(30))
		payloads := []string{payload}
		for range 5 {
			m := []byte(g.message())
			payloads = append(payloads, string(m))
			if len(payload) > 0 {
				m[g.IntN(len(m))] = payload[g.IntN(len(payload))]
			}
			payloads = append(payloads, string(m))
		}
		checkSet(t, filters, payloads)
	})
}

// FuzzExpression holds one expression against the oracle.
func FuzzExpression(f *testing.F) {
	for seed := range uint64(50) {
		g := grammar{rand.New(rand.NewPCG(seed, 6))}
		f.Add(g.rule(), g.message())
	}
	f.Fuzz(func(t *testing.T, source, payload string) {
		if len(payload) > 10_000 {
			return
		}
		filter, err := Compile(source)
		if err != nil || strings.Contains(source, "now") {
			return
		}
		checkSet(t, []filterd.Filter{filter}, []string{payload})
	})
}
