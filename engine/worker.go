package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
)

// A worker treats messages under one generation, on one goroutine: it asks the
// processor, counts, and passes on.
type worker struct {
	*generation
	ctx        context.Context // of the batch at hand: how long to wait for room in a lane
	processor  *Processor
	helpers    []*Processor        // of other goroutines, while they help
	parts      []part              // of the batch at hand
	one        [1]*filterd.Message // the batch of Engine.Process
	channels   map[*route]*channelCounters
	last       course // of the last message: mostly it is the next one's, too
	deliveries []filterd.Delivery
	outputs    []Output // of the deliveries
	flight     flight
	handler    *handler // that it works for; nil: for Process, or a lane
	span       Span     // of the message at hand; nil unless it is recorded
}

// A course is where the messages of a channel go, and where they are counted.
type course struct {
	route   *route
	channel *channelCounters
}

func (g *generation) newWorker() *worker {
	return &worker{generation: g, ctx: g.engine.lifetime, processor: g.newProcessor(), channels: make(map[*route]*channelCounters)}
}

func (g *generation) newProcessor() *Processor {
	p := g.table.NewProcessor()
	p.owned, p.fence = true, g.engine.fence
	return p
}

// run treats a batch in order: neighbours with the same route together. What
// goes to channels waits for flush. The error is that of the last message that
// was not valid, or left to another process.
func (w *worker) run(batch []*filterd.Message, only bool) error {
	var invalid error
	for len(batch) > 0 && w.engine.halted.Load() == nil {
		if first := batch[0]; w.last.route == nil || !w.last.route.takes(first, only) {
			route, err := w.table.route(first, only)
			if err != nil {
				w.engine.fail("", err)
				w.engine.refuse(batch)
				return err
			}
			w.last = course{route, w.channelOf(route)}
		}
		route := w.last.route
		n := 1
		for n < len(batch) && route.takes(batch[n], only) {
			n++
		}
		if route.label == "" { // between two tables: it was subscribed to
			if batch[0].Channel == filterd.StampsChannel {
				w.heartbeats(batch[:n])
			} else {
				w.unrouted(batch[:n])
			}
			batch = batch[n:]
			continue
		}
		if !route.key.stream && !w.engine.leads() {
			w.standBy(route, batch[:n])
			invalid, batch = ErrStandby, batch[n:]
			continue
		}
		parts := w.process(route, batch[:n])
		if w.table.stamped && route.primary {
			w.followStamps(route, batch[:n])
		}
		for _, part := range parts {
			if err := w.finishPart(route, part); err != nil {
				invalid = err
			}
		}
		batch = batch[n:]
	}
	w.engine.refuse(batch)
	return invalid
}

// unrouted counts messages that no rule takes. Entries stay pending: they were
// read for a rule that a reload has taken away.
func (w *worker) unrouted(batch []*filterd.Message) {
	for _, m := range batch {
		if m.Entry != nil {
			m.Entry.Postpone()
		} else {
			w.engine.counters.unrouted.Add(1)
		}
	}
}

// finishPart counts what rules made of messages that a processor has treated,
// and sends what they ask for.
func (w *worker) finishPart(route *route, part part) (invalid error) {
	p := part.processor
	if taps := w.engine.taps.Load(); taps != nil {
		w.tapBatch(*taps, route.program, part)
	}
	tracing := w.engine.config.Tracer != nil
	for i, m := range part.batch {
		result := &p.results[i]
		if tracing {
			w.beginSpan(m)
		}
		if result.Invalid != nil {
			invalid = result.Invalid
		}
		if w.last.channel != nil {
			w.countMessage(w.last.channel, m, result)
		}
		w.finish(m, result)
		if w.span != nil {
			w.endSpan(m, p, result)
		}
	}
	for i := range p.failing {
		w.countFailing(&p.failing[i])
	}
	return invalid
}

// refuse counts messages that are not treated. Entries stay pending.
func (e *Engine) refuse(batch []*filterd.Message) {
	e.counters.refused.Add(uint64(len(batch)))
	for _, m := range batch {
		if m.Entry != nil {
			m.Entry.Postpone()
		}
	}
}

// finish counts what rules made of a message, and sends what they ask for.
func (w *worker) finish(m *filterd.Message, result *Result) {
	for i := range result.Outcomes {
		outcome := &result.Outcomes[i]
		if outcome.Matched {
			w.rules[outcome.number].matched.Add(1)
		}
		if outcome.Dropped {
			w.rules[outcome.number].filtered.Add(1)
		}
		if w.span != nil {
			w.spanOutcome(outcome)
		}
		if outcome.Err != nil {
			w.engine.ruleError(w.rules[outcome.number], w.table.rules[outcome.number], m, outcome.Err)
		}
	}
	for _, err := range result.Lost {
		w.engine.loseDeadLetter(m, err)
	}
	if m.Entry != nil && m.Entry.Outcome() != filterd.EntryDone {
		return // a rule halts on it: it will come again as a whole
	}
	for _, to := range result.toStages {
		w.stage(to.bound, to.at, m)
	}
	guarded, mark := m.Entry != nil, len(w.deliveries)
	for _, output := range result.Outputs {
		if output.Shadow {
			w.rules[output.rule.number].shadowed.Add(1)
			continue
		}
		w.send(output)
		guarded = guarded && output.Stream
	}
	// Where all that becomes of an entry goes to streams, it may be
	// acknowledged with that.
	if guarded && m.Entry.Alone() {
		for i := range w.deliveries[mark:] {
			w.deliveries[mark+i].Entry = m.Entry
		}
	}
}

// channelOf returns the counters of a route's channel; nil if its messages are
// not counted there.
func (w *worker) channelOf(route *route) *channelCounters {
	if !route.primary || route.label == "" {
		return nil
	}
	channel := w.channels[route]
	if channel == nil {
		if len(w.channels) >= w.table.maxPrograms {
			clear(w.channels)
		}
		channel = w.engine.counters.channel(route.label)
		w.channels[route] = channel
	}
	return channel
}

func (w *worker) countMessage(channel *channelCounters, m *filterd.Message, result *Result) {
	channel.received.Add(1)
	if result.Invalid == nil {
		return
	}
	var invalid *filterd.ValidationError
	if errors.As(result.Invalid, &invalid) {
		channel.count(invalid.Reason)
		w.engine.log(&channel.failures, slog.LevelWarn, "invalid message", "channel", m.Channel, "reason", invalid.Reason, "error", invalid)
	}
}

// ruleError counts and reports a message that a rule failed on.
func (e *Engine) ruleError(counters *ruleCounters, r *rule, m *filterd.Message, err error) {
	counters.errors.Add(1)
	if r.OnError == OnErrorHalt && !r.Shadow {
		if m.Entry != nil {
			m.Entry.Postpone()
		}
		e.fail(r.Name, err)
		return
	}
	e.log(&counters.failures, slog.LevelWarn, "rule failed", "rule", r.Name, "channel", m.Channel, "on_error", r.OnError, "error", err)
}

// countFailing counts and reports a message that a group of rules failed on.
func (w *worker) countFailing(f *failing) {
	w.engine.counters.fail(f.group)
	r := f.group.quiet[0]
	suppressed, ok := w.rules[r.number].failures.Allow()
	if !ok {
		return
	}
	args := []any{"rule", r.Name, "channel", f.message.Channel, "on_error", r.OnError, "error", fmt.Errorf("when: %w", f.matcher.Failure(f.message, f.group.first))}
	if others := len(f.group.quiet) - 1; others > 0 {
		args = append(args, "other_rules", others)
	}
	w.engine.line(suppressed, slog.LevelWarn, "rule failed", args...)
}

// log logs what may repeat with every message.
func (e *Engine) log(limit *lograte.Limiter, level slog.Level, text string, args ...any) {
	if suppressed, ok := limit.Allow(); ok {
		e.line(suppressed, level, text, args...)
	}
}

// line logs a line that stands for others as well.
func (e *Engine) line(suppressed int, level slog.Level, text string, args ...any) {
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	e.config.Logger.Log(e.lifetime, level, text, args...)
}

// send queues an output: for flush, or in its lane.
func (w *worker) send(output Output) {
	if w.span != nil {
		output = w.spanOutput(output)
	}
	if output.slow == nil {
		w.deliveries = append(w.deliveries, output.delivery())
		w.outputs = append(w.outputs, output)
		return
	}
	r := output.rule
	j := job{
		message:  output.message.With(bytes.Clone(output.Payload)),
		rule:     r,
		counters: w.rules[r.number],
		target:   output.slow,
		log:      output.Log,
		span:     output.span,
	}
	size := len(output.Payload)
	if r.OnError == OnErrorDeadLetter {
		j.origin = output.message.Clone()
		size += len(j.origin.Payload)
	}
	number, err := output.bound.laneOf(output.at, output.message, output.slow.lanes)
	if err != nil {
		w.engine.ruleError(j.counters, r, output.message, err) // and go by the channel
	}
	w.push(j, laneKey{rule: r.Name, target: output.slow.name, number: number, overflow: r.Overflow}, size, output.key)
}

// push queues a job of so many bytes in a lane. Entries, which can be delivered
// again but must not get lost, wait for room.
func (w *worker) push(j job, to laneKey, size int, key string) {
	lane, entry := w.lanes[to], j.message.Entry
	if entry == nil && to.overflow != OverflowBlock {
		if dropped := lane.Push(j, size, key); dropped > 0 {
			w.engine.log(&j.counters.failures, slog.LevelWarn, "queue is full", "rule", to.rule, "policy", to.overflow)
		}
		return
	}
	if entry != nil {
		entry.Hold()
	}
	if w.handler != nil {
		w.handler.rest()
		defer w.handler.work()
	}
	if !lane.PushWait(w.ctx, j, size) {
		j.lost(false)
	}
}

// delivery returns what a sink is to do for an output to a channel or stream.
func (o *Output) delivery() filterd.Delivery {
	return filterd.Delivery{Channel: o.Channel, Payload: o.Payload, Stream: o.Stream, Sharded: o.Sharded, MaxLen: o.MaxLen}
}

// flush publishes what run left for channels.
func (w *worker) flush(ctx context.Context) {
	if w.withhold(); len(w.deliveries) == 0 {
		return
	}
	w.engine.config.Sink.Deliver(ctx, w.deliveries)
	w.settleAll(ctx)
}

// settleAll counts what became of all deliveries.
func (w *worker) settleAll(ctx context.Context) {
	now := time.Now()
	failed := w.outputs[:0]
	var errs []error
	for i := range w.deliveries {
		if output := w.outputs[i]; w.settle(output, &w.deliveries[i], now) {
			failed = append(failed, output)
			errs = append(errs, w.deliveries[i].Err)
		}
	}
	clear(w.deliveries)
	w.deliveries = w.deliveries[:0]
	for i, output := range failed {
		w.engine.deadLetterUndelivered(ctx, output.rule, output.message, errs[i])
	}
	clear(w.outputs)
	w.outputs = w.outputs[:0]
}

// settle counts what became of a delivery by now, and reports whether it failed
// and wants a dead letter.
func (w *worker) settle(output Output, d *filterd.Delivery, now time.Time) bool {
	if output.span != nil {
		output.span.End(d.Err)
	}
	m := output.message
	switch {
	case output.DeadLetter:
		w.engine.settleDeadLetter(m, d)
	case d.Err == nil:
		w.rules[output.rule.number].deliver(d, m.Received, now, output.span)
	case errors.Is(d.Err, filterd.ErrTaken):
		w.engine.counters.taken.Add(1)
	default:
		again := postpone(m, d.Err)
		return w.engine.undelivered(w.rules[output.rule.number], output.rule, m, d.Err) && !again
	}
	return false
}

// postpone has a message delivered again that could not go out for now, if it is
// an entry, and reports whether it is. What its target has refused would be
// refused again.
func postpone(m *filterd.Message, err error) bool {
	if m.Entry == nil || errors.Is(err, filterd.ErrRefused) {
		return false
	}
	m.Entry.Postpone()
	return true
}

// deliver counts a message that was received and delivered by now. The span is
// nil unless its delivery is recorded.
func (c *ruleCounters) deliver(d *filterd.Delivery, received, now time.Time, span Span) {
	c.delivered.Add(1)
	c.latency.observe(received, now, span)
	if d.Receivers == 0 && !d.Stream {
		c.noReceivers.Add(1)
	}
}

// undelivered counts and reports a message that a rule's target did not take,
// and reports whether it wants a dead letter.
func (e *Engine) undelivered(counters *ruleCounters, r *rule, m *filterd.Message, err error) bool {
	counters.undelivered.Add(1)
	e.ruleError(counters, r, m, err)
	return r.OnError == OnErrorDeadLetter
}

// deadLetterUndelivered publishes the dead letter of a message that a target did
// not take: once, since nothing is dead-lettered twice.
func (e *Engine) deadLetterUndelivered(ctx context.Context, r *rule, m *filterd.Message, err error) {
	letter := r.deadLetter()
	if err := r.table.writeDeadLetter(&letter, m, err, e.fence()); err != nil {
		e.loseDeadLetter(m, err)
		return
	}
	d := []filterd.Delivery{letter.delivery()}
	e.config.Sink.Deliver(ctx, d)
	e.settleDeadLetter(m, &d[0])
}

// settleDeadLetter counts what became of the dead letter of a message.
func (e *Engine) settleDeadLetter(m *filterd.Message, d *filterd.Delivery) {
	switch {
	case d.Err == nil:
		e.counters.deadLetters.Add(1)
	case errors.Is(d.Err, filterd.ErrTaken):
		e.counters.taken.Add(1)
	case postpone(m, d.Err):
		e.log(&e.counters.lost, slog.LevelWarn, "dead letter not delivered: its entry stays pending", "stream", m.Channel, "id", m.ID, "error", d.Err)
	default:
		e.loseDeadLetter(m, d.Err)
	}
}

// loseDeadLetter counts and reports that the dead letter of a message is lost. An
// entry is acknowledged all the same, or it would hold up all behind it; its ID
// is where to find it.
func (e *Engine) loseDeadLetter(m *filterd.Message, err error) {
	e.counters.deadLettersLost.Add(1)
	args := []any{"channel", m.Channel, "error", err}
	if m.ID != "" {
		args = []any{"stream", m.Channel, "id", m.ID, "error", err}
	}
	e.log(&e.counters.lost, slog.LevelError, "dead letter lost", args...)
}
