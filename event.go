package filterd

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"mime"
	"net/netip"
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

// DecodeEvent decodes an event in structured JSON. Attributes that are null
// count as absent, and the last of several members of one name counts, as in
// encoding/json. A leap second becomes the second after it, and what a time
// says below a nanosecond is lost. Data aliases the payload. The error is a
// [*ValidationError] with every failure and no channel.
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
	var failures failureList
	fail := func(name, format string, args ...any) {
		if !failures.full() {
			failures.add(pointerTo(name), fmt.Sprintf(format, args...))
		}
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
	if !utf8.ValidString(text) {
		return "invalid UTF-8 is not allowed"
	}
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
		if _, ok := parseURIReference(text); !ok {
			return fmt.Sprintf("%q is not a URI reference (RFC 3986)", text)
		}
	case "dataschema":
		// The specification wants RFC 3986, section 4.3, which has no fragment;
		// its own JSON Schema lets one through, and so do we.
		if absolute, ok := parseURIReference(text); !ok || !absolute {
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

// The characters of RFC 3986 that stand for themselves in a part of a URI, on
// top of those that may stand in every part.
const (
	inEveryPart = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;="
	inHost      = inEveryPart
	inUser      = inEveryPart + ":"
	inPath      = inEveryPart + ":@/"
	inQuery     = inEveryPart + ":@/?"
)

// parseURIReference reports whether a text is a URI reference of RFC 3986, and
// if so, whether it has a scheme. (url.Parse knows neither the characters that
// RFC 3986 forbids nor all the hosts that it allows.)
func parseURIReference(text string) (absolute, ok bool) {
	rest, fragment, _ := strings.Cut(text, "#")
	rest, query, _ := strings.Cut(rest, "?")
	if scheme, after, found := strings.Cut(rest, ":"); found && isScheme(scheme) {
		absolute, rest = true, after
	}
	if after, found := strings.CutPrefix(rest, "//"); found {
		slash := strings.IndexByte(after+"/", '/')
		if !isAuthority(after[:slash]) {
			return false, false
		}
		rest = after[slash:]
	} else if segment, _, _ := strings.Cut(rest, "/"); !absolute && strings.Contains(segment, ":") {
		return false, false
	}
	return absolute, consistsOf(rest, inPath) && consistsOf(query, inQuery) && consistsOf(fragment, inQuery)
}

func isScheme(text string) bool {
	for i, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return text != ""
}

// isAuthority reports whether a text is [user "@"] host [":" port].
func isAuthority(text string) bool {
	if user, host, found := strings.Cut(text, "@"); found {
		if !consistsOf(user, inUser) {
			return false
		}
		text = host
	}
	host, port := text, ""
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, ']') {
		host, port = text[:i], text[i+1:]
	}
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	literal, bracket := strings.CutPrefix(host, "[")
	if !bracket {
		return consistsOf(host, inHost)
	}
	literal, bracket = strings.CutSuffix(literal, "]")
	if !bracket {
		return false
	}
	if version, address, found := strings.Cut(literal, "."); found && strings.HasPrefix(version, "v") {
		digits := version[1:]
		return digits != "" && strings.Trim(digits, "0123456789abcdefABCDEF") == "" &&
			address != "" && strings.Trim(address, inUser) == ""
	}
	address, err := netip.ParseAddr(literal)
	return err == nil && address.Is6() && address.Zone() == ""
}

// consistsOf reports whether a text has no other characters than those given
// and percent-encoded bytes.
func consistsOf(text, characters string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] == '%' {
			if i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) {
				return false
			}
			i += 2
		} else if strings.IndexByte(characters, text[i]) < 0 {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// timestamp is the date-time of RFC 3339, section 5.6; time.Parse alone lets
// a comma, one-digit hours and offsets of a day through.
var timestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$`)

func parseTimestamp(text string) (time.Time, bool) {
	text = strings.ToUpper(text) // "T" and "Z" may be lower case
	if !timestamp.MatchString(text) {
		return time.Time{}, false
	}
	leap := text[17:19] == "60" // Go's clock has no leap seconds
	if leap {
		text = text[:17] + "59" + text[19:]
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, false
	}
	if leap {
		if !endsMonth(t.UTC()) {
			return time.Time{}, false
		}
		t = t.Add(time.Second)
	}
	return t, t.Year() <= 9999
}

// endsMonth reports whether t, in UTC, is in the last minute of a month: the
// only one that may have a leap second.
func endsMonth(t time.Time) bool {
	return t.Hour() == 23 && t.Minute() == 59 && t.AddDate(0, 0, 1).Day() == 1
}

// zoned returns t in its own zone where RFC 3339 can express that zone's
// offset, else in UTC.
func zoned(t time.Time) time.Time {
	const day = 24 * 60 * 60
	if _, offset := t.Zone(); offset%60 != 0 || offset <= -day || offset >= day {
		return t.UTC()
	}
	return t
}

// decodeBase64 decodes the one encoding of RFC 4648, section 4, that stands
// for some bytes.
func decodeBase64(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") { // which encoding/base64 skips
		return nil, false
	}
	binary, err := base64.StdEncoding.Strict().DecodeString(text)
	return binary, err == nil
}

// checkExtension returns what is wrong with the value of an extension, or "".
func checkExtension(value any) string {
	switch value := value.(type) {
	case string:
		return checkText(value)
	case bool, int32:
	case int:
		if value < math.MinInt32 || value > math.MaxInt32 {
			return fmt.Sprintf("%d does not fit in 32 bits: CloudEvents integers do", value)
		}
	default:
		return fmt.Sprintf("an extension is a string, a bool or an int32, not %T", value)
	}
	return ""
}

// checkData returns what keeps data from being decoded as a member of an
// event, or "".
func checkData(data []byte) string {
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		return malformed(data, err).Failures[0].Detail
	}
	if !json.Valid(slices.Concat([]byte("["), data, []byte("]"))) {
		return "too deep to be a member of an event"
	}
	return ""
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

// pointerTo returns the JSON Pointer made of tokens.
func pointerTo(tokens ...string) string {
	var b strings.Builder
	for _, token := range tokens {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1"))
	}
	return b.String()
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
