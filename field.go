package filterd

import (
	"math"
	"unicode/utf8"

	"github.com/filterd/filterd/internal/projection"
)

// A FieldKind is the type of a value in a message.
type FieldKind uint8

// The kinds. Their numbers are part of the WebAssembly interface.
const (
	FieldMissing FieldKind = iota
	FieldNull
	FieldBool
	FieldNumber
	FieldString
	FieldArray
	FieldObject
)

// A Field is one value of a message, as it stands in the payload.
type Field struct {
	Kind FieldKind
	// Text is the value's JSON text, or a string as it is if Plain is set.
	// It may alias the payload: do not append to it.
	Text  []byte
	Plain bool
}

// Fields gives the values of one message at the slots of a projection.
type Fields interface {
	// Field returns the decoded value in a slot, nil if it is missing; an
	// error is that of a payload which can't be decoded.
	Field(slot int) (any, error)
	// Lookup returns the value in a slot as it stands in the payload.
	Lookup(slot int) Field
}

// Bind makes Field and Lookup read the slots of p, and returns what m was bound
// to before. Bind before anything reads the payload lets one pass over it do
// for all.
func (m *Message) Bind(p *Projection) (previous *Projection) {
	previous, m.projection = m.projection, p
	return previous
}

// Field implements [Fields] for the projection that m is bound to.
func (m *Message) Field(slot int) (any, error) {
	p := m.projection
	if p.paths[slot] == PathChannel {
		return m.Channel, nil
	}
	if !m.hasRead(p) {
		m.scan()
	}
	v := &m.view
	if v.err != nil {
		return nil, m.failure()
	}
	switch p.paths[slot] {
	case PathData:
		return v.decodeData(), nil
	case PathEvent:
		return v.decodeAttributes(), nil
	}
	n := p.nodes[slot][v.reading]
	if n < 0 {
		return nil, nil
	}
	return decodeValue(v.document, v.values()[n]), nil
}

// Lookup implements [Fields] for the projection that m is bound to. A payload
// that can't be decoded has no fields.
func (m *Message) Lookup(slot int) Field {
	p := m.projection
	if !m.hasRead(p) {
		if p.paths[slot] == PathChannel {
			return m.channelField()
		}
		m.scan()
	}
	v := &m.view
	n := p.nodes[slot][v.reading]
	if n < 0 {
		return m.specialField(n)
	}
	value := &v.values()[n]
	switch value.Kind {
	case projection.Missing:
		return Field{}
	case projection.String:
		if inside := value.Inside(v.document); value.Flags == 0 || value.Flags == projection.Beyond && utf8.Valid(inside) {
			return Field{Kind: FieldString, Text: inside, Plain: true}
		}
	}
	return Field{Kind: FieldKind(value.Kind), Text: value.Of(v.document)}
}

// specialField returns the value of a path that no node stands for.
func (m *Message) specialField(n int32) Field {
	switch n {
	case channelNode:
		return m.channelField()
	case textNode:
		return Field{Kind: FieldString, Text: m.view.dataText(), Plain: true}
	default:
		return Field{}
	}
}

func (m *Message) channelField() Field {
	v := &m.view
	if string(v.channel) != m.Channel {
		v.channel = []byte(m.Channel)
	}
	return Field{Kind: FieldString, Text: v.channel, Plain: true}
}

// Float returns a number's value, and NaN for what is none.
func (f Field) Float() float64 {
	if f.Kind != FieldNumber {
		return math.NaN()
	}
	return projection.Float(f.Text)
}

// Bool returns a bool's value, and false for what is none.
func (f Field) Bool() bool { return f.Kind == FieldBool && f.Text[0] == 't' }

// AppendBytes appends what a string says, or the JSON text of another value.
func (f Field) AppendBytes(b []byte) []byte {
	if f.Kind != FieldString || f.Plain {
		return append(b, f.Text...)
	}
	return append(b, projection.Unquote(f.Text)...)
}
