package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/filterd/filterd"
)

// A job is a message on its way to a slow target, or to a Stage.
type job struct {
	message  *filterd.Message
	origin   *filterd.Message // the message as it came in; nil unless it may become a dead letter
	rule     *rule
	counters *ruleCounters
	target   *slowTarget // nil for a Stage
	log      *slog.Level // where the target is the log
	span     Span        // of the output, or of the way through the Stage; nil unless it is recorded

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

// lost is called for a job that gave way in its queue, maybe to a newer one, or
// at the end of a drain.
func (j job) lost(conflated bool) {
	if j.span != nil && conflated {
		j.span.End(errConflated)
	} else if j.span != nil {
		j.span.End(errDropped)
	}
	j.giveUp(conflated)
	if j.message.Entry != nil {
		j.message.Entry.Release()
	}
	if j.generation != nil {
		j.generation.release()
	}
}

// giveUp sees to it that an entry is delivered again, and counts other messages.
func (j job) giveUp(conflated bool) {
	switch {
	case j.message.Entry != nil:
		j.message.Entry.Postpone()
	case conflated:
		j.counters.conflated.Add(1)
	default:
		j.counters.dropped.Add(1)
	}
}

// work is what the worker of every lane to a target does. It is where the
// outcome of every message for a slow target is known.
func (e *Engine) work(batch []job) {
	j := batch[0]
	entry := j.message.Entry // the message is its target's
	if entry != nil {
		defer entry.Release()
	}
	err := e.hand(j)
	if j.span != nil {
		j.span.End(err)
	}
	switch {
	case err == nil:
		j.counters.delivered.Add(1)
		j.counters.latency.observe(j.message.Received, time.Now(), j.span)
	case e.lifetime.Err() != nil && errors.Is(err, context.Canceled): // it gave up since the drain has ended
		j.giveUp(false)
	case e.undelivered(j.counters, j.rule, j.message, err):
		e.deadLetterUndelivered(context.Background(), j.rule, j.origin, err)
	case entry != nil: // it can be delivered again, and on_error did nothing for it
		entry.Fail()
	}
}

// hand gives a message to its target.
func (e *Engine) hand(j job) (err error) {
	defer func() {
		if r := recover(); r != nil {
			j.counters.panics.Add(1)
			err = fmt.Errorf("%s panicked: %v\n%s", j.target.name, r, debug.Stack())
		}
	}()
	switch to := j.target; {
	case to.callback != nil:
		return e.call(to.callback, j)
	case to.webhook != nil:
		return to.webhook.Post(e.context(&j), j.rule.Name, j.message)
	}
	payload := j.message.Payload
	args := []any{"rule", j.rule.Name, "channel", j.message.Channel, "payload", string(payload[:min(len(payload), maxLogged)])}
	if len(payload) > maxLogged {
		args = append(args, "bytes", len(payload))
	}
	e.config.Logger.Log(e.lifetime, *j.log, "message", args...)
	return nil
}

// call calls a callback.
func (e *Engine) call(callback Callback, j job) error {
	stuck := time.AfterFunc(stuckAfter, func() {
		j.counters.stuck.Add(1)
		e.log(&j.counters.failures, slog.LevelWarn, "a callback does not return", "rule", j.rule.Name, "channel", j.message.Channel, "after", stuckAfter)
	})
	defer stuck.Stop()
	if err := callback(e.context(&j), j.message); err != nil {
		return fmt.Errorf("callback: %w", err)
	}
	return nil
}
