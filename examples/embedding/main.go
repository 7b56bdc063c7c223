// Embedding runs the rules of a config file inside a Go program, where they
// can call Go functions.
//
//	go run ./examples/embedding
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

func main() {
	pubsub.LogClients(slog.Default()) // errors say it all: no lines of go-redis' own
	file := flag.String("c", "examples/embedding/filterd.yaml", "the config `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *file)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "embedding:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string) error {
	// Rules name the functions that they call: {callback: page}.
	loaded, err := config.Load(file, config.Callbacks(map[string]engine.Callback{"page": page}))
	if err != nil {
		return err
	}
	rdb, err := pubsub.Connect(ctx, loaded.Redis)
	if err != nil {
		return err
	}
	defer rdb.Close()
	rules, err := loaded.Engine(engine.Config{Sink: pubsub.NewSink(rdb)})
	if err != nil {
		return err
	}
	source := pubsub.NewSource(rdb, pubsub.SourceOptions{MaxMessage: loaded.MaxMessage})
	go func() {
		if source.WaitReady(ctx) == nil {
			fmt.Println("listening")
		}
	}()
	err = rules.Run(ctx, source) // returns when ctx ends

	// Close waits for the callbacks of what has been read.
	err = errors.Join(err, rules.Close())
	stats := rules.Stats()
	for name, channel := range stats.Channels {
		fmt.Printf("channel %s: %d received, %d broke the schema\n", name, channel.Received, channel.Invalid[filterd.ReasonSchema])
	}
	for name, rule := range stats.Rules {
		fmt.Printf("rule %s: %d matched, %d delivered, %d failed\n", name, rule.Matched, rule.Delivered, rule.Errors)
	}
	return err
}

// page is called with every message that a rule sends to it, as the rule's
// stages left it: notional is what the rule set.
func page(_ context.Context, m *filterd.Message) error {
	data, err := m.Data()
	if err != nil {
		return err
	}
	price, ok := data.(map[string]any)
	if !ok {
		return fmt.Errorf("a price is an object, not %T", data)
	}
	fmt.Printf("page: %q for %.2f\n", price["symbol"], price["notional"])
	return nil
}
