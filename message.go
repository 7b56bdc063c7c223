package filterd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/filterd/filterd/internal/projection"
)

// A Message is one message of a Redis channel, or one entry of a stream.
//
// Its payload is read at most once for all paths of a projection, when
// something first asks for it, and values are decoded when they are asked for.
// A Message may be used by one goroutine at a time. Filters borrow a message
// until they return; callbacks own theirs. To use a Message again for another
// payload, call [Message.Reset], which keeps its memory; writing to Payload
// after the first use of Event, Data, Attributes, Field, Lookup or
// [Registry.Check] leaves stale values.
type Message struct {
	Channel  string    // the channel, or stream, it was published to
	Pattern  string    // the glob of the pattern subscription it came through; empty otherwise
	Sharded  bool      // the channel is a sharded one
	ID       string    // the stream entry's ID; empty for pub/sub
	Payload  []byte    // as it was published; in a stream, the field that holds the message
	Entry    *Entry    // what it owes its stream; nil for pub/sub, and where nobody waits for it
	Received time.Time // when it was read; the zero time if nobody read it

	contract   *Contract   // set by Registry.Check
	checked    *Contract   // the contract that the payload satisfies as a whole
	projection *Projection // set by Bind
	view       view
}

// Reset makes m the message of another payload on the same channel.
func (m *Message) Reset(payload []byte) {
	m.Payload = payload
	m.checked = nil
	m.view.forget()
}

// With returns the message that m is with another payload: on the same
// channel, and bound to the same projection. It leaves m alone.
func (m *Message) With(payload []byte) *Message {
	return &Message{
		Channel: m.Channel, Pattern: m.Pattern, Sharded: m.Sharded, ID: m.ID, Payload: payload, Entry: m.Entry, Received: m.Received,
		contract: m.contract, projection: m.projection,
	}
}

// Checked reports whether the payload has been checked against the whole of a
// contract, its schema included.
func (m *Message) Checked(c *Contract) bool { return m.checked == c }

// Clone returns a copy that shares no memory with m but its Entry, for those who
// keep a message longer than they may borrow it.
func (m *Message) Clone() *Message {
	c := m.With(bytes.Clone(m.Payload))
	c.checked = m.checked
	return c
}

// Err returns what is wrong with a payload that can't be read, the error that
// Data and the others return as well. It decodes nothing.
func (m *Message) Err() error { return m.read() }

// Data returns the message's data: the "data" member of an event, the whole
// document of a raw message, the payload as a string in a bytes envelope. It
// is decoded as encoding/json decodes into an any. An event's data_base64 is
// the string of the decoded bytes. The value is shared: do not modify it.
//
// The envelope is that of the contract the message was checked against, or
// [EnvelopeAuto]. The error is a [*ValidationError].
func (m *Message) Data() (any, error) {
	if err := m.read(); err != nil {
		return nil, err
	}
	return m.view.decodeData(), nil
}

// Decode decodes the message's data into a Go value, as [json.Unmarshal] does.
// The data of a bytes envelope, or of data_base64, is decoded as a JSON text.
// Errors are those of Data, and of the unmarshalling.
func (m *Message) Decode(into any) error {
	if err := m.read(); err != nil {
		return err
	}
	return json.Unmarshal(m.view.dataText(), into)
}

// Attributes returns the event's context attributes as they stand in the
// JSON, without those that are null; it is empty for a message that is no
// event. The map is shared: do not modify it. Errors are those of Data.
func (m *Message) Attributes() (map[string]any, error) {
	if err := m.read(); err != nil {
		return nil, err
	}
	return m.view.decodeAttributes(), nil
}

// ErrNoEvent is returned by [Message.Event] for a message that carries none.
var ErrNoEvent = errors.New("message is not a CloudEvents event")

// Event returns the message's event, or [ErrNoEvent] if it has no envelope.
// Its Data aliases the payload. Other errors are those of Data.
func (m *Message) Event() (*Event, error) {
	if err := m.read(); err != nil {
		return nil, err
	}
	if !m.view.isEvent() {
		return nil, ErrNoEvent
	}
	return DecodeEvent(m.view.document)
}

// ContentType returns the media type of the payload: that of an event in
// structured JSON, of other JSON, or of bytes where it is not parsed.
func (m *Message) ContentType() string {
	switch {
	case m.envelope() == EnvelopeBytes || m.read() != nil:
		return "application/octet-stream"
	case m.view.isEvent():
		return "application/cloudevents+json"
	}
	return "application/json"
}

// IsEvent reports whether the payload is a valid event.
func (m *Message) IsEvent() bool { return m.read() == nil && m.view.isEvent() }

func (m *Message) envelope() Envelope {
	if m.contract == nil {
		return EnvelopeAuto
	}
	return m.contract.Envelope
}

// refusal is why a payload is refused that is not JSON. The texts are those of
// encoding/json.
func refusal(payload []byte) *ValidationError {
	if uint64(len(payload)) > projection.MaxDocument {
		return &ValidationError{Reason: ReasonSize, Failures: []Failure{{Detail: fmt.Sprintf("%d bytes are over the limit of 4 GiB", len(payload))}}}
	}
	var document any
	err := json.Unmarshal(payload, &document)
	if err == nil {
		err = errors.New("filterd refuses what encoding/json accepts: please report it")
	}
	return malformed(payload, err)
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
