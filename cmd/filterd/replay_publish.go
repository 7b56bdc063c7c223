package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/pubsub"
)

// The bounds of what is published at once.
const (
	replayMessages = 256
	replayBytes    = 1 << 20
)

// replayTo publishes the messages where they were received.
func replayTo(c *cli.Context, in *replayInput) error {
	var registry *filterd.Registry
	if c.Bool("validate") {
		loaded, err := loadConfig(c)
		if err != nil {
			return err
		}
		defer loaded.Close()
		registry = loaded.Registry
	}
	if c.String("to") == "" {
		return usage(`--to "": want the URL of a Redis, such as redis://localhost:6379`)
	}
	rdb, err := pubsub.Connect(c.Context, pubsub.Options{URL: filterd.Secret(c.String("to"))})
	if errors.Is(err, pubsub.ErrUnreachable) {
		return redisError(err)
	} else if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	defer rdb.Close()
	// What was read before the end still goes out; the client's timeouts bound it.
	p := &republisher{ctx: context.WithoutCancel(c.Context), sink: pubsub.NewSink(rdb), tally: in.tally}
	in.wait = p.flush
	err = in.run(c.Context, func(n int, m *filterd.Message) error {
		if registry != nil {
			if err := registry.CheckWhole(m); err != nil {
				in.tally.invalid(n, err)
				return nil
			}
		}
		return p.add(n, m)
	})
	if asJSON(c) {
		_ = printJSON(c.App.Writer, struct {
			Published   int `json:"published"`
			NoReceivers int `json:"no_receivers"`
		}{in.tally.Matched, p.unheard})
	} else {
		fmt.Fprintf(c.App.Writer, "published %s, %d of them to nobody\n", count(in.tally.Matched, "message"), p.unheard)
	}
	return err
}

// A republisher publishes messages, as many at once as are there.
type republisher struct {
	ctx     context.Context
	sink    *pubsub.Sink
	tally   *tally
	unheard int // messages to channels that nobody has subscribed to

	batch []filterd.Delivery
	lines []int // of the batch
	bytes int   // of the batch
}

// add takes a message, which it borrows.
func (p *republisher) add(n int, m *filterd.Message) error {
	p.batch = append(p.batch, filterd.Delivery{Channel: m.Channel, Stream: m.ID != "", Sharded: m.Sharded, Payload: bytes.Clone(m.Payload)})
	p.lines = append(p.lines, n)
	p.bytes += len(m.Payload)
	if len(p.batch) < replayMessages && p.bytes < replayBytes {
		return nil
	}
	return p.flush()
}

// flush publishes what is there. What Redis refuses is reported; where Redis
// doesn't answer, the replay ends.
func (p *republisher) flush() error {
	p.sink.Deliver(p.ctx, p.batch)
	var silent error
	for i, d := range p.batch {
		if d.Err == nil {
			p.tally.Matched++
			if d.Receivers == 0 && !d.Stream {
				p.unheard++
			}
			continue
		}
		p.tally.failed(p.lines[i], d.Err)
		if _, answered := errors.AsType[redis.Error](d.Err); !answered {
			silent = d.Err
		}
	}
	p.batch, p.lines, p.bytes = p.batch[:0], p.lines[:0], 0
	if silent != nil {
		return &exitError{code: exitUnreachable, err: fmt.Errorf("%w: the replay has ended there", silent)}
	}
	return nil
}
