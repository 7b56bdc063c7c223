package pubsub

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// StreamOptions are a stream source's. The zero value of a field is its default.
type StreamOptions struct {
	// Consumer is the name of this process in every group, which no other
	// process may have. Default: the host's name and the process' number.
	Consumer string
	// DrainTimeout is how long the handler has, after Run's context has ended,
	// for the entries that it holds. What it holds then stays pending.
	// Default DefaultDrainTimeout.
	DrainTimeout time.Duration
	// MaxMessage is how large an entry may be, in bytes. A larger one is not
	// read: it becomes a dead letter without its payload. Default
	// DefaultMaxMessage.
	MaxMessage int
	// Logger gets what is wrong with streams and entries. Default
	// slog.Default().
	Logger *slog.Logger
}

// A StreamSource delivers the entries of streams as a member of their consumer
// groups, at least once: an entry is acknowledged when nobody holds it any more
// and nobody has asked for it again. Any number of processes may share a group.
//
// Each stream is read by a goroutine of its own, and each has a handler of its
// own if the one given to Run is a [filterd.Forker]. A goroutine reads on when
// its handler has returned, so a handler that waits for room makes the stream
// wait. When an entry was postponed, nothing new is read of its stream until it
// could be treated.
//
// What is pending is treated first: what this consumer left behind, after every
// connection, and what others did, as soon as it is idle for the stream's
// ClaimIdle. Entries that a handler holds don't get idle.
//
// The methods are safe for concurrent use, but Run must not run twice at a time.
type StreamSource struct {
	rdb     redis.UniversalClient
	options StreamOptions

	mu      sync.Mutex // guards what follows
	wanted  []filterd.Stream
	changed chan struct{} // capacity 1: wanted may be another
	noted   chan struct{} // closed, and another one made, when Ready may say something else
	readers map[filterd.Stream]*streamReader
	gone    map[streamName]StreamStats // of readers that have ended

	backlog backlog
}

var _ filterd.Source = (*StreamSource)(nil)

// A streamName names a membership in a group.
type streamName struct{ stream, group string }

// StreamStats counts what became of the entries of one stream in one group.
type StreamStats struct {
	Stream, Group string
	Consumer      string // this process in the group
	Read          uint64 // new entries
	Redelivered   uint64 // entries that had been delivered before
	Claimed       uint64 // of these, those that another consumer had left behind
	Acknowledged  uint64 // entries that are dealt with: acknowledged by the source, or by a sink with what it wrote, or by who had taken them
	Malformed     uint64 // entries that hold no message, or are too large
	Poison        uint64 // entries that were delivered in vain too often
	Trimmed       uint64 // entries that were deleted while they were pending: lost
	Held          int    // entries that the handler has
	Wanted        bool   // it is to be read; false of one that was
	Err           error  // why it can't be read although it is wanted
}

// NewStreamSource makes a source that reads through rdb, which stays the
// caller's. If rdb is a [*redis.Client] each stream has connections of its own,
// made with rdb's options.
func NewStreamSource(rdb redis.UniversalClient, options StreamOptions) *StreamSource {
	options.Logger = cmp.Or(options.Logger, slog.Default())
	options.DrainTimeout = cmp.Or(max(options.DrainTimeout, 0), DefaultDrainTimeout)
	if options.MaxMessage <= 0 {
		options.MaxMessage = DefaultMaxMessage
	}
	options.Consumer = cmp.Or(options.Consumer, processName())
	return &StreamSource{
		rdb:     rdb,
		options: options,
		changed: make(chan struct{}, 1),
		noted:   make(chan struct{}),
		readers: make(map[filterd.Stream]*streamReader),
		gone:    make(map[streamName]StreamStats),
	}
}

// Subscribe implements [filterd.Source]. A stream that isn't read any more is
// left when what the handler holds of it is done. It doesn't wait.
func (s *StreamSource) Subscribe(to filterd.Subscriptions) {
	wanted := make([]filterd.Stream, len(to.Streams))
	for i, stream := range to.Streams {
		wanted[i] = stream.WithDefaults()
	}
	s.mu.Lock()
	s.wanted = wanted
	s.tell()
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // Run is about to look
	}
}

// Stats returns the counters of every stream that is or was read, in the order
// of their names and groups.
func (s *StreamSource) Stats() []StreamStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	sums := make(map[streamName]StreamStats)
	for name, stats := range s.gone {
		sums[name] = stats
	}
	for stream, r := range s.readers {
		name := streamName{stream.Name, stream.Group}
		sums[name] = sums[name].add(r.stats())
	}
	for _, stream := range s.wanted {
		name := streamName{stream.Name, stream.Group}
		sum := sums[name]
		sum.Wanted, sum.Err = true, s.unreadable(stream)
		sums[name] = sum
	}
	var all []StreamStats
	for name, stats := range sums {
		stats.Stream, stats.Group, stats.Consumer = name.stream, name.group, s.options.Consumer
		all = append(all, stats)
	}
	slices.SortFunc(all, func(a, b StreamStats) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Group, b.Group))
	})
	return all
}

func (s StreamStats) add(o StreamStats) StreamStats {
	s.Read += o.Read
	s.Redelivered += o.Redelivered
	s.Claimed += o.Claimed
	s.Acknowledged += o.Acknowledged
	s.Malformed += o.Malformed
	s.Poison += o.Poison
	s.Trimmed += o.Trimmed
	s.Held += o.Held
	return s
}

// Run implements [filterd.Source]. When Redis can't be reached it goes on
// trying. When ctx ends it reads no more, waits for what the handler holds, at
// most for DrainTimeout, and returns nil. The handler's context ends then, too.
func (s *StreamSource) Run(ctx context.Context, h filterd.Handler) error {
	handling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
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
	if _, ok := h.(filterd.Forker); !ok {
		h = &oneAtATime{handler: h}
	}
	var running sync.WaitGroup
	for {
		s.mu.Lock()
		for stream, r := range s.readers {
			if !slices.Contains(s.wanted, stream) {
				r.leave()
			}
		}
		for _, stream := range s.wanted {
			if s.readers[stream] == nil {
				s.start(ctx, handling, stream, h.(filterd.Forker).Fork(), &running)
			}
		}
		s.mu.Unlock()
		select {
		case <-s.changed:
		case <-ctx.Done():
			running.Wait()
			return nil
		}
	}
}

// start starts a stream's reader, unless the one with other settings has not
// left yet: then that one's end brings us back here. The caller holds mu.
func (s *StreamSource) start(ctx, handling context.Context, stream filterd.Stream, h filterd.Handler, running *sync.WaitGroup) {
	for other := range s.readers {
		if other.Name == stream.Name && other.Group == stream.Group {
			return
		}
	}
	reading, leave := context.WithCancel(ctx)
	r := newStreamReader(s, stream, leave)
	s.readers[stream] = r
	running.Go(func() {
		defer leave()
		r.run(reading, handling, h)
		s.mu.Lock()
		delete(s.readers, stream)
		name := streamName{stream.Name, stream.Group}
		s.gone[name] = s.gone[name].add(r.stats())
		s.tell()
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
	})
}

// oneAtATime makes a Forker of a handler that is none.
type oneAtATime struct {
	mu      sync.Mutex // guards calls of handler
	handler filterd.Handler
}

func (o *oneAtATime) Fork() filterd.Handler { return o }

func (o *oneAtATime) Messages(ctx context.Context, batch []*filterd.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handler.Messages(ctx, batch)
}

func (o *oneAtATime) Gap(gap filterd.Gap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handler.Gap(gap)
}
