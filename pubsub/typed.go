package pubsub

import (
	"context"
	"fmt"

	"github.com/filterd/filterd"
)

// A TypedPublisher publishes data of one type on one channel, so that the
// compiler sees what goes where. Safe for concurrent use.
type TypedPublisher[T any] struct {
	publisher *Publisher
	channel   string
}

// For makes a typed publisher of a publisher and a channel:
//
//	prices := pubsub.For[channels.Price](publisher, channels.PriceData)
func For[T any](p *Publisher, channel string) *TypedPublisher[T] {
	return &TypedPublisher[T]{publisher: p, channel: channel}
}

// Channel returns the channel that p publishes on.
func (p *TypedPublisher[T]) Channel() string { return p.channel }

// Publish publishes data, as [Publisher.Publish] does.
func (p *TypedPublisher[T]) Publish(ctx context.Context, data T) (receivers int64, err error) {
	return p.publisher.Publish(ctx, p.channel, data)
}

// PublishBatch publishes several data, as [Publisher.PublishBatch] does.
func (p *TypedPublisher[T]) PublishBatch(ctx context.Context, data ...T) ([]Result, error) {
	batch := make([]Outgoing, len(data))
	for i, d := range data {
		batch[i] = Outgoing{Channel: p.channel, Data: d}
	}
	return p.publisher.PublishBatch(ctx, batch)
}

// HandleFor is [Subscriber.Handle] for data of one type, which is decoded as
// encoding/json does. A message whose data is of another type is an error of
// the handler, and counted as such.
//
//	pubsub.HandleFor(subscriber, channels.PriceData, nil, func(ctx context.Context, price channels.Price, m *filterd.Message) error {
func HandleFor[T any](s *Subscriber, channelOrPattern string, where filterd.Filter, callback func(ctx context.Context, data T, m *filterd.Message) error) error {
	if callback == nil {
		return s.Handle(channelOrPattern, where, nil)
	}
	return s.Handle(channelOrPattern, where, func(ctx context.Context, m *filterd.Message) error {
		var data T
		if err := m.Decode(&data); err != nil {
			return fmt.Errorf("decode data as %T: %w", data, err)
		}
		return callback(ctx, data, m)
	})
}
