package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/pubsub"
)

func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rdb, err := pubsub.Connect(ctx, pubsub.Options{URL: "redis://localhost:6379"})
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()

	subscriber := pubsub.NewSubscriber(rdb, nil, pubsub.SubscriberOptions{})
	err = subscriber.Handle("PRICE_DATA", nil, func(_ context.Context, m *filterd.Message) error {
		data, err := m.Data()
		if err != nil {
			return err
		}
		fmt.Println(m.Channel, data)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := subscriber.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// Every mode of Redis has the same client afterwards.
func ExampleConnect() {
	rdb, err := pubsub.Connect(context.Background(), pubsub.Options{
		Mode:     pubsub.ModeSentinel,
		Addrs:    []string{"sentinel-1:26379", "sentinel-2:26379"},
		Master:   "prices",
		Username: "bot",
		Password: "from a file, rather",
		TLS:      &pubsub.TLS{CA: "/etc/redis/ca.pem"},
	})
	if errors.Is(err, pubsub.ErrUnreachable) {
		log.Fatal("try again later: ", err)
	}
	if err != nil {
		log.Fatal("correct the options: ", err)
	}
	defer rdb.Close()
}

func ExampleOptions_Client() {
	_, err := pubsub.Options{Mode: pubsub.ModeSentinel, Port: 70000}.Client()
	fmt.Println(err)
	// Output:
	// redis options: port 70000: want 1 to 65535
	// master: mode sentinel needs the master's name
}

func ExamplePublisher_Publish() {
	ctx := context.Background()
	rdb, err := pubsub.Connect(ctx, pubsub.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()
	schema, err := filterd.ParseSchema("price", []byte(`{"properties": {"price": {"type": "number"}}}`))
	if err != nil {
		log.Fatal(err)
	}
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "PRICE_DATA", Schema: schema})
	if err != nil {
		log.Fatal(err)
	}

	publisher := pubsub.NewPublisher(rdb, registry, pubsub.PublisherOptions{Source: "/price-bot"})
	receivers, err := publisher.Publish(ctx, "PRICE_DATA", map[string]any{"symbol": "BTC-USD", "price": 60000.5})
	if errors.Is(err, filterd.ErrInvalid) {
		log.Fatal("nothing was sent: ", err)
	}
	fmt.Println(receivers, err)
}

// What breaks its contract is refused before anything is sent.
func ExamplePublisher_Publish_invalid() {
	rdb, err := pubsub.Options{}.Client() // not connected yet
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()
	schema, err := filterd.ParseSchema("price", []byte(`{"properties": {"price": {"type": "number"}}}`))
	if err != nil {
		log.Fatal(err)
	}
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "PRICE_DATA", Schema: schema})
	if err != nil {
		log.Fatal(err)
	}
	publisher := pubsub.NewPublisher(rdb, registry, pubsub.PublisherOptions{})
	_, err = publisher.Publish(context.Background(), "PRICE_DATA", map[string]any{"price": "a lot"})
	fmt.Println(err)
	// Output: PRICE_DATA: schema: /data/price: got string, want number
}

func ExamplePublisher_PublishBatch() {
	ctx := context.Background()
	rdb, err := pubsub.Connect(ctx, pubsub.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()
	publisher := pubsub.NewPublisher(rdb, nil, pubsub.PublisherOptions{})
	results, err := publisher.PublishBatch(ctx, []pubsub.Outgoing{
		{Channel: "PRICE_DATA", Data: map[string]any{"symbol": "BTC-USD"}},
		{Channel: "BOT_STATUS", Event: &filterd.Event{Type: "io.example.started", Subject: "price-bot"}},
	})
	if err != nil {
		log.Print(err)
	}
	for i, result := range results {
		fmt.Println(i, result.Receivers)
	}
}

func ExampleFor() {
	type price struct {
		Symbol string  `json:"symbol"`
		Price  float64 `json:"price"`
	}
	ctx := context.Background()
	rdb, err := pubsub.Connect(ctx, pubsub.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()
	prices := pubsub.For[price](pubsub.NewPublisher(rdb, nil, pubsub.PublisherOptions{}), "PRICE_DATA")
	if _, err := prices.Publish(ctx, price{Symbol: "BTC-USD", Price: 60000}); err != nil {
		log.Fatal(err)
	}
}

// A filter keeps some messages from the callback; here a function is one.
func ExampleSubscriber_Handle() {
	ctx := context.Background()
	rdb, err := pubsub.Connect(ctx, pubsub.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()
	subscriber := pubsub.NewSubscriber(rdb, nil, pubsub.SubscriberOptions{})
	large := filterd.FilterFunc(func(m *filterd.Message) (bool, error) { return len(m.Payload) > 1000, nil })
	if err := subscriber.Handle("prices.*", large, func(_ context.Context, m *filterd.Message) error {
		fmt.Println(m.Channel, "via", m.Pattern)
		return nil
	}); err != nil {
		log.Fatal(err)
	}
	if err := subscriber.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// printer is a handler that prints.
type printer struct{}

func (printer) Messages(_ context.Context, batch []*filterd.Message) {
	for _, m := range batch {
		fmt.Printf("%s %s\n", m.Channel, m.Payload)
	}
}

func (printer) Gap(gap filterd.Gap) {
	fmt.Println("messages may be missing for", gap.Length())
}

func ExampleSource() {
	ctx := context.Background()
	rdb, err := pubsub.Options{}.Client() // Redis may come up later
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()
	source := pubsub.NewSource(rdb, pubsub.SourceOptions{})
	source.Subscribe(filterd.Subscriptions{Channels: []string{"PRICE_DATA"}, Globs: []string{"trades.*"}})
	if err := source.Run(ctx, printer{}); err != nil {
		log.Fatal(err)
	}
}

func ExampleSink() {
	ctx := context.Background()
	rdb, err := pubsub.Connect(ctx, pubsub.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rdb.Close()
	batch := []filterd.Delivery{{Channel: "whale-alerts", Payload: []byte(`{"symbol":"BTC-USD"}`)}}
	pubsub.NewSink(rdb).Deliver(ctx, batch)
	fmt.Println(batch[0].Receivers, batch[0].Err)
}

func ExampleLogClients() {
	pubsub.LogClients(slog.Default())
}
