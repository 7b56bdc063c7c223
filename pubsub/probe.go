package pubsub

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd/internal/resp"
	"github.com/redis/go-redis/v9"
)

// reserved begins the names of the channels that are filterd's own. What is
// published there reaches no glob.
const reserved = "__filterd:"

// A prober says whether what is published arrives on its connection.
//
// The answer to a PING shows that the server at the other end lives, not that
// it is the one that others publish to: a master that was demoted, or cut off
// from the rest, answers as well. A probe that comes back shows that. It goes
// the way of all messages: the source's client publishes it, which knows where
// the master is now, on a channel that only this connection listens to.
//
// A PING follows when the PUBLISH has been answered. So once the PONG is read,
// the reader is not behind: a probe that is not there by then comes from another
// node, or not at all. Where Redis refuses the channel, or the client can't
// publish just now, the PING has to do.
type prober struct {
	channel   string // unique; empty if there are no probes
	by        redis.UniversalClient
	command   string      // that publishes them
	listening atomic.Bool // Redis has confirmed the channel, and takes probes

	// Durations since the connection's begin. A probe is known by when it was
	// sent.
	probed   atomic.Int64 // when the last probe, or PING, was sent
	expected atomic.Int64 // the probe that was published and has to come back; 0: none
	arrived  atomic.Int64 // the last probe that came back
	ponged   atomic.Int64 // when the last PONG was read

	// Of the probe that is being published; nil when none is. They are those
	// of the connection's run.
	published chan error
	late      <-chan time.Time
}

// newProber makes the prober of a connection of a source. Only of the clients
// that are known here it is sure that they publish to where they subscribe.
func newProber(s *Source) prober {
	channel := reserved + "probe:" + rand.Text()
	if s.of != nil {
		tag := s.of.tag(s.rdb.(*redis.Client).Options().Addr)
		if tag == "" {
			return prober{}
		}
		return prober{channel: channel + tag, by: s.of.rdb, command: commandSpublish}
	}
	switch s.rdb.(type) {
	case *redis.Client, *redis.ClusterClient:
		return prober{channel: channel, by: s.rdb, command: commandPublish}
	}
	return prober{}
}

// heard takes the confirmation of a subscription, which may be that of the
// probes' channel, or of its end, when a slot moves.
func (c *connection) heard(f *resp.Frame) {
	if c.channel == "" || string(f.Channel) != c.channel {
		return
	}
	begins := f.Verb == kindSubscribe || f.Verb == kindSsubscribe
	c.listening.Store(begins)
	if !begins {
		c.expected.Store(0)
	}
}

// probe sends a probe, or a PING where there are none.
func (c *connection) probe(now time.Time) error {
	c.probed.Store(c.since(now))
	c.stirred.Store(false)
	if !c.listening.Load() {
		return c.ping(now)
	}
	interval, published := c.source.options.ProbeInterval, make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), interval/2)
	command := newPublish(ctx, c.command, c.channel, strconv.AppendInt(nil, c.probed.Load(), 10))
	go func() { // ends with the client's timeouts at the latest; nobody waits for it, since it touches nothing
		defer cancel()
		published <- c.by.Process(ctx, command)
	}()
	c.published, c.late = published, time.After(interval/2)
	return nil
}

// follow sends the PING that follows a probe, which was published but for an
// error.
func (c *connection) follow(err error) error {
	c.published, c.late = nil, nil
	switch {
	case err == nil:
		c.expected.Store(c.probed.Load())
	case redis.HasErrorPrefix(err, "NOPERM"):
		c.listening.Store(false)
		c.source.logger.Info("redis refuses to publish probes: PING has to do", "channels", reserved+"*", "error", err)
		fallthrough
	default:
		c.expected.Store(0)
	}
	return c.ping(c.when(&c.probed))
}

// ping sends a PING that counts as sent at a time.
func (c *connection) ping(sent time.Time) error {
	c.source.ledger.ping(sent)
	if err := c.transport.send("PING"); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// pong takes the answer to the PING that was sent at a time.
func (c *connection) pong(sent, now time.Time) {
	c.ponged.Store(c.since(now))
	if c.expected.Load() == 0 {
		c.proven.Store(c.since(sent))
	}
	if c.stirred.Load() {
		c.source.wake()
	}
}

// awaited returns how long a probe that was published may still take, if it
// hasn't come; the error is that it takes too long. Nothing else is due
// meanwhile.
func (c *connection) awaited(now time.Time) (time.Duration, error) {
	interval, expected := c.source.options.ProbeInterval, c.expected.Load()
	switch {
	case c.published != nil:
		return interval, nil // late ends that
	case expected == 0 || c.arrived.Load() == expected:
		return 0, nil
	}
	end := later(c.when(&c.expected).Add(interval), c.when(&c.ponged).Add(interval/2))
	if c.busy.Load() {
		end = later(end, now.Add(interval/8)) // it may wait in the socket
	}
	if !now.Before(end) {
		return 0, fmt.Errorf("a probe that was published did not arrive within %v: others may publish to another server", interval)
	}
	return end.Sub(now), nil
}

// hides reports whether a message is not to be handed over: a probe, of this
// source or of another one.
func (c *connection) hides(f *resp.Frame) bool {
	if len(f.Channel) < len(reserved) || string(f.Channel[:len(reserved)]) != reserved {
		return false
	}
	if string(f.Channel) != c.channel {
		return f.Verb == "pmessage"
	}
	if f.Verb != "pmessage" && !f.Skipped && string(f.Payload) == strconv.FormatInt(c.probed.Load(), 10) {
		c.arrived.Store(c.probed.Load())
		c.proven.Store(c.probed.Load())
		if c.stirred.Load() {
			c.source.wake()
		}
	}
	return true
}
