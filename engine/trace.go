package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filterd/filterd"
)

// A Tracer makes spans of the way of messages: see [Config.Tracer]. It is asked
// on that way, so it must not block. Safe for concurrent use.
type Tracer interface {
	// Start begins a span below a parent, which is the zero TraceContext for a
	// message that comes without a trace. It borrows what it is told. Nil says
	// that nothing is recorded.
	Start(parent filterd.TraceContext, of SpanStart) Span
}

// A SpanStart says what a span is of.
type SpanStart struct {
	Kind SpanKind
	// Message is the message as it came in.
	Message *filterd.Message
	// Rule is the rule's name; empty for SpanMessage, and for the dead letter
	// of a contract.
	Rule string
	// Output is what is sent, for SpanOutput. Its target is no log.
	Output *Output
	// Time is when the span began.
	Time time.Time
}

// A SpanKind says what a span is of.
type SpanKind uint8

// The kinds. Those of a message's stages and outputs are children of that of
// the message, or of its stage, and may end after it.
const (
	SpanMessage SpanKind = iota // a message: from when it was received until what becomes of it is on its way
	SpanStage                   // a message at a rule's Stage: from when it is queued until what becomes of it is on its way
	SpanOutput                  // an output: until its target has taken or refused it
)

// A Span is a part of a message's way. One goroutine at a time uses it.
type Span interface {
	// Context is what goes on from here.
	Context() filterd.TraceContext
	// Rule tells what became of the message at a rule. The error is what that
	// failed on.
	Rule(name string, outcome TapOutcome, err error)
	// End ends the span. The error is what failed; nil if nothing did.
	End(err error)
}

// beginSpan begins the span of a message, if it belongs to a trace that is
// recorded, or begins one. Finish makes the others of it.
func (w *worker) beginSpan(m *filterd.Message) {
	parent, ok := m.TraceContext()
	if ok && !parent.Sampled() {
		return
	}
	began := m.Received
	if began.IsZero() {
		began = time.Now()
	}
	w.span = w.engine.config.Tracer.Start(parent, SpanStart{Kind: SpanMessage, Message: m, Time: began})
}

// endSpan ends the span of a message that a part's processor has treated.
func (w *worker) endSpan(m *filterd.Message, p *Processor, result *Result) {
	for i := range p.failing {
		if f := &p.failing[i]; f.message == m { // for all quiet rules of the group
			w.span.Rule(f.group.quiet[0].Name, TapFailed, fmt.Errorf("when: %w", f.matcher.Failure(m, f.group.first)))
		}
	}
	w.span.End(result.Invalid)
	w.span = nil
}

// spanOutcome tells the span of a message what became of it at a rule.
func (w *worker) spanOutcome(o *Outcome) {
	became := TapKept
	switch {
	case o.Err != nil:
		became = TapFailed
	case o.Dropped:
		became = TapFiltered
	}
	w.span.Rule(o.Rule, became, o.Err)
}

// spanStage begins the span of a message that goes to a rule's Stage; nil if its
// way is not recorded.
func (w *worker) spanStage(r *rule, m *filterd.Message) Span {
	if w.span == nil {
		return nil
	}
	return w.engine.config.Tracer.Start(w.span.Context(), SpanStart{Kind: SpanStage, Message: m, Rule: r.Name, Time: time.Now()})
}

// spanOutput begins the span of an output, and makes it what the output says
// that it comes from, where that is wanted. It returns the output, of which only
// those that are recorded are in memory of their own.
func (w *worker) spanOutput(o Output) Output {
	if o.Log != nil {
		return o
	}
	o.span = w.engine.config.Tracer.Start(w.span.Context(), SpanStart{Kind: SpanOutput, Message: o.message, Rule: o.Rule, Output: &o, Time: time.Now()})
	if o.span != nil && w.engine.config.ReplaceTraceparent && o.Channel != "" && !o.DeadLetter {
		o.Payload = w.replaceTraceparent(&o)
	}
	return o
}

// replaceTraceparent returns the payload of an output with the output's own span
// as its traceparent. What is no event has none; one that a Stage has put into
// another trace stays there; and what would become too large stays as it is.
func (w *worker) replaceTraceparent(o *Output) []byte {
	m := o.message
	if !sameMemory(o.Payload, m.Payload) {
		m = m.With(o.Payload)
	}
	if !m.IsEvent() {
		return o.Payload
	}
	own := o.span.Context()
	before, ok := m.TraceContext()
	if ok && before.TraceID != own.TraceID {
		return o.Payload
	}
	s := &w.processor.set
	s.reset(o.Payload)
	s.member(filterd.TraceparentAttribute, filterd.AppendString(nil, own.Traceparent()))
	if own.State != before.State {
		s.member(filterd.TracestateAttribute, filterd.AppendString(nil, own.State))
	}
	payload, err := s.finish(0)
	if contract := w.table.registry.Lookup(o.Channel); err != nil || contract.Channel != "" && len(payload) > contract.MaxSize {
		return o.Payload
	}
	return payload
}

// context returns what a job's target is called with: within the job's span, or
// in the trace that its message came with.
func (e *Engine) context(j *job) context.Context {
	if e.config.Tracer == nil {
		return e.lifetime
	}
	if j.span != nil {
		return filterd.WithTraceContext(e.lifetime, j.span.Context())
	}
	if t, ok := j.message.TraceContext(); ok {
		return filterd.WithTraceContext(e.lifetime, t)
	}
	return e.lifetime
}

// Why a span ended before its target was reached.
var (
	errDropped   = errors.New("the message gave way in a full queue, or at the end")
	errHeldBack  = errors.New("an earlier entry was postponed, and so is this one")
	errConflated = errors.New("a newer message with the same key took its place")
)

// An Exemplar is one message of those that a [Latency] counts, and where in a
// trace it was delivered.
type Exemplar struct {
	TraceID [16]byte
	SpanID  [8]byte
	Took    time.Duration
	Time    time.Time // when it was delivered
}

// Exemplars returns the last message of each bucket of a rule's [Latency] that
// was in a recorded trace, if there was one.
func (e *Engine) Exemplars(rule string) []Exemplar {
	e.counters.mu.Lock()
	r := e.counters.rules[rule]
	e.counters.mu.Unlock()
	if r == nil {
		return nil
	}
	kept := r.latency.exemplars.Load()
	if kept == nil {
		return nil
	}
	var exemplars []Exemplar
	for i := range kept {
		if x := kept[i].Load(); x != nil {
			exemplars = append(exemplars, *x)
		}
	}
	return exemplars
}
