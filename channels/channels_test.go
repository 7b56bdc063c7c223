package channels_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
)

var noon = time.Date(2024, 2, 29, 12, 0, 0, 500_000_000, time.UTC)

// samples has, for each channel, a payload with nothing but what is required
// and one with every field.
var samples = map[string][]any{
	channels.PriceData: {
		channels.Price{Symbol: "BTC-USD", Price: 60_000},
		channels.Price{
			Symbol: "BTC-USD", Price: 60_000.25, Qty: 0.1, Bid: 60_000, Ask: 60_000.5,
			Volume: new(0.0), Venue: "example", Sequence: 9_007_199_254_740_991, Time: noon,
		},
	},
	channels.TradeCommands: {
		channels.TradeCommand{OrderID: "o-1", Action: channels.Cancel, Symbol: "BTC-USD"},
		channels.TradeCommand{
			OrderID: "o-1", Action: channels.Place, Symbol: "BTC-USD", Side: channels.Sell, Type: channels.StopLimit,
			Qty: 0.1, Price: 59_000, StopPrice: 59_500, TimeInForce: channels.GoodTillCancelled,
			ReduceOnly: true, PostOnly: true, Bot: "momentum", Venue: "example", Reason: "stop loss", Expires: noon,
		},
	},
	channels.BotStatus: {
		channels.Status{Bot: "momentum", Status: channels.Running},
		channels.Status{
			Bot: "momentum", Status: channels.Failed, Message: "no margin", Version: "1.2", Strategy: "breakout",
			Uptime: new(12.5), Equity: new(-1.5), PnL: new(0.0), OpenOrders: new(int64(0)), Errors: new(int64(1)),
			Positions: []channels.Position{{Symbol: "BTC-USD", Qty: -2, EntryPrice: 60_000}, {Symbol: "ETH-USD"}}, Time: noon,
		},
	},
}

// check holds data against a channel's contract and returns the complaint.
func check(t *testing.T, channel string, data []byte) string {
	t.Helper()
	registry, err := filterd.NewRegistry(channels.Contracts()...)
	if err != nil {
		t.Fatal(err)
	}
	event := filterd.Event{ID: "1", Source: "/test", Type: "test", Data: data}
	err = registry.Check(&filterd.Message{Channel: channel, Payload: event.AppendJSON(nil)})
	if err == nil {
		return ""
	}
	return err.Error()
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSamples(t *testing.T) {
	for channel, values := range samples {
		for _, value := range values {
			text := marshal(t, value)
			if complaint := check(t, channel, text); complaint != "" {
				t.Errorf("%s: %s", text, complaint)
			}
			back := reflect.New(reflect.TypeOf(value))
			if err := json.Unmarshal(text, back.Interface()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(value, back.Elem().Interface()); diff != "" {
				t.Errorf("%s: (-want +got):\n%s", text, diff)
			}
		}
	}
}

func TestZeroPayloads(t *testing.T) {
	for channel, want := range map[string]string{
		channels.PriceData: "PRICE_DATA: schema: " +
			"/data/price: exclusiveMinimum: got 0, want 0; /data/symbol: minLength: got 0, want 1",
		channels.TradeCommands: "TRADE_COMMANDS: schema: " +
			"/data/action: value must be one of 'place', 'cancel'; /data/order_id: minLength: got 0, want 1; /data/symbol: minLength: got 0, want 1",
		channels.BotStatus: "BOT_STATUS: schema: " +
			"/data/bot: minLength: got 0, want 1; /data/status: value must be one of 'starting', 'running', 'paused', 'stopping', 'stopped', 'failed'",
	} {
		zero := reflect.New(reflect.TypeOf(samples[channel][0])).Interface()
		if got := check(t, channel, marshal(t, zero)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestRequired takes each required member out of the full sample.
func TestRequired(t *testing.T) {
	for channel, values := range samples {
		schema := readSchema(t, channel)
		for _, name := range schema.Required {
			data := members(t, values[1])
			delete(data, name)
			want := channel + ": schema: /data: missing property '" + name + "'"
			if got := check(t, channel, marshal(t, data)); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	}
}

// TestTypes gives each member a value of each wrong type.
func TestTypes(t *testing.T) {
	wrong := map[string]any{"string": "x", "number": 1.5, "boolean": true, "array": []any{}, "object": map[string]any{}, "null": nil}
	for channel, values := range samples {
		for name, property := range readSchema(t, channel).Properties {
			for got, value := range wrong {
				if got == property.Type {
					continue
				}
				data := members(t, values[1])
				data[name] = value
				want := fmt.Sprintf("%s: schema: /data/%s: got %s, want %s", channel, name, got, property.Type)
				if got := check(t, channel, marshal(t, data)); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	const price, command, status = channels.PriceData, channels.TradeCommands, channels.BotStatus
	order := `"order_id":"o","action":"place","symbol":"BTC-USD","side":"buy"`
	for _, c := range []struct{ channel, data, want string }{
		{price, `{"symbol":"BTC-USD","price":-1}`, "/data/price: exclusiveMinimum: got -1, want 0"},
		{price, `{"symbol":"BTC-USD","price":"60000"}`, "/data/price: got string, want number"},
		{price, `{"symbol":"BTC-USD","price":1,"time":"yesterday"}`, "/data/time: 'yesterday' is not valid date-time: less than 20 characters long"},
		{price, `{"symbol":"BTC-USD","price":1,"sequence":0}`, "/data/sequence: minimum: got 0, want 1"},
		{price, `{"symbol":"BTC-USD","price":1,"rsi":70}`, ""},
		{price, `[]`, "/data: got array, want object"},
		{price, `null`, "/data: got null, want object"},
		{command, `{` + order + `,"type":"market","qty":1}`, ""},
		{command, `{` + order + `,"type":"market"}`, "/data: missing property 'qty'"},
		{command, `{"order_id":"o","action":"place","symbol":"BTC-USD"}`, "/data: missing properties 'side', 'type', 'qty'"},
		{command, `{` + order + `,"type":"limit","qty":1}`, "/data: missing property 'price'"},
		{command, `{` + order + `,"type":"stop","qty":1}`, "/data: missing property 'stop_price'"},
		{command, `{` + order + `,"type":"stop_limit","qty":1}`, "/data: missing property 'price'; /data: missing property 'stop_price'"},
		{command, `{` + order + `,"type":"market","qty":1,"reduce_onyl":true}`, "/data: additional properties 'reduce_onyl' not allowed"},
		{command, `{` + order + `,"type":"market","qty":0}`, "/data/qty: exclusiveMinimum: got 0, want 0"},
		{command, `{"order_id":"o","action":"hold","symbol":"BTC-USD"}`, "/data/action: value must be one of 'place', 'cancel'"},
		{status, `{"bot":"b","status":"running","positions":[{"symbol":"A","qty":1},{"symbol":"B"}]}`, "/data/positions/1: missing property 'qty'"},
		{status, `{"bot":"b","status":"running","open_orders":1.5}`, "/data/open_orders: got number, want integer"},
		{status, `{"bot":"b","status":"running","open_orders":2.0,"mood":"fine"}`, ""},
	} {
		want := c.want
		if want != "" {
			want = c.channel + ": schema: " + want
		}
		if got := check(t, c.channel, []byte(c.data)); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", c.data, got, want)
		}
	}
}

func TestEnvelope(t *testing.T) {
	registry, err := filterd.NewRegistry(channels.Contracts()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, channel := range channels.Names() {
		err := registry.Check(&filterd.Message{Channel: channel, Payload: marshal(t, samples[channel][0])})
		var invalid *filterd.ValidationError
		if !errors.As(err, &invalid) || invalid.Reason != filterd.ReasonEnvelope {
			t.Errorf("%s: a payload without an envelope: %v", channel, err)
		}
	}
}

// TestCallersOwn checks that what is handed out is a copy.
func TestCallersOwn(t *testing.T) {
	channels.Contracts()[0].Channel = "x"
	channels.Names()[0] = "x"
	text, _ := channels.Schema(channels.PriceData)
	clear(text)
	contract, ok := channels.Contract(channels.PriceData)
	if !ok || contract.Channel != "PRICE_DATA" || contract.Envelope != filterd.EnvelopeCloudEvents || contract.Validate != filterd.ValidateEnforce {
		t.Errorf("contract is %+v, %v", contract, ok)
	}
	if got := channels.Names(); !slices.Equal(got, []string{"PRICE_DATA", "TRADE_COMMANDS", "BOT_STATUS"}) {
		t.Errorf("names are %q", got)
	}
	if text, _ := channels.Schema(channels.PriceData); !json.Valid(text) {
		t.Error("the schema has been written to")
	}
	if _, ok := channels.Contract("PRICE_DATE"); ok {
		t.Error("a contract of an unknown channel")
	}
	if _, ok := channels.Schema("PRICE_DATE"); ok {
		t.Error("a schema of an unknown channel")
	}
}

// A schemaText is what the tests read of a JSON Schema.
type schemaText struct {
	Type                 string
	Required             []string
	Properties           map[string]schemaText
	Items                *schemaText
	Format               string
	Enum                 []string
	Description          string
	AdditionalProperties any
}

func readSchema(t *testing.T, channel string) schemaText {
	t.Helper()
	text, ok := channels.Schema(channel)
	if !ok {
		t.Fatalf("no schema of %s", channel)
	}
	var s schemaText
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// members returns the members of the JSON of a payload.
func members(t *testing.T, value any) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(marshal(t, value), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSchemasMatchStructs compares names, types and what is required.
func TestSchemasMatchStructs(t *testing.T) {
	for channel, values := range samples {
		compare(t, channel, readSchema(t, channel), reflect.TypeOf(values[0]))
		full := members(t, values[1])
		if got := slices.Sorted(maps.Keys(full)); !slices.Equal(got, slices.Sorted(maps.Keys(readSchema(t, channel).Properties))) {
			t.Errorf("%s: the full sample has only %q", channel, got)
		}
	}
}

func compare(t *testing.T, path string, s schemaText, typ reflect.Type) {
	t.Helper()
	var names, required []string
	for _, f := range reflect.VisibleFields(typ) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
		if options == "" {
			required = append(required, name)
		}
		property := s.Properties[name]
		if want := describe(f.Type); property.Type+property.Format != want {
			t.Errorf("%s/%s: a %s%s in the schema, a %s in Go", path, name, property.Type, property.Format, want)
		}
		if property.Items != nil {
			compare(t, path+"/"+name, *property.Items, f.Type.Elem())
		}
		if known := enums[f.Type]; !slices.Equal(property.Enum, known) {
			t.Errorf("%s/%s: %q in the schema, %q in Go", path, name, property.Enum, known)
		}
	}
	slices.Sort(names)
	if got := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(got, names) {
		t.Errorf("%s: properties are %q, fields are %q", path, got, names)
	}
	if !slices.Equal(s.Required, required) {
		t.Errorf("%s: required are %q, in Go %q", path, s.Required, required)
	}
	if s.AdditionalProperties != (typ != reflect.TypeFor[channels.TradeCommand]()) {
		t.Errorf("%s: additional properties: %v", path, s.AdditionalProperties)
	}
}

// enums has the values of each type that has a few.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[channels.Action]():      texts(channels.Place, channels.Cancel),
	reflect.TypeFor[channels.Side]():        texts(channels.Buy, channels.Sell),
	reflect.TypeFor[channels.OrderType]():   texts(channels.Market, channels.Limit, channels.Stop, channels.StopLimit),
	reflect.TypeFor[channels.TimeInForce](): texts(channels.GoodTillCancelled, channels.ImmediateOrCancel, channels.FillOrKill, channels.Day),
	reflect.TypeFor[channels.State](): texts(channels.Starting, channels.Running, channels.Paused,
		channels.Stopping, channels.Stopped, channels.Failed),
}

func texts[T ~string](values ...T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

// describe returns the type and format that JSON Schema has for a Go type.
func describe(typ reflect.Type) string {
	if typ == reflect.TypeFor[time.Time]() {
		return "stringdate-time"
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return describe(typ.Elem())
	case reflect.Float64:
		return "number"
	case reflect.Int64:
		return "integer"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "array"
	default:
		return typ.Kind().String()
	}
}
