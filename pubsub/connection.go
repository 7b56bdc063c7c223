package pubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// answerTimeout is how long a command may go unanswered although other
	// messages arrive.
	answerTimeout = 15 * time.Second
	// freshness is the pause between PINGs while messages arrive.
	freshness = 250 * time.Millisecond
)

// A connection is one connection of a source, from dialling to its end. Two
// goroutines share it: run sends commands and watches over time, read reads.
//
// A message that is read proves little about when the server last lived: it
// may have waited in the socket while the reader or the handler was behind,
// and Redis may have cut the connection for that reason long ago. The answer to
// a command proves that the server lived when the command was sent. So a gap
// begins there, and there is a PING now and then even while messages arrive.
type connection struct {
	source *Source
	queue  *queue
	begin  time.Time
	pubsub *redis.PubSub

	failFast bool // what is wrong now ends the source; run's own

	// Durations since begin, so that a step of the wall clock does no harm.
	seen   atomic.Int64 // when something was last read
	probed atomic.Int64 // when the last PING was sent
	proven atomic.Int64 // when the last PING that was answered was sent
	waited atomic.Int64 // when the reader last had to wait for the handler

	stirred  atomic.Bool // messages arrive, and the last PING is a while ago
	restored atomic.Bool // all subscriptions have been answered once
}

// offline is a context that has ended. Receive and the commands of a
// redis.PubSub ignore that while they have a connection; but when it breaks,
// it keeps them from dialling another one on their own, which would only be
// closed again.
var offline = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

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

// run connects, subscribes, and stays until the connection ends. When ctx
// ends, it ends the subscriptions, and returns nil once Redis has confirmed
// that: all that Redis has sent before is in the queue then. It doesn't wait
// for that longer than bound lasts.
func (c *connection) run(ctx, bound context.Context) error {
	s := c.source
	c.pubsub = s.rdb.Subscribe(ctx) // without channels: it doesn't connect yet
	defer c.pubsub.Close()
	if err := c.pubsub.Ping(ctx); err != nil {
		return unreachable(s.rdb, err)
	}
	now := time.Now() // the login has been answered; the PING will be
	s.ledger.connect(now)
	for _, at := range []*atomic.Int64{&c.seen, &c.probed, &c.proven} {
		at.Store(c.since(now))
	}
	ended := make(chan error, 1)
	go func() { ended <- c.read() }() // ends when the connection is closed
	reading := true
	defer func() {
		_ = c.pubsub.Close() // what interrupts Receive
		if reading {
			<-ended
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
		if c.failFast && leave != nil && c.restored.Load() {
			if err := s.ledger.refusals(); err != nil {
				return err
			}
			c.failFast = false
		}
		probe, wait, err := c.examine(now)
		if err != nil {
			return err
		}
		if probe {
			c.probed.Store(c.since(now))
			c.stirred.Store(false)
			s.ledger.ping(now)
			if err := c.pubsub.Ping(offline); err != nil {
				return fmt.Errorf("ping: %w", err)
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-leave:
			leave = nil
			s.ledger.leave()
		case <-bound.Done():
			err = fmt.Errorf("the drain timed out after %v", s.options.DrainTimeout)
		case err = <-ended:
			reading = false
		case <-s.poke:
		case <-timer.C:
		}
		timer.Stop()
		if err != nil || !reading {
			return err
		}
	}
}

// send sends a command. The answers come to read.
func (c *connection) send(command command) error {
	names := make([]string, len(command.subs))
	for i, sub := range command.subs {
		names[i] = sub.name
	}
	switch command.kind {
	case kindSubscribe:
		return c.pubsub.Subscribe(offline, names...)
	case kindPsubscribe:
		return c.pubsub.PSubscribe(offline, names...)
	case kindUnsubscribe:
		return c.pubsub.Unsubscribe(offline, names...)
	default:
		return c.pubsub.PUnsubscribe(offline, names...)
	}
}

// examine says whether a PING is due, or else how long nothing is, or that the
// server is silent for too long.
func (c *connection) examine(now time.Time) (probe bool, wait time.Duration, err error) {
	interval := c.source.options.ProbeInterval
	seen, waited := c.when(&c.seen), c.when(&c.waited)
	if c.queue.full() {
		seen, waited = now, now // silence is the handler's fault
	}
	oldest, open := c.source.ledger.oldest()
	if !open {
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
// can come any more.
func (c *connection) read() error {
	ledger := c.source.ledger
	for {
		reply, err := c.pubsub.Receive(offline)
		now := time.Now()
		if err != nil {
			var answer redis.Error
			if !errors.As(err, &answer) {
				if errors.Is(err, io.EOF) {
					return errors.New("the server closed the connection")
				}
				return err
			}
			refusal, err := ledger.refuse(answer, now)
			if err != nil {
				return unreachable(c.source.rdb, err)
			}
			if refusal != nil {
				c.source.logger.Error("redis refuses a subscription", "channel", refusal.Channel, "error", refusal.Err)
			}
			c.source.wake() // what it refused as one is asked for one by one
		}
		since := c.since(now)
		c.seen.Store(since)
		switch reply := reply.(type) {
		case *redis.Message:
			if c.queue.putMessage(reply.Channel, reply.Pattern, reply.Payload, now) {
				c.waited.Store(c.since(time.Now()))
			}
			if since-c.probed.Load() > int64(freshness) && !c.stirred.Load() {
				c.stirred.Store(true)
				c.source.wake()
			}
			continue
		case *redis.Subscription:
			again, err := ledger.confirm(reply)
			if err != nil {
				return err
			}
			if again {
				c.source.logger.Info("redis no longer refuses a subscription", "channel", reply.Channel)
			}
			if ledger.left() {
				return nil
			}
		case *redis.Pong:
			sent, err := ledger.pong()
			if err != nil {
				return err
			}
			c.proven.Store(c.since(sent))
			if c.stirred.Load() {
				c.source.wake()
			}
		}
		c.settle(now)
	}
}

// settle reports the gaps that end once everything is subscribed again.
func (c *connection) settle(now time.Time) {
	endings, ok := c.source.ledger.restored(now)
	if !ok {
		return
	}
	logger := c.source.logger
	if !c.restored.Swap(true) {
		logger.Info("connected to redis", "address", address(c.source.rdb))
		c.source.wake() // for failFast
	}
	for _, ending := range endings {
		c.source.logGap(ending.gap)
		c.queue.putGap(ending.gap)
		c.source.ledger.reported(ending)
	}
}
