package channels_test

import (
	"encoding/json"
	"fmt"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
)

// A price that breaks its contract is refused, and the error says where.
func Example() {
	registry, err := filterd.NewRegistry(channels.Contracts()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, price := range []channels.Price{{Symbol: "BTC-USD", Price: 60_000}, {Symbol: "BTC-USD", Price: -1}} {
		data, err := json.Marshal(price)
		if err != nil {
			fmt.Println(err)
			return
		}
		event := filterd.Event{ID: "1", Source: "/feeds/example", Type: "price", Data: data}
		err = registry.Check(&filterd.Message{Channel: channels.PriceData, Payload: event.AppendJSON(nil)})
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// PRICE_DATA: schema: /data/price: exclusiveMinimum: got -1, want 0
}

// Contract gives one contract, to be changed before it goes into a registry.
func ExampleContract() {
	prices, _ := channels.Contract(channels.PriceData)
	prices.MaxSize = 64 << 10
	prices.DeadLetter = "bad.prices"
	registry, err := filterd.NewRegistry(prices)
	fmt.Println(registry.Lookup(channels.PriceData).MaxSize, err)
	// Output: 65536 <nil>
}

// A command is closed: a misspelled member is an error, not ignored.
func ExampleTradeCommand() {
	registry, err := filterd.NewRegistry(channels.Contracts()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, data := range []string{
		`{"order_id":"o-1","action":"cancel","symbol":"BTC-USD"}`,
		`{"order_id":"o-2","action":"cancel","symbol":"BTC-USD","reduce-only":true}`,
		`{"order_id":"o-3","action":"place","symbol":"BTC-USD","side":"buy","type":"limit","qty":1}`,
	} {
		event := filterd.Event{ID: "1", Source: "/example", Type: "command", Data: json.RawMessage(data)}
		fmt.Println(registry.Check(&filterd.Message{Channel: channels.TradeCommands, Payload: event.AppendJSON(nil)}))
	}
	// Output:
	// <nil>
	// TRADE_COMMANDS: schema: /data: additional properties 'reduce-only' not allowed
	// TRADE_COMMANDS: schema: /data: missing property 'price'
}

func ExampleNames() {
	fmt.Println(channels.Names())
	// Output: [PRICE_DATA TRADE_COMMANDS BOT_STATUS]
}

// The schemas are there for programs in other languages, too.
func ExampleSchema() {
	text, ok := channels.Schema(channels.BotStatus)
	var schema struct{ Title string }
	fmt.Println(json.Unmarshal(text, &schema), ok, schema.Title)
	// Output: <nil> true BotStatus
}
