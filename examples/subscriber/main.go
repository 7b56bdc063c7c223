// Subscriber prints the messages that it asks for until it is interrupted:
// large trades of PRICE_DATA, and everything on channels like alerts.whales.
//
//	go run ./examples/subscriber
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/pubsub"
)

var large = exprfilter.MustCompile(`data.symbol startsWith "BTC" and data.price * (data.qty ?? 0) > 100_000`)

func main() {
	pubsub.LogClients(slog.Default()) // errors say it all: no lines of go-redis' own
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "subscriber:", err)
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
	registry, err := filterd.NewRegistry(channels.Contracts()...)
	if err != nil {
		return err
	}
	subscriber := pubsub.NewSubscriber(rdb, registry, pubsub.SubscriberOptions{
		// Messages that break their channel's contract reach no callback.
		OnInvalid: func(_ *filterd.Message, err *filterd.ValidationError) { fmt.Println("invalid:", err) },
		// After Redis was away: pub/sub doesn't keep what nobody receives.
		OnGap: func(gap filterd.Gap) { fmt.Println("messages may be missing for", gap.Length()) },
	})
	err = errors.Join(
		subscriber.Handle(channels.PriceData, large, printPrice),
		subscriber.Handle("alerts.*", nil, printAlert), // nil: no filter
	)
	if err != nil {
		return err
	}
	go func() {
		if subscriber.WaitReady(ctx) == nil {
			fmt.Println("listening")
		}
	}()
	return subscriber.Run(ctx) // until ctx ends and the callbacks are done
}

// printPrice takes a message that has kept the contract of PRICE_DATA, so it
// is an event whose data is a price.
func printPrice(_ context.Context, m *filterd.Message) error {
	event, err := m.Event()
	if err != nil {
		return err
	}
	var price channels.Price
	if err := json.Unmarshal(event.Data, &price); err != nil {
		return err
	}
	fmt.Printf("%q for %.2f\n", price.Symbol, price.Price*price.Qty)
	return nil
}

// printAlert takes any message. %#q keeps control characters off the terminal.
func printAlert(_ context.Context, m *filterd.Message) error {
	fmt.Printf("%q: %#q\n", m.Channel, m.Payload)
	return nil
}
