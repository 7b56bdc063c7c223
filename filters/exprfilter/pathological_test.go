package exprfilter_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

// Sets made to be hard to index take memory in proportion to their source, and
// still find what they should.
func TestPathologicalSets(t *testing.T) {
	if exprfilter.Slow {
		t.Skip("the race detector's memory is not ours")
	}
	r := rand.New(rand.NewPCG(1, 1))
	join := func(n int, separator string, part func(i int) string) string {
		var parts []string
		for i := range n {
			parts = append(parts, part(i))
		}
		return strings.Join(parts, separator)
	}
	for _, test := range []struct {
		name   string
		n      int
		source func(i int) string
	}{
		{"overlapping ranges", 10_000, func(i int) string { return fmt.Sprintf("data.x > %d and data.x < %d", -i, i+1) }},
		{"one value", 10_000, func(i int) string { return fmt.Sprintf(`data.s == "a" and data.x != %d`, i) }},
		{"one rule", 10_000, func(int) string { return `data.s == "a" and data.x > 0` }},
		{"regular expressions", 2_000, func(i int) string { return fmt.Sprintf(`data.s matches "^a.*(%d)?$"`, i) }},
		{"contains", 10_000, func(i int) string { return fmt.Sprintf(`data.s contains "a" and not (data.s contains "%d")`, i) }},
		{"fields", 5_000, func(i int) string { return fmt.Sprintf(`(data.f%d ?? 1) == 1`, i) }},
		{"alternatives of alternatives", 500, func(int) string {
			return join(30, " and ", func(j int) string { return fmt.Sprintf(`(data.f%d == nil or data.g%d == 1)`, j, j) })
		}},
		{"lists", 500, func(i int) string {
			return "data.x in [" + join(500, ",", func(j int) string { return fmt.Sprint(r.IntN(1e6)) }) + ", 1]"
		}},
		{"ranges of ints", 10_000, func(i int) string { return fmt.Sprintf("data.x in %d..%d", 1-r.IntN(2), 1+r.IntN(900)) }},
		{"prefixes of each other", 1_000, func(i int) string {
			return fmt.Sprintf(`data.s startsWith "%s" or data.x == 1`, strings.Repeat("a", i))
		}},
		{"long conjunctions", 100, func(i int) string {
			return join(500, " and ", func(j int) string { return fmt.Sprintf(`data.f%d == nil`, j) })
		}},
		{"long disjunctions", 100, func(i int) string {
			return join(400, " or ", func(j int) string { return fmt.Sprintf(`data.f%d == %d`, j, i) }) + " or data.x > 0"
		}},
		{"chains of variables", 20, func(i int) string {
			return "let a0 = data.x * 1.5; " + join(39, "", func(j int) string { return fmt.Sprintf("let a%d = a%d * a%d; ", j+1, j, j) }) + "a39 > 1"
		}},
		{"nested choices", 500, func(i int) string {
			return strings.Repeat("(data.x > 0 ? ", 20) + "true" + strings.Repeat(fmt.Sprintf(" : data.f%d == 1)", i), 20)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var filters []filterd.Filter
			size := 0
			for i := range test.n {
				source := test.source(i)
				size += len(source)
				filters = append(filters, exprfilter.MustCompile(source))
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			set, err := exprfilter.Kind{}.Compile(filters)
			if err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if grown := int(after.HeapAlloc) - int(before.HeapAlloc); grown > 2048*test.n+100*size {
				t.Errorf("%d bytes for %d rules of %d bytes", grown, test.n, size)
			}
			projection := filterd.NewProjection(set.Paths())
			m := &filterd.Message{Payload: []byte(`{"s":"a","x":1}`)}
			m.Bind(projection)
			kept := 0
			for _, v := range set.Bind(projection.Slots(set.Paths())).Match([]*filterd.Message{m}, nil) {
				if v.Err != nil || v.Group > 0 {
					t.Fatalf("%+v", v)
				}
				kept++
			}
			want := test.n
			if test.name == "one value" || test.name == "overlapping ranges" { // rule 1 excludes 1; 0 and 1 end before it
				want = kept
				if kept < test.n-2 {
					t.Errorf("%d kept", kept)
				}
			}
			if kept != want {
				t.Errorf("%d of %d rules keep the message", kept, test.n)
			}
			runtime.KeepAlive(filters)
		})
	}
}
