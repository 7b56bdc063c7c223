package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/filterd/filterd/internal/stamps"
	"github.com/redis/go-redis/v9"
)

// callbackGrace is how long callbacks have, after DrainTimeout, to notice that
// their context has ended.
const callbackGrace = time.Second

// SubscriberOptions are a subscriber's. The zero value of a field is its
// default.
type SubscriberOptions struct {
	// ProbeInterval, FailFast and OnReady are those of [SourceOptions].
	ProbeInterval time.Duration
	FailFast      bool
	OnReady       func()
	// DrainTimeout is how long callbacks have, after Run's context has ended,
	// for the messages that wait for them. Default DefaultDrainTimeout.
	DrainTimeout time.Duration
	// QueueMessages and QueueBytes bound what waits for each callback.
	// Default 1,024 messages and 16 MiB.
	QueueMessages int
	QueueBytes    int
	// OnInvalid is called with every message that breaks its contract, once
	// per published message, on the goroutine of Run: it must not block. It
	// borrows the message.
	OnInvalid func(m *filterd.Message, err *filterd.ValidationError)
	// OnGap is called with every gap, and with what stamps show to be lost, on
	// the goroutine of Run: it must not block.
	OnGap func(filterd.Gap)
	// Logger gets what [SourceOptions].Logger does, invalid messages, and
	// failures of filters and callbacks, each at a limited rate. Default
	// slog.Default().
	Logger *slog.Logger
}

// A Callback takes a message that it owns. Its context ends with the
// subscriber's DrainTimeout. An error is counted and logged, as is a panic.
type Callback func(ctx context.Context, m *filterd.Message) error

// A Subscriber calls functions with the messages of channels. Messages that
// break their contract are counted and go no further. Safe for concurrent
// use.
type Subscriber struct {
	source   *Source
	registry *filterd.Registry
	stamped  bool // some channels are
	options  SubscriberOptions
	logger   *slog.Logger
	invalid  lograte.Limiter // limits the log lines about invalid messages
	losses   lograte.Limiter // limits those about lost ones

	stamps  stamps.Tracker
	lost    atomic.Int64
	gaps    atomic.Uint64
	gapTime atomic.Int64 // nanoseconds

	routes atomic.Pointer[routes] // what Run goes by; replaced whole

	mu       sync.Mutex // guards what follows
	handlers []*handler // in the order of Handle
	running  context.Context
}

// NewSubscriber makes a subscriber that reads through rdb, which stays the
// caller's, and checks messages against a registry. A nil registry declares no
// contract.
func NewSubscriber(rdb redis.UniversalClient, registry *filterd.Registry, options SubscriberOptions) *Subscriber {
	if options.DrainTimeout <= 0 {
		options.DrainTimeout = DefaultDrainTimeout
	}
	s := &Subscriber{
		source: NewSource(rdb, SourceOptions{
			ProbeInterval: options.ProbeInterval, FailFast: options.FailFast, OnReady: options.OnReady, DrainTimeout: options.DrainTimeout, Logger: options.Logger,
		}),
		registry: registry,
		stamped:  slices.ContainsFunc(registry.Contracts(), func(c *filterd.Contract) bool { return c.Stamped }),
		options:  options,
		logger:   cmp.Or(options.Logger, slog.Default()),
	}
	s.routes.Store(&routes{})
	return s
}

// Handle calls a function with the messages of a channel, or of all channels
// that match a glob, that where keeps; a nil where keeps all. It may be called
// before and while Run runs; see [Subscriber.WaitReady].
//
// Callbacks of one Handle run one after the other, in the order of the
// messages, on a goroutine of their own: none waits for those of another. When
// more messages wait than the options allow, the oldest are dropped and
// counted. Each Handle gets every message once, even if its channel is
// subscribed to in other ways as well.
func (s *Subscriber) Handle(channelOrPattern string, where filterd.Filter, callback Callback) error {
	var errs []error
	if channelOrPattern == "" {
		errs = append(errs, errors.New("no channel given"))
	}
	if callback == nil {
		errs = append(errs, errors.New("no callback given"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("handle %q: %w", channelOrPattern, err)
	}
	h := &handler{
		subscriber:   s,
		subscription: subscription{name: channelOrPattern, glob: filterd.IsGlob(channelOrPattern)},
		callback:     callback,
	}
	if where != nil {
		h.matcher = where.Matcher()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = append(s.handlers, h)
	if s.running != nil {
		h.start(s.running)
	}
	r := newRoutes(s.handlers)
	s.routes.Store(r)
	to := r.listen()
	if s.stamped {
		to.Channels = append(to.Channels, filterd.StampsChannel)
	}
	s.source.Subscribe(to)
	return nil
}

// WaitReady waits until Redis has confirmed the subscriptions of every Handle
// so far, as [Source.WaitReady] does.
func (s *Subscriber) WaitReady(ctx context.Context) error { return s.source.WaitReady(ctx) }

// Run takes messages until ctx ends, and then returns nil once the callbacks
// are done with what waits for them: at the latest DrainTimeout and one second
// later, by when their own context has ended. What is left then is counted as
// dropped. A callback that doesn't return even so is left behind, and logged.
//
// The error is that of [Source.Run]. Run must not run twice at a time.
func (s *Subscriber) Run(ctx context.Context) error {
	calling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s.stamps.Keep(0, func(string) bool { return false }) // nobody has listened
	s.mu.Lock()
	s.running = calling
	for _, h := range s.handlers {
		h.start(calling)
	}
	s.mu.Unlock()

	var end atomic.Pointer[time.Time] // of ctx
	stop := context.AfterFunc(ctx, func() { now := time.Now(); end.Store(&now) })
	defer stop()
	err := s.source.Run(ctx, (*dispatcher)(s))
	begin := time.Now()
	if at := end.Load(); at != nil {
		begin = *at // the source's drain counts
	}

	s.mu.Lock()
	s.running = nil
	handlers := slices.Clone(s.handlers)
	s.mu.Unlock()
	s.drain(handlers, begin.Add(s.options.DrainTimeout), cancel)
	return err
}

// drain ends the lanes of handlers, whose context ends at the deadline.
func (s *Subscriber) drain(handlers []*handler, deadline time.Time, cancel context.CancelFunc) {
	patience, stop := context.WithDeadline(context.Background(), deadline)
	defer stop()
	for _, h := range handlers {
		h.lane.Close()
	}
	for _, h := range handlers {
		dropped, _ := h.lane.Wait(patience)
		h.dropped.Add(uint64(dropped))
	}
	cancel()
	grace, stop := context.WithTimeout(context.Background(), callbackGrace)
	defer stop()
	for _, h := range handlers {
		h.lane.Wait(grace)
		if h.busy.Load() {
			s.logger.Error("a callback doesn't return", "channel", h.subscription.name)
		}
	}
}

// routes say which handlers a message goes to. They are immutable.
type routes struct {
	names map[string][]*handler
	globs map[string][]*handler
	order []*filterd.Glob // of globs, sorted
}

func newRoutes(handlers []*handler) *routes {
	r := &routes{names: make(map[string][]*handler), globs: make(map[string][]*handler)}
	for _, h := range handlers {
		to := r.names
		if h.subscription.glob {
			to = r.globs
		}
		to[h.subscription.name] = append(to[h.subscription.name], h)
	}
	for _, glob := range slices.Sorted(maps.Keys(r.globs)) {
		r.order = append(r.order, filterd.CompileGlob(glob))
	}
	return r
}

// listen returns what to subscribe to.
func (r *routes) listen() filterd.Subscriptions {
	return filterd.Subscriptions{Channels: slices.Collect(maps.Keys(r.names)), Globs: slices.Collect(maps.Keys(r.globs))}
}

// of returns the handlers of a message. Redis sends one copy for each
// subscription that the channel matches, and each handler takes that of its
// own.
func (r *routes) of(m *filterd.Message) []*handler {
	if m.Pattern != "" {
		return r.globs[m.Pattern]
	}
	return r.names[m.Channel]
}

// all yields every handler of a channel, however its messages come.
func (r *routes) all(channel string) iter.Seq[*handler] {
	return func(yield func(*handler) bool) {
		for _, h := range r.names[channel] {
			if !yield(h) {
				return
			}
		}
		for _, glob := range r.order {
			if !glob.Match(channel) {
				continue
			}
			for _, h := range r.globs[glob.String()] {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// first reports whether m is the copy of a message that stands for all: that
// of the exact name, else of the first glob.
func (r *routes) first(m *filterd.Message) bool {
	if m.Pattern == "" {
		return true
	}
	if r.names[m.Channel] != nil {
		return false
	}
	for _, glob := range r.order {
		if glob.Match(m.Channel) {
			return glob.String() == m.Pattern
		}
	}
	return true
}

// A dispatcher is the subscriber's other face: the source's handler.
type dispatcher Subscriber

// Messages implements [filterd.Handler].
func (d *dispatcher) Messages(_ context.Context, batch []*filterd.Message) {
	r := d.routes.Load()
	for _, m := range batch {
		handlers := r.of(m)
		if handlers == nil {
			if m.Channel == filterd.StampsChannel {
				d.heartbeat(r, m)
			}
			continue // no longer subscribed to
		}
		for _, h := range handlers {
			h.received.Add(1)
		}
		err := d.registry.Check(m)
		if d.stamped {
			d.follow(r, m)
		}
		if err != nil {
			d.refuse(r, m, handlers, err)
			continue
		}
		for _, h := range handlers {
			h.take(m)
		}
	}
}

// refuse counts a message that breaks its contract.
func (d *dispatcher) refuse(r *routes, m *filterd.Message, handlers []*handler, err error) {
	invalid, ok := errors.AsType[*filterd.ValidationError](err)
	if !ok {
		return // Check has no other errors
	}
	for _, h := range handlers {
		h.invalid[slices.Index(filterd.Reasons[:], invalid.Reason)].Add(1)
	}
	if !r.first(m) {
		return
	}
	if suppressed, ok := d.invalid.Allow(); ok {
		d.logger.Warn("invalid message", "error", invalid, "suppressed", suppressed)
	}
	if d.options.OnInvalid != nil {
		d.options.OnInvalid(m, invalid)
	}
}

// follow looks for messages that are missing before a stamped one, which was
// checked.
func (d *dispatcher) follow(r *routes, m *filterd.Message) {
	if producer, sequence, ok := m.Stamp(); ok && r.first(m) {
		if loss := d.stamps.Take(0, m.Channel, producer, sequence, m.Received); loss.Lost != 0 {
			d.lose(r, m.Channel, string(producer), loss, m.Received)
		}
	}
}

// heartbeat looks for messages that are missing although nothing came after
// them.
func (d *dispatcher) heartbeat(r *routes, m *filterd.Message) {
	h, err := stamps.ParseHeartbeat(m.Payload)
	if err != nil {
		if suppressed, ok := d.invalid.Allow(); ok {
			d.logger.Warn("invalid heartbeat", "channel", m.Channel, "error", err, "suppressed", suppressed)
		}
		return
	}
	for channel, sequence := range h.Sequences {
		if loss := d.stamps.Reached(channel, h.Producer, sequence, m.Received); loss.Lost != 0 {
			d.lose(r, channel, h.Producer, loss, m.Received)
		}
	}
}

// lose counts and reports messages of a channel that are missing, or takes back
// what was only late.
func (d *dispatcher) lose(r *routes, channel, producer string, loss stamps.Loss, now time.Time) {
	d.lost.Add(loss.Lost)
	for h := range r.all(channel) {
		h.lost.Add(loss.Lost)
	}
	if loss.Lost < 0 {
		return
	}
	if suppressed, ok := d.losses.Allow(); ok {
		d.logger.Warn("messages lost", "lost", loss.Lost, "channel", channel, "producer", producer, "since", loss.Since, "suppressed", suppressed)
	}
	if d.options.OnGap != nil {
		d.options.OnGap(filterd.Gap{
			Channels: []string{channel}, From: loss.Since, To: now, Reason: "messages of a producer are missing",
			Producer: producer, Lost: uint64(loss.Lost),
		})
	}
}

// Gap implements [filterd.Handler].
func (d *dispatcher) Gap(gap filterd.Gap) {
	d.gaps.Add(1)
	d.gapTime.Add(int64(gap.Length()))
	if d.options.OnGap != nil {
		d.options.OnGap(gap)
	}
}
