package projection_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/filterd/filterd/internal/projection"
)

// documents have what readers of JSON tend to get wrong.
var documents = []string{
	``, ` `, `{`, `[`, `{}`, `[]`, `null`, ` true `, `-0`, `"x"`, "\t{\r\n} ", `{} {}`, `[] x`, "\ufeff{}", "{}\x00", `{"a":nul}`, `{"a":tru`, `{"a":true1}`,
	`{"a":{"b":1},"a":{"c":2}}`, `{"a":{"b":1},"a":null}`, `{"a":{"b":{"c":1}},"b":2,"a":{"b":{"d":1}}}`, `{"a":[1,2],"a":[3]}`, `{"a":[{"b":1}],"a":{"b":2}}`,
	`{"d\u0061ta":1,"data":2}`, `{"data":1,"d\u0061ta":2}`, `{"a\u0000":1,"a":2}`, `{"\u0000":1,"":2}`, `{"\ud800":1,"` + "\xff" + `":2,"` + "\ufffd" + `":3}`,
	`{"a":"\ud800","b":"\udc00\ud800","c":"` + "\xc3" + `","data":"` + "\xed\xa0\x80" + `é"}`, `{"é":1,"\u00e9":2}`, `{"a\"b":1,"a\\b":[2]}`, "{\"\x7f\":\"\x7f\"}",
	`{"a":1e400}`, `{"a":1e-400}`, `{"a":-1e308}`, `{"a":1.8e308,"a":1}`, `[0e999999999,1e-999999999,` + strings.Repeat("9", 308) + `]`, `[1e308,0.00001e313]`, `[0.00001e314]`,
	"1" + strings.Repeat("0", 309) + "e-1", "1" + strings.Repeat("0", 309) + "e-2", strings.Repeat("9", 309), "1" + strings.Repeat("0", 308), `1e99999999999999999999`, `1e-99999999999999999999`,
	`[01]`, `[-]`, `[1.]`, `[.5]`, `[1e]`, `[1e+]`, `[-a]`, `[1.5.2]`, `[1-2]`, `[+1]`, `[0x1]`, `[-0.0e-0,1E+2]`, `-`, `1.`, `1e`,
	"\"a\nb\"", "\"\x00\"", "{\"a\x1f\":1}", `"\u12"`, `"\u12g4"`, `"\u12G4"`, `"\x"`, `"\`, `"\"`, `"`, `"abcdefgh`, `"abcdefg`, `{"abcdefgh`, `{"abcdefgh"`, `{"abcdefghi":"abcdefgh"}`,
	`{"a" 1}`, `{"a":1 "b":2}`, `{"a":1,}`, `{,}`, `[1,]`, `[,1]`, `[1 2]`, `{1:2}`, `[1}`, `{"a":1]`, `[[[{"a":[}]]]`, `{"a":}`, `{"a"}`, `:`, `]`,
	"{ \"a\" :\n[ 1 , {\t\"b\" : \"c\" } ,[ ] , { } ]\r}", `{"a":[[[{"b":[1,2,{"c":null}]}]]],"data":{"a":{"b":"1"}}}`,
	`{"data":{"symbol":"BTC-USD","price":60000.5,"note":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"},"long name number one":1,"long name number two":2}`,
	strings.Repeat("[", 63) + strings.Repeat("]", 63), strings.Repeat("[", 200) + strings.Repeat("]", 200), strings.Repeat(`{"a":[`, 100) + strings.Repeat("]}", 100),
	strings.Repeat("[", 130) + "1" + strings.Repeat("]", 129) + "}",
}

// FuzzScan holds Scan against encoding/json: the verdict, and the values of
// paths that the seed chooses.
func FuzzScan(f *testing.F) {
	for i, d := range documents {
		f.Add([]byte(d), uint64(i))
	}
	f.Fuzz(checkScan)
}

// TestScanRandom is FuzzScan for documents that are mostly JSON, and few names.
func TestScanRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		d := appendDocument(nil, random, 4)
		for range random.IntN(3) {
			if len(d) > 0 {
				d[random.IntN(len(d))] = "\"\\{}[]:,0eu \x01\xff"[random.IntN(14)]
			}
		}
		checkScan(t, d, random.Uint64())
	}
}

// TestScanTruncated cuts documents at every byte.
func TestScanTruncated(t *testing.T) {
	for _, d := range documents {
		for end := range min(len(d), 1000) {
			checkScan(t, slices.Clip([]byte(d[:end])), uint64(end))
		}
	}
}

func TestScanDepth(t *testing.T) {
	for _, depth := range []int{9_999, 10_000, 10_001, 1_000_000} {
		for _, d := range []string{
			strings.Repeat("[", depth) + strings.Repeat("]", depth),
			strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth),
			`{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}",
			`[[` + strings.Repeat(`{"b":`, depth-2) + "1" + strings.Repeat("}", depth-2) + "]]",
		} {
			for _, path := range [][]projection.Step{nil, {{"a", -1}, {"", 3}}, slices.Repeat([]projection.Step{{"a", -1}}, 500), slices.Repeat([]projection.Step{{"", 0}}, 300)} {
				plan, _ := projection.NewPlan(nil, [][]projection.Step{path})
				if _, got := plan.Scan([]byte(d), make([]projection.Value, plan.Nodes()), new(projection.Others)); got != (depth <= 10_000) {
					t.Errorf("%.20s, depth %d: %v", d, depth, got)
				}
			}
		}
	}
}

// checkScan checks everything that Scan says of a document.
func checkScan(t *testing.T, document []byte, seed uint64) {
	before := bytes.Clone(document)
	var root any
	err := json.Unmarshal(document, &root)
	random := rand.New(rand.NewPCG(seed, 0))
	common := []string{"b", "data"}
	paths := [][]projection.Step{nil, {{"b", -1}}, {{"data", -1}}}
	if random.IntN(8) == 0 {
		common, paths = nil, nil
	}
	for range random.IntN(12) {
		paths = append(paths, choosePath(random, root))
	}
	plan, nodes := projection.NewPlan(common, paths)
	values := make([]projection.Value, plan.Nodes())
	var others projection.Others
	_, accepted := plan.Scan(document, values, &others)
	if !bytes.Equal(document, before) {
		t.Fatalf("%q was written to", document)
	}
	if accepted != (err == nil) {
		t.Fatalf("%q: accepted %v, encoding/json says %v", document, accepted, err)
	}
	if !accepted {
		return
	}
	if common != nil && !slices.Equal(nodes[:3], []int{0, 1, 2}) {
		t.Fatalf("nodes %v", nodes)
	}
	for i, path := range paths {
		checkValue(t, document, path, values[nodes[i]], root)
	}
	checkOthers(t, document, &others, root, common)
}

// choosePath returns a path that leads to a value of the document, or nearly so.
func choosePath(random *rand.Rand, at any) []projection.Step {
	var path []projection.Step
	for len(path) < 20 && random.IntN(6) > 0 {
		names := []string{"a", "b", "data", "no such name", ""}
		size := 3
		switch parent := at.(type) {
		case map[string]any:
			for name := range parent {
				names = append(names, name)
			}
			slices.Sort(names[5:])
			if len(parent) > 0 && random.IntN(8) > 0 {
				names, size = names[5:], 0
			}
		case []any:
			size = len(parent) + 1
		}
		if k := random.IntN(len(names) + size); k < len(names) {
			path = append(path, projection.Step{Name: names[k], Index: -1})
		} else {
			path = append(path, projection.Step{Index: k - len(names)})
		}
		at, _ = follow(at, path[len(path)-1:])
	}
	return path
}

// follow returns what a decoded document has at a path.
func follow(at any, path []projection.Step) (any, bool) {
	for _, s := range path {
		switch parent := at.(type) {
		case map[string]any:
			value, ok := parent[s.Name]
			if !ok || s.Index >= 0 {
				return nil, false
			}
			at = value
		case []any:
			if s.Index < 0 || s.Index >= len(parent) {
				return nil, false
			}
			at = parent[s.Index]
		default:
			return nil, false
		}
	}
	return at, true
}

// checkValue checks one value of a document that is JSON.
func checkValue(t *testing.T, document []byte, path []projection.Step, v projection.Value, root any) {
	t.Helper()
	want, present := follow(root, path)
	if !present {
		if v != (projection.Value{}) {
			t.Fatalf("%q at %v: %+v, want nothing", document, path, v)
		}
		return
	}
	literal := v.Of(document)
	var got any
	if err := json.Unmarshal(literal, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q at %v: %q, want %v", document, path, literal, want)
	}
	if len(bytes.TrimSpace(literal)) != len(literal) || v.Kind != kindOf(want) {
		t.Fatalf("%q at %v: %q of kind %d", document, path, literal, v.Kind)
	}
	if v.Kind != projection.String {
		return
	}
	var flags projection.Flags
	for _, c := range v.Inside(document) {
		if c == '\\' {
			flags |= projection.Escaped
		}
		if c >= 0x7f {
			flags |= projection.Beyond
		}
	}
	if v.Flags != flags {
		t.Fatalf("%q at %v: flags %b, want %b", document, path, v.Flags, flags)
	}
}

func kindOf(value any) projection.Kind {
	switch value.(type) {
	case nil:
		return projection.Null
	case bool:
		return projection.Bool
	case float64:
		return projection.Number
	case string:
		return projection.String
	case []any:
		return projection.Array
	default:
		return projection.Object
	}
}

// checkOthers checks that others has the members that aren't common.
func checkOthers(t *testing.T, document []byte, others *projection.Others, root any, common []string) {
	t.Helper()
	var want []projection.Member
	for m := range projection.Members(document, 0) {
		if !slices.Contains(common, m.Name(document)) {
			want = append(want, m)
		}
	}
	if others.Count != len(want) {
		t.Fatalf("%q: %d others, want %d", document, others.Count, len(want))
	}
	for i := range min(others.Count, len(others.List)) {
		o, m := others.List[i], want[i]
		if int(o.KeyStart) != m.Key.Start+1 || int(o.KeyEnd) != m.Key.End-1 || o.Value != m.Value {
			t.Fatalf("%q: other %d is %+v, want %+v", document, i, o, m)
		}
		var value any
		if err := json.Unmarshal(o.Value.Of(document), &value); err != nil || o.Value.Kind != kindOf(value) {
			t.Fatalf("%q: other %d is of kind %d", document, i, o.Value.Kind)
		}
	}
}

// appendDocument appends a random value that is nested at most so deep.
func appendDocument(b []byte, random *rand.Rand, depth int) []byte {
	space := func() {
		for random.IntN(8) == 0 {
			b = append(b, " \t\r\n"[random.IntN(4)])
		}
	}
	space()
	switch k := random.IntN(8); {
	case k < 3 && depth > 0:
		b = append(b, '{')
		for i := range random.IntN(5) {
			if i > 0 {
				b = append(b, ',')
			}
			space()
			b = append(b, []string{`"a"`, `"b"`, `"\u0061"`, `"data"`, `"d\u0061ta"`, `"a rather long name"`, `"é"`, `"\u00e9"`}[random.IntN(8)]...)
			space()
			b = append(b, ':')
			b = appendDocument(b, random, depth-1)
		}
		space()
		b = append(b, '}')
	case k < 5 && depth > 0:
		b = append(b, '[')
		for i := range random.IntN(4) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendDocument(b, random, depth-1)
		}
		space()
		b = append(b, ']')
	default:
		b = append(b, []string{"null", "true", "false", "0", "-12.5e-3", "1e300", "123456789012345678901234567890", `""`, `"short"`, `"as long as two words"`, `"é\n"`, "\"\xff\""}[random.IntN(12)]...)
	}
	space()
	return b
}

// TestPlanManyNames reads objects with more names than a table holds well:
// names of one length that begin with the same eight bytes.
func TestPlanManyNames(t *testing.T) {
	var paths [][]projection.Step
	var b strings.Builder
	for i := range 1000 {
		paths = append(paths, []projection.Step{{fmt.Sprintf("customer%04d", i), -1}}, []projection.Step{{fmt.Sprint(i), -1}})
		fmt.Fprintf(&b, `,"customer%04d":%d,"%d":%d`, i, 2*i, i, 2*i+1)
	}
	document := []byte("{" + b.String()[1:] + "}")
	plan, nodes := projection.NewPlan(nil, paths)
	values := make([]projection.Value, plan.Nodes())
	if _, ok := plan.Scan(document, values, new(projection.Others)); !ok {
		t.Fatal("refused")
	}
	for i, n := range nodes {
		if got := string(values[n].Of(document)); got != fmt.Sprint(i) {
			t.Errorf("%v is %s, want %d", paths[i], got, i)
		}
	}
}
