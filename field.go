package filterd

import (
	"bytes"
	"math"
	"strconv"

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
	// It aliases the payload.
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

// Bind makes Field and Lookup read the slots of p.
func (m *Message) Bind(p *Projection) { m.projection = p }

// Field implements [Fields] for the projection that m is bound to.
func (m *Message) Field(slot int) (any, error) {
	path, steps := m.projection.paths[slot], m.projection.steps[slot]
	if path == PathChannel {
		return m.Channel, nil
	}
	if err := m.decode(); err != nil {
		return nil, err
	}
	value := m.view.data
	if path[0] == PathEvent[0] {
		value = m.view.attributes
	}
	for _, s := range steps {
		switch parent := value.(type) {
		case map[string]any:
			value = nil
			if s.index < 0 {
				value = parent[s.name]
			}
		case []any:
			value = nil
			if s.index >= 0 && s.index < len(parent) {
				value = parent[s.index]
			}
		default:
			return nil, nil
		}
	}
	return value, nil
}

// Lookup implements [Fields] for the projection that m is bound to. A payload
// that can't be decoded has no fields.
func (m *Message) Lookup(slot int) Field {
	path, steps := m.projection.paths[slot], m.projection.steps[slot]
	if path == PathChannel {
		return Field{Kind: FieldString, Text: []byte(m.Channel), Plain: true}
	}
	if m.decode() != nil {
		return Field{}
	}
	value := m.Payload
	switch {
	case path[0] == PathEvent[0]:
		if !m.view.event || len(steps) > 0 && (steps[0].name == "data" || steps[0].name == "data_base64") {
			return Field{}
		}
	case m.view.plain:
		if len(steps) > 0 {
			return Field{}
		}
		return Field{Kind: FieldString, Text: m.view.text, Plain: true}
	default:
		if value = m.view.text; value == nil {
			return Field{}
		}
	}
	for _, s := range steps {
		if s.index < 0 {
			value = member(value, s.name)
		} else {
			value = element(value, s.index)
		}
		if value == nil {
			return Field{}
		}
	}
	value = bytes.TrimSpace(value)
	kind := kindOfText(value)
	if path[0] == PathEvent[0] && kind == FieldNull {
		return Field{} // null means absent
	}
	return Field{Kind: kind, Text: value}
}

// member returns the last member of that name of a JSON object, or nil.
func member(object []byte, name string) []byte {
	var value []byte
	for m := range projection.Members(object, 0) {
		if m.Named(object, name) {
			value = m.Value.Of(object)
		}
	}
	return value
}

// element returns an element of a JSON array, or nil.
func element(array []byte, index int) []byte {
	for e := range projection.Elements(array, 0) {
		if index == 0 {
			return e.Of(array)
		}
		index--
	}
	return nil
}

func kindOfText(value []byte) FieldKind {
	switch value[0] {
	case 'n':
		return FieldNull
	case 't', 'f':
		return FieldBool
	case '"':
		return FieldString
	case '[':
		return FieldArray
	case '{':
		return FieldObject
	default:
		return FieldNumber
	}
}

// Float returns a number's value, and NaN for what is none.
func (f Field) Float() float64 {
	if f.Kind != FieldNumber {
		return math.NaN()
	}
	value, _ := strconv.ParseFloat(string(f.Text), 64) // a number that encoding/json accepts
	return value
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
