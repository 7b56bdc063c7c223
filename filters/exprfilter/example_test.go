package exprfilter_test

import (
	"fmt"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

func prices() []*filterd.Message {
	var messages []*filterd.Message
	for _, payload := range []string{
		`{"symbol":"BTC-USD","price":60000,"qty":2}`,
		`{"symbol":"ETH-USD","price":3000,"qty":10}`,
		`{"symbol":"BTC-USD","price":"much","qty":1}`,
	} {
		messages = append(messages, &filterd.Message{Channel: "PRICE_DATA", Payload: []byte(payload)})
	}
	return messages
}

// A filter says yes, no, or that it can't tell.
func ExampleCompile() {
	filter, err := exprfilter.Compile(`data.symbol startsWith "BTC" and data.price * data.qty > 100_000`)
	if err != nil {
		fmt.Println(err)
		return
	}
	matcher := filter.Matcher() // one for each goroutine
	for _, m := range prices() {
		fmt.Println(matcher.Match(m))
	}
	// Output:
	// true <nil>
	// false <nil>
	// false 1:45: data.price is a string and data.qty a number: * takes two numbers (float(data.price) makes a number of it)
}

// What is wrong with an expression has a line and a column.
func ExampleCompile_error() {
	for _, source := range []string{`data.price >> 10`, `dota.price > 10`, `len(data.symbol)`} {
		_, err := exprfilter.Compile(source)
		fmt.Println(err)
	}
	// Output:
	// 1:13: unexpected token Operator(">")
	// 1:1: unknown name dota (an expression sees data, event and channel)
	// 1:1: expected bool, but got int
}

func ExampleMustCompile() {
	large := exprfilter.MustCompile(`(data.qty ?? 0) >= 10`)
	fmt.Println(large)
	// Output: (data.qty ?? 0) >= 10
}

// Several filters are asked together which of them keep which messages.
func ExampleKind_Compile() {
	set, err := exprfilter.Kind{}.Compile([]filterd.Filter{
		exprfilter.MustCompile(`data.symbol == "BTC-USD"`),
		exprfilter.MustCompile(`data.price * data.qty < 100_000`),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The projection gives every path that is read a slot.
	projection := filterd.NewProjection(set.Paths())
	batch := prices()
	for _, m := range batch {
		m.Bind(projection)
	}
	matcher := set.Bind(projection.Slots(set.Paths())) // one for each goroutine
	for _, verdict := range matcher.Match(batch, nil) {
		if verdict.Group == 0 {
			fmt.Println("message", verdict.Message, "rule", verdict.Rule, "error:", verdict.Err)
			continue
		}
		// All rules of a group fail, for one reason; it is told where it is asked for.
		for _, rule := range set.Groups()[verdict.Group-1] {
			fmt.Println("message", verdict.Message, "rule", rule, "error:", matcher.Failure(batch[verdict.Message], rule))
		}
	}
	// Output:
	// message 0 rule 0 error: <nil>
	// message 1 rule 1 error: <nil>
	// message 2 rule 0 error: <nil>
	// message 2 rule 1 error: 1:12: data.price is a string and data.qty a number: * takes two numbers (float(data.price) makes a number of it)
}

// A value yields any JSON value.
func ExampleCompileValue() {
	notional, err := exprfilter.CompileValue(`data.price * data.qty`)
	if err != nil {
		fmt.Println(err)
		return
	}
	projection := filterd.NewProjection(notional.Paths())
	evaluator := notional.Bind(projection.Slots(notional.Paths())) // one for each goroutine
	for _, m := range prices() {
		m.Bind(projection)
		fmt.Println(evaluator.Evaluate(m))
	}
	// Output:
	// 120000 <nil>
	// 30000 <nil>
	// <nil> 1:12: data.price is a string and data.qty a number: * takes two numbers (float(data.price) makes a number of it)
}

// Full is for expressions of people who are trusted.
func ExampleFull() {
	const nested = `any(data.a, any(#, # == 1))`
	_, err := exprfilter.Compile(nested)
	fmt.Println("refused by default:", err != nil)
	_, err = exprfilter.Compile(nested, exprfilter.Full())
	fmt.Println("refused in full:", err != nil)
	// Output:
	// refused by default: true
	// refused in full: false
}
