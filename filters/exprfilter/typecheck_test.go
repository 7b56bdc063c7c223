package exprfilter

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr/vm"
	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
)

// typing makes what a schema says of the data of events.
func typing(t testing.TB, schema string) Typing {
	t.Helper()
	compiled, err := filterd.ParseSchema("test", []byte(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := filterd.Contract{Schema: compiled, Envelope: filterd.EnvelopeCloudEvents}
	return Typing{Data: c.DataType(), Schema: "schema s", Envelope: c.Envelope}
}

// listed writes findings down: what they are about, and what they say.
func listed(findings []Finding) string {
	var lines []string
	for _, f := range findings {
		line := fmt.Sprintf("%s %s: %s", [...]string{"hint", "warning", "fault"}[f.Severity], f.Source[f.Offset:f.Offset+f.Length], f.Message)
		if f.SourceError.Hint != "" {
			line += ": " + f.SourceError.Hint
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

const closedSchema = `{
	"type": "object", "required": ["symbol", "price", "book"], "additionalProperties": false,
	"properties": {
		"symbol": {"type": "string"}, "price": {"type": "number"}, "qty": {"type": "integer"}, "ok": {"type": "boolean"}, "maybe": {"type": ["string", "null"]},
		"side": {"enum": ["buy", "sell"]}, "kind": {"const": 3}, "venue": {"$ref": "#/$defs/venue"}, "any": {},
		"book": {"type": "array", "items": {"type": "object", "properties": {"px": {"type": "number"}, "id": {"type": "string"}}, "required": ["px"], "additionalProperties": false}},
		"tags": {"type": "array", "items": {"type": "string"}},
		"pair": {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "number"}}
	},
	"$defs": {"venue": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "parent": {"$ref": "#/$defs/venue"}}}}
}`

func TestTypecheck(t *testing.T) {
	typing := typing(t, closedSchema)
	for _, test := range []struct{ source, want string }{
		{source: `data.symbol startsWith "BTC" and data.price * (data.qty ?? 1) > 10_000`},
		{source: `data.pirce > 10`, want: "fault data.pirce: unknown field data.pirce (schema s): did you mean data.price?"},
		{source: `data.nothing_like_it > 10`, want: "fault data.nothing_like_it: unknown field data.nothing_like_it (schema s)"},
		{source: `(data?.pirce ?? 0) > 10`, want: "fault data?.pirce: unknown field data?.pirce (schema s): did you mean data?.price?"},
		{source: `data["pirce"] > 10 and data['price'].x > "a" and get(data, "pirce") == nil`},
		{source: `"pirce" in data`},
		{source: `let d = data; d.pirce > 10`, want: "fault d.pirce: unknown field d.pirce (schema s): did you mean d.price?"},
		{source: `$env.data.pirce > 10`},

		{source: `data.symbol > 10`, want: "fault data.symbol > 10: data.symbol is a string and 10 a number: they can't be compared (schema s): float(data.symbol) makes a number of it"},
		{source: `1 < data.symbol < 10`, want: "" +
			"fault 1 < data.symbol: 1 is a number and data.symbol a string: they can't be compared (schema s): float(data.symbol) makes a number of it\n" +
			"fault data.symbol < 10: data.symbol is a string and 10 a number: they can't be compared (schema s): float(data.symbol) makes a number of it"},
		{source: `data.symbol == 10`, want: "fault data.symbol == 10: data.symbol is a string and 10 a number: they are never equal (schema s): float(data.symbol) makes a number of it"},
		{source: `data.book != "x"`, want: `fault data.book != "x": data.book is an array and "x" a string: they are never equal (schema s)`},
		{source: `data.price == nil or data.symbol != nil`},
		{source: `data.price == 1 or data.qty == 1.5 or data.maybe == "x" or data.any == 5 or data.any > "x"`},
		{source: `data.maybe > 5`, want: "fault data.maybe > 5: data.maybe is a string or null and 5 a number: they can't be compared (schema s): float(data.maybe) makes a number of it"},
		{source: `data.price + data.symbol == "x"`, want: `fault data.price + data.symbol: data.price is a number and data.symbol a string: they can't be added (schema s): float(data.symbol) makes a number of it`},
		{source: `-data.symbol > 5`, want: "fault -data.symbol: data.symbol is a string: - takes a number (schema s)"},
		{source: `data.price % 2 == 1`, want: "fault data.price % 2: data.price is a float and 2 a number: % takes integers (schema s): int(data.price) makes an integer of it"},
		{source: `int(data.price) % 2 == 1`},
		{source: `data.price contains "1"`, want: `fault data.price contains "1": data.price is a number: contains takes strings (schema s)`},
		{source: `data.symbol.name == "x"`, want: "fault data.symbol.name: data.symbol is a string: it has no members (schema s)"},
		{source: `data.book.px > 1`, want: "fault data.book.px: data.book is an array: it has no members (schema s)"},
		{source: `data.price[0] > 1`, want: "fault data.price[0]: data.price is a number: it has no elements (schema s)"},
		{source: `data.price[1:2] == 1`, want: "fault data.price[1:2]: data.price is a number: it has no slices (schema s)"},
		{source: `data.price and data.ok`, want: "" +
			"fault data.price: data.price is a number, not a condition (schema s)"},
		{source: `data.price`, want: "fault data.price: data.price is a number, not a condition (schema s)"},
		{source: `data.ok`},
		{source: `data.any and data.any.thing`},
		{source: `not data.symbol`, want: "fault data.symbol: data.symbol is a string, not a condition (schema s)"},
		{source: `upper(data.price) == "A"`, want: "fault upper(data.price): data.price is a number: upper takes a string (schema s)"},

		{source: `data.side == "by"`, want: `warning data.side == "by": data.side is never "by", but "buy" or "sell" (schema s): did you mean "buy"?`},
		{source: `"by" != data.side`, want: `warning "by" != data.side: data.side is never "by", but "buy" or "sell" (schema s): did you mean "buy"?`},
		{source: `data.side in ["buy", "xyz"]`, want: `warning "xyz": data.side is never "xyz", but "buy" or "sell" (schema s)`},
		{source: `data.kind == 4 or data.kind == 3`, want: "warning data.kind == 4: data.kind is never 4, but 3 (schema s)"},
		{source: `data.symbol in [1, 2]`, want: "fault data.symbol in [1, 2]: data.symbol is a string, and each element of the list is a number: it is never in there (schema s)"},
		{source: `1 in data.book`, want: "fault 1 in data.book: 1 is a number, and each element of data.book is an object: it is never in there (schema s)"},
		{source: `"x" in data.tags or "x" in data.pair or 1 in data.pair or data.symbol in 1..3`, want: "fault data.symbol in 1..3: data.symbol is a string, and each element of this is a number: it is never in there (schema s)"},
		{source: `"x" in data.symbol`, want: `fault "x" in data.symbol: data.symbol is a string: in takes an array or an object (schema s): write data.symbol contains "x"`},

		{source: `any(data.book, .px > 5 and #.pxx > 5)`, want: "fault #.pxx: unknown field .pxx (schema s): did you mean .px?"},
		{source: `any(data.book, .px > "5")`, want: `fault .px > "5": .px is a number and "5" a string: they can't be compared (schema s)`},
		{source: `filter(data.book, .px > 5)[0].pxx > 1`, want: "fault filter(data.book, .px > 5)[0].pxx: unknown field filter(data.book, .px > 5)[0].pxx (schema s): did you mean filter(data.book, .px > 5)[0].px?"},
		{source: `sum(map(data.book, .px)) > 5 and map(data.book, .px)[0] > "x"`, want: `fault map(data.book, .px)[0] > "x": map(data.book, .px)[0] is a number and "x" a string: they can't be compared (schema s)`},
		{source: `any(data.price, # > 5)`, want: "fault any(data.price, # > 5): data.price is a number: any takes an array (schema s)"},

		{source: `data.venue?.parent?.parent?.name == "x"`},
		{source: `data.venue?.parent?.parent?.nmae == "x"`, want: "warning data.venue?.parent?.parent?.nmae: unknown field data.venue?.parent?.parent?.nmae (schema s): did you mean data.venue?.parent?.parent?.name?"},

		{source: `data.qty > 5`, want: "hint data.qty: data.qty may be missing: the rule fails on such a message: write (data.qty ?? 0)"},
		{source: `data.venue.name == "x"`, want: "hint data.venue: data.venue may be missing: the rule fails on such a message: write data.venue?."},
		{source: `data.qty != nil and data.qty > 5`},
		{source: `"qty" in data and data.qty > 5`},
		{source: `data.side == "buy" and data.side startsWith "b"`},
		{source: `not data.ok`, want: "hint data.ok: data.ok may be missing: the rule fails on such a message: write (data.ok ?? false)"},

		{source: `event.type == "x" and event.id == "y" and event.traceparent == "z" and (event.priority ?? 0) > 3 and event["whatever"] == 1`},
		{source: `event.scource == "x"`, want: "warning event.scource: event.scource is no attribute of CloudEvents, unless it is an extension: did you mean event.source?"},
		{source: `event.dataSchema == "x"`, want: "warning event.dataSchema: event.dataSchema is always nil: an attribute's name consists of a-z and 0-9: did you mean event.dataschema?"},
		{source: `event.data.price > 5`, want: "warning event.data: event.data is always nil: event has the attributes only: write data"},
		{source: `event.id > 5`, want: "fault event.id > 5: event.id is a string and 5 a number: they can't be compared: float(event.id) makes a number of it"},
	} {
		f, err := Compile(test.source)
		if err != nil {
			t.Errorf("%s: %v", test.source, err)
			continue
		}
		if diff := cmp.Diff(test.want, listed(f.Check(typing)[0])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.source, diff)
		}
	}
}

// TestTypecheckEnvelopes: event is what the envelope has.
func TestTypecheckEnvelopes(t *testing.T) {
	f := MustCompile(`event.id == "x" or event.time > "2026"`)
	for envelope, want := range map[filterd.Envelope]string{
		"":                          "",
		filterd.EnvelopeAuto:        "",
		filterd.EnvelopeCloudEvents: "",
		filterd.EnvelopeRaw:         "warning event.id: event.id is always nil: the channel's envelope is raw, its messages are no events\nwarning event.time: event.time is always nil: the channel's envelope is raw, its messages are no events",
		filterd.EnvelopeBytes:       "warning event.id: event.id is always nil: the channel's envelope is bytes, its messages are no events\nwarning event.time: event.time is always nil: the channel's envelope is bytes, its messages are no events",
	} {
		if diff := cmp.Diff(want, listed(f.Check(Typing{Envelope: envelope})[0])); diff != "" {
			t.Errorf("%q (-want +got):\n%s", envelope, diff)
		}
	}
	bytes := filterd.Contract{Envelope: filterd.EnvelopeBytes}
	got := listed(MustCompile(`data contains "x" and data.price > 5`).Check(Typing{Data: bytes.DataType()})[0])
	if want := "fault data.price: data is a string: it has no members"; got != want {
		t.Errorf("bytes: %s, want %s", got, want)
	}
}

// TestFunctionsTake: where the table says that a function takes no such value,
// it fails on it, and what it yields is of the kind that the table says.
func TestFunctionsTake(t *testing.T) {
	values := map[kinds]any{isNil: nil, isBool: true, isFloat: 1.5, isString: "7", isArray: []any{1.0}, isObject: map[string]any{"a": 1.0}}
	second := map[string]string{"split": `, "x"`, "splitAfter": `, "x"`, "replace": `, "x", "y"`, "repeat": ", 2", "hasPrefix": `, "x"`, "hasSuffix": `, "x"`, "indexOf": `, "x"`, "lastIndexOf": `, "x"`}
	for name, f := range functions {
		v, err := CompileValue(fmt.Sprintf("%s(data%s)", name, second[name]), Full())
		if err != nil {
			t.Error(err)
			continue
		}
		worked := false
		for kind, value := range values {
			got, err := vm.Run(v.program.vm, map[string]any{"data": value})
			switch {
			case err == nil && f.takes&kind == 0:
				t.Errorf("%s takes %s", name, kind)
			case err == nil:
				worked = true
				if yields := kindsOf(got); f.yields&yields == 0 {
					t.Errorf("%s yields %s of %s, not %s", name, yields, kind, f.yields)
				}
			}
		}
		if !worked {
			t.Errorf("%s takes nothing", name)
		}
	}
}

// kindsOf returns the kind of a value of an expression.
func kindsOf(v any) kinds {
	switch v.(type) {
	case nil:
		return isNil
	case bool:
		return isBool
	case int:
		return isInt
	case float64:
		return isFloat
	case string:
		return isString
	case []any, []string:
		return isArray
	case map[string]any:
		return isObject
	}
	return isOther
}

// TestTypecheckIsBounded: neither schemas that refer to themselves nor deep
// expressions take long.
func TestTypecheckIsBounded(t *testing.T) {
	var doubling strings.Builder
	for i := range 60 {
		fmt.Fprintf(&doubling, `"d%d": {"allOf": [{"$ref": "#/$defs/d%d"}, {"$ref": "#/$defs/d%[2]d"}], "properties": {"p%[1]d": {"$ref": "#"}}},`, i, i+1)
	}
	for name, schema := range map[string]string{
		"doubling":    `{"$defs": {` + doubling.String() + `"d60": {"type": "object"}}, "$ref": "#/$defs/d0"}`,
		"recursive":   `{"type": "object", "properties": {"a": {"$ref": "#"}}, "anyOf": [{"$ref": "#/properties/a"}, {"required": ["a"]}]}`,
		"branching":   `{"anyOf": [` + strings.Repeat(`{"properties": {"a": {"$ref": "#"}}}, `, 300) + `{}]}`,
		"deep anyOf":  strings.Repeat(`{"anyOf": [{"type": "object"}, `, 100) + "{}" + strings.Repeat("]}", 100),
		"unevaluated": `{"unevaluatedProperties": false, "allOf": [` + strings.Repeat(`{"properties": {"a": {"$ref": "#"}}, "unevaluatedProperties": false}, `, 300) + `{}]}`,
	} {
		start := time.Now()
		typing := typing(t, schema)
		source := "data" + strings.Repeat(".a", 200) + " == 1 or any(data.a, " + strings.Repeat("(", 100) + "#.a" + strings.Repeat(" + 1)", 100) + " > 1)"
		MustCompile(source).Check(typing)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func ExampleFilter_Check() {
	schema, err := filterd.ParseSchema("price.json", []byte(`{"type": "object", "properties": {"price": {"type": "number"}}, "additionalProperties": false}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	contract := filterd.Contract{Schema: schema}
	filter := MustCompile("data.pirce > 10")
	for _, finding := range filter.Check(Typing{Data: contract.DataType(), Schema: "schema price.json"})[0] {
		fmt.Println(finding.Error())
	}
	// Output: 1:1: unknown field data.pirce (schema price.json) (did you mean data.price?)
}
