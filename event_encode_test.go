package filterd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/filterd/filterd"
)

func TestAppendJSON(t *testing.T) {
	e := &filterd.Event{
		ID: `a"b\c` + "\n\r\t\x01<é\u2028>", Source: "/s", Type: "t",
		DataContentType: "text/plain", DataSchema: "urn:x", Subject: "b",
		Time:       time.Date(2024, 2, 29, 12, 30, 0, 500_000_000, time.FixedZone("", -5400)),
		Extensions: map[string]any{"z": "s", "b": true, "a": int32(-1), "c": 7},
		Data:       json.RawMessage(`{"price": 100.50}`),
	}
	same(t, "all", string(e.AppendJSON([]byte("x"))), `x{"specversion":"1.0","id":"a\"b\\c\n\r\t\u0001<é`+"\u2028"+`>","source":"/s","type":"t",`+
		`"datacontenttype":"text/plain","dataschema":"urn:x","subject":"b","time":"2024-02-29T12:30:00.5-01:30",`+
		`"a":-1,"b":true,"c":7,"z":"s","data":{"price": 100.50}}`)
	e = &filterd.Event{ID: "1", Source: "/s", Type: "t", Binary: []byte{0, 1, 255}}
	same(t, "binary", string(e.AppendJSON(nil)), eventWith("data_base64", `"AAH/"`))
	e = &filterd.Event{ID: "\xff", Source: "\xc3a", Extensions: map[string]any{"x": 1.5}}
	same(t, "not valid", string(e.AppendJSON(nil)), "{\"specversion\":\"1.0\",\"id\":\"\ufffd\",\"source\":\"\ufffda\",\"x\":null}")
	same(t, "zero", string(new(filterd.Event).AppendJSON(nil)), `{"specversion":"1.0"}`)
}

// TestAppendJSONZones checks that a time keeps its instant in every zone.
func TestAppendJSONZones(t *testing.T) {
	when := time.Date(1930, 5, 1, 12, 0, 0, 0, time.UTC)
	for offset, want := range map[int]string{
		0:                "1930-05-01T12:00:00Z",
		3600:             "1930-05-01T13:00:00+01:00",
		1172:             "1930-05-01T12:00:00Z", // Amsterdam was 19:32 ahead
		-86340:           "1930-04-30T12:01:00-23:59",
		86400:            "1930-05-01T12:00:00Z",
		-86400:           "1930-05-01T12:00:00Z",
		100 * 3600:       "1930-05-01T12:00:00Z",
		-(9*3600 + 1800): "1930-05-01T02:30:00-09:30",
	} {
		e := &filterd.Event{ID: "1", Source: "/s", Type: "t", Time: when.In(time.FixedZone("", offset))}
		same(t, fmt.Sprint(offset), string(e.AppendJSON(nil)), eventWith("time", `"`+want+`"`))
		same(t, fmt.Sprint(offset), text(e.Validate()), "")
	}
}

func TestValidate(t *testing.T) {
	valid := filterd.Event{ID: "1", Source: "/s", Type: "t"}
	for i, c := range []struct {
		change func(e *filterd.Event)
		want   string
	}{
		{func(e *filterd.Event) {}, ""},
		{func(e *filterd.Event) { *e = filterd.Event{} },
			"/id: required attribute is missing; /source: required attribute is missing; /type: required attribute is missing"},
		{func(e *filterd.Event) { e.ID = "a\x00" }, "/id: control character U+0000 is not allowed"},
		{func(e *filterd.Event) { e.ID = "a\xff" }, "/id: invalid UTF-8 is not allowed"},
		{func(e *filterd.Event) { e.Source = "a b" }, `/source: "a b" is not a URI reference (RFC 3986)`},
		{func(e *filterd.Event) { e.DataContentType = "json" }, `/datacontenttype: "json" is not a media type (RFC 2046)`},
		{func(e *filterd.Event) { e.DataSchema = "x" }, `/dataschema: "x" is not an absolute URI (RFC 3986)`},
		{func(e *filterd.Event) { e.Subject = "\ufffe" }, "/subject: noncharacter U+FFFE is not allowed"},
		{func(e *filterd.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "/time: RFC 3339 has no year 10000"},
		{func(e *filterd.Event) { e.Time = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) }, "/time: RFC 3339 has no year -1"},
		{func(e *filterd.Event) { e.Time = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) }, ""},
		{func(e *filterd.Event) {
			e.Extensions = map[string]any{"a": "x", "b": false, "c": int32(1), "d": math.MinInt32}
		}, ""},
		{func(e *filterd.Event) { e.Extensions = map[string]any{"b": nil, "a": 1.5, "c": int64(1)} },
			"/a: an extension is a string, a bool or an int32, not float64; " +
				"/b: an extension is a string, a bool or an int32, not <nil>; " +
				"/c: an extension is a string, a bool or an int32, not int64"},
		{func(e *filterd.Event) { e.Extensions = map[string]any{"n": math.MaxInt32 + 1} },
			"/n: 2147483648 does not fit in 32 bits: CloudEvents integers do"},
		{func(e *filterd.Event) { e.Extensions = map[string]any{"t": "a\nb", "u": "\xff"} },
			"/t: control character U+000A is not allowed; /u: invalid UTF-8 is not allowed"},
		{func(e *filterd.Event) { e.Extensions = map[string]any{"A": 1, "": 1} },
			"/: an attribute's name is not empty; /A: an attribute's name consists of a-z and 0-9"},
		{func(e *filterd.Event) { e.Extensions = map[string]any{"id": "x", "data_base64": "x"} },
			"/data_base64: is an attribute of its own, not an extension; /id: is an attribute of its own, not an extension"},
		{func(e *filterd.Event) { e.Data = json.RawMessage(`{`) }, "/data: not JSON: unexpected end of JSON input at byte 1"},
		{func(e *filterd.Event) { e.Data = json.RawMessage{} }, "/data: not JSON: the payload is empty"},
		{func(e *filterd.Event) { e.Data = json.RawMessage(`1,"x":2`) }, "/data: not JSON: invalid character ',' after top-level value at byte 2"},
		{func(e *filterd.Event) { e.Data = json.RawMessage(`1e400`) }, "/data: not a float64: number 1e400 at byte 6"},
		{func(e *filterd.Event) { e.Data = nested(9_999) }, ""},
		{func(e *filterd.Event) { e.Data = nested(10_000) }, "/data: too deep to be a member of an event"},
		{func(e *filterd.Event) { e.Data = nested(10_001) }, "/data: not JSON: invalid character '[' exceeded max depth at byte 10001"},
		{func(e *filterd.Event) { e.Data, e.Binary = json.RawMessage(`1`), []byte{} }, "/data_base64: an event has data or data_base64, not both"},
	} {
		e := valid
		c.change(&e)
		want := c.want
		if want != "" {
			want = "envelope: " + want
		}
		same(t, fmt.Sprintf("event %d", i), complaint(t, e.Validate()), want)
		if _, err := filterd.DecodeEvent(e.AppendJSON(nil)); want == "" && err != nil {
			t.Errorf("event %d is valid, but can't be decoded: %v", i, err)
		}
	}
}

func TestEventJSON(t *testing.T) {
	type wrapper struct{ E *filterd.Event }
	whole := `{"E":` + eventWith("data", `{"a":1}`) + `}`
	var w wrapper
	if err := json.Unmarshal([]byte(whole), &w); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(w)
	same(t, "error", text(err), "")
	same(t, "marshalled", string(got), whole)

	_, err = json.Marshal(&filterd.Event{})
	same(t, "marshalling an empty event", complaint(t, err),
		"envelope: /id: required attribute is missing; /source: required attribute is missing; /type: required attribute is missing")
	w.E.ID = "kept"
	err = json.Unmarshal([]byte(`{"E":{"id":""}}`), &w)
	same(t, "unmarshalling", complaint(t, err), "envelope: /id: must not be empty; /specversion: required attribute is missing; "+
		"/source: required attribute is missing; /type: required attribute is missing")
	same(t, "id after a failure", w.E.ID, "kept")
}

func ExampleEvent_AppendJSON() {
	e := &filterd.Event{ID: "42", Source: "/bots/momentum", Type: "price", Data: json.RawMessage(`{"symbol":"BTC-USD"}`)}
	if err := e.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", e.AppendJSON(nil))
	// Output: {"specversion":"1.0","id":"42","source":"/bots/momentum","type":"price","data":{"symbol":"BTC-USD"}}
}

func ExampleDecodeEvent() {
	_, err := filterd.DecodeEvent([]byte(`{"specversion":"1.0","id":"42","source":"a b","data":1}`))
	var invalid *filterd.ValidationError
	if errors.As(err, &invalid) {
		for _, f := range invalid.Failures {
			fmt.Println(f)
		}
	}
	// Output:
	// /source: "a b" is not a URI reference (RFC 3986)
	// /type: required attribute is missing
}
