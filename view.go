package filterd

import (
	"encoding/json"
	"unsafe"

	"github.com/filterd/filterd/internal/projection"
)

// A view is what one pass over a message's payload has found, and what was
// decoded of it since.
type view struct {
	projection *Projection // whose values were read; nil if nothing was
	document   []byte      // the payload that was read
	reading    reading
	err        *ValidationError // Channel is left empty: the message knows it
	binary     []byte           // the decoded data_base64
	stamp      stamp            // if the contract asks for it
	extended   bool             // the event has extensions; then trace holds
	trace      traceValues

	data       any
	decoded    bool           // data is
	attributes map[string]any // nil if they aren't decoded

	channel []byte // the channel's name, if it was asked for

	// The values, by the projection's nodes, are in few unless there are
	// more; then they are in many. A Message that was copied must not write
	// to the many of another one: they are those of the Message at owner.
	few   [24]projection.Value
	many  []projection.Value
	owner uintptr
}

// A reading is what a payload turned out to be, so that a path leads to one
// value or to another one.
type reading uint8

const (
	readRaw     reading = iota // the document is the data
	readEvent                  // an event with data, or without any
	readBinary                 // an event whose data is in data_base64
	readBytes                  // the payload is the data, and no JSON
	readInvalid                // nothing: view.err says why
	readings
)

// forget makes the view that of nothing, but keeps its memory.
func (v *view) forget() {
	v.projection, v.document, v.err, v.binary = nil, nil, nil, nil
	v.data, v.decoded, v.attributes = nil, false, nil
	v.stamp.found = false
}

func (v *view) isEvent() bool { return v.reading == readEvent || v.reading == readBinary }

func (v *view) values() []projection.Value {
	if v.many != nil {
		return v.many
	}
	return v.few[:]
}

// hasRead reports whether the values for a projection have been read.
func (m *Message) hasRead(p *Projection) bool {
	return m.view.projection == p && (m.view.many == nil || m.ownsMany())
}

func (m *Message) ownsMany() bool { return m.view.owner == uintptr(unsafe.Pointer(m)) }

// read reads the payload, if that has not been done.
func (m *Message) read() error {
	if m.view.projection == nil || !m.hasRead(m.view.projection) {
		m.scan()
	}
	if m.view.err != nil {
		return m.failure()
	}
	return nil
}

// failure returns what is wrong with a payload that can't be read.
func (m *Message) failure() error {
	err := *m.view.err
	err.Channel = m.Channel
	return &err
}

// scan makes the one pass over the payload.
func (m *Message) scan() {
	v := &m.view
	v.forget()
	if v.projection = m.projection; v.projection == nil {
		v.projection = noPaths
	}
	v.document = m.Payload
	envelope := m.envelope()
	if envelope == EnvelopeBytes {
		v.reading = readBytes
		return
	}
	v.reading = readInvalid
	plan := v.projection.plan
	values := m.noValues(plan.Nodes())
	var others projection.Others
	shape, ok := plan.Scan(v.document, values, &others)
	if !ok {
		v.err = refusal(v.document)
		return
	}
	if envelope == EnvelopeAuto && values[nodeSpecVersion].Kind != projection.Missing {
		envelope = EnvelopeCloudEvents
	}
	if envelope != EnvelopeCloudEvents {
		v.reading = readRaw
		return
	}
	v.extended = others.Count > 0
	stamped := m.contract != nil && m.contract.Stamped
	if !isEvent(v.document, values, &others, shape) {
		event, err := decodeEvent(v.document, values[0])
		if err != nil {
			v.err = err
			return
		}
		if v.binary = event.Binary; stamped {
			v.stamp = stampOf(event)
		}
		v.findTrace()
	} else if v.extended {
		v.readTrace(&others)
		if stamped {
			v.readStamp(&others)
		}
	}
	v.reading = readEvent
	if v.binary != nil {
		v.reading = readBinary
	}
	for _, n := range v.projection.attributes {
		if values[n].Kind == projection.Null { // which means absent
			values[n] = projection.Value{}
		}
	}
}

// noValues returns the view's values, so many, all of them zero.
func (m *Message) noValues(n int) []projection.Value {
	v := &m.view
	if v.many != nil && !m.ownsMany() {
		v.many = nil
	}
	if n > len(v.few) && n > cap(v.many) {
		v.many, v.owner = make([]projection.Value, n), uintptr(unsafe.Pointer(m))
		return v.many
	}
	if v.many != nil {
		v.many = v.many[:n]
	}
	values := v.values()[:n]
	clear(values)
	return values
}

// pointer returns the JSON Pointer of the data in the payload.
func (v *view) pointer() string {
	switch v.reading {
	case readEvent:
		return "/data"
	case readBinary:
		return "/data_base64"
	}
	return ""
}

// dataText returns the data as it stands in the payload, or decoded from its
// base64; nil if there is none.
func (v *view) dataText() []byte {
	switch v.reading {
	case readEvent:
		if data := v.values()[nodeData]; data.Kind != projection.Missing {
			return data.Of(v.document)
		}
		return nil
	case readBinary:
		return v.binary
	}
	return v.document
}

func (v *view) decodeData() any {
	if v.decoded {
		return v.data
	}
	v.decoded = true
	switch v.reading {
	case readRaw:
		v.data = decodeValue(v.document, v.values()[0])
	case readEvent:
		v.data = decodeValue(v.document, v.values()[nodeData])
	default:
		v.data = string(v.dataText())
	}
	return v.data
}

var noAttributes = map[string]any{}

func (v *view) decodeAttributes() map[string]any {
	if v.attributes != nil {
		return v.attributes
	}
	if !v.isEvent() {
		return noAttributes
	}
	v.attributes = make(map[string]any)
	for m := range projection.Members(v.document, 0) {
		switch name := memberName(v.document, m); {
		case name == "data" || name == "data_base64":
		case m.Value.Kind == projection.Null:
			delete(v.attributes, name) // an earlier one of that name
		default:
			v.attributes[name] = decodeValue(v.document, m.Value)
		}
	}
	return v.attributes
}

// decodeValue decodes a value of a document as encoding/json does.
func decodeValue(document []byte, v projection.Value) any {
	switch v.Kind {
	case projection.Missing, projection.Null:
		return nil
	case projection.Bool:
		return document[v.Start] == 't'
	case projection.Number:
		return projection.Float(v.Of(document))
	case projection.String:
		return projection.Unquote(v.Of(document))
	}
	var value any
	_ = json.Unmarshal(v.Of(document), &value) // a part of what unmarshals
	return value
}
