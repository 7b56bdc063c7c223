package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
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
	// OnGap is called with every gap, on the goroutine of Run: it must not
	// block.
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
	options  SubscriberOptions
	logger   *slog.Logger
	invalid  lograte.Limiter // limits the log lines about invalid messages

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
	s.source.Subscribe(r.listen())
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
			continue // no longer subscribed to
		}
		for _, h := range handlers {
			h.received.Add(1)
		}
		if err := d.registry.Check(m); err != nil {
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

// Gap implements [filterd.Handler].
func (d *dispatcher) Gap(gap filterd.Gap) {
	d.gaps.Add(1)
	d.gapTime.Add(int64(gap.Length()))
	if d.options.OnGap != nil {
		d.options.OnGap(gap)
	}
}
