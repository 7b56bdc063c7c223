package engine

import (
	"context"
	"time"

	"github.com/filterd/filterd"
)

// A flight is what a worker has published, and whose outcomes it does not know
// yet. The messages are gone by the time they come.
type flight struct {
	started    filterd.Started // nil: there is no flight
	at         time.Time       // when it was published
	deliveries []filterd.Delivery
	origins    []origin // of the deliveries
}

// An origin is what is kept of a message, and of its rule, for an outcome.
type origin struct {
	rule     *rule
	channel  string
	received time.Time
}

// start publishes what run left for channels, and counts the outcomes of the
// flight before. It reports whether those of this one are left to settleFlight.
func (w *worker) start(ctx context.Context) (begun bool) {
	starter, ok := w.engine.config.Sink.(filterd.Starter)
	w.withhold()
	if !ok || len(w.deliveries) == 0 || !w.lightly() {
		w.settleFlight()
		w.flush(ctx)
		return false
	}
	started := starter.Start(ctx, w.deliveries) // which knows the outcomes of the flight before
	w.settleFlight()
	if started == nil {
		w.settleAll(ctx)
		return false
	}
	f := &w.flight
	f.started, f.at, f.origins = started, time.Now(), f.origins[:0]
	for i := range w.outputs {
		o := &w.outputs[i]
		f.origins = append(f.origins, origin{o.rule, o.message.Channel, o.message.Received})
		w.deliveries[i].Payload = nil // which is the message's
	}
	clear(w.outputs)
	w.outputs = w.outputs[:0]
	f.deliveries, w.deliveries = w.deliveries, f.deliveries[:0]
	return true
}

// lightly reports whether nobody needs the messages that the deliveries are made
// of once they are on their way, even if one fails.
func (w *worker) lightly() bool {
	for i := range w.outputs {
		if o := &w.outputs[i]; o.DeadLetter || o.message.Entry != nil || o.rule.OnError == OnErrorDeadLetter {
			return false
		}
	}
	return true
}

// settleFlight counts the outcomes of a flight, if there is one.
func (w *worker) settleFlight() {
	f := &w.flight
	if f.started == nil {
		return
	}
	f.started.Finish()
	f.started = nil
	for i := range f.deliveries {
		d, from := &f.deliveries[i], &f.origins[i]
		if counters := w.rules[from.rule.number]; d.Err == nil {
			counters.deliver(d, from.received, f.at)
		} else {
			_ = w.engine.undelivered(counters, from.rule, &filterd.Message{Channel: from.channel}, d.Err) // it gets no dead letter
		}
	}
	clear(f.deliveries)
	clear(f.origins)
}
