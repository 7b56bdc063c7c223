package main

import (
	"context"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/examples/exampletest"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/filterd/filterd/pubsub"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestEmbedding(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := redistest.Start(t)
	rdb, err := pubsub.Connect(ctx, pubsub.Options{URL: filterd.Secret(server.URL())})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	received := rdb.Subscribe(ctx, "alerts.desk", "dead.prices")
	defer received.Close()
	for range 2 { // the subscriptions
		if _, err := received.Receive(ctx); err != nil {
			t.Fatal(err)
		}
	}

	embedding := exampletest.Start(t, server.URL())
	embedding.Await("listening\n")
	for _, data := range []string{
		`{"symbol":"BTC-USD","price":60000,"qty":1}`, // too small
		`{"symbol":"BTC-USD","price":60000.50,"qty":2}`,
		`{"symbol":"BTC-USD","price":-1}`,
	} {
		if receivers := server.Do("PUBLISH", channels.PriceData, string(price([]byte(data)))); receivers != "1" {
			t.Errorf("%s went to %s subscribers", data, receivers)
		}
	}
	whale, err := received.ReceiveMessage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"specversion":"1.0","id":"1","source":"/test","type":"price","data":{"symbol":"BTC-USD","price":60000.50,"qty":2,"notional":120001},"filterdhops":1}`
	if whale.Channel != "alerts.desk" || whale.Payload != want {
		t.Errorf("got %s on %s\nwant %s", whale.Payload, whale.Channel, want)
	}
	dead, err := received.ReceiveMessage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	event, err := filterd.DecodeEvent([]byte(dead.Payload))
	if err != nil {
		t.Fatal(err)
	}
	if dead.Channel != "dead.prices" || event.Type != engine.DeadLetterType {
		t.Errorf("got a %s on %s", event.Type, dead.Channel)
	}

	embedding.Interrupt()
	if code := embedding.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, embedding.Stderr())
	}
	embedding.Check(`listening
page: "BTC-USD" for 120001.00
channel PRICE_DATA: 3 received, 1 broke the schema
rule whales: 1 matched, 2 delivered, 0 failed
`)
}

// TestRules runs the tests that stand beside the rules. The daemon's test
// command doesn't know the callbacks.
func TestRules(t *testing.T) {
	loaded, err := config.Load("filterd.yaml", config.Callbacks(map[string]engine.Callback{"page": page}))
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded.Warnings) > 0 || len(loaded.Tests) == 0 {
		t.Errorf("warnings %v, %d tests", loaded.Warnings, len(loaded.Tests))
	}
	results, err := loaded.RunTests()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%s: got %s, want %s", r.Test, r.Got, r.Want)
		}
	}
}

func TestNoRedis(t *testing.T) { exampletest.NoRedis(t, "embedding") }

// price puts data into an event.
func price(data []byte) []byte {
	event := filterd.Event{ID: "1", Source: "/test", Type: "price", Data: data}
	return event.AppendJSON(nil)
}
