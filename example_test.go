package filterd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/filterd/filterd"
)

// A contract says what the messages of a channel must be; publishers,
// subscribers and the engine check against the same registry.
func Example() {
	schema, err := filterd.ParseSchema("price", []byte(`{
		"type": "object",
		"required": ["symbol", "price"],
		"properties": {"price": {"type": "number", "exclusiveMinimum": 0}}
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "prices.*", Schema: schema})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, payload := range []string{
		`{"symbol":"BTC-USD","price":60000}`,
		`{"specversion":"1.0","id":"1","source":"/feed","type":"price","data":{"symbol":"BTC-USD","price":60000}}`,
		`{"price":-1}`,
	} {
		fmt.Println(registry.Check(&filterd.Message{Channel: "prices.btc", Payload: []byte(payload)}))
	}
	// Output:
	// <nil>
	// <nil>
	// prices.btc: schema: missing property 'symbol'; /price: exclusiveMinimum: got -1, want 0
}

// The error of a check lists every failure of its kind, each with a JSON
// Pointer into the payload.
func ExampleRegistry_Check() {
	schema, err := filterd.ParseSchema("price", []byte(`{"properties": {"symbol": {"type": "string"}, "price": {"type": "number"}}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "PRICE_DATA", Schema: schema})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = registry.Check(&filterd.Message{Channel: "PRICE_DATA", Payload: []byte(`{"symbol":1,"price":"a lot"}`)})
	invalid, ok := errors.AsType[*filterd.ValidationError](err)
	if !ok {
		fmt.Println("not a ValidationError:", err)
		return
	}
	fmt.Println(invalid.Channel, invalid.Reason, errors.Is(err, filterd.ErrInvalid))
	for _, failure := range invalid.Failures {
		fmt.Println(failure.Pointer, "→", failure.Detail)
	}
	// Output:
	// PRICE_DATA schema true
	// /price → got string, want number
	// /symbol → got number, want string
}

// The longest literal prefix wins, and an exact name wins over every glob.
func ExampleRegistry_Lookup() {
	registry, err := filterd.NewRegistry(
		filterd.Contract{Channel: "prices.*", MaxSize: 4 << 10},
		filterd.Contract{Channel: "prices.btc.*", MaxSize: 8 << 10},
		filterd.Contract{Channel: "prices.btc.usd", MaxSize: 16 << 10},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, channel := range []string{"prices.btc.usd", "prices.btc.eur", "prices.eth", "trades"} {
		contract := registry.Lookup(channel)
		fmt.Printf("%s: %q, %d bytes\n", channel, contract.Channel, contract.MaxSize)
	}
	// Output:
	// prices.btc.usd: "prices.btc.usd", 16384 bytes
	// prices.btc.eur: "prices.btc.*", 8192 bytes
	// prices.eth: "prices.*", 4096 bytes
	// trades: "", 1048576 bytes
}

// All faulty contracts are reported at once.
func ExampleNewRegistry() {
	_, err := filterd.NewRegistry(
		filterd.Contract{Channel: "prices", Envelope: "xml"},
		filterd.Contract{Channel: "trades", MaxSize: -1},
	)
	fmt.Println(err)
	// Output:
	// contract "prices": unknown envelope "xml": want auto, cloudevents, raw or bytes
	// contract "trades": maximum size -1: want more than 0 bytes
}

func ExampleParseSchema() {
	_, err := filterd.ParseSchema("price.json", []byte(`{"type": "nubmer"}`))
	fmt.Println(err)
	// Output:
	// schema price.json is not a valid JSON Schema: /type: got string, want array; /type: value must be one of 'array', 'boolean', 'integer', 'null', 'number', 'object', 'string'
}

// A schema in a file may refer to its neighbours.
func ExampleLoadSchema() {
	folder, err := os.MkdirTemp("", "schemas")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	for name, text := range map[string]string{
		"price.json":  `{"properties": {"symbol": {"$ref": "symbol.json"}}}`,
		"symbol.json": `{"type": "string", "pattern": "^[A-Z]+-[A-Z]+$"}`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			fmt.Println(err)
			return
		}
	}
	schema, err := filterd.LoadSchema(filepath.Join(folder, "price.json"))
	if err != nil {
		fmt.Println(err)
		return
	}
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "PRICE_DATA", Schema: schema})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(registry.Check(&filterd.Message{Channel: "PRICE_DATA", Payload: []byte(`{"symbol":"bitcoin"}`)}))
	// Output:
	// PRICE_DATA: schema: /symbol: 'bitcoin' does not match pattern '^[A-Z]+-[A-Z]+$'
}

// Data is the same whether a message is an event or plain JSON.
func ExampleMessage_Data() {
	for _, payload := range []string{
		`{"symbol":"BTC-USD"}`,
		`{"specversion":"1.0","id":"1","source":"/feed","type":"price","data":{"symbol":"BTC-USD"}}`,
	} {
		m := &filterd.Message{Channel: "PRICE_DATA", Payload: []byte(payload)}
		data, err := m.Data()
		fmt.Println(data, err, m.IsEvent())
	}
	// Output:
	// map[symbol:BTC-USD] <nil> false
	// map[symbol:BTC-USD] <nil> true
}

// The data of an event decodes into a type of one's own.
func ExampleMessage_Event() {
	m := &filterd.Message{Channel: "PRICE_DATA", Payload: []byte(
		`{"specversion":"1.0","id":"1","source":"/feed","type":"price","data":{"symbol":"BTC-USD","price":60000}}`)}
	event, err := m.Event()
	if err != nil { // filterd.ErrNoEvent for plain JSON
		fmt.Println(err)
		return
	}
	var price struct {
		Symbol string
		Price  float64
	}
	if err := json.Unmarshal(event.Data, &price); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(event.Source, price.Symbol, price.Price)
	// Output: /feed BTC-USD 60000
}

// Validate tells all that is missing before an event is sent.
func ExampleEvent_Validate() {
	event := &filterd.Event{Type: "price", Extensions: map[string]any{"Trace-ID": "x"}}
	invalid, ok := errors.AsType[*filterd.ValidationError](event.Validate())
	if !ok {
		fmt.Println("valid")
		return
	}
	for _, failure := range invalid.Failures {
		fmt.Println(failure)
	}
	// Output:
	// /id: required attribute is missing
	// /source: required attribute is missing
	// /Trace-ID: an attribute's name consists of a-z and 0-9
}

func ExampleGlob_Match() {
	glob := filterd.CompileGlob("prices.[be]*")
	for _, channel := range []string{"prices.btc", "prices.eth", "prices.sol", "trades.btc"} {
		fmt.Println(channel, glob.Match(channel))
	}
	// Output:
	// prices.btc true
	// prices.eth true
	// prices.sol false
	// trades.btc false
}

// Two patterns intersect if a channel can match both.
func ExampleGlob_Intersects() {
	prices := filterd.CompileGlob("prices.*")
	fmt.Println(prices.Intersects(filterd.CompileGlob("*.btc")))
	fmt.Println(prices.Intersects(filterd.CompileGlob("trades.*")))
	// Output:
	// true
	// false
}

func ExampleIsGlob() {
	fmt.Println(filterd.IsGlob("prices.btc"), filterd.IsGlob("prices.*"))
	// Output: false true
}

// A function is the simplest filter. An error is neither yes nor no.
func ExampleFilterFunc() {
	var filter filterd.Filter = filterd.FilterFunc(func(m *filterd.Message) (bool, error) {
		data, err := m.Data()
		if err != nil {
			return false, err
		}
		price, _ := data.(map[string]any)
		return price["symbol"] == "BTC-USD", nil
	})
	matcher := filter.Matcher() // one for each goroutine
	for _, payload := range []string{`{"symbol":"BTC-USD"}`, `{"symbol":"ETH-USD"}`, `{"symbol":`} {
		fmt.Println(matcher.Match(&filterd.Message{Channel: "PRICE_DATA", Payload: []byte(payload)}))
	}
	// Output:
	// true <nil>
	// false <nil>
	// false PRICE_DATA: malformed: not JSON: unexpected end of JSON input at byte 10
}

// A secret shows itself to nobody who doesn't ask by name.
func ExampleSecret() {
	password := filterd.Secret("hunter2")
	fmt.Println(password, len(password.Reveal()))
	// Output: [redacted] 7
}
