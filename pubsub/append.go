package pubsub

import (
	"context"
	"fmt"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// appender is the way of a sink to streams.
type appender struct{ rdb redis.UniversalClient }

// deliver appends the payloads of a batch to their streams, in one pipeline.
func (a appender) deliver(ctx context.Context, batch []filterd.Delivery) {
	commands := make([]*xadd, len(batch))
	pipeline := a.rdb.Pipeline()
	for i := range batch {
		commands[i] = newXAdd(ctx, &batch[i])
		_ = pipeline.Process(ctx, commands[i]) // only queues
	}
	_, _ = pipeline.Exec(ctx) // every command has its own error
	for i, command := range commands {
		d := &batch[i]
		d.Receivers, d.Err = 0, nil
		if err := command.Err(); err != nil {
			d.Err = fmt.Errorf("append to stream %q: %w", d.Channel, err)
		}
	}
}

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
