package projection_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/filterd/filterd/internal/projection"
)

// found is all that a plan finds in a document.
type found struct {
	ok     bool
	values []projection.Value
	others projection.Others
}

// scanned returns what a plan finds, and the document's shape.
func scanned(plan *projection.Plan, document []byte) (found, *projection.Shape) {
	f := found{values: make([]projection.Value, plan.Nodes())}
	var shape *projection.Shape
	shape, f.ok = plan.Scan(document, f.values, &f.others)
	if !f.ok {
		return found{}, shape
	}
	clear(f.others.List[min(f.others.Count, len(f.others.List)):])
	return f, shape
}

var shapePaths = [][]projection.Step{{{"data", -1}, {"a", -1}}, {{"data", -1}, {"b", -1}, {"a", -1}}, {{"a", -1}}, {{"b", -1}, {"", 1}}, {{"a", -1}, {"b", -1}}, {{"", 0}}}

func newShapePlan() *projection.Plan {
	plan, _ := projection.NewPlan([]string{"b", "data"}, shapePaths)
	return plan
}

// TestShapes reads documents that differ in their values by comparing them, and
// says which of them differ.
func TestShapes(t *testing.T) {
	plan := newShapePlan()
	text := func(i int) []byte {
		return fmt.Appendf(nil, ` {"b":%d,"data":{"x":[1,{}],"a":"%s","same":null}, "other":%d,"é":true}`, i*i*i, strings.Repeat("é", i%7), i%3)
	}
	var shape *projection.Shape
	for i := range 1000 {
		got, s := scanned(plan, text(i))
		if want, _ := scanned(newShapePlan(), text(i)); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: %v, want %v", text(i), got, want)
		}
		if i > 20 && s == nil {
			t.Fatalf("%s: the shape is not known", text(i))
		}
		shape = s
	}
	if shape.Varies != 1<<1 || shape.OtherVaries != 1<<0 {
		t.Errorf("common members %b and others %b are said to differ", shape.Varies, shape.OtherVaries)
	}
	// Others are learned beside it, and values of another kind fit.
	for i := range 100 {
		for _, d := range []string{`[%d]`, `{"a":{"b":"%d"}}`, ` {"b":[],"data":%d}`} {
			scanned(plan, fmt.Appendf(nil, d, i))
		}
	}
	for _, d := range []string{`[-0.5e1]`, `["x"]`, `[null]`, `{"a":{"b":false}}`, ` {"b":[],"data":"\u00e9\n"}`, string(text(5000))} {
		got, shape := scanned(plan, []byte(d))
		if want, _ := scanned(newShapePlan(), []byte(d)); !reflect.DeepEqual(got, want) || shape == nil {
			t.Errorf("%s: %v, %v, want %v", d, shape, got, want)
		}
	}
	for _, d := range []string{string(text(1)) + "\n", `{"a":{"b":1}} `, ``, `[`, `[]`, `[01]`, `[1`, `[1]x`, `[1.]`, `["]`, `[{}]`, `[[1]]`, `[1,1]`, `[tru]`, "[\"\n\"]", `[1e999]`, `{"a":{"b":}}`} {
		got, _ := scanned(plan, []byte(d))
		if want, _ := scanned(newShapePlan(), []byte(d)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", d, got, want)
		}
	}
}

// TestShapesDontGrow scans documents that have nothing in common, and then
// some that have: what was learned in vain is no obstacle.
func TestShapesDontGrow(t *testing.T) {
	plan := newShapePlan()
	for i := range 100_000 {
		scanned(plan, fmt.Appendf(nil, `{"%d":1}`, i))
	}
	unlike := []byte(`{"never seen":[]}`)
	if n := testing.AllocsPerRun(10_000, func() { scanInto(t, plan, unlike) }); n > 0 {
		t.Errorf("%v allocations for a document that has nothing in common with others", n)
	}
	for i := range 100_000 {
		if _, shape := scanned(plan, fmt.Appendf(nil, `{"b":%d}`, i)); shape != nil {
			return
		}
	}
	t.Error("nothing was learned any more")
}

var (
	scratch [16]projection.Value
	nobody  projection.Others
)

func scanInto(t *testing.T, plan *projection.Plan, document []byte) {
	clear(scratch[:])
	nobody = projection.Others{}
	if _, ok := plan.Scan(document, scratch[:], &nobody); !ok {
		t.Fatalf("%s is refused", document)
	}
}

// TestShapesConcurrently lets many goroutines learn and read at once.
func TestShapesConcurrently(t *testing.T) {
	plan := newShapePlan()
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 5000 {
				d := fmt.Appendf(nil, `{"b":%d,"data":{"a":"%d"},"c%d":[%d]}`, i, i%(2+g), i%5, i%2)
				got, _ := scanned(plan, d)
				if want, _ := scanned(newShapePlan(), d); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %v, want %v", d, got, want)
				}
			}
		})
	}
	all.Wait()
}

// FuzzShapes holds a plan that has seen other documents against one that has
// seen none. The documents are variants of one.
func FuzzShapes(f *testing.F) {
	for i, d := range documents {
		f.Add([]byte(d), uint64(i))
	}
	f.Add([]byte(`{"a":1,"a":{"b":2},"b":[1,2],"data":{"a":"x","b":{"a":null}},"c":"d"}`), uint64(7))
	f.Fuzz(checkShapes)
}

// TestShapesRandom is FuzzShapes for documents that are mostly JSON.
func TestShapesRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		checkShapes(t, appendDocument(nil, random, 4), random.Uint64())
	}
}

func checkShapes(t *testing.T, document []byte, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	plan := newShapePlan()
	for range 24 {
		got, shape := scanned(plan, document)
		want, _ := scanned(newShapePlan(), document)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q, shape %v: %v, want %v", document, shape != nil, got, want)
		}
		switch random.IntN(6) {
		case 0, 1:
			document = flip(document, random)
		case 2:
			document = append(bytes.TrimRight(document, " "), " "[:random.IntN(2)]...)
		default:
			document = revalue(document, random)
		}
	}
}

// flip replaces a byte.
func flip(document []byte, random *rand.Rand) []byte {
	if len(document) == 0 {
		return document
	}
	document = bytes.Clone(document)
	document[random.IntN(len(document))] = "\"\\{}[]:,0e1 x\xff"[random.IntN(14)]
	return document
}

// revalue replaces what looks like a number or a string by another one.
func revalue(document []byte, random *rand.Rand) []byte {
	var begins []int
	for i, c := range document {
		if c == '"' || c >= '0' && c <= '9' {
			begins = append(begins, i)
		}
	}
	if begins == nil {
		return document
	}
	begin := begins[random.IntN(len(begins))]
	end := begin + 1
	if document[begin] == '"' {
		for end < len(document) && document[end] != '"' {
			end++
		}
		end = min(end+1, len(document))
	}
	with := []string{`"x"`, `"é"`, `"\u00e9"`, `null`, `true`, `1`, `-2.5e3`, `1e400`, `""`, `"long enough to be two words"`, "\"\xff\""}[random.IntN(11)]
	return slices.Concat(document[:begin], []byte(with), document[end:])
}
