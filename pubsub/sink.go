package pubsub

import (
	"context"
	"fmt"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// A Sink publishes to channels and appends to streams. Safe for concurrent use.
type Sink struct {
	to      filterd.Sink // channels
	streams appender
}

var _ filterd.Starter = (*Sink)(nil)

// NewSink makes a sink that publishes through rdb, which stays the caller's. If
// rdb is a [*redis.Client], the sink has one connection of its own: it is made
// with rdb's options when it is first needed, and lasts until Close, or for a
// second after rdb was closed.
func NewSink(rdb redis.UniversalClient) *Sink {
	if c, ok := rdb.(*redis.Client); ok {
		return &Sink{&outlet{client: c}, appender{rdb}}
	}
	return &Sink{pipelines{rdb}, appender{rdb}}
}

// Deliver implements [filterd.Sink]: it publishes the whole batch at once and
// waits for the replies, as long as the client's timeouts and ctx allow. Batches
// of several goroutines go out together; then the longest of their times holds.
// On one server messages are published in the order of the batch; on a Cluster
// those of one channel are. Entries are appended after what goes to channels.
//
// Nothing is sent twice, whatever the client's retries are set to. So an Err
// that is no reply of the server means that the message may have been
// published. What could not even be written, because the connection was gone,
// is written to a new one, once. A reply that would be another one later, such as
// LOADING or OOM, is no refusal; all others match [filterd.ErrRefused].
func (s *Sink) Deliver(ctx context.Context, batch []filterd.Delivery) {
	switch streams := streamsOf(batch); {
	case len(batch) == 0:
	case streams == 0:
		s.to.Deliver(ctx, batch)
	case streams == len(batch):
		s.streams.deliver(ctx, batch)
	default:
		s.both(ctx, batch)
	}
}

// Start implements [filterd.Starter]: on one server it doesn't wait for the
// replies to a batch for channels. They are read by Finish, or by the next
// Deliver or Start of anybody. Nor does it wait for those to a batch for streams.
// But it does for what goes to both.
func (s *Sink) Start(ctx context.Context, batch []filterd.Delivery) filterd.Started {
	switch streams := streamsOf(batch); {
	case len(batch) == 0:
		return nil
	case streams == len(batch):
		return s.streams.start(ctx, batch)
	case streams == 0:
		if o, ok := s.to.(*outlet); ok {
			return o.Start(ctx, batch)
		}
	}
	s.Deliver(ctx, batch)
	return nil
}

// streamsOf returns how many deliveries go to streams.
func streamsOf(batch []filterd.Delivery) (count int) {
	for i := range batch {
		if batch[i].Stream {
			count++
		}
	}
	return count
}

// both delivers a batch for channels and streams.
func (s *Sink) both(ctx context.Context, batch []filterd.Delivery) {
	var parts [2][]filterd.Delivery
	var from [2][]int // indices into batch
	for i, d := range batch {
		part := 0
		if d.Stream {
			part = 1
		}
		parts[part], from[part] = append(parts[part], d), append(from[part], i)
	}
	s.to.Deliver(ctx, parts[0])
	s.streams.deliver(ctx, parts[1])
	for part, indices := range from {
		for i, at := range indices {
			batch[at].Receivers, batch[at].Err = parts[part][i].Receivers, parts[part][i].Err
		}
	}
}

// Close closes the sink's connection: now, or when the batch that is on its way
// is done. Deliver may be called again, and makes another one.
func (s *Sink) Close() error {
	if o, ok := s.to.(*outlet); ok {
		return o.Close()
	}
	return nil
}

// fail makes a delivery one that was not answered, or refused.
func fail(d *filterd.Delivery, err error) {
	d.Receivers, d.Err = 0, fmt.Errorf("publish to %q: %w", d.Channel, err)
}

// pipelines is the way through a client that chooses its connections itself.
type pipelines struct{ rdb redis.UniversalClient }

// Deliver implements [filterd.Sink].
func (p pipelines) Deliver(ctx context.Context, batch []filterd.Delivery) {
	commands := make([]*publish, len(batch))
	pipeline := p.rdb.Pipeline()
	for i, d := range batch {
		commands[i] = newPublish(ctx, commandOf(&d), d.Channel, d.Payload)
		_ = pipeline.Process(ctx, commands[i]) // only queues
	}
	_, failure := pipeline.Exec(ctx)
	for i, command := range commands {
		batch[i].Receivers, batch[i].Err = command.Val(), nil
		if err := piped(command, command.replied, failure); err != nil {
			fail(&batch[i], err)
		}
	}
}

// piped returns the error of a command in a pipeline that has ended with a
// failure. Commands have errors of their own, but where the login was refused:
// then go-redis takes that for the reply to one of them, and leaves all without.
func piped(command redis.Cmder, replied bool, failure error) error {
	if err := command.Err(); err != nil {
		return judged(err)
	}
	if replied {
		return nil
	}
	return failure
}

// publish is a PUBLISH that go-redis neither repeats nor mixes up.
type publish struct {
	*redis.IntCmd
	replied bool // the server's reply has been read
}

// The commands that publish.
const (
	commandPublish  = "publish"
	commandSpublish = "spublish"
)

// commandOf returns the command that publishes a delivery to a channel.
func commandOf(d *filterd.Delivery) string {
	if d.Sharded {
		return commandSpublish
	}
	return commandPublish
}

func newPublish(ctx context.Context, name, channel string, payload []byte) *publish {
	command := redis.NewIntCmd(ctx, name, channel, payload)
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
