// Package tracing records the way of messages through an engine as spans of
// OpenTelemetry. It needs no more than OpenTelemetry's API: what becomes of the
// spans is up to who gives it a provider.
package tracing

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// Name is the name of the instrumentation scope of all spans.
const Name = "github.com/filterd/filterd/tracing"

// MaxText is how much is recorded of a text, in bytes: names of channels, errors,
// what events say of themselves.
const MaxText = 256

// The attributes that are filterd's own.
const (
	RuleKey       = attribute.Key("filterd.rule")
	OutcomeKey    = attribute.Key("filterd.outcome") // one of engine.TapOutcomes
	ErrorKey      = attribute.Key("filterd.error")
	DeadLetterKey = attribute.Key("filterd.dead_letter")
	WebhookKey    = attribute.Key("filterd.webhook")
	CallbackKey   = attribute.Key("filterd.callback")
)

// Options says what is recorded. A zero field is its documented default.
type Options struct {
	// Sample is the part of the messages without a trace that begin one, if
	// the provider's sampler agrees: from 0 to 1. Default 0. Those with a trace
	// are recorded if their traceparent says so, and the sampler agrees.
	Sample float64
}

// A Tracer records for an engine: see [engine.Config]. Safe for concurrent use.
type Tracer struct {
	tracer  trace.Tracer
	options Options
}

// New makes a tracer whose spans are those of a provider.
func New(provider trace.TracerProvider, options Options) *Tracer {
	return &Tracer{provider.Tracer(Name, trace.WithSchemaURL(semconv.SchemaURL)), options}
}

var _ engine.Tracer = (*Tracer)(nil)

// Start implements [engine.Tracer].
func (t *Tracer) Start(parent filterd.TraceContext, of engine.SpanStart) engine.Span {
	if !parent.IsValid() && (t.options.Sample <= 0 || rand.Float64() >= t.options.Sample) {
		return nil
	}
	var name string
	options := []trace.SpanStartOption{trace.WithTimestamp(of.Time)}
	var attributes []attribute.KeyValue
	switch of.Kind {
	case engine.SpanMessage:
		name, attributes = describeMessage(of.Message)
		options = append(options, trace.WithSpanKind(trace.SpanKindConsumer))
	case engine.SpanStage:
		name, attributes = "rule "+text(of.Rule), []attribute.KeyValue{RuleKey.String(text(of.Rule))}
	case engine.SpanOutput:
		var kind trace.SpanKind
		name, kind, attributes = describeOutput(of.Output)
		options = append(options, trace.WithSpanKind(kind))
	}
	options = append(options, trace.WithAttributes(attributes...))
	_, s := t.tracer.Start(within(parent, of.Kind == engine.SpanMessage), name, options...)
	if !s.IsRecording() {
		return nil
	}
	return &span{s}
}

// within returns a context in which spans are children of a parent.
func within(parent filterd.TraceContext, remote bool) context.Context {
	ctx := context.Background()
	if !parent.IsValid() {
		return ctx
	}
	state, _ := trace.ParseTraceState(parent.State) // a faulty one is left out, as the specification asks
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: parent.TraceID, SpanID: parent.SpanID, TraceFlags: trace.TraceFlags(parent.Flags), TraceState: state, Remote: remote,
	}))
}

// describeMessage describes a message that is processed.
func describeMessage(m *filterd.Message) (name string, attributes []attribute.KeyValue) {
	channel := text(m.Channel)
	name = "process " + channel
	id := m.ID
	attributes = append(attributes,
		semconv.MessagingSystemKey.String("redis"), semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName(channel), semconv.MessagingMessageBodySize(len(m.Payload)))
	if m.Pattern != "" { // of few; its channels may be many
		name = "process " + text(m.Pattern)
		attributes = append(attributes, semconv.MessagingDestinationTemplate(text(m.Pattern)))
	}
	if m.Entry != nil {
		attributes = append(attributes, semconv.MessagingConsumerGroupName(text(m.Entry.Group)))
	}
	if event, err := m.Attributes(); err == nil {
		for _, a := range [...]struct {
			name string
			key  attribute.Key
		}{{"id", semconv.CloudEventsEventIDKey}, {"source", semconv.CloudEventsEventSourceKey}, {"type", semconv.CloudEventsEventTypeKey}} {
			if value, ok := event[a.name].(string); ok {
				attributes = append(attributes, a.key.String(text(value)))
				if a.name == "id" && id == "" {
					id = value
				}
			}
		}
	}
	if id != "" {
		attributes = append(attributes, semconv.MessagingMessageID(text(id)))
	}
	return name, attributes
}

// describeOutput describes what a rule sends.
func describeOutput(o *engine.Output) (name string, kind trace.SpanKind, attributes []attribute.KeyValue) {
	if o.Rule != "" {
		attributes = append(attributes, RuleKey.String(text(o.Rule)))
	}
	if o.DeadLetter {
		attributes = append(attributes, DeadLetterKey.Bool(true))
	}
	switch {
	case o.Webhook != "":
		return "post " + text(o.Webhook), trace.SpanKindClient, append(attributes, WebhookKey.String(text(o.Webhook)))
	case o.Callback != "":
		return "call " + text(o.Callback), trace.SpanKindInternal, append(attributes, CallbackKey.String(text(o.Callback)))
	}
	operation := "publish"
	switch {
	case o.Stream:
		operation = "xadd"
	case o.Sharded:
		operation = "spublish"
	}
	channel := text(o.Channel)
	return operation + " " + channel, trace.SpanKindProducer, append(attributes,
		semconv.MessagingSystemKey.String("redis"), semconv.MessagingOperationName(operation), semconv.MessagingOperationTypeSend,
		semconv.MessagingDestinationName(channel), semconv.MessagingMessageBodySize(len(o.Payload)))
}

// errorType classifies an error, as one of few.
func errorType(err error) attribute.KeyValue {
	var invalid *filterd.ValidationError
	if errors.As(err, &invalid) {
		return semconv.ErrorTypeKey.String(string(invalid.Reason))
	}
	return semconv.ErrorType(err)
}

// text returns the part of a text that is recorded. It is valid UTF-8, or no span
// could be sent together with it.
func text(s string) string {
	if len(s) > MaxText {
		s = s[:MaxText]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// A span is a part of a message's way.
type span struct{ trace.Span }

// Context implements [engine.Span].
func (s *span) Context() filterd.TraceContext {
	c := s.SpanContext()
	return filterd.TraceContext{TraceID: c.TraceID(), SpanID: c.SpanID(), Flags: byte(c.TraceFlags()), State: c.TraceState().String()}
}

// Rule implements [engine.Span].
func (s *span) Rule(name string, outcome engine.TapOutcome, err error) {
	attributes := []attribute.KeyValue{RuleKey.String(text(name)), OutcomeKey.String(string(outcome))}
	if err != nil {
		attributes = append(attributes, ErrorKey.String(text(err.Error())))
		s.SetStatus(codes.Error, text("rule "+name+": "+err.Error()))
	}
	s.AddEvent("rule", trace.WithAttributes(attributes...))
}

// End implements [engine.Span].
func (s *span) End(err error) {
	if err != nil {
		s.SetStatus(codes.Error, text(err.Error()))
		s.SetAttributes(errorType(err))
	}
	s.Span.End(trace.WithTimestamp(time.Now()))
}
