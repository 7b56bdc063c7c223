package pubsub

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// Typed data arrives as it was published; what is of another type is counted.
// OnReady comes first, so that nothing is published too early.
func TestHandleFor(t *testing.T) {
	type price struct {
		Symbol string
		Price  float64
	}
	server := redistest.Start(t)
	ready := make(chan struct{})
	s := newSubscriber(t, server, nil, SubscriberOptions{OnReady: func() { close(ready) }})
	got := make(chan string, 1)
	err := HandleFor(s, "prices", nil, func(_ context.Context, data price, m *filterd.Message) error {
		got <- fmt.Sprint(m.Channel, " ", data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := HandleFor[price](s, "prices", nil, nil); err == nil || err.Error() != `handle "prices": no callback given` {
		t.Errorf("no callback: %v", err)
	}
	stop := run(t, s.Run)
	<-ready

	publisher := NewPublisher(client(t, server.Addr), nil, PublisherOptions{})
	if _, err := publisher.Publish(t.Context(), "prices", 5); err != nil {
		t.Fatal(err)
	}
	receivers, err := For[price](publisher, "prices").Publish(t.Context(), price{"BTC", 2.5})
	if err != nil || receivers != 1 {
		t.Fatal(receivers, err)
	}
	if text := <-got; text != "prices {BTC 2.5}" {
		t.Errorf("got %s", text)
	}
	if err := stop(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if h := s.Stats().Handlers[0]; h.Errors != 1 || h.Matched != 2 {
		t.Errorf("%+v", h)
	}
}
