package pubsub

import (
	"context"
	"fmt"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// appender is the way of a sink to streams.
type appender struct{ rdb redis.UniversalClient }

// deliver appends the payloads of a batch to their streams, in its order: in
// runs of those that are guarded, and those that are not.
func (a appender) deliver(ctx context.Context, batch []filterd.Delivery) {
	for len(batch) > 0 {
		n := 1
		if guarded := a.guards(batch); guarded > 0 {
			n = guarded
			a.guard(ctx, batch[:n])
		} else {
			for n < len(batch) && a.guards(batch[n:]) == 0 {
				n++
			}
			a.append(ctx, batch[:n])
		}
		batch = batch[n:]
	}
}

// append appends in one pipeline.
func (a appender) append(ctx context.Context, batch []filterd.Delivery) {
	commands := make([]*xadd, len(batch))
	pipeline := a.rdb.Pipeline()
	for i := range batch {
		commands[i] = newXAdd(ctx, &batch[i])
		_ = pipeline.Process(ctx, commands[i]) // only queues
	}
	_, failure := pipeline.Exec(ctx)
	for i, command := range commands {
		d := &batch[i]
		d.Receivers, d.Err = 0, nil
		if err := piped(command, command.replied, failure); err != nil {
			failAppend(d, err)
		}
	}
}

// failAppend makes a delivery to a stream one that was not answered, or refused.
func failAppend(d *filterd.Delivery, err error) {
	d.Receivers, d.Err = 0, fmt.Errorf("append to stream %q: %w", d.Channel, err)
}

// A once is a command that go-redis does not repeat.
type once struct{ *redis.Cmd }

// newOnce makes a command about a key, which leads to its server.
func newOnce(ctx context.Context, key string, args ...any) once {
	command := redis.NewCmd(ctx, args...)
	for i, arg := range args[1:] {
		if arg == key {
			command.SetFirstKeyPos(int8(1 + i))
			break
		}
	}
	return once{command}
}

// NoRetry implements [redis.Cmder].
func (once) NoRetry() bool { return true }

// xadd is an XADD that go-redis neither repeats nor mixes up.
type xadd struct {
	*redis.StringCmd
	replied bool // the server's reply has been read
}

func newXAdd(ctx context.Context, d *filterd.Delivery) *xadd {
	args := make([]any, 0, 8)
	args = append(args, "xadd", d.Channel)
	if d.MaxLen > 0 {
		args = append(args, "maxlen", "~", d.MaxLen)
	}
	command := redis.NewStringCmd(ctx, append(args, "*", filterd.DefaultField, d.Payload)...)
	command.SetFirstKeyPos(1)
	return &xadd{StringCmd: command}
}

// NoRetry implements [redis.Cmder]: a lost reply must not become a second
// entry.
func (*xadd) NoRetry() bool { return true }

// SetErr implements [redis.Cmder], as that of publish does.
func (x *xadd) SetErr(err error) {
	if x.replied {
		return
	}
	x.replied = err == nil
	x.StringCmd.SetErr(err)
}
