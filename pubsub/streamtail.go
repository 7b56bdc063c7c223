package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
)

// A StreamTail follows a stream without a group: it sees every entry, takes none
// from anybody, and acknowledges nothing. It is for looking, where a
// [StreamSource] is for working. It belongs to one goroutine.
type StreamTail struct {
	rdb     redis.UniversalClient
	options StreamTailOptions
	last    string // ID of the last entry, or what the next one comes after
}

// StreamTailOptions are a StreamTail's. The zero value of a field is its default.
type StreamTailOptions struct {
	// Field is the field of an entry that holds the message. Default
	// filterd.DefaultField.
	Field string
	// From is the ID of the first entry: 0 for all that the stream has, or the
	// milliseconds alone for the first one of these. Default: those that are
	// added from now on.
	From string
	// MaxMessage is how large an entry may be, in bytes; of a larger one only
	// the fault comes. Default DefaultMaxMessage.
	MaxMessage int
	// Logger gets what is wrong with the stream. Default slog.Default().
	Logger *slog.Logger
}

// NewStreamTail makes a tail that reads through rdb, which stays the caller's.
// The error is about From.
func NewStreamTail(rdb redis.UniversalClient, options StreamTailOptions) (*StreamTail, error) {
	t := &StreamTail{rdb: rdb, options: options}
	t.options.Logger = cmp.Or(options.Logger, slog.Default())
	t.options.Field = cmp.Or(options.Field, filterd.DefaultField)
	if options.MaxMessage <= 0 {
		t.options.MaxMessage = DefaultMaxMessage
	}
	if options.From == "" {
		return t, nil
	}
	var err error
	t.last, err = before(options.From)
	return t, err
}

// before returns the ID that XREAD wants for an entry and all after it.
func before(id string) (string, error) {
	head, tail, two := strings.Cut(id, "-")
	ms, err := strconv.ParseUint(head, 10, 64)
	var sequence uint64
	if err == nil && two {
		sequence, err = strconv.ParseUint(tail, 10, 64)
	}
	if err != nil {
		return "", fmt.Errorf("%q is no ID of an entry: want 1700000000000-0, 1700000000000 or 0", id)
	}
	return idBefore(fmt.Sprintf("%d-%d", ms, sequence)), nil
}

// Run calls take with the stream's entries in their order, a batch at a time,
// until ctx ends; then it returns nil. The messages are valid until take returns. Of an entry
// that holds no message, Entry.Fault says why, and the payload is all of it as
// JSON. When the connection breaks Run goes on where it was. The error is that
// Redis can't be reached at first, or refuses the stream.
func (t *StreamTail) Run(ctx context.Context, stream string, take func([]*filterd.Message)) error {
	wait := &backoff.ExponentialBackOff{InitialInterval: minBackoff, MaxInterval: maxBackoff, Multiplier: 2, RandomizationFactor: 0.5}
	for begun := false; ; {
		err := t.session(ctx, stream, wait, &begun, take)
		var refused redis.Error
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &refused) && (redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "WRONGTYPE")):
			return fmt.Errorf("stream %s: %w", stream, err)
		case !begun:
			return unreachable(t.rdb, err)
		}
		pause := wait.NextBackOff()
		t.options.Logger.Warn("stream can't be read, trying again", "stream", stream, "error", unreachable(t.rdb, err), "in", pause)
		rest(ctx, pause)
	}
}

// session reads until something goes wrong or ctx ends, and says whether it has
// begun to.
func (t *StreamTail) session(ctx context.Context, stream string, wait *backoff.ExponentialBackOff, begun *bool, take func([]*filterd.Message)) error {
	if t.last == "" {
		if err := t.fromNow(ctx, stream); err != nil {
			return err
		}
	}
	conn, err := connectEntries(ctx, t.rdb, stream, t.options.MaxMessage)
	if err != nil {
		return err
	}
	*begun = true
	closed := context.AfterFunc(ctx, func() { _ = conn.close() }) // a read must not outlast ctx
	defer func() {
		if closed() {
			_ = conn.close()
		}
	}()
	size := batchSize{count: firstBatch}
	for ctx.Err() == nil {
		if !conn.asked() {
			err := conn.ask("XREAD", "COUNT", strconv.Itoa(size.count), "BLOCK", strconv.FormatInt(streamBlock.Milliseconds(), 10), "STREAMS", stream, t.last)
			if err != nil {
				return err
			}
		}
		part, err := conn.next(ctx)
		if err != nil {
			return err
		}
		size.add(part)
		wait.Reset()
		if len(part.entries) > 0 {
			t.last = part.entries[len(part.entries)-1].id
			take(t.messages(stream, part.entries))
		}
	}
	return nil
}

// fromNow finds the last entry there is.
func (t *StreamTail) fromNow(ctx context.Context, stream string) error {
	entries, err := t.rdb.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		t.last = "0-0"
		t.options.Logger.Warn("the stream is empty, or there is none of that name yet", "stream", stream)
		return nil
	}
	t.last = entries[0].ID
	return nil
}

func (t *StreamTail) messages(stream string, from []streamEntry) []*filterd.Message {
	now := time.Now()
	batch := make([]*filterd.Message, len(from))
	for i := range from {
		payload, fault := from[i].message(stream, t.options.Field)
		batch[i] = &filterd.Message{Channel: stream, ID: from[i].id, Payload: payload, Received: now}
		if fault != nil {
			batch[i].Entry = &filterd.Entry{Stream: stream, ID: from[i].id, Fault: fault}
		}
	}
	return batch
}
