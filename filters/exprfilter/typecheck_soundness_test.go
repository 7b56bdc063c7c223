package exprfilter

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
)

// A dice throws what its text says, and then anything.
type dice struct {
	text []byte
	rest rand.Source
}

func (d *dice) Uint64() uint64 {
	if len(d.text) < 8 {
		return d.rest.Uint64()
	}
	x := binary.LittleEndian.Uint64(d.text)
	d.text = d.text[8:]
	return x
}

// A guesser makes schemas, data and expressions of few names and values, so
// that they often have to do with each other.
type guesser struct{ *rand.Rand }

func newGuesser(text []byte) guesser {
	var seed uint64
	for _, b := range text {
		seed = seed*131 + uint64(b)
	}
	return guesser{rand.New(&dice{text, rand.NewPCG(seed, 1)})}
}

func pick[T any](g guesser, of ...T) T { return of[g.IntN(len(of))] }

func (g guesser) one(in int) bool { return g.IntN(in) == 0 }

func (g guesser) name() string { return pick(g, "a", "b", "c", "d") }

func (g guesser) scalar() any {
	return pick[any](g, nil, true, false, 0.0, 1.0, 2.5, -1.0, "", "a", "b", "1")
}

// schema makes a JSON Schema, in which depth bounds what is within what.
func (g guesser) schema(depth int) any {
	if g.one(12) {
		return g.one(3)
	}
	s := map[string]any{}
	kind := func() string {
		return pick(g, "object", "object", "array", "string", "number", "integer", "boolean", "null")
	}
	switch g.IntN(8) {
	case 0:
		s["type"] = []any{kind(), "string"}
	case 1:
		s["enum"] = []any{g.scalar(), "x", g.scalar()}
	case 2:
		s["const"] = g.scalar()
	case 3:
	default:
		s["type"] = kind()
	}
	if depth == 0 {
		return s
	}
	list := func() []any { return []any{g.schema(depth - 1), g.schema(depth - 1)} }
	if s["type"] == "object" || g.one(4) {
		properties := map[string]any{}
		for range g.IntN(4) {
			properties[g.name()] = g.schema(depth - 1)
		}
		s["properties"] = properties
		if g.one(2) {
			s["required"] = []any{g.name()}
		}
		switch g.IntN(5) {
		case 0, 1:
			s["additionalProperties"] = false
		case 2:
			s["additionalProperties"] = g.schema(depth - 1)
		}
		if g.one(6) {
			s["patternProperties"] = map[string]any{pick(g, "a|b", "^[cd]$"): g.schema(depth - 1)}
		}
		if g.one(6) {
			s["unevaluatedProperties"] = pick[any](g, false, false, true, g.schema(depth-1))
		}
		if g.one(10) {
			s["dependentSchemas"] = map[string]any{g.name(): g.schema(depth - 1)}
		}
	}
	if s["type"] == "array" || g.one(8) {
		if g.one(3) {
			s["prefixItems"] = list()
		}
		if !g.one(3) {
			s["items"] = g.schema(depth - 1)
		}
	}
	switch g.IntN(10) {
	case 0:
		s["allOf"] = list()
	case 1:
		s["anyOf"] = list()
	case 2:
		s["oneOf"] = list()
	case 3:
		s["if"], s["then"] = g.schema(depth-1), g.schema(depth-1)
		if g.one(2) {
			s["else"] = g.schema(depth - 1)
		}
	case 4:
		s["$ref"] = pick(g, "#/$defs/a", "#/$defs/b")
	case 5:
		s["not"] = g.schema(depth - 1)
	}
	return s
}

// like makes a value that may satisfy a schema.
func (g guesser) like(schema any, defs map[string]any, depth int) any {
	s, ok := schema.(map[string]any)
	if !ok || depth == 0 || g.one(20) {
		return g.value(min(depth, 2))
	}
	if ref, ok := s["$ref"].(string); ok && g.one(2) {
		return g.like(defs[strings.TrimPrefix(ref, "#/$defs/")], defs, depth-1)
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		if list, ok := s[key].([]any); ok && g.one(2) {
			return g.like(pick(g, list...), defs, depth)
		}
	}
	if then, ok := s["then"]; ok && g.one(2) {
		return g.like(then, defs, depth)
	}
	if list, ok := s["enum"].([]any); ok {
		return pick(g, list...)
	}
	if v, ok := s["const"]; ok {
		return v
	}
	kind := s["type"]
	if kinds, ok := kind.([]any); ok {
		kind = pick(g, kinds...)
	}
	switch kind {
	case "null":
		return nil
	case "boolean":
		return g.one(2)
	case "number", "integer":
		return float64(g.IntN(4) - 1)
	case "string":
		return pick(g, "", "a", "b", "x", "1")
	case "array":
		list := make([]any, g.IntN(3))
		for i := range list {
			list[i] = g.like(s["items"], defs, depth-1)
		}
		return list
	}
	properties, _ := s["properties"].(map[string]any)
	object := map[string]any{}
	for name, of := range properties {
		if !g.one(4) {
			object[name] = g.like(of, defs, depth-1)
		}
	}
	if required, ok := s["required"].([]any); ok && object[required[0].(string)] == nil {
		object[required[0].(string)] = g.like(properties[required[0].(string)], defs, depth-1)
	}
	if g.one(5) {
		object[g.name()] = g.value(1)
	}
	return object
}

func (g guesser) value(depth int) any {
	if depth == 0 || g.one(2) {
		return g.scalar()
	}
	if g.one(3) {
		list := make([]any, g.IntN(3))
		for i := range list {
			list[i] = g.value(depth - 1)
		}
		return list
	}
	object := map[string]any{}
	for range g.IntN(4) {
		object[g.name()] = g.value(depth - 1)
	}
	return object
}

// path makes what reads a value of the message, or of an element.
func (g guesser) path(element bool) string {
	var b strings.Builder
	b.WriteString("data")
	if element && g.one(2) {
		b.Reset()
		b.WriteString("#")
	}
	for range g.IntN(4) {
		switch g.IntN(10) {
		case 0:
			b.WriteString(pick(g, "[0]", "[1]", "[-1]", `["a"]`, "[0:1]"))
		case 1, 2:
			b.WriteString("?." + g.name())
		default:
			b.WriteString("." + g.name())
		}
	}
	return b.String()
}

// expression makes an expression; element says that it is in a predicate.
func (g guesser) expression(depth int, element bool) string {
	if depth == 0 || g.one(5) {
		if g.one(3) {
			return pick(g, "nil", "true", "1", "2.5", `"a"`, `"x"`, "[1, 2]", `["a", "b"]`, `{"a": 1}`, "event", "event.id", "channel")
		}
		return g.path(element)
	}
	sub := func() string { return g.expression(depth-1, element) }
	switch g.IntN(14) {
	case 0, 1, 2, 3, 4:
		operator := pick(g, "==", "!=", "<", ">=", "+", "-", "*", "/", "%", "**", "in", "not in", "contains", "startsWith", "matches", "and", "or", "..")
		return "(" + sub() + " " + operator + " " + sub() + ")"
	case 5:
		return "(" + sub() + " ?? " + sub() + ")"
	case 6:
		return "(" + sub() + " ? " + sub() + " : " + sub() + ")"
	case 7:
		return pick(g, "not ", "-", "+") + sub()
	case 8, 9:
		return pick(g, "len", "upper", "lower", "trim", "abs", "ceil", "round", "int", "float", "string", "keys", "values", "type", "toJSON", "first", "max", "sum", "count") + "(" + sub() + ")"
	case 10, 11:
		name := pick(g, "all", "any", "none", "one", "filter", "map", "find", "findIndex", "count", "sum", "groupBy", "sortBy")
		return name + "(" + sub() + ", " + g.expression(depth-1, true) + ")"
	case 12:
		return "(" + sub() + ")" + pick(g, "[0]", ".a", "?.b", `["c"]`, "[0:1]")
	}
	return fmt.Sprintf("(let v%d = %s; (%s == v%[1]d or v%[1]d.a < %[3]s))", depth, sub(), sub())
}

// probes puts calls of probe around the nodes that a finding is about.
type probes struct {
	finding Finding
	text    string
	placed  bool
}

// Visit implements [ast.Visitor].
func (p *probes) Visit(node *ast.Node) {
	n := *node
	if reflect.TypeOf(n) != reflect.TypeOf(p.finding.node) || n.Location() != p.finding.node.Location() || n.String() != p.text {
		return
	}
	p.placed = true
	call := &ast.CallNode{Callee: &ast.IdentifierNode{Value: "probe"}, Arguments: []ast.Node{n}}
	call.SetLocation(n.Location())
	*node = call
}

// outcomes returns what the part of an expression that a finding is about
// yields for some messages, as text.
func outcomes(t *testing.T, source string, f Finding, messages []*filterd.Message) map[string]*filterd.Message {
	seen := make(map[string]*filterd.Message)
	var at *filterd.Message
	p := &probes{finding: f, text: f.node.String()}
	program, err := expr.Compile(source, environment, expr.Patch(p), expr.Function("probe", func(args ...any) (any, error) {
		if _, isBool := args[0].(bool); f.condition && !isBool {
			return args[0], nil // a condition fails on it, or is false at the root
		}
		seen[fmt.Sprintf("%#v", args[0])] = at
		return args[0], nil
	}))
	if err != nil {
		return nil // of probe expr knows no type, which it may need to
	}
	if !p.placed {
		t.Fatalf("%s has no part %s", source, p.text)
	}
	for _, at = range messages {
		env, err := environmentOf(at)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = vm.Run(program, env)
	}
	return seen
}

// checkSoundness checks expressions against a schema, and each fault that is
// found against data that satisfies the schema. It returns how many faults
// there were.
func checkSoundness(t *testing.T, g guesser, expressions int) (faults int) {
	defs := map[string]any{"a": g.schema(2), "b": g.schema(2)}
	schema, ok := g.schema(3).(map[string]any)
	if !ok {
		schema = map[string]any{}
	}
	schema["$defs"] = defs
	text, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := filterd.ParseSchema("random", text)
	if err != nil {
		return 0 // the schemas of a $ref may be refused
	}
	contract := filterd.Contract{Channel: "x", Schema: compiled, Envelope: filterd.EnvelopeRaw}
	registry, err := filterd.NewRegistry(contract)
	if err != nil {
		t.Fatal(err)
	}
	var valid []*filterd.Message
	for range 60 {
		payload, err := json.Marshal(g.like(schema, defs, 5))
		if err != nil {
			t.Fatal(err)
		}
		if m := (&filterd.Message{Channel: "x", Payload: payload}); registry.Check(m) == nil {
			valid = append(valid, m)
		}
	}
	if len(valid) == 0 {
		return 0
	}
	typing := Typing{Data: contract.DataType(), Envelope: filterd.EnvelopeRaw}
	for range expressions {
		source := g.expression(3, false)
		var err error
		condition := g.one(2)
		if condition {
			_, err = Compile(source, Full())
		} else {
			_, err = CompileValue(source, Full())
		}
		if err != nil {
			continue // 1 + true and the like
		}
		tree, err := parser.Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findingsIn(source, tree.Node, typing, condition) {
			if f.Severity != Fault {
				continue
			}
			seen := outcomes(t, source, f, valid)
			if seen != nil {
				faults++
			}
			if len(seen) > 1 {
				var b strings.Builder
				for value, m := range seen {
					fmt.Fprintf(&b, "\n  %s for %s", value, m.Payload)
				}
				t.Fatalf("schema %s\nexpression %s\nis refused: %s\nbut that part yields%s", text, source, f.Error(), b.String())
			}
		}
	}
	return faults
}

// TestTypecheckIsSound: what is called a fault is one: for all data that
// satisfies the schema that part of the expression fails, or has one value.
func TestTypecheckIsSound(t *testing.T) {
	rounds := 800
	if testing.Short() || slow {
		rounds = 200
	}
	faults := 0
	for i := range rounds {
		faults += checkSoundness(t, guesser{rand.New(rand.NewPCG(uint64(i), 7))}, 40)
	}
	if t.Logf("%d faults in %d schemas", faults, rounds); faults < rounds {
		t.Errorf("only %d faults were found: the test shows little", faults)
	}
}

func FuzzTypecheck(f *testing.F) {
	for i := range 20 {
		f.Add([]byte(fmt.Sprintf("seed %d", i)))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkSoundness(t, newGuesser(text), 20) })
}
