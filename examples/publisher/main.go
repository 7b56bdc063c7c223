// Publisher publishes prices until it is interrupted. Each is a CloudEvents
// event on the channel PRICE_DATA, and is checked before it is sent.
//
//	go run ./examples/publisher
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
	"github.com/filterd/filterd/pubsub"
)

func main() {
	pubsub.LogClients(slog.Default()) // errors say it all: no lines of go-redis' own
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "publisher:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	url := cmp.Or(os.Getenv("REDIS_URL"), "redis://localhost:6379")
	rdb, err := pubsub.Connect(ctx, pubsub.Options{URL: filterd.Secret(url)})
	if err != nil {
		return err
	}
	defer rdb.Close()

	// The registry knows what the messages of each channel must be.
	registry, err := filterd.NewRegistry(channels.Contracts()...)
	if err != nil {
		return err
	}
	publisher := pubsub.NewPublisher(rdb, registry, pubsub.PublisherOptions{Source: "/examples/publisher"})
	prices := pubsub.For[channels.Price](publisher, channels.PriceData)

	// A broken price is not sent. The error says what is wrong, and where.
	_, err = prices.Publish(ctx, channels.Price{Symbol: "BTC-USD", Price: -1})
	invalid, ok := errors.AsType[*filterd.ValidationError](err)
	if !ok {
		return fmt.Errorf("a price below zero was not refused: %w", err)
	}
	for _, failure := range invalid.Failures {
		fmt.Printf("refused: %s: %s\n", failure.Pointer, failure.Detail)
	}

	// A batch goes out in one round trip, in this order.
	results, err := prices.PublishBatch(ctx,
		channels.Price{Symbol: "BTC-USD", Price: 60_000, Qty: 2},
		channels.Price{Symbol: "ETH-USD", Price: 3_000, Qty: 10},
	)
	if err != nil {
		return err
	}
	fmt.Printf("sent a batch of %d\n", len(results))

	for sequence := int64(1); ; sequence++ {
		select {
		case <-ctx.Done():
			fmt.Println("stopped")
			return nil
		case <-time.After(time.Second):
		}
		price := channels.Price{Symbol: "BTC-USD", Price: 60_000 + float64(sequence), Qty: 2, Sequence: sequence}
		receivers, err := prices.Publish(ctx, price)
		if err != nil {
			return err
		}
		fmt.Printf("sent %s at %.2f (receivers: %d)\n", price.Symbol, price.Price, receivers)
	}
}
