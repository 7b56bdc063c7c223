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
