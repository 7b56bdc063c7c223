package engine

import (
	"context"
	"time"

	"github.com/filterd/filterd"
)

// A flight is what a worker has sent, and whose outcomes it does not know yet.
// The messages are gone by the time they come, but their entries are held.
type flight struct {
	started    filterd.Started // nil: there is no flight
	at         time.Time       // when it was sent
	deliveries []filterd.Delivery
	origins    []origin // of the deliveries
}

// An origin is what is kept of a message, and of its rule, for an outcome.
type origin struct {
	rule        *rule
	channel, id string
	entry       *filterd.Entry
	received    time.Time
	span        Span // of the delivery; nil if there is none
}

// start sends what run left for channels and streams, and counts the outcomes of
// the flight before. It reports whether those of this one are left to
// settleFlight. Entries go no further if earlier ones were postponed, of the
// flight before or, as behind says, of another worker's: they keep their order.
func (w *worker) start(ctx context.Context, behind bool) (begun bool) {
	starter, ok := w.engine.config.Sink.(filterd.Starter)
	w.withhold()
	ok = ok && len(w.deliveries) > 0 && w.lightly()
	if !ok || w.needTurn() {
		if behind = w.settleFlight() || behind; behind {
			w.holdBack()
		}
	}
	if !ok || len(w.deliveries) == 0 {
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
		o, m := &w.outputs[i], w.outputs[i].message
		if m.Entry != nil {
			m.Entry.Hold()
		}
		f.origins = append(f.origins, origin{o.rule, m.Channel, m.ID, m.Entry, m.Received, o.span})
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
		if o := &w.outputs[i]; o.DeadLetter || o.rule.OnError == OnErrorDeadLetter {
			return false
		}
	}
	return true
}

// needTurn reports whether there are deliveries that may be sent only when the
// outcomes of those before are known: to keep their order in a stream, or that
// of their entries.
func (w *worker) needTurn() bool {
	for i := range w.outputs {
		if o := &w.outputs[i]; o.Stream || o.message.Entry != nil {
			return true
		}
	}
	return false
}

// holdBack postpones the entries whose deliveries have not been sent.
func (w *worker) holdBack() {
	w.retain(func(output *Output) bool {
		entry := output.message.Entry
		if entry != nil {
			entry.Postpone()
			if output.span != nil {
				output.span.End(errHeldBack)
			}
		}
		return entry == nil
	})
}

// retain leaves only the outputs that keep wants to be delivered.
func (w *worker) retain(keep func(*Output) bool) {
	n := 0
	for i := range w.outputs {
		if keep(&w.outputs[i]) {
			w.outputs[n], w.deliveries[n] = w.outputs[i], w.deliveries[i]
			n++
		}
	}
	clear(w.outputs[n:])
	clear(w.deliveries[n:])
	w.outputs, w.deliveries = w.outputs[:n], w.deliveries[:n]
}

// settleFlight counts the outcomes of a flight, if there is one, and reports
// whether entries of it were postponed.
func (w *worker) settleFlight() (postponed bool) {
	f := &w.flight
	if f.started == nil {
		return false
	}
	f.started.Finish()
	f.started = nil
	for i := range f.deliveries {
		d, from := &f.deliveries[i], &f.origins[i]
		if d.Err == nil {
			if from.span != nil {
				from.span.End(nil)
			}
			w.rules[from.rule.number].deliver(d, from.received, f.at, from.span)
		} else {
			m := &filterd.Message{Channel: from.channel, ID: from.id, Entry: from.entry, Received: from.received}
			_ = w.settle(Output{rule: from.rule, message: m, span: from.span}, d, f.at) // it wants no dead letter
		}
		if from.entry != nil {
			postponed = postponed || from.entry.Outcome() == filterd.EntryPostponed
			from.entry.Release()
		}
	}
	clear(f.deliveries)
	clear(f.origins)
	return postponed
}
