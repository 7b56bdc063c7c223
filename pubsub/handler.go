package pubsub

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lane"
	"github.com/filterd/filterd/internal/lograte"
)

// A handler is one Handle of a subscriber. Its counters are for everyone, its
// matcher for the goroutine of Run.
type handler struct {
	subscriber   *Subscriber
	subscription subscription
	matcher      filterd.Matcher // nil keeps all
	callback     Callback
	lane         *lane.Lane[*filterd.Message] // of the present Run
	busy         atomic.Bool                  // the callback runs

	received atomic.Uint64
	matched  atomic.Uint64
	errors   atomic.Uint64
	panics   atomic.Uint64
	dropped  atomic.Uint64
	lost     atomic.Int64
	invalid  [len(filterd.Reasons)]atomic.Uint64 // by index in filterd.Reasons
	failures lograte.Limiter                     // limits the log lines about errors and panics
}

// start gives the handler a lane. Its goroutine ends when drain closes it.
func (h *handler) start(ctx context.Context) {
	options := h.subscriber.options
	limits := lane.Limits{Messages: max(options.QueueMessages, 0), Bytes: max(options.QueueBytes, 0)}
	h.lane = lane.New(limits, lane.DropOldest, 1, func(batch []*filterd.Message) {
		h.busy.Store(true)
		defer h.busy.Store(false)
		defer h.caught("callback")
		if err := h.callback(ctx, batch[0]); err != nil {
			h.log("callback", err)
			h.errors.Add(1)
		}
	}, nil)
}

// take queues a copy of m for the callback if the filter keeps it.
func (h *handler) take(m *filterd.Message) {
	if h.keeps(m) {
		h.matched.Add(1)
		h.dropped.Add(uint64(h.lane.Push(m.Clone(), len(m.Payload), "")))
	}
}

func (h *handler) keeps(m *filterd.Message) (keep bool) {
	if h.matcher == nil {
		return true
	}
	defer h.caught("filter")
	keep, err := h.matcher.Match(m)
	if err != nil {
		h.log("filter", err)
		h.errors.Add(1)
		return false
	}
	return keep
}

// caught counts a panic of the user's code.
func (h *handler) caught(what string) {
	if cause := recover(); cause != nil {
		h.log(what, fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
		h.panics.Add(1)
	}
}

func (h *handler) log(what string, err error) {
	if suppressed, ok := h.failures.Allow(); ok {
		h.subscriber.logger.Error(what+" failed", "channel", h.subscription.name, "error", err, "suppressed", suppressed)
	}
}

// HandlerStats count what one Handle has seen since it was called. Matched
// messages are with the callback, wait for it, or are dropped.
type HandlerStats struct {
	Channel  string                    // the channel or glob
	Received uint64                    // messages that came
	Invalid  map[filterd.Reason]uint64 // of these, those that broke their contract; every reason has an entry
	Matched  uint64                    // valid messages that the filter kept
	Dropped  uint64                    // of these, those that never reached the callback
	Errors   uint64                    // of the filter and the callback
	Panics   uint64                    // of the filter and the callback
	Lost     uint64                    // messages that never came, as the stamps of others show: see [filterd.Contract].Stamped
}

// Stats are a subscriber's counters.
type Stats struct {
	Handlers []HandlerStats // in the order of Handle
	Gaps     uint64         // spans in which messages may have been missed
	GapTime  time.Duration  // their total length
	Lost     uint64         // messages that never came, as the stamps of others show
}

// Stats returns the counters as they are now. Numbers that belong together may
// be a few messages apart while Run runs.
func (s *Subscriber) Stats() Stats {
	stats := Stats{Gaps: s.gaps.Load(), GapTime: time.Duration(s.gapTime.Load()), Lost: uint64(max(0, s.lost.Load()))}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.handlers {
		counts := HandlerStats{
			Channel:  h.subscription.name,
			Received: h.received.Load(),
			Invalid:  make(map[filterd.Reason]uint64, len(filterd.Reasons)),
			Matched:  h.matched.Load(),
			Dropped:  h.dropped.Load(),
			Errors:   h.errors.Load(),
			Panics:   h.panics.Load(),
			Lost:     uint64(max(0, h.lost.Load())),
		}
		for i, reason := range filterd.Reasons {
			counts.Invalid[reason] = h.invalid[i].Load()
		}
		stats.Handlers = append(stats.Handlers, counts)
	}
	return stats
}
