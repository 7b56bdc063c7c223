package filterd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"
)

// A Message is one message of a Redis channel, or one entry of a stream.
//
// Its payload is decoded at most once, when something first asks for it. A
// Message may be used by one goroutine at a time. Filters borrow a message
// until they return; callbacks own theirs. To use a Message again for another
// payload, call [Message.Reset]; writing to Payload after the first use of
// Event, Data, Attributes, Field or [Registry.Check] leaves stale values.
type Message struct {
	Channel  string    // the channel, or stream, it was published to
	Pattern  string    // the glob of the pattern subscription it came through; empty otherwise
	ID       string    // the stream entry's ID; empty for pub/sub
	Payload  []byte    // as it was published
	Received time.Time // when it was read; the zero time if nobody read it

	contract   *Contract   // set by Registry.Check
	checked    *Contract   // the contract that the payload satisfies as a whole
	projection *Projection // set by Bind
	view       view
}

// view is a message's payload, decoded.
type view struct {
	done       bool
	err        *ValidationError // Channel is left empty: the message knows it
	event      bool             // the payload is an event
	data       any
	at         string // the JSON Pointer of data in the payload
	text       []byte // the data as it stands in the payload; nil if there is none
	plain      bool   // text is the string itself, not JSON
	attributes map[string]any
}

// Reset makes m the message of another payload on the same channel, as it is
// after a stage replaced the payload.
func (m *Message) Reset(payload []byte) {
	m.Payload = payload
	m.checked = nil
	m.view = view{}
}

// Checked reports whether the payload has been checked against the whole of a
// contract, its schema included.
func (m *Message) Checked(c *Contract) bool { return m.checked == c }

// Clone returns a copy that shares no memory with m, for those who keep a
// message longer than they may borrow it.
func (m *Message) Clone() *Message {
	c := *m
	c.Payload = bytes.Clone(m.Payload)
	c.view = view{}
	return &c
}

// Data returns the message's data: the "data" member of an event, the whole
// document of a raw message, the payload as a string in a bytes envelope. It
// is decoded as encoding/json decodes into an any. An event's data_base64 is
// the string of the decoded bytes. The value is shared: do not modify it.
//
// The envelope is that of the contract the message was checked against, or
// [EnvelopeAuto]. The error is a [*ValidationError].
func (m *Message) Data() (any, error) {
	if err := m.decode(); err != nil {
		return nil, err
	}
	return m.view.data, nil
}

// Decode decodes the message's data into a Go value, as [json.Unmarshal] does.
// The data of a bytes envelope, or of data_base64, is decoded as a JSON text.
// Errors are those of Data, and of the unmarshalling.
func (m *Message) Decode(into any) error {
	if err := m.decode(); err != nil {
		return err
	}
	return json.Unmarshal(m.view.text, into)
}

// Attributes returns the event's context attributes as they stand in the
// JSON, without those that are null; it is empty for a message that is no
// event. The map is shared: do not modify it. Errors are those of Data.
func (m *Message) Attributes() (map[string]any, error) {
	if err := m.decode(); err != nil {
		return nil, err
	}
	return m.view.attributes, nil
}

// ErrNoEvent is returned by [Message.Event] for a message that carries none.
var ErrNoEvent = errors.New("message is not a CloudEvents event")

// Event returns the message's event, or [ErrNoEvent] if it has no envelope.
// Its Data aliases the payload. Other errors are those of Data.
func (m *Message) Event() (*Event, error) {
	if err := m.decode(); err != nil {
		return nil, err
	}
	if !m.view.event {
		return nil, ErrNoEvent
	}
	return DecodeEvent(m.Payload)
}

// IsEvent reports whether the payload is a valid event.
func (m *Message) IsEvent() bool { return m.decode() == nil && m.view.event }

func (m *Message) envelope() Envelope {
	if m.contract == nil {
		return EnvelopeAuto
	}
	return m.contract.Envelope
}

func (m *Message) decode() error {
	if !m.view.done {
		m.view = decode(m.Payload, m.envelope())
	}
	if m.view.err != nil {
		err := *m.view.err
		err.Channel = m.Channel
		return &err
	}
	return nil
}

var noAttributes = map[string]any{}

func decode(payload []byte, envelope Envelope) view {
	if envelope == EnvelopeBytes {
		return view{done: true, data: string(payload), text: payload, plain: true, attributes: noAttributes}
	}
	var document any
	if err := json.Unmarshal(payload, &document); err != nil {
		return view{done: true, err: malformed(payload, err)}
	}
	object, isObject := document.(map[string]any)
	if envelope == EnvelopeAuto {
		if _, ok := object["specversion"]; ok {
			envelope = EnvelopeCloudEvents
		}
	}
	if envelope != EnvelopeCloudEvents {
		return view{done: true, data: document, text: payload, attributes: noAttributes}
	}
	if !isObject {
		return view{done: true, err: &ValidationError{Reason: ReasonEnvelope, Failures: []Failure{{Detail: "an event is a JSON object, not " + kindOf(document)}}}}
	}
	event, failures := parseEvent(payload)
	if failures != nil {
		return view{done: true, err: &ValidationError{Reason: ReasonEnvelope, Failures: failures}}
	}
	v := view{done: true, event: true, data: object["data"], at: "/data", text: event.Data, attributes: object}
	if event.Binary != nil {
		v.data, v.at, v.text, v.plain = string(event.Binary), "/data_base64", event.Binary, true
	}
	for name, value := range object {
		if value == nil || name == "data" || name == "data_base64" {
			delete(object, name)
		}
	}
	return v
}

// malformed turns an error of encoding/json into one with a byte position.
func malformed(payload []byte, err error) *ValidationError {
	detail := "not JSON: " + err.Error()
	var syntax *json.SyntaxError
	var number *json.UnmarshalTypeError
	switch {
	case len(bytes.TrimSpace(payload)) == 0:
		detail = "not JSON: the payload is empty"
	case errors.As(err, &syntax):
		detail = "not JSON: " + syntax.Error() + " at byte " + strconv.FormatInt(syntax.Offset, 10)
	case errors.As(err, &number):
		detail = "not a float64: " + number.Value + " at byte " + strconv.FormatInt(number.Offset, 10)
	case errors.Is(err, io.ErrUnexpectedEOF):
		detail = "not JSON: it ends too early"
	}
	return &ValidationError{Reason: ReasonMalformed, Failures: []Failure{{Detail: truncate(detail, maxFailureDetail)}}}
}
