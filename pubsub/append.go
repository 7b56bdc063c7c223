package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// appender is the way of a sink to streams.
type appender struct{ rdb redis.UniversalClient }

// deliver appends the payloads of a batch to their streams, in its order: in
// runs of those that are guarded, and those that are not. What is guarded stays
// behind a run that failed for now, as its entries have an order.
func (a appender) deliver(ctx context.Context, batch []filterd.Delivery) {
	var failed error
	for len(batch) > 0 {
		n := 1
		if guarded := a.guards(batch); guarded > 0 {
			if n = guarded; failed == nil {
				a.guard(ctx, batch[:n])
				failed = postponing(batch[:n])
			} else {
				for i := range batch[:n] {
					failAppend(&batch[i], failed)
				}
			}
		} else {
			for n < len(batch) && a.guards(batch[n:]) == 0 {
				n++
			}
			a.append(ctx, batch[:n])
		}
		batch = batch[n:]
	}
}

// appending is a batch that is being appended.
type appending struct {
	batch []filterd.Delivery // the caller's
	own   []filterd.Delivery
	bytes []byte        // the payloads of own
	done  chan struct{} // capacity 1
}

// appendings are not in use.
var appendings = sync.Pool{New: func() any { return &appending{done: make(chan struct{}, 1)} }}

// Finish implements [filterd.Started].
func (a *appending) Finish() {
	<-a.done
	for i, d := range a.own {
		a.batch[i].Receivers, a.batch[i].Err = d.Receivers, d.Err
	}
	clear(a.own)
	if a.batch = nil; cap(a.bytes) <= keepOut {
		appendings.Put(a)
	}
}

// start is deliver on another goroutine, with copies of the payloads. A client
// waits for replies; meanwhile the caller treats the next batch.
func (a appender) start(ctx context.Context, batch []filterd.Delivery) filterd.Started {
	started := appendings.Get().(*appending)
	started.batch, started.own, started.bytes = batch, append(started.own[:0], batch...), started.bytes[:0]
	for i := range batch {
		started.bytes = append(started.bytes, batch[i].Payload...)
	}
	rest := started.bytes
	for i := range started.own {
		n := len(batch[i].Payload)
		started.own[i].Payload, rest = rest[:n:n], rest[n:]
	}
	go func() { // ends with the replies, or the client's timeouts
		a.deliver(ctx, started.own)
		started.done <- struct{}{}
	}()
	return started
}

// append appends in one pipeline.
func (a appender) append(ctx context.Context, batch []filterd.Delivery) {
	commands := make([]*xadd, len(batch))
	pipeline := a.rdb.Pipeline()
	for i := range batch {
		d := &batch[i]
		commands[i] = newXAdd(ctx, d.Channel, d.MaxLen, filterd.DefaultField, d.Payload)
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

// postponing returns the error of a delivery that could not be made for now.
func postponing(batch []filterd.Delivery) error {
	for i := range batch {
		if err := batch[i].Err; err != nil && !errors.Is(err, filterd.ErrRefused) && !errors.Is(err, filterd.ErrTaken) {
			return errors.Unwrap(err)
		}
	}
	return nil
}

// failAppend makes a delivery to a stream one that was not answered, or refused.
func failAppend(d *filterd.Delivery, err error) {
	d.Receivers, d.Err = 0, appendError(d.Channel, err)
}

func appendError(stream string, err error) error {
	return fmt.Errorf("append to stream %q: %w", stream, err)
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

func newXAdd(ctx context.Context, stream string, maxLen int64, field string, payload []byte) *xadd {
	args := make([]any, 0, 8)
	args = append(args, "xadd", stream)
	if maxLen > 0 {
		args = append(args, "maxlen", "~", maxLen)
	}
	command := redis.NewStringCmd(ctx, append(args, "*", field, payload)...)
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
