package pubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/resp"
	"github.com/redis/go-redis/v9"
)

const (
	// answerTimeout is how long a command may go unanswered although other
	// messages arrive.
	answerTimeout = 15 * time.Second
	// freshness is the pause between probes while messages arrive.
	freshness = 250 * time.Millisecond
	// lastCall is how long the reader has, after a drain has timed out, to
	// count what Redis has sent and nobody will handle.
	lastCall = 100 * time.Millisecond
)

// A connection is one connection of a source, from dialling to its end. Two
// goroutines share it: run sends commands and watches over time; read reads,
// and calls the handler.
//
// A message that is read proves little about when the server last lived: it
// may have waited in the socket while the reader or the handler was behind,
// and Redis may have cut the connection for that reason long ago. The answer to
// a command proves that the server lived when the command was sent. So a gap
// begins there, and there is a probe now and then even while messages arrive.
type connection struct {
	prober
	source    *Source
	begin     time.Time
	transport transport
	ended     chan error // what read has returned

	failFast bool // what is wrong now ends the source; run's own

	// read's own: the handler, if it is one, and whether it has begun something.
	beginner filterd.Beginner
	begun    bool

	// Durations since begin, so that a step of the wall clock does no harm.
	seen   atomic.Int64 // when something was last read
	proven atomic.Int64 // when the last probe that came back, or PING that was answered, was sent
	waited atomic.Int64 // when the handler last returned

	busy     atomic.Bool // the handler is at work, so that nothing is read
	stirred  atomic.Bool // messages arrive, and the last probe is a while ago
	restored atomic.Bool // all subscriptions have been answered once
}

// since returns how long after begin now is.
func (c *connection) since(now time.Time) int64 { return int64(now.Sub(c.begin)) }

// when returns the time of such a duration.
func (c *connection) when(since *atomic.Int64) time.Time {
	return c.begin.Add(time.Duration(since.Load()))
}

// lastAlive returns when the server is last known to have lived.
func (c *connection) lastAlive(now time.Time) time.Time {
	return now.Add(c.when(&c.proven).Sub(now))
}

// run connects, has readers read, subscribes, and stays until the connection
// ends. When ctx ends, it ends the subscriptions, and returns nil once Redis has
// confirmed that: all that Redis has sent before is handled then. It doesn't
// wait for that longer than bound lasts.
func (c *connection) run(ctx, bound context.Context, readers chan<- *connection) error {
	s := c.source
	var err error
	if c.transport, err = connect(ctx, s.rdb, s.options.MaxMessage); err != nil {
		return unreachable(s.rdb, err)
	}
	now := time.Now() // the login has been answered; the PING will be
	s.ledger.connect(now)
	for _, at := range []*atomic.Int64{&c.seen, &c.probed, &c.proven} {
		at.Store(c.since(now))
	}
	if c.channel != "" {
		if err := c.send(s.ledger.ask(subscription{name: c.channel, sharded: s.of != nil}, now)); err != nil {
			_ = c.transport.close() // the other error matters
			return fmt.Errorf("%s: %w", kindSubscribe, err)
		}
	}
	readers <- c
	reading := true
	defer func() {
		_ = c.transport.close() // what ends reading
		if reading {
			<-c.ended
		}
	}()

	leave := ctx.Done()
	for {
		now := time.Now()
		for _, command := range s.ledger.plan(now) {
			if err := c.send(command); err != nil {
				return fmt.Errorf("%s: %w", command.kind, err)
			}
		}
		if s.ledger.left() {
			return nil
		}
		if c.failFast && ctx.Err() == nil && c.restored.Load() {
			if err := s.ledger.refusals(); err != nil {
				return err
			}
			c.failFast = false
		}
		if ctx.Err() == nil && isClosed(s.rdb) {
			return redis.ErrClosed
		}
		probe, wait, err := c.examine(now)
		if err != nil {
			return err
		}
		if probe {
			if err := c.probe(now); err != nil {
				return err
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-leave:
			leave = nil
			s.ledger.leave()
		case <-bound.Done():
			if reading = !c.counted(); !reading {
				return nil
			}
			err = fmt.Errorf("the drain timed out after %v", s.options.DrainTimeout)
		case err = <-c.ended:
			reading = false
		case failure := <-c.published:
			err = c.follow(failure)
		case <-c.late:
			err = c.follow(context.DeadlineExceeded)
		case <-s.poke:
		case <-timer.C:
		}
		timer.Stop()
		if err != nil || !reading {
			return err
		}
	}
}

// counted waits, after the drain's time, until the reader has counted what it
// no longer hands over, and reports whether it is at the end of that.
func (c *connection) counted() bool {
	for busy := true; ; {
		select {
		case err := <-c.ended:
			c.ended <- err // for run, if that was not the end
			return err == nil
		case <-time.After(lastCall):
			if !busy {
				return false
			}
			busy = c.busy.Load()
		}
	}
}

// send sends a command. The answers come to read.
func (c *connection) send(command command) error {
	names := make([]string, len(command.subs))
	for i, sub := range command.subs {
		names[i] = sub.name
	}
	return c.transport.send(strings.ToUpper(command.kind), names...)
}

// examine says whether a probe is due, or else how long nothing is, or that the
// server is silent for too long.
func (c *connection) examine(now time.Time) (probe bool, wait time.Duration, err error) {
	interval := c.source.options.ProbeInterval
	seen, waited := c.when(&c.seen), c.when(&c.waited)
	if c.busy.Load() {
		seen, waited = now, now // silence is the handler's fault
	}
	oldest, open := c.source.ledger.oldest()
	if !open {
		if wait, err := c.awaited(now); wait > 0 || err != nil {
			return false, wait, err
		}
		due := seen.Add(interval)
		return c.stirred.Load() || !now.Before(due), due.Sub(now), nil
	}
	silent := later(oldest.sent, later(seen, waited)).Add(interval)
	stuck := later(oldest.sent, waited).Add(answerTimeout)
	what := strings.ToUpper(oldest.kind)
	if !now.Before(silent) {
		return false, 0, fmt.Errorf("no answer to %s within %v", what, interval)
	}
	if !now.Before(stuck) {
		return false, 0, fmt.Errorf("no answer to %s within %v", what, answerTimeout)
	}
	if stuck.Before(silent) {
		silent = stuck
	}
	return false, silent.Sub(now), nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// read reads until the connection ends, and returns why it did; nil if nothing
// can come any more. When handling has ended, messages are lost instead.
func (c *connection) read(handling context.Context, h filterd.Handler, b *batch, lost *losses) error {
	var f resp.Frame
	c.beginner, _ = h.(filterd.Beginner)
	defer c.finish()
	for {
		if c.begun && !c.transport.ready() {
			c.finish()
		}
		if err := c.transport.fill(); err != nil {
			return broken(err)
		}
		now := time.Now()
		since := c.since(now)
		c.seen.Store(since)
		hidden := false
		for {
			ok, err := c.transport.next(&f)
			switch {
			case !ok || f.Kind != resp.Message:
				c.handle(handling, h, b)
			case c.hides(&f):
				hidden = true
				continue
			case handling.Err() != nil:
				lost.add(&f, now)
				continue
			case !f.Skipped:
				if b.add(&f, now) {
					c.handle(handling, h, b)
				}
				continue
			default:
				c.handle(handling, h, b)
				c.oversize(&f, now, h)
				continue
			}
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if end, err := c.take(&f, now, h); end || err != nil {
				return err
			}
		}
		// Not for what comes with a probe: two sources that hear each other's
		// would never rest.
		if !hidden && since-c.probed.Load() > int64(freshness) && !c.stirred.Load() {
			c.stirred.Store(true)
			c.source.wake()
		}
	}
}

// broken says why nothing can be read any more.
func broken(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the server closed the connection in the middle of a message")
	case errors.Is(err, io.EOF):
		return errors.New("the server closed the connection")
	}
	return err
}

// handle hands over what is in the batch.
func (c *connection) handle(handling context.Context, h filterd.Handler, b *batch) {
	if b.count == 0 {
		return
	}
	c.busy.Store(true)
	if c.beginner != nil {
		c.beginner.Begin(handling, b.taken())
		c.begun = true
	} else {
		h.Messages(handling, b.taken())
	}
	b.reset()
	c.waited.Store(c.since(time.Now()))
	c.busy.Store(false)
}

// finish lets the handler finish what it has begun.
func (c *connection) finish() {
	if !c.begun {
		return
	}
	c.begun = false
	c.busy.Store(true)
	c.beginner.End()
	c.waited.Store(c.since(time.Now()))
	c.busy.Store(false)
}

// oversize reports a message that was too large to be read.
func (c *connection) oversize(f *resp.Frame, now time.Time, h filterd.Handler) {
	gap := filterd.Gap{
		Channels: []string{through(f).name}, From: now, To: now, Sharded: c.source.of != nil,
		Reason: fmt.Sprintf("%d bytes of a message are over the limit of %d", f.Size, c.source.options.MaxMessage),
	}
	logGap(c.source.logger, &gap)
	h.Gap(gap)
}

// A replyError is an error that Redis has replied.
type replyError string

func (e replyError) Error() string { return string(e) }

// RedisError implements [redis.Error].
func (replyError) RedisError() {}

// take takes the answer to a command, and reports whether it is the last.
func (c *connection) take(f *resp.Frame, now time.Time, h filterd.Handler) (end bool, err error) {
	ledger, logger := c.source.ledger, c.source.logger
	switch f.Kind {
	case resp.Confirmation:
		again, err := ledger.confirm(f.Verb, string(f.Channel), c.lastAlive(now))
		if err != nil {
			return false, err
		}
		c.heard(f)
		if again {
			logger.Info("redis no longer refuses a subscription", "channel", string(f.Channel))
		}
		if ledger.left() {
			return true, nil
		}
	case resp.Pong:
		sent, err := ledger.pong()
		if err != nil {
			return false, err
		}
		c.pong(sent, now)
	case resp.Error:
		refusal, err := ledger.refuse(replyError(f.Payload), now)
		if err != nil {
			return false, unreachable(c.source.rdb, err)
		}
		if refusal != nil {
			logger.Error("redis refuses a subscription", "channel", refusal.Channel, "error", refusal.Err)
		}
		c.source.wake() // what it refused as one is asked for one by one
	default:
		return false, fmt.Errorf("unexpected reply: %s%d", f.Payload, f.Number)
	}
	c.settle(now, h)
	return false, nil
}

// settle reports the gaps that end once everything is subscribed again.
func (c *connection) settle(now time.Time, h filterd.Handler) {
	endings, ok := c.source.ledger.restored(now)
	if !ok {
		return
	}
	logger := c.source.logger
	if !c.restored.Swap(true) {
		by := "PING"
		if c.listening.Load() {
			by = "PUBLISH"
		}
		logger.Info("connected to redis", "address", address(c.source.rdb), "probed_by", by)
		c.source.wake() // for failFast
	}
	for _, ending := range endings {
		logGap(c.source.logger, ending.gap)
		h.Gap(*ending.gap)
		c.source.ledger.reported(ending)
	}
}
