package filterd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// An oracle is what a payload is in an envelope, by encoding/json: slow, plain,
// and the definition of what filterd's own reader has to find.
type oracle struct {
	complaint  string
	event      bool
	data       any
	hasData    bool
	text       []byte
	plain      bool // text is the string itself, not JSON
	attributes map[string]any
}

func askOracle(t testing.TB, payload []byte, envelope filterd.Envelope) oracle {
	none := map[string]any{}
	if envelope == filterd.EnvelopeBytes {
		return oracle{data: string(payload), hasData: true, text: payload, plain: true, attributes: none}
	}
	var document any
	if err := json.Unmarshal(payload, &document); err != nil {
		return oracle{complaint: "malformed: " + malformed(payload, err)}
	}
	object, isObject := document.(map[string]any)
	if _, ok := object["specversion"]; ok && envelope == filterd.EnvelopeAuto {
		envelope = filterd.EnvelopeCloudEvents
	}
	if envelope != filterd.EnvelopeCloudEvents {
		return oracle{data: document, hasData: true, text: payload, attributes: none}
	}
	event, err := filterd.DecodeEvent(payload)
	if err != nil || !isObject {
		return oracle{complaint: complaint(t, err)}
	}
	o := oracle{event: true, data: object["data"], text: event.Data, attributes: object}
	_, o.hasData = object["data"]
	if event.Binary != nil {
		o.data, o.hasData, o.text, o.plain = string(event.Binary), true, event.Binary, true
	}
	for name, value := range object {
		if value == nil || name == "data" || name == "data_base64" {
			delete(object, name)
		}
	}
	return o
}

func malformed(payload []byte, err error) string {
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
	if len(detail) > 256 {
		detail = strings.ToValidUTF8(detail[:256], "") + "…"
	}
	return detail
}

// field returns the value of a path: its root, names and indexes.
func (o *oracle) field(path []any) (value any, present bool) {
	if o.complaint != "" {
		return nil, false
	}
	value, present = o.data, o.hasData
	if path[0] == "event" {
		value, present = o.attributes, o.event
	}
	for _, step := range path[1:] {
		var next any
		ok := false
		switch parent := value.(type) {
		case map[string]any:
			if name, isName := step.(string); isName {
				next, ok = parent[name]
			}
		case []any:
			if index, isIndex := step.(int); isIndex && index < len(parent) {
				next, ok = parent[index], true
			}
		}
		value, present = next, present && ok
	}
	return value, present
}

// pathText writes a path as ParsePath reads it.
func pathText(path []any) filterd.Path {
	b := []byte(path[0].(string))
	for _, step := range path[1:] {
		b = append(b, '[')
		if name, ok := step.(string); ok {
			b = filterd.AppendString(b, name)
		} else {
			b = strconv.AppendInt(b, int64(step.(int)), 10)
		}
		b = append(b, ']')
	}
	parsed, err := filterd.ParsePath(string(b))
	if err != nil {
		panic(err)
	}
	return parsed
}

// An oracleReader reads the same paths of every payload.
type oracleReader struct {
	paths      [][]any
	projection *filterd.Projection
	slots      []int
}

func newOracleReader(paths ...[]any) oracleReader {
	var texts []filterd.Path
	for _, path := range paths {
		texts = append(texts, pathText(path))
	}
	p := filterd.NewProjection(texts)
	return oracleReader{paths: paths, projection: p, slots: p.Slots(texts)}
}

// oracleReaders are one that reads few paths, and one that reads more than a
// Message has room for without memory of its own.
var oracleReaders = func() [2]oracleReader {
	few := [][]any{{"data"}, {"event"}, {"data", "a"}, {"data", "a", "b"}, {"data", "a", 1}, {"event", "type"}, {"event", "a"}, {"event", "data"}, {"event", "id", "a"}, {"event", "id", 0}, {"event", 0}}
	many := [][]any{{"event", "data_base64"}, {"data", 0}, {"data", 2}, {"data", "a", 0, 0}, {"data", "b", 1, "a"}}
	for _, name := range []string{"b", "data", "id", "specversion", "é", "", "a\x00"} {
		many = append(many, []any{"data", name}, []any{"data", "b", name}, []any{"data", 0, name}, []any{"event", name})
	}
	return [...]oracleReader{newOracleReader(few...), newOracleReader(many...)}
}()

var envelopes = [...]filterd.Envelope{filterd.EnvelopeAuto, filterd.EnvelopeCloudEvents, filterd.EnvelopeRaw, filterd.EnvelopeBytes}

// checkMessage holds all that a message says of its payload against the oracle.
func checkMessage(t *testing.T, payload []byte, envelope filterd.Envelope) {
	o := askOracle(t, payload, envelope)
	r := registry(t, filterd.Contract{Channel: "c", Envelope: envelope})
	before := bytes.Clone(payload)
	reused := &filterd.Message{Channel: "c", Payload: []byte(`{"specversion":"1.0","id":"","a":[[1],{"b":2}],"b":"\n"}`)}
	for _, reader := range oracleReaders {
		bound := &filterd.Message{Channel: "c", Payload: payload}
		bound.Bind(reader.projection)
		later := &filterd.Message{Channel: "c", Payload: payload}
		_ = r.Check(reused)
		reused.Bind(reader.projection)
		reused.Lookup(0)
		copied := *reused
		reused.Reset(payload)
		for _, m := range []*filterd.Message{bound, later, reused} {
			if got := complaint(t, r.Check(m)); got != o.complaint {
				t.Fatalf("%q: %s, want %s", payload, got, o.complaint)
			}
		}
		later.Bind(reader.projection)
		copied.Reset(payload)
		copied.Lookup(0)
		for _, m := range []*filterd.Message{bound, later, reused, &copied, bound.Clone()} {
			o.check(t, m, reader)
		}
		copied = *reused.With(payload)
		copied.Lookup(0)
		again := copied // both read on
		copied.Reset([]byte(`{"a":{"b":[1]}}`))
		copied.Lookup(0)
		o.check(t, &again, reader)
	}
	if !bytes.Equal(payload, before) {
		t.Fatalf("%q was written to", before)
	}
}

// check checks a message that has been checked, and is bound to the reader's
// projection.
func (o *oracle) check(t *testing.T, m *filterd.Message, reader oracleReader) {
	t.Helper()
	slots := reader.slots
	for i, path := range reader.paths {
		want, present := o.field(path)
		kind := filterd.FieldMissing
		if present {
			kind = fieldKind(want)
		}
		f := m.Lookup(slots[i])
		if f.Kind != kind {
			t.Fatalf("%q, %v: kind %d, want %d", m.Payload, path, f.Kind, kind)
		}
		checkText(t, f, path, want)
		value, err := m.Field(slots[i])
		if complaint(t, err) != o.complaint || !reflect.DeepEqual(value, want) {
			t.Fatalf("%q, %v: %v, %v, want %v, %s", m.Payload, path, value, err, want, o.complaint)
		}
	}
	data, err := m.Data()
	if complaint(t, err) != o.complaint || !reflect.DeepEqual(data, o.data) {
		t.Fatalf("%q: data %v, %v, want %v, %s", m.Payload, data, err, o.data, o.complaint)
	}
	attributes, err := m.Attributes()
	if complaint(t, err) != o.complaint || !reflect.DeepEqual(attributes, o.attributes) {
		t.Fatalf("%q: attributes %v, %v, want %v, %s", m.Payload, attributes, err, o.attributes, o.complaint)
	}
	if m.IsEvent() != o.event {
		t.Fatalf("%q: event: %v", m.Payload, m.IsEvent())
	}
	if o.complaint == "" {
		var got, want any
		gotErr, wantErr := m.Decode(&got), json.Unmarshal(o.text, &want)
		if text(gotErr) != text(wantErr) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: decoded %v, %v, want %v, %v", m.Payload, got, gotErr, want, wantErr)
		}
	}
}

// checkText checks that a field's text stands for a value. That of the path
// event is the whole document.
func checkText(t *testing.T, f filterd.Field, path []any, want any) {
	t.Helper()
	switch {
	case f.Kind == filterd.FieldMissing:
		if f.Text != nil || f.Plain {
			t.Fatalf("%v: missing, but %q", path, f.Text)
		}
	case f.Kind == filterd.FieldString && string(f.AppendBytes(nil)) != want:
		t.Fatalf("%v: says %q, want %q", path, f.AppendBytes(nil), want)
	case !f.Plain && len(path) > 1:
		var got any
		if err := json.Unmarshal(f.Text, &got); err != nil || !reflect.DeepEqual(got, want) || len(bytes.TrimSpace(f.Text)) != len(f.Text) {
			t.Fatalf("%v: %q, want %v", path, f.Text, want)
		}
	}
}

func fieldKind(value any) filterd.FieldKind {
	switch value.(type) {
	case nil:
		return filterd.FieldNull
	case bool:
		return filterd.FieldBool
	case float64:
		return filterd.FieldNumber
	case string:
		return filterd.FieldString
	case []any:
		return filterd.FieldArray
	default:
		return filterd.FieldObject
	}
}

// pitfalls are payloads in which readers of JSON and of events differ.
var pitfalls = []string{
	minimal, ``, ` `, `{`, `[]`, `null`, ` 5 `, `"x"`, `{"specversion":null}`, `{"specversion":"1.0"}`, minimal + "x", minimal + " ",
	`{"a":null}`, `{}`, `{"a":1e400}`, `{"a":1e-400}`, `{"a":-0,"b":9007199254740993}`, `{"a":"` + "\xff" + `","b":"\ud800"}`,
	`{"a":{"b":1},"a":{"c":2}}`, `{"a":{"b":1},"a":3}`, `{"a":[1,2],"a":{"b":null}}`, `{"a\u0000":1,"a":2}`, `{"\u0061":{"\u0062":1}}`, `{"":1,"\u00e9":2}`,
	`[{"a":1},[2],{"b":3}]`, `{"b":{"id":1,"data":2},"id":[0],"data":{"a":1}}`, string(nested(9_999)), string(nested(10_001)),
	`{"specversion":"0.3","specversion":"1.0","id":"1","source":"/s","type":"t","a":{},"a":5}`,
	`{"\u0073pecversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1},"d\u0061ta":{"b":{"id":2}}}`,
	eventWith("data", `{"a":{"b":1},"b":[0,{"a":"\n"}]}`, "a", `"x"`, "time", `"2024-02-29T12:30:00.5+01:00"`),
	eventWith("data", `[{"a":1},2,{"id":3}]`, "subject", `"é"`), eventWith("data", `null`, "a", `null`), eventWith("data", `1`, "data", `{"data":2}`),
	eventWith("data_base64", `"eyJhIjoxfQ=="`, "a", `7`), eventWith("data_base64", `""`, "data", `null`), eventWith("data_base64", `null`, "data", `{"a":0}`),
	eventWith("data_base64", `"AA=="`, "data", `1`), eventWith("data_base64", `"A"`), eventWith("data_base64", `7`), eventWith("id", `null`, "A", `null`),
	eventWith("A", `1`), eventWith("a", `1.5`), eventWith("a", `-2147483648`, "b", `2147483648`), eventWith("a", `true`, "b", `"\u0000"`), eventWith("a", `"`+"\x7f"+`"`),
	eventWith("id", `"\ud83d\ude00"`), eventWith("id", `"`+"\xff"+`"`), eventWith("id", `"`+"\u0085"+`"`), eventWith("id", `1`), eventWith("id", `""`), eventWith("type", `""`),
	eventWith("source", `"a b"`), eventWith("source", `"https://u:p@[::1]:8080/a%20b;c?q=/?#f"`), eventWith("dataschema", `"/x"`), eventWith("dataschema", `"urn:x#f"`),
	eventWith("datacontenttype", `"text/plain; x=\"y\""`), eventWith("datacontenttype", `"json"`), eventWith("time", `"2016-12-31t23:59:60z"`), eventWith("time", `"2024-02-30T00:00:00Z"`),
	eventWith("time", `"2024-00-01T00:00:00Z"`), eventWith("time", `"2024-01-00T00:00:00Z"`), eventWith("time", `"2100-02-29T00:00:00Z"`), eventWith("time", `"2000-02-29T23:59:59.999999999-23:59"`),
	eventWith("time", `"2024-01-01T24:00:00Z"`), eventWith("time", `"2024-01-01T00:60:00Z"`), eventWith("time", `"2024-01-01T00:00:00.Z"`), eventWith("time", `"2024-01-01T00:00:00.1"`),
	eventWith("time", `"2024-01-01T00:00:00+24:00"`), eventWith("time", `"2024-01-01T00:00:00+00:60"`), eventWith("time", `"2024-01-01T00:00:00+0000"`), eventWith("time", `"2024-1-01T00:00:00ZZZ"`),
	eventWith("a", `1`, "b", `2`, "c", `3`, "d", `4`, "e", `5`, "f", `6`, "g", `7`, "h", `8`, "i", `9`, "j", `1`, "k", `2`, "l", `3`, "m", `4`, "n", `5`, "o", `6`, "p", `7`, "q", `[]`),
}

func TestMessageAgainstOracle(t *testing.T) {
	for _, payload := range pitfalls {
		for _, envelope := range envelopes {
			checkMessage(t, []byte(payload), envelope)
		}
	}
}

// TestMessageTruncated cuts payloads at every byte.
func TestMessageTruncated(t *testing.T) {
	for _, payload := range pitfalls {
		for end := range min(len(payload), 300) {
			cut := bytes.Clone([]byte(payload[:end]))
			var document any
			err := json.Unmarshal(cut, &document)
			if got := complaint(t, check(t, filterd.EnvelopeRaw, string(cut))); err == nil && got != "" || err != nil && got != "malformed: "+malformed(cut, err) {
				t.Errorf("%q: %s", cut, got)
			}
		}
	}
}

// FuzzMessage holds messages against the oracle.
func FuzzMessage(f *testing.F) {
	for i, payload := range pitfalls {
		f.Add([]byte(payload), byte(i))
	}
	f.Fuzz(func(t *testing.T, payload []byte, envelope byte) {
		checkMessage(t, payload, envelopes[int(envelope)%len(envelopes)])
	})
}
