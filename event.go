package filterd

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"mime"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

// DecodeEvent decodes an event in structured JSON. Members that are null count
// as absent, and the last of several members of one name counts, as in
// encoding/json. Data aliases the payload. The error is a [*ValidationError]
// with every failure and no channel.
func DecodeEvent(payload []byte) (*Event, error) {
	// Unmarshal, not Valid: 1e400 is grammatical, but no float64.
	var document any
	if err := json.Unmarshal(payload, &document); err != nil {
		return nil, malformed(payload, err)
	}
	if _, ok := document.(map[string]any); !ok {
		return nil, &ValidationError{Reason: ReasonEnvelope, Failures: []Failure{{Detail: "an event is a JSON object, not " + kindOf(document)}}}
	}
	event, failures := parseEvent(payload)
	if failures != nil {
		return nil, &ValidationError{Reason: ReasonEnvelope, Failures: failures}
	}
	return event, nil
}

// parseEvent reads an event out of a JSON object that encoding/json accepts.
func parseEvent(payload []byte) (*Event, []Failure) {
	var attributes [16]projection.Member // the common event needs no more
	members := attributes[:0]
	for m := range projection.Members(payload, 0) {
		members = append(members, m)
	}
	e := &Event{}
	var failures []Failure
	fail := func(name, format string, args ...any) {
		failures = append(failures, Failure{Pointer: pointerTo(name), Detail: fmt.Sprintf(format, args...)})
	}
	var seen struct{ id, source, specversion, kind bool }
	last := make(map[string]int, len(members)) // the last of several members counts
	for i, m := range members {
		last[m.Name(payload)] = i
	}
	for i, m := range members {
		name := m.Name(payload)
		if last[name] != i {
			continue
		}
		value := m.Value.Of(payload)
		if name == "data" {
			e.Data = value
			continue
		}
		if value[0] == 'n' {
			continue
		}
		switch name {
		case "data_base64":
			binary, err := base64.StdEncoding.DecodeString(projection.Unquote(value))
			if value[0] != '"' || err != nil {
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
	return e, failures
}

// Validate reports everything that keeps e from being a valid event, as a
// [*ValidationError] without a channel.
func (e *Event) Validate() error {
	var failures []Failure
	check := func(name, value string, required bool) {
		if value == "" && !required {
			return
		}
		detail := "required attribute is missing"
		if value != "" {
			detail = checkAttribute(name, value)
		}
		if detail != "" {
			failures = append(failures, Failure{Pointer: pointerTo(name), Detail: detail})
		}
	}
	check("id", e.ID, true)
	check("source", e.Source, true)
	check("type", e.Type, true)
	check("datacontenttype", e.DataContentType, false)
	check("dataschema", e.DataSchema, false)
	check("subject", e.Subject, false)
	if year := e.Time.Year(); !e.Time.IsZero() && (year < 0 || year > 9999) {
		failures = append(failures, Failure{Pointer: "/time", Detail: "RFC 3339 has no year " + strconv.Itoa(year)})
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		detail := checkName(name)
		switch value := e.Extensions[name].(type) {
		case string:
			if detail == "" {
				detail = checkText(value)
			}
		case bool, int32:
		case int:
			if value < math.MinInt32 || value > math.MaxInt32 {
				detail = fmt.Sprintf("%d does not fit in 32 bits: CloudEvents integers do", value)
			}
		default:
			detail = fmt.Sprintf("an extension is a string, a bool or an int32, not %T", value)
		}
		if reserved(name) {
			detail = "is an attribute of its own, not an extension"
		}
		if detail != "" {
			failures = append(failures, Failure{Pointer: pointerTo(name), Detail: detail})
		}
	}
	if e.Data != nil && !json.Valid(e.Data) {
		failures = append(failures, Failure{Pointer: "/data", Detail: "not JSON"})
	}
	if e.Data != nil && e.Binary != nil {
		failures = append(failures, Failure{Pointer: "/data_base64", Detail: "an event has data or data_base64, not both"})
	}
	if failures != nil {
		return &ValidationError{Reason: ReasonEnvelope, Failures: failures}
	}
	return nil
}

// AppendJSON appends the event in structured JSON: specversion, the
// attributes in the specification's order, extensions by name, then data. It
// does not validate; see [Event.Validate].
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"specversion":"`+SpecVersion+`"`...)
	for _, attribute := range []struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type},
		{"datacontenttype", e.DataContentType}, {"dataschema", e.DataSchema}, {"subject", e.Subject},
	} {
		if attribute.value != "" {
			b = appendMember(b, attribute.name)
			b = AppendString(b, attribute.value)
		}
	}
	if !e.Time.IsZero() {
		b = appendMember(b, "time")
		b = append(b, '"')
		b = e.Time.AppendFormat(b, time.RFC3339Nano)
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

func reserved(name string) bool {
	switch name {
	case "id", "source", "specversion", "type", "datacontenttype", "dataschema", "subject", "time", "data", "data_base64":
		return true
	}
	return false
}

// checkName returns what is wrong with an attribute's name, or "".
func checkName(name string) string {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "an attribute's name consists of a-z and 0-9"
		}
	}
	if name == "" {
		return "an attribute's name is not empty"
	}
	return ""
}

// checkText returns what is wrong with a CloudEvents String, or "".
func checkText(text string) string {
	for _, r := range text {
		switch {
		case r < 0x20 || r >= 0x7f && r <= 0x9f:
			return fmt.Sprintf("control character %U is not allowed", r)
		case r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe:
			return fmt.Sprintf("noncharacter %U is not allowed", r)
		}
	}
	return ""
}

// checkAttribute returns what is wrong with the value of a string attribute of
// the core specification, or "".
func checkAttribute(name, text string) string {
	if text == "" {
		return "must not be empty"
	}
	if detail := checkText(text); detail != "" {
		return detail
	}
	switch name {
	case "specversion":
		if text != SpecVersion {
			return fmt.Sprintf("want %q, got %q", SpecVersion, text)
		}
	case "source":
		if !isURIReference(text) {
			return fmt.Sprintf("%q is not a URI reference (RFC 3986)", text)
		}
	case "dataschema":
		if u, err := url.Parse(text); !isURIReference(text) || err != nil || !u.IsAbs() {
			return fmt.Sprintf("%q is not an absolute URI (RFC 3986)", text)
		}
	case "datacontenttype":
		if kind, _, err := mime.ParseMediaType(text); err != nil || !strings.Contains(kind, "/") {
			return fmt.Sprintf("%q is not a media type (RFC 2046)", text)
		}
	case "time":
		if _, ok := parseTimestamp(text); !ok {
			return fmt.Sprintf("%q is not a timestamp (RFC 3339)", text)
		}
	}
	return ""
}

// uriCharacters are those that RFC 3986 allows in a URI reference.
var uriCharacters = regexp.MustCompile(`^(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+$`)

func isURIReference(text string) bool {
	if !uriCharacters.MatchString(text) {
		return false
	}
	_, err := url.Parse(text)
	return err == nil
}

// timestamp is the date-time of RFC 3339, section 5.6; time.Parse alone lets
// a comma and one-digit hours through.
var timestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$`)

func parseTimestamp(text string) (time.Time, bool) {
	text = strings.ToUpper(text) // "T" and "Z" may be lower case
	if !timestamp.MatchString(text) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil && text[17:19] == "60" { // a leap second, which Go's clock doesn't have
		t, err = time.Parse(time.RFC3339Nano, text[:17]+"59"+text[19:])
		t = t.Add(time.Second)
	}
	return t, err == nil
}

// decodeExtension decodes the value of an extension attribute.
func decodeExtension(value []byte) (any, string) {
	switch value[0] {
	case '"':
		text := projection.Unquote(value)
		return text, checkText(text)
	case 't', 'f':
		return value[0] == 't', ""
	case '{', '[':
		return nil, "an extension is a string, a boolean or an integer, not " + kindOfRaw(value)
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil {
		return nil, fmt.Sprintf("%s is not an integer of 32 bits", value)
	}
	return int32(n), ""
}

// pointerTo returns the JSON Pointer of a member of the document.
func pointerTo(name string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}

func kindOfRaw(value []byte) string {
	switch value[0] {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '[':
		return "an array"
	case '{':
		return "an object"
	default:
		return "a number"
	}
}
