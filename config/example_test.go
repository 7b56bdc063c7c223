package config_test

import (
	"context"
	"fmt"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
)

// A program reads the file of the daemon, or has it built in, and feeds the
// rules itself.
func Example() {
	c, err := config.Parse("filterd.yaml", []byte(`
rules:
  whales:
    from: PRICE_DATA
    when: data.symbol startsWith "BTC" and data.price * data.qty > 10_000
    to: whale-alerts
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	e, err := c.Engine(engine.Config{Sink: filterd.SinkFunc(func(_ context.Context, batch []filterd.Delivery) {
		for _, d := range batch {
			fmt.Printf("%s: %s\n", d.Channel, d.Payload)
		}
	})})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close(ctx)
	err = e.Process(ctx, &filterd.Message{
		Channel:  "PRICE_DATA",
		Payload:  []byte(`{"symbol":"BTC-USD","price":60000,"qty":1}`),
		Received: time.Now(),
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: whale-alerts: {"symbol":"BTC-USD","price":60000,"qty":1}
}

// What is wrong with a file is reported all at once, each with its place.
func ExampleError() {
	_, err := config.Parse("filterd.yaml", []byte(`
rules:
  whales:
    form: PRICE_DATA
    from: PRICE_DATA
    when: data.price > > 10
    to: whale-alerts
`))
	fmt.Println(err)
	// Output:
	// filterd.yaml:4:5: rules.whales.form: unknown key
	//     4 |     form: PRICE_DATA
	//       |     ^~~~ did you mean from?
	// filterd.yaml:6:24: rules.whales.when: unexpected token Operator(">")
	//     6 |     when: data.price > > 10
	//       |                        ^
}
