package filterd

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/filterd/filterd/internal/projection"
)

// randomSchema writes a schema about members a, b, and c.
func randomSchema(r *rand.Rand, depth int) string {
	pick := func(options ...string) string { return options[r.IntN(len(options))] }
	number := func() string {
		return pick("0", "1", "-1", "0.1", "0.3", "2.5", "10", "1e2", "0.30000000000000001", "9007199254740993", "1e400", "-0.0")
	}
	scalar := func() string {
		return pick(number(), `"a"`, `"ab"`, `"é"`, `""`, "true", "false", "null", "[1]", "{}")
	}
	var keywords []string
	add := func(format string, args ...any) { keywords = append(keywords, fmt.Sprintf(format, args...)) }
	for range r.IntN(4) {
		switch r.IntN(14) {
		case 0, 1:
			add(`"type": %s`, pick(`"object"`, `"number"`, `"integer"`, `"string"`, `"boolean"`, `"null"`, `"array"`, `["string", "null"]`, `["integer", "string"]`, `["number", "object"]`))
		case 2:
			add(`"enum": [%s, %s, %s]`, scalar(), scalar(), scalar())
		case 3:
			add(`"const": %s`, scalar())
		case 4:
			add(`"%s": %s`, pick("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), number())
		case 5:
			add(`"%s": %d`, pick("minLength", "maxLength"), r.IntN(4))
		case 6:
			add(`"pattern": %s`, pick(`"^a"`, `"b$"`, `"."`))
		case 7:
			add(`"format": %s`, pick(`"date-time"`, `"ipv4"`, `"nothing"`))
		case 8:
			add(`"required": [%s]`, pick(`"a"`, `"a", "b"`, `"c"`, ``))
		case 9:
			add(`"additionalProperties": %s`, pick("true", "false", `{"type": "number"}`))
		case 10:
			add(`"description": "says nothing"`)
		case 11:
			add(`"%s": %d`, pick("minItems", "minProperties", "multipleOf"), 1+r.IntN(2))
		default:
			if depth > 0 {
				switch r.IntN(9) {
				case 0:
					add(`"allOf": [%s, %s]`, randomSchema(r, depth-1), randomSchema(r, depth-1))
				case 1:
					add(`"if": %s, "then": %s, "else": %s`, randomSchema(r, depth-1), randomSchema(r, depth-1), randomSchema(r, depth-1))
				case 2:
					add(`"%s": [%s]`, pick("anyOf", "oneOf"), randomSchema(r, depth-1))
				case 3:
					add(`"$ref": "#"`)
				case 4:
					add(`"patternProperties": {"^[ab]": %s}`, randomSchema(r, depth-1))
				case 5:
					add(`"if": %s, "%s": %s`, randomSchema(r, depth-1), pick("then", "else"), randomSchema(r, depth-1))
				default:
					add(`"properties": {"a": %s, "b": %s, "é": true}`, randomSchema(r, depth-1), randomSchema(r, depth-1))
				}
			}
		}
	}
	if len(keywords) == 0 {
		return pick("true", "false", "{}")
	}
	seen := make(map[string]bool)
	var unique []string
	for _, k := range keywords {
		if name, _, _ := strings.Cut(k, ":"); !seen[name] {
			seen[name] = true
			unique = append(unique, k)
		}
	}
	return "{" + strings.Join(unique, ", ") + "}"
}

func randomData(r *rand.Rand, depth int) string {
	pick := func(options ...string) string { return options[r.IntN(len(options))] }
	if depth > 0 && r.IntN(3) > 0 {
		var members []string
		for range r.IntN(5) {
			members = append(members, pick(`"a"`, `"a"`, `"b"`, `"c"`, `"é"`, `"\u0061"`)+": "+randomData(r, depth-1))
		}
		return "{" + strings.Join(members, ", ") + "}"
	}
	return pick("0", "1", "-1", "0.1", "0.3", "0.30000000000000004", "2.5", "2.0", "10", "1e2", "100", "-0", "9007199254740993", "1e300", "1e-400",
		`"a"`, `"ab"`, `"abc"`, `"é"`, `"\u0061"`, `""`, "\"\xff\"", `"2026-11-23T12:00:00Z"`, `"10.0.0.1"`, "true", "false", "null", "[]", "[1]", "{}")
}

// checkQuick holds the quick form of a schema against the library.
func checkQuick(t *testing.T, schema, data string) verdict {
	t.Helper()
	s, err := ParseSchema("test", []byte(schema))
	if err != nil {
		return unsure
	}
	var value any
	if json.Unmarshal([]byte(data), &value) != nil {
		return unsure
	}
	plan, _ := projection.NewPlan(nil, nil)
	values := make([]projection.Value, plan.Nodes())
	if _, ok := plan.Scan([]byte(data), values, &projection.Others{}); !ok {
		t.Fatalf("%s is not scanned", data)
	}
	got := s.quick.check([]byte(data), values[0])
	if failure := s.compiled.Validate(value); got == satisfied && failure != nil || got == violated && failure == nil {
		t.Errorf("%s\non %s\nis %d (1: satisfied, 2: violated), the library says %v", schema, data, got, failure)
	}
	return got
}

func TestQuickAgreesWithTheLibrary(t *testing.T) {
	var verdicts [3]int
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		schema := randomSchema(r, 3)
		for range 10 {
			verdicts[checkQuick(t, schema, randomData(r, 2))]++
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	for v, n := range verdicts {
		if n < 1000 {
			t.Errorf("verdict %d: only %d times", v, n)
		}
	}
}

func FuzzQuick(f *testing.F) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		f.Add(randomSchema(r, 3), randomData(r, 2))
	}
	f.Fuzz(func(t *testing.T, schema, data string) {
		if len(schema)+len(data) < 5000 && !strings.Contains(schema, "$ref") {
			checkQuick(t, schema, data)
		}
	})
}

// The schemas of the trading channels need no decoding.
func TestQuickKnowsTheTradingSchemas(t *testing.T) {
	for file, data := range map[string]string{
		"price.json":         `{"symbol":"BTC-USD","price":60000.5,"qty":2,"venue":"é","note":{"x":[1]}}`,
		"trade_command.json": `{"order_id":"1","action":"place","symbol":"BTC-USD","side":"buy","type":"limit","qty":1,"price":2}`,
	} {
		s, err := LoadSchema(filepath.Join("channels", "schemas", file))
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRegistry(Contract{Channel: "c", Envelope: EnvelopeRaw, Schema: s})
		if err != nil {
			t.Fatal(err)
		}
		m := &Message{Channel: "c"}
		payload := []byte(data)
		if n := testing.AllocsPerRun(100, func() {
			m.Reset(payload)
			if err := r.Check(m); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", file, n)
		}
		if m.view.decoded {
			t.Errorf("%s: the data was decoded", file)
		}
	}
}

// Data that is nested too deep is refused, whatever a schema says of it.
func TestQuickAndDepth(t *testing.T) {
	s, err := ParseSchema("test", []byte(`{"type": "object"}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRegistry(Contract{Channel: "c", Envelope: EnvelopeRaw, Schema: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		levels int
		ok     bool
	}{{maxSchemaDepth - 1, true}, {maxSchemaDepth, false}} {
		data := `{"a":` + strings.Repeat("[", test.levels) + "1" + strings.Repeat("]", test.levels) + `,"b":"[[\"[["}`
		if err := r.Check(&Message{Channel: "c", Payload: []byte(data)}); (err == nil) != test.ok {
			t.Errorf("%d levels: %v", test.levels+1, err)
		}
	}
}

// BenchmarkSchema checks a price on its bytes, with the library beside.
func BenchmarkSchema(b *testing.B) {
	s, err := LoadSchema(filepath.Join("channels", "schemas", "price.json"))
	if err != nil {
		b.Fatal(err)
	}
	payload := []byte(`{"symbol":"BTC-USD","price":60000.5,"qty":2,"bid":60000,"ask":60001,"venue":"example","sequence":123456}`)
	plan, _ := projection.NewPlan(nil, nil)
	values := make([]projection.Value, plan.Nodes())
	if _, ok := plan.Scan(payload, values, &projection.Others{}); !ok {
		b.Fatal("not scanned")
	}
	b.Run("quick", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if s.quick.check(payload, values[0]) != satisfied {
				b.Fatal("not satisfied")
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var value any
			if err := json.Unmarshal(payload, &value); err != nil {
				b.Fatal(err)
			}
			if failures := s.check(value, ""); failures != nil {
				b.Fatal(failures)
			}
		}
	})
}

func TestQuickCases(t *testing.T) {
	for _, test := range []struct {
		schema, data string
		want         verdict
	}{
		{`{"if":{"properties":{"s":{"if":{"const":"x"},"then":true}}},"then":{"required":["z"]}}`, `{"s":"ab"}`, violated},
		{`{"if":{"properties":{"s":{"if":{"const":"x"},"else":true}}},"then":{"required":["z"]}}`, `{"s":"x"}`, violated},
		{`{"if":{"patternProperties":{"^a":{}},"additionalProperties":false},"then":{"required":["z"]}}`, `{"a":1}`, unsure},
		{`{"additionalProperties":false}`, `{"a":1}`, violated},
	} {
		if got := checkQuick(t, test.schema, test.data); got != test.want {
			t.Errorf("%s on %s: %d, want %d", test.schema, test.data, got, test.want)
		}
	}
}

// However the parts of a schema walk over data again and again, no more than a
// multiple of it is looked at.
func TestQuickIsBounded(t *testing.T) {
	many := `{"allOf": [` + strings.Repeat(`{"properties": {"a": {"type": "object"}}},`, 400) + `true]}`
	s, err := ParseSchema("test", []byte(many))
	if err != nil {
		t.Fatal(err)
	}
	data := []byte(`{"a":{}` + strings.Repeat(`,"x":"x"`, 1000) + `}`)
	plan, _ := projection.NewPlan(nil, nil)
	values := make([]projection.Value, plan.Nodes())
	if _, ok := plan.Scan(data, values, &projection.Others{}); !ok {
		t.Fatal("not scanned")
	}
	c := &quickCheck{data, 8 * len(data)}
	if got := s.quick.checkValue(c, values[0]); got != unsure {
		t.Errorf("verdict %d, want unsure", got)
	}
}
