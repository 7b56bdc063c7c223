package pubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// Letters is a stream of dead letters, for those who look into it and send
// messages on their way again. Each letter is replayed once at most, whoever
// else replays: it is claimed before, in a set beside the stream, and deleted
// after. Safe for concurrent use.
type Letters struct {
	rdb    redis.UniversalClient
	sink   *Sink
	stream string
	claims string // a set of IDs, in the stream's slot
}

// A Letter is one entry of a stream of dead letters.
type Letter struct {
	ID string
	// Payload is the event that the dead letter is; nil if the entry holds
	// none.
	Payload []byte
	// Replayed says that the letter was replayed and kept, or that nobody
	// knows what came of it.
	Replayed bool
}

// Errors of [Letters.Replay] that leave the letter as it was.
var (
	// ErrReplayed says that the letter is replayed already.
	ErrReplayed = errors.New("it is replayed already")
	// ErrNoLetter says that the letter is not in the stream.
	ErrNoLetter = errors.New("there is no such letter")
	// ErrNoReceivers says that nobody is subscribed to the channel. Of a channel
	// in a Cluster that can't be known, unless it is a sharded one.
	ErrNoReceivers = errors.New("nobody is subscribed to it")
)

// NewLetters returns the dead letters of a stream. rdb stays the caller's. The
// caller must Close it. On a Cluster a stream whose name has a } but no hash tag
// can be read only: there is no name for the claims in its slot.
func NewLetters(rdb redis.UniversalClient, stream string) *Letters {
	claims := "{" + stream + "}:replayed"
	if open := strings.IndexByte(stream, '{'); open >= 0 && strings.IndexByte(stream[open:], '}') > 1 {
		claims = stream + ":replayed" // it has a hash tag
	}
	return &Letters{rdb: rdb, sink: NewSink(rdb), stream: stream, claims: claims}
}

// Close closes the connection that channels are published to on.
func (l *Letters) Close() error { return l.sink.Close() }

// Last returns the ID of the newest letter; empty if there is none.
func (l *Letters) Last(ctx context.Context) (string, error) {
	entries, err := l.rdb.XRevRangeN(ctx, l.stream, "+", "-", 1).Result()
	if err != nil || len(entries) == 0 {
		return "", l.wrap(err)
	}
	return entries[0].ID, nil
}

// Read returns letters from one ID to another, at most that many, oldest first.
// As in XRANGE, "-" and "+" are the ends, and "(" before an ID leaves it out.
func (l *Letters) Read(ctx context.Context, from, to string, count int64) ([]Letter, error) {
	entries, err := l.rdb.XRangeN(ctx, l.stream, from, to, count).Result()
	if err != nil || len(entries) == 0 {
		return nil, l.wrap(err)
	}
	ids := make([]any, len(entries))
	for i, e := range entries {
		ids[i] = e.ID
	}
	replayed, err := l.rdb.SMIsMember(ctx, l.claims, ids...).Result()
	if err != nil {
		return nil, l.wrap(err)
	}
	letters := make([]Letter, len(entries))
	for i, e := range entries {
		letters[i] = Letter{ID: e.ID, Replayed: replayed[i]}
		if text, ok := e.Values[filterd.DefaultField].(string); ok {
			letters[i].Payload = []byte(text)
		}
	}
	return letters, nil
}

// Replay makes the delivery that a letter stands for, a stream's in the given
// field, and deletes the letter, unless it is to be kept. Where the error is one
// of those above, or a reply of the server, nothing has happened. After any
// other error the message may have been delivered: the letter stays and counts
// as replayed.
func (l *Letters) Replay(ctx context.Context, id string, d filterd.Delivery, field string, keep bool) error {
	if err := l.claim(ctx, id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayTimeout)
	defer cancel()
	err := l.deliver(ctx, d, field)
	var refused redis.Error
	switch {
	case errors.Is(err, ErrNoReceivers) || errors.As(err, &refused):
		return errors.Join(err, l.wrap(l.rdb.SRem(ctx, l.claims, id).Err()))
	case err != nil:
		return fmt.Errorf("%w: it may have been delivered, so the letter counts as replayed", err)
	case keep:
		return nil
	}
	_, err = l.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.XDel(ctx, l.stream, id)
		p.SRem(ctx, l.claims, id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("it is delivered, but not deleted, and counts as replayed: %w", l.wrap(err))
	}
	return nil
}

// replayTimeout bounds what Replay does once it has begun.
const replayTimeout = 30 * time.Second

// claim makes the letter the caller's to replay. In the same step it looks
// whether it is there: who replayed it before may have deleted it, and the claim.
func (l *Letters) claim(ctx context.Context, id string) error {
	var claimed *redis.IntCmd
	var entry *redis.XMessageSliceCmd
	_, err := l.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error { // which go-redis sends once
		claimed = p.SAdd(ctx, l.claims, id)
		entry = p.XRange(ctx, l.stream, id, id)
		return nil
	})
	switch {
	case err != nil:
		return l.wrap(err)
	case claimed.Val() == 0:
		return ErrReplayed
	case len(entry.Val()) == 0:
		return errors.Join(ErrNoLetter, l.wrap(l.rdb.SRem(ctx, l.claims, id).Err()))
	}
	return nil
}

// deliver publishes a message, or appends it.
func (l *Letters) deliver(ctx context.Context, d filterd.Delivery, field string) error {
	if d.Stream {
		_, err := l.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error { // which go-redis sends once
			p.XAdd(ctx, &redis.XAddArgs{Stream: d.Channel, Values: []any{field, d.Payload}})
			return nil
		})
		return err
	}
	batch := []filterd.Delivery{d}
	l.sink.Deliver(ctx, batch)
	if batch[0].Err == nil && batch[0].Receivers == 0 && l.counted(&d) {
		return ErrNoReceivers
	}
	return batch[0].Err
}

// counted reports whether Redis counts all receivers of a delivery. A server of a
// Cluster passes a channel's messages on to the others, and knows its own
// subscribers only.
func (l *Letters) counted(d *filterd.Delivery) bool {
	_, cluster := l.rdb.(*redis.ClusterClient)
	return d.Sharded || !cluster
}

// wrap says which stream an error is about.
func (l *Letters) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("dead letters in stream %q: %w", l.stream, err)
}
