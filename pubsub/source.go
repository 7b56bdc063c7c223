package pubsub

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/redis/go-redis/v9"
)

// Defaults of [SourceOptions].
const (
	DefaultProbeInterval = 5 * time.Second
	DefaultDrainTimeout  = 5 * time.Second
	DefaultMaxMessage    = 64 << 20
)

// The waits between attempts to connect: they start at minBackoff, double up
// to maxBackoff, and vary by half at random. They start again after a
// connection on which all subscriptions were answered.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 1500 * time.Millisecond
)

// SourceOptions are a source's. The zero value of a field is its default.
type SourceOptions struct {
	// ProbeInterval is how long a connection may be silent before it is
	// probed, and how long that may go unanswered. So a peer that went silent,
	// or that nobody publishes to any more, is noticed within two intervals.
	// A probe is published through the client on a channel of the source's
	// own, whose name begins with __filterd:, and followed by a PING; where
	// Redis' ACL refuses that, it is the PING alone. Default
	// DefaultProbeInterval.
	ProbeInterval time.Duration
	// DrainTimeout is how long Redis and the handler have, after Run's context
	// has ended, for what had been published by then. Default
	// DefaultDrainTimeout.
	DrainTimeout time.Duration
	// MaxMessage is how large a message may be, in bytes. A larger one is not
	// read into memory: it is reported as a gap of no length. Default
	// DefaultMaxMessage.
	MaxMessage int
	// FailFast makes Run return the error when Redis can't be reached at
	// first, or refuses one of the first subscriptions. Default: Run goes on
	// trying.
	FailFast bool
	// OnReady is called when Redis has confirmed every subscription for the
	// first time in a Run, on a goroutine of its own that Run waits for.
	OnReady func()
	// Logger gets connections, gaps and refused subscriptions. Default
	// slog.Default().
	Logger *slog.Logger
}

// A Source delivers the messages of Redis channels. It connects again by
// itself when its connection breaks or falls silent, subscribes to everything
// again, and then reports the span since the connection last lived as a gap.
//
// The goroutine that reads calls the handler, so nothing is read meanwhile. When
// the handler falls behind, the backlog grows in the sockets and in Redis, which
// in the end cuts the connection (client-output-buffer-limit pubsub). That, too,
// is a gap.
//
// Channels whose names begin with __filterd: are the probes' own: no glob
// delivers what is published there.
//
// The methods are safe for concurrent use, but Run must not run twice at a
// time.
type Source struct {
	rdb     redis.UniversalClient
	options SourceOptions
	logger  *slog.Logger
	ledger  *ledger
	poke    chan struct{}   // capacity 1: there may be something to send
	retries lograte.Limiter // limits the log lines about failed attempts
	of      *ShardedSource  // that this is a part of, for sharded channels; or nil
}

var _ filterd.Source = (*Source)(nil)

// NewSource makes a source that reads through rdb, which stays the caller's.
// It has one connection of its own, which is made with rdb's options if rdb is
// a [*redis.Client], and then read without it.
func NewSource(rdb redis.UniversalClient, options SourceOptions) *Source {
	if options.ProbeInterval <= 0 {
		options.ProbeInterval = DefaultProbeInterval
	}
	if options.DrainTimeout <= 0 {
		options.DrainTimeout = DefaultDrainTimeout
	}
	if options.MaxMessage <= 0 {
		options.MaxMessage = DefaultMaxMessage
	}
	return &Source{
		rdb:     rdb,
		options: options,
		logger:  cmp.Or(options.Logger, slog.Default()),
		ledger:  newLedger(),
		poke:    make(chan struct{}, 1),
	}
}

// Subscribe implements [filterd.Source]: it replaces the set of channels and
// globs, and tells Redis only the difference. Messages of a channel that is
// no longer listened to may be on their way still. It doesn't wait; see
// [Source.WaitReady].
func (s *Source) Subscribe(to filterd.Subscriptions) {
	s.ledger.want(subscriptions(to.Channels, to.Globs))
	s.wake()
}

// WaitReady waits until Redis has confirmed every subscription, so that what
// is published from then on arrives. The error is ctx's, with what is missing,
// or joins a [*SubscribeError] for every subscription that Redis refused.
func (s *Source) WaitReady(ctx context.Context) error { return s.ledger.wait(ctx) }

// Ready says, without waiting, why [Source.WaitReady] would wait, or fail; nil
// if it would do neither.
func (s *Source) Ready() error { return s.ledger.ready() }

// wake makes the source compare what is wanted with what is.
func (s *Source) wake() {
	select {
	case s.poke <- struct{}{}:
	default: // it is about to
	}
}

// Run implements [filterd.Source]. It calls h on the caller's goroutine: with
// a message as soon as it is there, with all that have come since, up to 256,
// if h was busy. The handler owns nothing of a batch: messages are recycled, and
// their payloads are where they were read.
//
// When ctx ends, Run ends the subscriptions, hands over everything that Redis
// has sent until then, and returns nil; connecting to a silent server can delay
// this by the client's dial and read timeouts. The context that h gets ends only
// DrainTimeout after ctx, so that h can still deliver. What is left by then is
// dropped, and logged; that, as well as what Redis may have sent when the
// connection breaks or is silent at the end, is reported as a gap.
//
// The error is that of a closed client, which is noticed within ProbeInterval,
// or the one of FailFast.
func (s *Source) Run(ctx context.Context, h filterd.Handler) error {
	handling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	readers := make(chan *connection)
	ended := make(chan error, 1)
	go func() { // ends with ctx, or when it can't go on; Run waits for it
		ended <- s.control(ctx, handling, readers)
		close(readers)
	}()
	draining := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(s.options.DrainTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-handling.Done():
		}
	})
	defer draining()

	if s.options.OnReady != nil {
		ready := make(chan struct{})
		go func() { // ends with ctx, or Run
			defer close(ready)
			if s.WaitReady(handling) == nil {
				s.options.OnReady()
			}
		}()
		defer func() { cancel(); <-ready }()
	}

	b := batch{sharded: s.of != nil}
	var lost losses
	for c := range readers {
		c.ended <- c.read(handling, h, &b, &lost)
	}
	if lost.messages > 0 {
		s.logger.Warn("messages were received but not handled in time", "dropped", lost.messages)
	}
	s.ledger.outages.lose(lost)
	if s.of == nil {
		for _, ending := range s.ledger.outages.finish(time.Now()) {
			logGap(s.logger, ending.gap)
			h.Gap(*ending.gap)
		}
	}
	return <-ended
}

func logGap(logger *slog.Logger, gap *filterd.Gap) {
	logger.Warn("messages may have been missed", "length", gap.Length(), "from", gap.From, "to", gap.To,
		"reason", gap.Reason, "channels", len(gap.Channels), "first", gap.Channels[0])
}

// control makes one connection after the other until ctx ends, and the last
// one has ended well or bound has ended, too.
func (s *Source) control(ctx, bound context.Context, readers chan<- *connection) error {
	wait := &backoff.ExponentialBackOff{
		InitialInterval: minBackoff, MaxInterval: maxBackoff, Multiplier: 2, RandomizationFactor: 0.5,
	}
	s.ledger.reset()
	failFast := s.options.FailFast
	for {
		c := &connection{source: s, prober: newProber(s), begin: time.Now(), ended: make(chan error, 1), failFast: failFast}
		err := c.run(ctx, bound, readers)
		s.ledger.disconnect(c.lastAlive(time.Now()), cmp.Or(err, context.Cause(ctx)))
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, redis.ErrClosed) {
			return errors.New("the redis client was closed")
		}
		if failFast = c.failFast; failFast {
			if _, ok := errors.AsType[*SubscribeError](err); ok {
				return err
			}
			return unreachable(s.rdb, err)
		}
		if c.restored.Load() {
			wait.Reset() // it did work; what remains is minBackoff
		}
		pause := wait.NextBackOff()
		if suppressed, ok := s.retries.Allow(); ok {
			s.logger.Warn("no connection to redis, trying again", "address", address(s.rdb), "error", err, "in", pause, "suppressed", suppressed)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}
