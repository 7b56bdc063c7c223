package pubsub

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// PublisherOptions are a publisher's. The zero value of a field is its
// default.
type PublisherOptions struct {
	// Source is the source attribute of events that have none, a URI
	// reference. Default /NAME, where NAME is that of the program's file.
	Source string
	// Type returns the type attribute of an event on a channel. Default: the
	// channel's name.
	Type func(channel string) string
	// Logger is told when Redis refuses the heartbeats of stamped channels.
	// Default slog.Default().
	Logger *slog.Logger
}

// A Publisher publishes messages that keep their channels' contracts. What
// breaks its contract is never sent. Safe for concurrent use.
//
// Events of a channel whose contract is Stamped get the extensions producer,
// which is this Publisher's alone, and sequence, their number on the channel, so
// that subscribers can count what they have missed. From a second after the last
// one on, the publisher says on [filterd.StampsChannel] how far it has come, now
// and then as long as rdb is open.
type Publisher struct {
	sink     *Sink
	stamps   *stamper // nil: no channel is stamped
	registry *filterd.Registry
	source   string
	kind     func(channel string) string
}

// NewPublisher makes a publisher that sends through rdb, which stays the
// caller's. A nil registry declares no contract: everything goes out as an
// event.
func NewPublisher(rdb redis.UniversalClient, registry *filterd.Registry, options PublisherOptions) *Publisher {
	p := &Publisher{sink: NewSink(rdb), registry: registry, source: options.Source, kind: options.Type}
	p.stamps = newStamper(p.sink, registry, options.Logger)
	if p.source == "" {
		p.source = "/" + url.PathEscape(filepath.Base(os.Args[0]))
	}
	if p.kind == nil {
		p.kind = func(channel string) string { return channel }
	}
	return p
}

// Publish publishes data on a channel and returns how many subscribers
// received it; in a Cluster, those of the node it was sent to.
//
// The channel's envelope says what is sent: an event with a new id, the
// source and type of the options, the current time and the data; in a raw
// envelope, the data's JSON alone; in a bytes envelope, data itself, which
// must be a []byte or a string there. JSON is made by encoding/json, without
// its HTML escapes; a [json.RawMessage] keeps its bytes. A []byte is refused
// where JSON is due, since it could be meant as JSON or as binary data. Nil
// data is an event without data.
//
// A message that breaks its contract is not sent: the error is a
// [*filterd.ValidationError], matching [filterd.ErrInvalid]. An error that is
// no reply of the server means that the message may have been published; it is
// never sent again.
func (p *Publisher) Publish(ctx context.Context, channel string, data any) (receivers int64, err error) {
	return p.publish(ctx, Outgoing{Channel: channel, Data: data})
}

// PublishSharded is Publish for a sharded channel. Its events have no stamps:
// nobody counts them.
func (p *Publisher) PublishSharded(ctx context.Context, channel string, data any) (receivers int64, err error) {
	return p.publish(ctx, Outgoing{Channel: channel, Data: data, Sharded: true})
}

// PublishEvent is Publish for an event of the caller's making. Where ID,
// Source, Type or Time are empty, they are filled in, in a copy.
func (p *Publisher) PublishEvent(ctx context.Context, channel string, event *filterd.Event) (receivers int64, err error) {
	return p.publish(ctx, Outgoing{Channel: channel, Event: event})
}

func (p *Publisher) publish(ctx context.Context, out Outgoing) (int64, error) {
	payload, err := p.payload(out)
	if err != nil {
		return 0, err
	}
	delivery := [1]filterd.Delivery{{Channel: out.Channel, Sharded: out.Sharded, Payload: payload}}
	p.deliver(ctx, delivery[:])
	return delivery[0].Receivers, delivery[0].Err
}

func (p *Publisher) deliver(ctx context.Context, batch []filterd.Delivery) {
	if p.stamps != nil {
		p.stamps.deliver(ctx, batch)
		return
	}
	p.sink.Deliver(ctx, batch)
}

// An Outgoing is one message of a batch.
type Outgoing struct {
	Channel string
	Data    any            // as for Publish
	Event   *filterd.Event // if not nil, as for PublishEvent; Data is ignored
	Sharded bool           // as for PublishSharded
}

// A Result is what became of one message of a batch.
type Result struct {
	Receivers int64 // how many subscribers received it
	Err       error // why it was not, or may not have been, published
}

// PublishBatch publishes messages in one pipeline, in order. All are checked
// first: if any is invalid none is sent, there are no results, and the error
// lists every invalid one with its index. Otherwise there is a result for each
// message, and the error joins those of the results.
func (p *Publisher) PublishBatch(ctx context.Context, batch []Outgoing) ([]Result, error) {
	deliveries := make([]filterd.Delivery, len(batch))
	var errs []error
	for i, out := range batch {
		payload, err := p.payload(out)
		if err != nil {
			errs = append(errs, fmt.Errorf("message %d: %w", i, err))
		}
		deliveries[i] = filterd.Delivery{Channel: out.Channel, Sharded: out.Sharded, Payload: payload}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	p.deliver(ctx, deliveries)
	results := make([]Result, len(batch))
	for i, d := range deliveries {
		results[i] = Result{Receivers: d.Receivers, Err: d.Err}
		if d.Err != nil {
			errs = append(errs, fmt.Errorf("message %d: %w", i, d.Err))
		}
	}
	return results, errors.Join(errs...)
}

// payload makes and checks what goes out.
func (p *Publisher) payload(out Outgoing) ([]byte, error) {
	if out.Channel == "" {
		return nil, errors.New("publish: no channel given")
	}
	if filterd.IsGlob(out.Channel) {
		return nil, fmt.Errorf("publish to %q: that is a pattern, not a channel", out.Channel)
	}
	contract := p.registry.Lookup(out.Channel)
	if out.Sharded && contract.Stamped {
		unstamped := *contract
		unstamped.Stamped = false
		contract = &unstamped
	}
	payload, err := p.checked(out, contract)
	if err != nil && !errors.Is(err, filterd.ErrInvalid) {
		err = fmt.Errorf("publish to %q: %w", out.Channel, err)
	}
	return payload, err
}

// checked makes what goes out by a contract, and holds it against that of its
// channel.
func (p *Publisher) checked(out Outgoing, contract *filterd.Contract) ([]byte, error) {
	payload, err := p.encode(out, contract)
	if err != nil {
		return nil, err
	}
	if err := p.registry.CheckWhole(&filterd.Message{Channel: out.Channel, Payload: payload}); err != nil {
		return nil, err
	}
	return payload, nil
}

// encode puts data or event into its envelope.
func (p *Publisher) encode(out Outgoing, contract *filterd.Contract) ([]byte, error) {
	if _, ok := out.Data.(*filterd.Event); ok && out.Event == nil {
		return nil, errors.New("an event goes out by PublishEvent")
	}
	switch envelope := contract.Envelope; envelope {
	case filterd.EnvelopeRaw, filterd.EnvelopeBytes:
		if out.Event != nil {
			return nil, fmt.Errorf("a channel with envelope %s takes no events", envelope)
		}
		if envelope == filterd.EnvelopeRaw {
			return encodeJSON(out.Data)
		}
		switch data := out.Data.(type) {
		case []byte:
			return data, nil
		case string:
			return []byte(data), nil
		}
		return nil, fmt.Errorf("a channel with envelope bytes takes a []byte or a string, not %T", out.Data)
	}

	var event filterd.Event
	switch {
	case out.Event != nil:
		event = *out.Event
	case out.Data != nil:
		data, err := encodeJSON(out.Data)
		if err != nil {
			return nil, err
		}
		event.Data = data
	}
	event.ID = cmp.Or(event.ID, filterd.NewID(time.Now()))
	event.Source = cmp.Or(event.Source, p.source)
	event.Type = cmp.Or(event.Type, p.kind(out.Channel))
	if event.Time.IsZero() {
		event.Time = time.Now().UTC()
	}
	// What AppendJSON writes is valid JSON only if the event is valid.
	if err := event.Validate(); err != nil {
		var invalid *filterd.ValidationError
		if errors.As(err, &invalid) {
			invalid.Channel = out.Channel
		}
		return nil, err
	}
	payload := event.AppendJSON(nil)
	if !contract.Stamped {
		return payload, nil
	}
	if err := stampable(&event); err != nil {
		return nil, err
	}
	return withRoom(payload), nil
}

// encodeJSON encodes data. A json.RawMessage keeps its bytes, which
// json.Marshal would compact and escape.
func encodeJSON(data any) ([]byte, error) {
	switch data := data.(type) {
	case json.RawMessage:
		return data, nil
	case []byte:
		return nil, errors.New("a []byte may be JSON or binary: give a json.RawMessage, or an event with Binary")
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(data); err != nil {
		return nil, fmt.Errorf("encode data: %w", err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}
