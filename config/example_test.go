package config_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	defer e.Close()
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

// A file that isn't there is no file without rules.
func ExampleLoad() {
	_, err := config.Load("nowhere/filterd.yaml")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	fmt.Println(err)
	// Output:
	// true
	// nowhere/filterd.yaml: no such file or directory
}

// Rules name the Go functions that they call.
func ExampleCallbacks() {
	const text = `
rules:
  failed-bots:
    from: BOT_STATUS
    when: data.status == "failed"
    to: {callback: page}
`
	page := func(_ context.Context, m *filterd.Message) error {
		fmt.Printf("page: %s\n", m.Payload)
		return nil
	}
	_, err := config.Parse("filterd.yaml", []byte(text))
	fmt.Println(err)

	c, err := config.Parse("filterd.yaml", []byte(text), config.Callbacks(map[string]engine.Callback{"page": page}))
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := c.Engine(engine.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	err = e.Process(ctx, &filterd.Message{Channel: "BOT_STATUS", Payload: []byte(`{"bot":"alpha","status":"failed"}`)})
	if err := errors.Join(err, e.Close()); err != nil { // Close waits for the callback
		fmt.Println(err)
	}
	// Output:
	// filterd.yaml:6:20: rules.failed-bots.to.callback: callback page is not registered by the program
	//     6 |     to: {callback: page}
	//       |                    ^~~~
	// page: {"bot":"alpha","status":"failed"}
}

// Variables need not come from the environment of the process.
func ExampleEnvironment() {
	lookup := func(name string) (string, bool) {
		value, ok := map[string]string{"REDIS_HOST": "redis-1"}[name]
		return value, ok
	}
	c, err := config.Parse("filterd.yaml", []byte(`
redis:
  host: ${REDIS_HOST}
  port: ${REDIS_PORT:-6380}
rules:
  copy: {from: PRICE_DATA, to: prices}
`), config.Environment(lookup))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Redis.Host, c.Redis.Port)
	// Output: redis-1 6380
}

// The tests beside the rules, and the table to try them on.
func ExampleConfig_RunTests() {
	c, err := config.Parse("filterd.yaml", []byte(`
rules:
  whales:
    from: PRICE_DATA
    when: data.price > 1000
    to: whale-alerts
    tests:
      - {in: {price: 2000}, out: whale-alerts}
      - {in: {price: 10}, out: whale-alerts}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	results, err := c.RunTests()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		fmt.Printf("%s ok=%t: want %s, got %s\n", r.Test, r.OK, r.Want, r.Got)
	}
	// Output:
	// whales[0] ok=true: want whale-alerts, got whale-alerts
	// whales[1] ok=false: want whale-alerts, got drop
}
