package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
	"github.com/filterd/filterd/examples/exampletest"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/filterd/filterd/pubsub"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestPublisher(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := redistest.Start(t)
	rdb, err := pubsub.Connect(ctx, pubsub.Options{URL: filterd.Secret(server.URL())})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	received := rdb.PSubscribe(ctx, "*")
	defer received.Close()
	if _, err := received.Receive(ctx); err != nil { // the subscription
		t.Fatal(err)
	}

	publisher := exampletest.Start(t, server.URL())
	for i, want := range []string{
		`{"symbol":"BTC-USD","price":60000,"qty":2}`,
		`{"symbol":"ETH-USD","price":3000,"qty":10}`,
		`{"symbol":"BTC-USD","price":60001,"qty":2,"sequence":1}`,
		`{"symbol":"BTC-USD","price":60002,"qty":2,"sequence":2}`,
	} {
		m, err := received.ReceiveMessage(ctx)
		if err != nil {
			t.Fatalf("message %d: %v\n%s%s", i, err, publisher.Stdout(), publisher.Stderr())
		}
		event, err := filterd.DecodeEvent([]byte(m.Payload))
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if m.Channel != channels.PriceData || event.Source != "/examples/publisher" || event.Type != channels.PriceData {
			t.Errorf("message %d is on channel %s, from %s, of type %s", i, m.Channel, event.Source, event.Type)
		}
		if string(event.Data) != want {
			t.Errorf("message %d:\n got %s\nwant %s", i, event.Data, want)
		}
	}
	publisher.Await("60002.00 (receivers: 1)\n")
	publisher.Interrupt()
	if code := publisher.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, publisher.Stderr())
	}
	// On a slow machine more prices may have come between the last two lines.
	want := `refused: /data/price: exclusiveMinimum: got -1, want 0
sent a batch of 2
sent BTC-USD at 60001.00 (receivers: 1)
sent BTC-USD at 60002.00 (receivers: 1)
`
	if got := publisher.Stdout(); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "(receivers: 1)\nstopped\n") {
		t.Errorf("got:\n%s\nwant:\n%sstopped\n", got, want)
	}
}

func TestNoRedis(t *testing.T) { exampletest.NoRedis(t, "publisher") }
