package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
)

// A worker treats messages under one generation, on one goroutine: it asks the
// processor, counts, and passes on.
type worker struct {
	*generation
	processor  *Processor
	channels   map[*route]*channelCounters
	last       course // of the last message: mostly it is the next one's, too
	deliveries []filterd.Delivery
	outputs    []Output // of the deliveries
}

// A course is where the messages of a channel go, and where they are counted.
type course struct {
	route   *route
	channel *channelCounters
}

func (g *generation) newWorker() *worker {
	w := &worker{generation: g, processor: g.table.NewProcessor(), channels: make(map[*route]*channelCounters)}
	w.processor.later = w.stage
	w.processor.counts = true
	return w
}

// run treats a batch in order: neighbours with the same route together. What
// goes to channels waits for flush. The error is that of the last message that
// was not valid.
func (w *worker) run(batch []*filterd.Message, only bool) error {
	var invalid error
	for len(batch) > 0 && w.engine.halted.Load() == nil {
		if first := batch[0]; w.last.route == nil || !w.last.route.takes(first, only) {
			route, err := w.table.route(first, only)
			if err != nil {
				w.engine.fail("", err)
				return err
			}
			w.last = course{route, w.channelOf(route)}
		}
		route := w.last.route
		n := 1
		for n < len(batch) && batch[n].Channel == batch[0].Channel && batch[n].Pattern == batch[0].Pattern {
			n++
		}
		if route.label == "" { // between two tables: it was subscribed to
			w.engine.counters.unrouted.Add(uint64(n))
			batch = batch[n:]
			continue
		}
		w.processor.process(route, batch[:n])
		if taps := w.engine.taps.Load(); taps != nil {
			w.tapBatch(*taps, route.program, batch[:n])
		}
		for i, m := range batch[:n] {
			result := &w.processor.results[i]
			if result.Invalid != nil {
				invalid = result.Invalid
			}
			if w.last.channel != nil {
				w.countMessage(w.last.channel, m, result)
			}
			w.finish(m, result)
		}
		for i := range w.processor.failing {
			w.countFailing(&w.processor.failing[i])
		}
		batch = batch[n:]
	}
	w.engine.counters.refused.Add(uint64(len(batch)))
	return invalid
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
		if outcome.Err != nil {
			w.ruleError(w.table.rules[outcome.number], m, outcome.Err)
		}
	}
	for _, err := range result.Lost {
		w.engine.counters.deadLettersLost.Add(1)
		w.engine.log(&w.engine.counters.lost, slog.LevelError, "dead letter lost", "channel", m.Channel, "error", err)
	}
	for _, output := range result.Outputs {
		w.send(output)
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
func (w *worker) ruleError(r *rule, m *filterd.Message, err error) {
	counters := w.rules[r.number]
	counters.errors.Add(1)
	if r.OnError == OnErrorHalt {
		w.engine.fail(r.Name, err)
		return
	}
	w.engine.log(&counters.failures, slog.LevelWarn, "rule failed", "rule", r.Name, "channel", m.Channel, "on_error", r.OnError, "error", err)
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
	if output.Channel != "" {
		w.deliveries = append(w.deliveries, output.delivery())
		w.outputs = append(w.outputs, output)
		return
	}
	j := job{
		message:  output.message.With(bytes.Clone(output.Payload)),
		rule:     output.Rule,
		counters: w.rules[output.rule.number],
		callback: output.rule.callbacks[output.Callback],
	}
	if output.Log != nil {
		j.level = *output.Log
	}
	key := laneKey{rule: output.Rule, callback: output.Callback, overflow: output.rule.Overflow}
	if dropped := w.lanes[key].Push(j, len(output.Payload)); dropped > 0 {
		w.engine.log(&j.counters.failures, slog.LevelWarn, "queue is full", "rule", output.Rule, "policy", output.rule.Overflow)
	}
}

// delivery returns what a sink is to do for an output to a channel or stream.
func (o *Output) delivery() filterd.Delivery {
	return filterd.Delivery{Channel: o.Channel, Payload: o.Payload, Stream: o.Stream, MaxLen: o.MaxLen}
}

// flush publishes what run left for channels.
func (w *worker) flush(ctx context.Context) {
	if len(w.deliveries) == 0 {
		return
	}
	w.engine.config.Sink.Deliver(ctx, w.deliveries)
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
		w.deadLetterUndelivered(ctx, output, errs[i])
	}
	clear(w.outputs)
	w.outputs = w.outputs[:0]
}

// settle counts what became of a delivery by now, and reports whether it failed
// and wants a dead letter.
func (w *worker) settle(output Output, d *filterd.Delivery, now time.Time) bool {
	switch {
	case output.DeadLetter && d.Err != nil:
		w.engine.counters.deadLettersLost.Add(1)
		w.engine.log(&w.engine.counters.lost, slog.LevelError, "dead letter lost", "channel", d.Channel, "error", d.Err)
	case output.DeadLetter:
		w.engine.counters.deadLetters.Add(1)
	case d.Err != nil:
		w.rules[output.rule.number].undelivered.Add(1)
		w.ruleError(output.rule, output.message, d.Err)
		return output.rule.OnError == OnErrorDeadLetter
	default:
		counters := w.rules[output.rule.number]
		counters.delivered.Add(1)
		counters.latency.observe(output.message.Received, now)
		if d.Receivers == 0 && !d.Stream {
			counters.noReceivers.Add(1)
		}
	}
	return false
}

// deadLetterUndelivered publishes the dead letter of a message that could not
// be published: once, since nothing is dead-lettered twice.
func (w *worker) deadLetterUndelivered(ctx context.Context, output Output, err error) {
	var result Result
	mark := len(w.processor.outputs)
	w.processor.deadLetter(&result, output.message, output.rule.deadLetter(), err)
	for _, letter := range w.processor.outputs[mark:] {
		d := []filterd.Delivery{letter.delivery()}
		w.engine.config.Sink.Deliver(ctx, d)
		w.settle(letter, &d[0], time.Now())
	}
	w.processor.outputs = w.processor.outputs[:mark]
	w.engine.counters.deadLettersLost.Add(uint64(len(result.Lost)))
}

// A job is a message on its way to a callback, the log, or a Stage.
type job struct {
	message  *filterd.Message
	rule     string
	counters *ruleCounters
	callback Callback // nil: the log
	level    slog.Level

	// Of a job for a Stage only: the generation, which it keeps in use, and
	// which rule of which program it is for.
	generation *generation
	program    *program
	at         int
}

// stuckAfter is how long a callback may take before it is told of.
const stuckAfter = 10 * time.Second

// maxLogged is how much of a payload a rule's log line shows, in bytes.
const maxLogged = 1 << 10

// lost counts a job that gave way in its queue.
func (j job) lost() { j.counters.dropped.Add(1) }

// work is what the worker of every lane to a target does.
func (e *Engine) work(batch []job) {
	j := batch[0]
	if err := e.hand(j); err != nil {
		j.counters.errors.Add(1)
		j.counters.undelivered.Add(1)
		e.log(&j.counters.failures, slog.LevelWarn, "rule failed", "rule", j.rule, "channel", j.message.Channel, "error", err)
		return
	}
	j.counters.delivered.Add(1)
	j.counters.latency.observe(j.message.Received, time.Now())
}

// hand gives a message to its callback or to the log.
func (e *Engine) hand(j job) (err error) {
	if j.callback == nil {
		payload := j.message.Payload
		args := []any{"rule", j.rule, "channel", j.message.Channel, "payload", string(payload[:min(len(payload), maxLogged)])}
		if len(payload) > maxLogged {
			args = append(args, "bytes", len(payload))
		}
		e.config.Logger.Log(e.lifetime, j.level, "message", args...)
		return nil
	}
	stuck := time.AfterFunc(stuckAfter, func() {
		j.counters.stuck.Add(1)
		e.log(&j.counters.failures, slog.LevelWarn, "a callback does not return", "rule", j.rule, "channel", j.message.Channel, "after", stuckAfter)
	})
	defer stuck.Stop()
	defer func() {
		if r := recover(); r != nil {
			j.counters.panics.Add(1)
			err = fmt.Errorf("callback panicked: %v\n%s", r, debug.Stack())
		}
	}()
	if err := j.callback(e.lifetime, j.message); err != nil {
		return fmt.Errorf("callback: %w", err)
	}
	return nil
}
