package pubsub

import (
	"context"
	"fmt"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// A Sink publishes. Safe for concurrent use.
type Sink struct{ rdb redis.UniversalClient }

var _ filterd.Sink = (*Sink)(nil)

// NewSink makes a sink that publishes through rdb, which stays the caller's.
func NewSink(rdb redis.UniversalClient) *Sink { return &Sink{rdb: rdb} }

// Deliver implements [filterd.Sink]: it publishes the whole batch in one
// pipeline and waits for the replies, as long as the client's timeouts and ctx
// allow. On one server messages are published in the order of the batch; on a
// Cluster those of one channel are.
//
// Nothing is sent twice, whatever the client's retries are set to. So an Err
// that is no reply of the server means that the message may have been
// published.
func (s *Sink) Deliver(ctx context.Context, batch []filterd.Delivery) {
	if len(batch) == 0 {
		return
	}
	commands := make([]*publish, len(batch))
	pipeline := s.rdb.Pipeline()
	for i, d := range batch {
		commands[i] = newPublish(ctx, d.Channel, d.Payload)
		_ = pipeline.Process(ctx, commands[i]) // only queues
	}
	_, _ = pipeline.Exec(ctx) // every command has its own error
	for i, command := range commands {
		batch[i].Receivers, batch[i].Err = command.Val(), nil
		if err := command.Err(); err != nil {
			batch[i].Receivers = 0
			batch[i].Err = fmt.Errorf("publish to %q: %w", batch[i].Channel, err)
		}
	}
}

// publish is a PUBLISH that go-redis neither repeats nor mixes up.
type publish struct {
	*redis.IntCmd
	replied bool // the server's reply has been read
}

func newPublish(ctx context.Context, channel string, payload []byte) *publish {
	command := redis.NewIntCmd(ctx, "publish", channel, payload)
	// Without a key a Cluster client sends the commands of a pipeline to one
	// master after the other, and the messages of a channel overtake each
	// other.
	command.SetFirstKeyPos(1)
	return &publish{IntCmd: command}
}

// NoRetry implements [redis.Cmder]: a lost reply must not become a second
// message.
func (*publish) NoRetry() bool { return true }

// SetErr implements [redis.Cmder]. When a connection breaks in the middle of
// the replies, go-redis gives its error to the commands that had been answered
// as well; they keep their result.
func (p *publish) SetErr(err error) {
	if p.replied {
		return
	}
	p.replied = err == nil
	p.IntCmd.SetErr(err)
}
