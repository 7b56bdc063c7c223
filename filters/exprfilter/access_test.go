package exprfilter_test

import (
	"fmt"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

// A set says how it finds each rule.
func TestAccess(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{`data.symbol == "X" and data.n > data.m`, `data.symbol == "X"`},
		{`data.n > data.m and data.symbol == "X"`, `data.symbol == "X"`},
		{`data.a == 1 or data.b in ["x", "y"]`, `data.a == 1, or data.b == "x", or data.b == "y"`},
		{`data.a in 1..9`, `data.a >= 1 and <= 9`},
		{`data.a > 1 and data.a <= 2.5`, `data.a > 1 and <= 2.5`},
		{`data.a < 0`, `data.a < 0`},
		{`data.a * data.b > 5`, `data.a * data.b > 5`},
		{`(data.a ?? 0) == 3`, `(data.a ?? 0) == 3`},
		{`data.s startsWith "BTC"`, `data.s startsWith "BTC"`},
		{`data.flag`, `data.flag is true`},
		{`data.s in ["a", "b", "c", "d", "e"]`, `data.s == "a", or data.s == "b", or data.s == "c", or 2 more values of data.s`},
		{`data.a == nil`, `data.a is nil`},
		{`data.a in []`, `never: it can't be true`},

		{`data.n > data.m`, `linear: evaluated for every message: it compares two values of the message`},
		{`data.s contains "X"`, `linear: evaluated for every message where data.s is a string`},
		{`data.s != "X"`, `linear: evaluated for every message where data.s is anything`},
		{`data.s != nil`, `linear: evaluated for every message where data.s is not nil`},
		{`any(data.items, # > 1)`, `linear: evaluated for every message: its first condition is no comparison with a constant`},
		{`data.s == "a" or len(data.items) > 1`, `linear: evaluated for every message where data.s is anything`},
	} {
		set, err := exprfilter.Kind{}.Compile([]filterd.Filter{exprfilter.MustCompile(test.source)})
		if err != nil {
			t.Fatal(err)
		}
		access := set.Access(0)
		got := access.By
		if access.Linear {
			got = "linear: " + got
		}
		if got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.source, got, test.want)
		}
	}
}

func ExampleKind_Compile_access() {
	set, err := exprfilter.Kind{}.Compile([]filterd.Filter{
		exprfilter.MustCompile(`data.symbol == "BTC-USD" and data.bid < data.ask`),
		exprfilter.MustCompile(`data.bid < data.ask`),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for rule := range 2 {
		fmt.Println(set.Access(rule).By)
	}
	// Output:
	// data.symbol == "BTC-USD"
	// evaluated for every message: it compares two values of the message
}
