package filterd

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/filterd/filterd/internal/projection"
)

// SpecVersion is the version of the CloudEvents specification that events
// follow; it covers all of 1.0.x.
const SpecVersion = "1.0"

// An Event is a CloudEvents 1.0.2 event, as it travels in a message's payload
// in the structured JSON format. CloudEvents defines no binding for Redis;
// filterd's is: a pub/sub payload, or one field of a stream entry, is one
// event in structured mode.
//
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
type Event struct {
	ID     string // required; unique within Source
	Source string // required; a URI reference
	Type   string // required

	DataContentType string    // a media type (RFC 2046); empty means application/json
	DataSchema      string    // an absolute URI
	Subject         string    // what in the source the event is about
	Time            time.Time // when it happened; zero if the event doesn't say

	// Extensions holds the other attributes: a string, a bool or an int32
	// each. Names are lower-case ASCII letters and digits.
	Extensions map[string]any

	// Data is the data member: any JSON value. Nil if there is none.
	Data json.RawMessage
	// Binary is the decoded data_base64 member. Nil if there is none; an
	// event has Data or Binary, not both.
	Binary []byte
}

// DecodeEvent decodes an event in structured JSON. Attributes that are null
// count as absent, and the last of several members of one name counts, as in
// encoding/json. A leap second becomes the second after it, and what a time
// says below a nanosecond is lost. Data aliases the payload. The error is a
// [*ValidationError] with every failure and no channel.
func DecodeEvent(payload []byte) (*Event, error) {
	var values [commonNodes]projection.Value
	var others projection.Others
	if _, ok := noPaths.plan.Scan(payload, values[:], &others); !ok {
		return nil, refusal(payload)
	}
	event, err := decodeEvent(payload, values[0])
	if err != nil {
		return nil, err
	}
	return event, nil
}

// decodeEvent is DecodeEvent for a document that is JSON.
func decodeEvent(payload []byte, document projection.Value) (*Event, *ValidationError) {
	if document.Kind != projection.Object {
		return nil, &ValidationError{Reason: ReasonEnvelope, Failures: []Failure{{Detail: "an event is a JSON object, not " + kindOfRaw(document.Of(payload))}}}
	}
	event, failures := parseEvent(payload)
	if failures != nil {
		return nil, &ValidationError{Reason: ReasonEnvelope, Failures: failures}
	}
	return event, nil
}

// parseEvent reads an event out of a JSON object that encoding/json accepts.
func parseEvent(payload []byte) (*Event, []Failure) {
	type member struct {
		name  string
		value []byte
	}
	var common [16]member // enough for most events
	found := common[:0]
	for m := range projection.Members(payload, 0) {
		found = append(found, member{memberName(payload, m), slices.Clip(m.Value.Of(payload))})
	}
	e := &Event{}
	var failures failureList
	fail := func(name, format string, args ...any) {
		if !failures.full() {
			failures.add(pointerTo(name), fmt.Sprintf(format, args...))
		}
	}
	var seen struct{ id, source, specversion, kind bool }
	var last map[string]int // the last of several members of one name counts
	if len(found) > len(common) {
		last = make(map[string]int, len(found))
		for i, m := range found {
			last[m.name] = i
		}
	}
	for i, m := range found {
		name, value := m.name, m.value
		if last != nil && last[name] != i ||
			last == nil && slices.ContainsFunc(found[i+1:], func(later member) bool { return later.name == name }) {
			continue
		}
		if name == "data" {
			e.Data = value
			continue
		}
		if value[0] == 'n' {
			continue
		}
		switch name {
		case "data_base64":
			binary, ok := decodeBase64(projection.Unquote(value))
			if value[0] != '"' || !ok {
				fail(name, "want a base64 string (RFC 4648, with padding)")
				continue
			}
			e.Binary = binary
			continue
		case "id", "source", "specversion", "type", "datacontenttype", "dataschema", "subject", "time":
		default:
			if detail := checkName(name); detail != "" {
				fail(name, "%s", detail)
				continue
			}
			extension, detail := decodeExtension(value)
			if detail != "" {
				fail(name, "%s", detail)
				continue
			}
			if e.Extensions == nil {
				e.Extensions = make(map[string]any)
			}
			e.Extensions[name] = extension
			continue
		}
		switch name {
		case "id":
			seen.id = true
		case "source":
			seen.source = true
		case "specversion":
			seen.specversion = true
		case "type":
			seen.kind = true
		}
		if value[0] != '"' {
			fail(name, "want a string, got %s", kindOfRaw(value))
			continue
		}
		text := projection.Unquote(value)
		if detail := checkAttribute(name, text); detail != "" {
			fail(name, "%s", detail)
			continue
		}
		switch name {
		case "id":
			e.ID = text
		case "source":
			e.Source = text
		case "type":
			e.Type = text
		case "datacontenttype":
			e.DataContentType = text
		case "dataschema":
			e.DataSchema = text
		case "subject":
			e.Subject = text
		case "time":
			e.Time, _ = parseTimestamp(text) // checkAttribute has seen that it parses
		}
	}
	for _, required := range []struct {
		name string
		seen bool
	}{{"specversion", seen.specversion}, {"id", seen.id}, {"source", seen.source}, {"type", seen.kind}} {
		if !required.seen {
			fail(required.name, "required attribute is missing")
		}
	}
	if e.Binary != nil && string(e.Data) == "null" {
		e.Data = nil
	}
	if e.Binary != nil && e.Data != nil {
		fail("data_base64", "an event has data or data_base64, not both")
	}
	return e, failures.all("")
}

// Validate reports everything that keeps e from being a valid event, as a
// [*ValidationError] without a channel.
func (e *Event) Validate() error {
	var failures failureList
	fail := func(name, detail string) {
		if detail != "" {
			failures.add(pointerTo(name), detail)
		}
	}
	for _, attribute := range e.texts() {
		switch {
		case attribute.value != "":
			fail(attribute.name, checkAttribute(attribute.name, attribute.value))
		case attribute.required:
			fail(attribute.name, "required attribute is missing")
		}
	}
	if year := zoned(e.Time).Year(); !e.Time.IsZero() && (year < 0 || year > 9999) {
		fail("time", "RFC 3339 has no year "+strconv.Itoa(year))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		if reserved(name) {
			fail(name, "is an attribute of its own, not an extension")
		} else {
			fail(name, cmp.Or(checkName(name), checkExtension(e.Extensions[name])))
		}
	}
	if e.Data != nil {
		fail("data", checkData(e.Data))
	}
	if e.Data != nil && e.Binary != nil {
		fail("data_base64", "an event has data or data_base64, not both")
	}
	if list := failures.all(""); list != nil {
		return &ValidationError{Reason: ReasonEnvelope, Failures: list}
	}
	return nil
}

// A textAttribute is an attribute that is a string of its own.
type textAttribute struct {
	name, value string
	required    bool
}

// texts returns the event's string attributes in the specification's order,
// without specversion.
func (e *Event) texts() [6]textAttribute {
	return [...]textAttribute{
		{"id", e.ID, true},
		{"source", e.Source, true},
		{"type", e.Type, true},
		{"datacontenttype", e.DataContentType, false},
		{"dataschema", e.DataSchema, false},
		{"subject", e.Subject, false},
	}
}

// AppendJSON appends the event in structured JSON: specversion, the
// attributes in the specification's order, extensions by name, then data. A
// time whose offset RFC 3339 can't express is given in UTC. It does not
// validate; see [Event.Validate].
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"specversion":"`+SpecVersion+`"`...)
	for _, attribute := range e.texts() {
		if attribute.value != "" {
			b = appendMember(b, attribute.name)
			b = AppendString(b, attribute.value)
		}
	}
	if !e.Time.IsZero() {
		b = appendMember(b, "time")
		b = append(b, '"')
		b = zoned(e.Time).AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		b = appendMember(b, name)
		switch value := e.Extensions[name].(type) {
		case string:
			b = AppendString(b, value)
		case bool:
			b = strconv.AppendBool(b, value)
		case int32:
			b = strconv.AppendInt(b, int64(value), 10)
		case int:
			b = strconv.AppendInt(b, int64(value), 10)
		default:
			b = append(b, "null"...)
		}
	}
	switch {
	case e.Data != nil:
		b = appendMember(b, "data")
		b = append(b, e.Data...)
	case e.Binary != nil:
		b = appendMember(b, "data_base64")
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, e.Binary)
		b = append(b, '"')
	}
	return append(b, '}')
}

// MarshalJSON implements [json.Marshaler]: a valid event in structured JSON.
func (e *Event) MarshalJSON() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	return e.AppendJSON(nil), nil
}

// UnmarshalJSON implements [json.Unmarshaler] by [DecodeEvent]. The event does
// not alias the text.
func (e *Event) UnmarshalJSON(text []byte) error {
	decoded, err := DecodeEvent(slices.Clone(text))
	if err != nil {
		return err
	}
	*e = *decoded
	return nil
}

// AppendString appends s as a JSON string, without the HTML escapes of
// [json.Marshal]. Invalid UTF-8 becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[start:i]...)
			b = append(b, "\ufffd"...)
			start = i + 1
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func appendMember(b []byte, name string) []byte {
	b = append(b, ',')
	b = AppendString(b, name)
	return append(b, ':')
}
