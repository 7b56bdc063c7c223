package pubsub

import "context"

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
