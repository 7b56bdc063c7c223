package filters_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/filters/filtertest"
)

var messages = []string{
	`{"symbol":"BTC-USD","price":60000,"qty":1,"tags":["a","b"]}`,
	`{"symbol":"ETH-USD","price":3000.5,"qty":2}`,
	`{"symbol":null,"price":"dear"}`,
	`{}`, `[]`, `"text"`, `0`, `null`,
	`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"symbol":"BTC-USD","price":1,"qty":2}}`,
	`{"specversion":"1.0","id":"1","source":"s","type":"t"}`,
}

// samples has filters of every standard kind.
var samples = map[string][]filterd.Filter{
	"expr": expressions(
		`data.symbol == "BTC-USD" && data.price * data.qty > 10000`,
		`data.price > 100`,
		`event.type == "t"`,
		`channel == "channel"`,
		`channel == "other"`,
		`data.symbol startsWith "B" or data.tags[0] == "a"`,
		`data?.symbol in ["BTC-USD", nil]`,
		`any(data.tags, # == "b")`,
		`not (data.price > 1)`,
		`data.ok`,
		`event == {} and data != nil`,
	),
	"func": {
		filterd.All,
		filterd.FilterFunc(func(m *filterd.Message) (bool, error) { return len(m.Payload) > 10, nil }),
		filterd.FilterFunc(func(m *filterd.Message) (bool, error) { return false, errors.New("no") }),
		filterd.FilterFunc(func(m *filterd.Message) (bool, error) { return m.IsEvent(), nil }),
	},
}

func expressions(sources ...string) []filterd.Filter {
	var compiled []filterd.Filter
	for _, source := range sources {
		compiled = append(compiled, exprfilter.MustCompile(source))
	}
	return compiled
}

func TestStandard(t *testing.T) {
	for _, kind := range filters.Standard() {
		t.Run(kind.Name(), func(t *testing.T) {
			if len(samples[kind.Name()]) == 0 {
				t.Fatal("no samples of this kind: add some")
			}
			filtertest.Suite{Kind: kind, Filters: samples[kind.Name()], Messages: messages}.Run(t)
		})
	}
}

func ExampleStandard() {
	for _, kind := range filters.Standard() {
		fmt.Println(kind.Name())
	}
	// Output:
	// func
	// expr
}
