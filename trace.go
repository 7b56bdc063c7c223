package filterd

import (
	"context"
	"encoding/hex"

	"github.com/filterd/filterd/internal/projection"
)

// The extensions of CloudEvents that say which trace an event belongs to. What
// they hold is that of the HTTP headers of the same names.
const (
	TraceparentAttribute = "traceparent"
	TracestateAttribute  = "tracestate"
)

// A TraceContext is a place in a distributed trace, as W3C Trace Context has it.
// The zero TraceContext is in no trace.
type TraceContext struct {
	TraceID [16]byte // not all zero, or there is no trace
	SpanID  [8]byte  // of the span that what it is given to is a child of; not all zero
	Flags   byte
	// State is the tracestate: what vendors say of the trace; empty if they
	// say nothing.
	State string
}

// IsValid reports whether t is a place in a trace.
func (t TraceContext) IsValid() bool { return t.TraceID != [16]byte{} && t.SpanID != [8]byte{} }

// Sampled reports whether the spans of the trace are recorded, as far as who
// gave t knows.
func (t TraceContext) Sampled() bool { return t.Flags&1 != 0 }

// Traceparent returns t as a traceparent of version 00.
func (t TraceContext) Traceparent() string {
	b := make([]byte, 0, traceparentLength)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, t.TraceID[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, t.SpanID[:])
	b = append(b, '-')
	return string(hex.AppendEncode(b, []byte{t.Flags}))
}

// traceparentLength is that of a traceparent of version 00.
const traceparentLength = len("00-00000000000000000000000000000000-0000000000000000-00")

// ParseTraceparent parses a traceparent. Of a version that is not known yet it
// reads the part that all versions have in common, as the specification asks.
// What is not exactly as specified is no traceparent: ok is false.
func ParseTraceparent(text string) (t TraceContext, ok bool) { return parseTraceparent([]byte(text)) }

func parseTraceparent(text []byte) (t TraceContext, ok bool) {
	var version, flags [1]byte
	if len(text) < traceparentLength ||
		!decodeHex(version[:], text[:2]) || text[2] != '-' || version[0] == 0xFF ||
		!decodeHex(t.TraceID[:], text[3:35]) || text[35] != '-' ||
		!decodeHex(t.SpanID[:], text[36:52]) || text[52] != '-' ||
		!decodeHex(flags[:], text[53:55]) {
		return TraceContext{}, false
	}
	if more := text[traceparentLength:]; len(more) > 0 && (version[0] == 0 || more[0] != '-') {
		return TraceContext{}, false
	}
	if t.Flags = flags[0]; version[0] != 0 {
		t.Flags &= 1 // nobody knows what the others mean
	}
	if !t.IsValid() {
		return TraceContext{}, false
	}
	return t, true
}

// decodeHex decodes lower case hexadecimal digits.
func decodeHex(into, text []byte) bool {
	for _, c := range text {
		if c >= 'A' && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(into, text)
	return err == nil
}

// maxTracestate is the longest tracestate, in bytes: what the specification asks
// everybody to pass on.
const maxTracestate = 512

// isTracestate reports whether a text can go on as a tracestate. Who reads its
// entries checks them.
func isTracestate(text string) bool {
	if len(text) > maxTracestate {
		return false
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// TraceContext returns the trace that an event says it belongs to. There is none
// where the message is no event, or its traceparent is missing or not valid; a
// tracestate that is not valid is left out.
func (m *Message) TraceContext() (t TraceContext, ok bool) {
	if !m.IsEvent() || !m.view.extended {
		return TraceContext{}, false
	}
	parent, state := m.view.trace.parent, m.view.trace.state
	if parent.Kind != projection.String {
		return TraceContext{}, false
	}
	text := parent.Inside(m.view.document)
	if parent.Flags&projection.Escaped != 0 {
		text = []byte(projection.Unquote(parent.Of(m.view.document)))
	}
	if t, ok = parseTraceparent(text); !ok {
		return TraceContext{}, false
	}
	if state.Kind == projection.String {
		if text := projection.Unquote(state.Of(m.view.document)); isTracestate(text) {
			t.State = text
		}
	}
	return t, true
}

// traceValues are where the attributes of a trace stand in an event.
type traceValues struct{ parent, state projection.Value }

// readTrace looks for them among the extensions of an event. This is on the path
// of every event that has some.
func (v *view) readTrace(others *projection.Others) {
	v.trace = traceValues{}
	for i := range others.Count {
		o := &others.List[i]
		switch string(v.document[o.KeyStart:o.KeyEnd]) {
		case TraceparentAttribute:
			v.trace.parent = o.Value
		case TracestateAttribute:
			v.trace.state = o.Value
		}
	}
}

// findTrace is readTrace for an event that was decoded.
func (v *view) findTrace() {
	v.trace = traceValues{}
	for member := range projection.Members(v.document, 0) {
		switch memberName(v.document, member) {
		case TraceparentAttribute:
			v.trace.parent = member.Value
		case TracestateAttribute:
			v.trace.state = member.Value
		}
	}
}

type traceKey struct{}

// WithTraceContext returns a ctx for what is done at a place in a trace, such as
// a request to a webhook, which carries it in its headers.
func WithTraceContext(ctx context.Context, t TraceContext) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceContextOf returns the place in a trace that ctx was given.
func TraceContextOf(ctx context.Context) (t TraceContext, ok bool) {
	t, ok = ctx.Value(traceKey{}).(TraceContext)
	return t, ok
}
