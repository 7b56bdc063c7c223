package engine_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
)

// printed is a sink that prints.
var printed = filterd.SinkFunc(func(_ context.Context, batch []filterd.Delivery) {
	for _, delivery := range batch {
		fmt.Printf("%s: %s\n", delivery.Channel, delivery.Payload)
	}
})

// An engine without Redis: messages come by Process and go to a function.
func Example() {
	notional, err := exprfilter.CompileValue(`data.price * data.qty`)
	if err != nil {
		fmt.Println(err)
		return
	}
	table, err := engine.Compile(engine.Definition{Rules: []engine.Rule{{
		Name: "whales",
		From: []string{"PRICE_DATA"},
		When: exprfilter.MustCompile(`data.price * data.qty > 100_000`),
		Set:  []engine.Member{{Name: "notional", Value: notional}},
		To:   []engine.Target{{Channel: "whale-alerts"}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := engine.New(engine.Config{Table: table, Sink: printed})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for _, payload := range []string{
		`{"symbol":"BTC-USD","price":60000.00,"qty":2}`,
		`{"symbol":"BTC-USD","price":60000.00,"qty":1}`,
	} {
		if err := e.Process(ctx, &filterd.Message{Channel: "PRICE_DATA", Payload: []byte(payload)}); err != nil {
			fmt.Println(err)
		}
	}
	stats := e.Stats()
	fmt.Println("received", stats.Channels["PRICE_DATA"].Received, "matched", stats.Rules["whales"].Matched)
	if err := e.Close(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// whale-alerts: {"symbol":"BTC-USD","price":60000.00,"qty":2,"notional":120000}
	// received 2 matched 1
}

// Every fault of every rule is reported, as a RuleError.
func ExampleCompile() {
	_, err := engine.Compile(engine.Definition{Rules: []engine.Rule{
		{Name: "whales", From: []string{"PRICE_DATA"}, To: []engine.Target{{Callback: "page"}}},
		{Name: "loop", From: []string{"prices.*"}, To: []engine.Target{{Channel: "prices.btc"}}},
	}})
	fmt.Println(err)
	first, ok := errors.AsType[*engine.RuleError](err)
	fmt.Println(ok, first.Rule, first.Field, first.Index)
	// Output:
	// rule "whales": to: callback page is not registered by the program
	// rule "loop": to: messages would go round in a cycle: loop → prices.btc → prices.* → loop
	// true whales to 0
}

// A rule can call Go functions. Close waits for them.
func ExampleCallback() {
	page := func(_ context.Context, m *filterd.Message) error {
		fmt.Printf("page: %s\n", m.Payload)
		return nil
	}
	table, err := engine.Compile(engine.Definition{
		Rules: []engine.Rule{{
			Name: "failed-bots",
			From: []string{"BOT_STATUS"},
			When: exprfilter.MustCompile(`data.status == "failed"`),
			To:   []engine.Target{{Callback: "page"}},
		}},
		Callbacks: map[string]engine.Callback{"page": page},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := engine.New(engine.Config{Table: table})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	err = e.Process(ctx, &filterd.Message{Channel: "BOT_STATUS", Payload: []byte(`{"bot":"alpha","status":"failed"}`)})
	if err := errors.Join(err, e.Close()); err != nil {
		fmt.Println(err)
	}
	// Output: page: {"bot":"alpha","status":"failed"}
}

// A dry run: what would go where, and what fails, with nothing sent.
func ExampleTable_NewProcessor() {
	table, err := engine.Compile(engine.Definition{Rules: []engine.Rule{
		{
			Name: "large",
			From: []string{"PRICE_DATA"},
			When: exprfilter.MustCompile(`data.price * data.qty > 100_000`),
			To:   []engine.Target{{Channel: "large-trades"}, {Channel: "archive"}},
		},
		{Name: "all", From: []string{"PRICE_*"}, To: []engine.Target{{Channel: "archive"}}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	processor := table.NewProcessor() // one for each goroutine
	for _, payload := range []string{`{"price":60000,"qty":2}`, `{"price":60000}`, `{"price":`} {
		result, err := processor.Process(&filterd.Message{Channel: "PRICE_DATA", Payload: []byte(payload)})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(payload)
		if result.Invalid != nil {
			fmt.Println("  invalid:", result.Invalid)
		}
		for _, outcome := range result.Outcomes {
			fmt.Printf("  %s: matched %t, error %v\n", outcome.Rule, outcome.Matched, outcome.Err)
		}
		for _, output := range result.Outputs {
			fmt.Printf("  %s to %s\n", output.Rule, output.Channel)
		}
	}
	// Output:
	// {"price":60000,"qty":2}
	//   large: matched true, error <nil>
	//   all: matched true, error <nil>
	//   large to large-trades
	//   large to archive
	//   all to archive
	// {"price":60000}
	//   large: matched false, error when: 1:12: data.qty is missing or null: * needs a value (write (data.qty ?? 0), or ask data.qty != nil first)
	//   all: matched true, error <nil>
	//   all to archive
	// {"price":
	//   invalid: PRICE_DATA: malformed: not JSON: unexpected end of JSON input at byte 9
}

// A reload swaps all rules at once; counters of rules that keep their name go
// on.
func ExampleEngine_Reload() {
	rules := func(channel string) *engine.Table {
		table, err := engine.Compile(engine.Definition{Rules: []engine.Rule{
			{Name: "copy", From: []string{"PRICE_DATA"}, To: []engine.Target{{Channel: channel}}},
		}})
		if err != nil {
			panic(err)
		}
		return table
	}
	ctx := context.Background()
	e, err := engine.New(engine.Config{Table: rules("before"), Sink: printed})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close()
	m := &filterd.Message{Channel: "PRICE_DATA", Payload: []byte(`1`)}
	err = errors.Join(e.Process(ctx, m), e.Reload(ctx, rules("after")), e.Process(ctx, m))
	fmt.Println(err, "generation", e.Stats().Generation, "matched", e.Stats().Rules["copy"].Matched)
	// Output:
	// before: 1
	// after: 1
	// <nil> generation 2 matched 2
}
