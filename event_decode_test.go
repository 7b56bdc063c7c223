package filterd_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
)

func TestDecodeEvent(t *testing.T) {
	got := decoded(t, ` { "specversion" : "1.0" , "id":"7","source":"https://bot.example/1","type":"price","subject":"BTC-USD",
		"datacontenttype":"application/json","dataschema":"https://bot.example/price.json",
		"time":"2024-02-29T12:30:00.5+01:00","tenant":"a","data":{"price": 100.50} } `)
	when := time.Date(2024, 2, 29, 11, 30, 0, 500_000_000, time.UTC)
	if !got.Time.Equal(when) {
		t.Errorf("time: %v, want %v", got.Time, when)
	}
	if got.Time.Format(time.RFC3339Nano) != "2024-02-29T12:30:00.5+01:00" {
		t.Errorf("the offset is lost: %v", got.Time)
	}
	got.Time = time.Time{}
	same(t, "event", got, &filterd.Event{
		ID: "7", Source: "https://bot.example/1", Type: "price", Subject: "BTC-USD",
		DataContentType: "application/json", DataSchema: "https://bot.example/price.json",
		Extensions: map[string]any{"tenant": "a"},
		Data:       json.RawMessage(`{"price": 100.50}`),
	})
}

func TestDecodeEventTime(t *testing.T) {
	utc := func(value string) time.Time {
		when, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for value, want := range map[string]time.Time{
		"2024-02-29t12:30:00z":                utc("2024-02-29T12:30:00Z"),
		"2016-12-31T23:59:60Z":                utc("2017-01-01T00:00:00Z"),
		"2016-12-31T23:59:60.5Z":              utc("2017-01-01T00:00:00.5Z"),
		"2016-12-31T15:59:60-08:00":           utc("2017-01-01T00:00:00Z"),
		"2024-02-29T12:30:00.9999999999Z":     utc("2024-02-29T12:30:00.999999999Z"),
		"2024-02-29T12:30:00.000000001-01:00": utc("2024-02-29T13:30:00.000000001Z"),
	} {
		if got := decoded(t, eventWith("time", `"`+value+`"`)).Time; !got.Equal(want) {
			t.Errorf("%s: %v, want %v", value, got, want)
		}
	}
}

// TestDecodeEventData has the ways in which data can be there or not.
func TestDecodeEventData(t *testing.T) {
	for _, c := range []struct{ payload, data, binary, complaint string }{
		{minimal, "", "", ""},
		{eventWith("data", `null`), "null", "", ""},
		{eventWith("data", ` "text" `), `"text"`, "", ""},
		{eventWith("data", `"{\"a\":1}"`), `"{\"a\":1}"`, "", ""}, // not decoded twice
		{eventWith("data", "[1,\n 2.50]"), "[1,\n 2.50]", "", ""},
		{eventWith("data", `9007199254740993`), `9007199254740993`, "", ""},
		{eventWith("data", `1e-400`), `1e-400`, "", ""},
		{eventWith("data_base64", `"AAH/"`), "", "\x00\x01\xff", ""},
		{eventWith("data_base64", `null`), "", "", ""},
		{eventWith("data", `null`, "data_base64", `"AA=="`), "", "\x00", ""},
		{eventWith("data", `1`, "data_base64", `null`), "1", "", ""},
		{eventWith("data", `1`, "data_base64", `""`), "", "", "envelope: /data_base64: an event has data or data_base64, not both"},
	} {
		e, err := filterd.DecodeEvent([]byte(c.payload))
		same(t, c.payload, complaint(t, err), c.complaint)
		if err == nil {
			same(t, "data of "+c.payload, string(e.Data), c.data)
			same(t, "binary of "+c.payload, string(e.Binary), c.binary)
		}
	}
	if e := decoded(t, eventWith("data_base64", `""`)); e.Binary == nil {
		t.Error("empty binary data is absent")
	}
}

// TestDecodeEventMembers has the ways of encoding/json with names: the last
// duplicate counts, escapes are resolved, null is absent.
func TestDecodeEventMembers(t *testing.T) {
	head := `{"specversion":"1.0","source":"/s","type":"t",`
	for _, c := range []struct{ payload, id, data, complaint string }{
		{head + `"id":"a","id":"b"}`, "b", "", ""},
		{head + `"id":7,"id":"b"}`, "b", "", ""},
		{head + `"id":"b","id":7}`, "", "", "envelope: /id: want a string, got a number"},
		{head + `"id":"a","id":null}`, "", "", "envelope: /id: required attribute is missing"},
		{head + `"id":null,"id":"b"}`, "b", "", ""},
		{head + `"i\u0064":"b"}`, "b", "", ""},
		{head + `"id":"a","\u0069d":"b"}`, "b", "", ""},
		{head + `"\u0069d":"a","id":"b"}`, "b", "", ""},
		{head + `"id":"b","ID":null}`, "b", "", ""},
		{head + `"id":"b","data":1,"data":{"x":2}}`, "b", `{"x":2}`, ""},
		{head + `"id":"b","d\u0061ta":1}`, "b", `1`, ""},
		{head + `"id":"b","data":{"id":"c"}}`, "b", `{"id":"c"}`, ""},
		{head + `"id":"b","data":1,"data_base64":"AA==","data_base64":null}`, "b", `1`, ""},
		{head + `"id":"b","x":{},"x":1}`, "b", "", ""},
	} {
		e, err := filterd.DecodeEvent([]byte(c.payload))
		same(t, c.payload, complaint(t, err), c.complaint)
		if err == nil {
			same(t, "id of "+c.payload, e.ID, c.id)
			same(t, "data of "+c.payload, string(e.Data), c.data)
		}
	}
}

// TestDecodeEventText checks that strings decode as encoding/json decodes
// them.
func TestDecodeEventText(t *testing.T) {
	for literal, want := range map[string]string{
		`"\"\\\/\u00e9"`:       `"\/é`,
		`"\ud83d\ude00"`:       "😀",
		`"\ud83d"`:             "\ufffd",
		`"\ude00\ud83d"`:       "\ufffd\ufffd",
		`"\ud83dx"`:            "\ufffdx",
		`"\ud83d\u0041"`:       "\ufffdA",
		"\"\xff\"":             "\ufffd",
		"\"a\xed\xa0\x80b\"":   "a\ufffd\ufffd\ufffdb",
		"\"\xc3\"":             "\ufffd",
		"\"\xf4\x90\x80\x80\"": "\ufffd\ufffd\ufffd\ufffd",
		"\"\u2028\"":           "\u2028",
	} {
		var wanted string
		if err := json.Unmarshal([]byte(literal), &wanted); err != nil || wanted != want {
			t.Fatalf("encoding/json decodes %q to %q, %v", literal, wanted, err)
		}
		same(t, literal, decoded(t, eventWith("id", literal)).ID, want)
		same(t, literal, decoded(t, eventWith("ext", literal)).Extensions["ext"], any(want))
	}
}

// TestDecodeEventMalformed has payloads that are no JSON object.
func TestDecodeEventMalformed(t *testing.T) {
	for payload, want := range map[string]string{
		"":                         "malformed: not JSON: the payload is empty",
		" \n":                      "malformed: not JSON: the payload is empty",
		"{":                        "malformed: not JSON: unexpected end of JSON input at byte 1",
		"{]":                       "malformed: not JSON: invalid character ']' looking for beginning of object key string at byte 2",
		minimal + "x":              "malformed: not JSON: invalid character 'x' after top-level value at byte 56",
		minimal + minimal:          "malformed: not JSON: invalid character '{' after top-level value at byte 56",
		"\ufeff" + minimal:         "malformed: not JSON: invalid character 'ï' looking for beginning of value at byte 1",
		`{"id":"a` + "\n" + `"}`:   "malformed: not JSON: invalid character '\\n' in string literal at byte 9",
		eventWith("data", "1e400"): "malformed: not a float64: number 1e400 at byte 68",
		eventWith("data", "01"):    "malformed: not JSON: invalid character '1' after object key:value pair at byte 64",
		"null":                     "envelope: an event is a JSON object, not null",
		"[" + minimal + "]":        "envelope: an event is a JSON object, not an array",
		`"text"`:                   "envelope: an event is a JSON object, not a string",
		"1":                        "envelope: an event is a JSON object, not a number",
		"true":                     "envelope: an event is a JSON object, not a boolean",
	} {
		_, err := filterd.DecodeEvent([]byte(payload))
		same(t, payload, complaint(t, err), want)
	}
}

// TestDecodeEventAliases checks what Data shares with the payload, and that
// appending to it leaves the payload alone.
func TestDecodeEventAliases(t *testing.T) {
	payload := []byte(eventWith("data", "[1]", "ext", `"x"`))
	before := string(payload)
	e, err := filterd.DecodeEvent(payload)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(e.Data, "overwritten"...)
	same(t, "payload", string(payload), before)
	payload[strings.Index(before, "[1]")+1] = '2'
	same(t, "data", string(e.Data), "[2]")

	var u filterd.Event
	text := []byte(before)
	if err := u.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	clear(text)
	same(t, "unmarshalled data", string(u.Data), "[1]")
}

// TestErrorsAreBounded checks that a large payload can't make a large error.
func TestErrorsAreBounded(t *testing.T) {
	long := strings.Repeat("9", 100_000)
	var names []string
	for i := range 5_000 {
		names = append(names, `"X`+strings.Repeat("x", i%7)+strings.Repeat("y", i)[:i%500]+`":1`)
	}
	for what, payload := range map[string]string{
		"number":     eventWith("data", long),
		"source":     eventWith("source", `"<`+long+`"`),
		"extension":  eventWith("ext", long[:300]),
		"name":       eventWith(long+"_", `1`),
		"many names": strings.TrimSuffix(minimal, "}") + "," + strings.Join(slices.Compact(names), ",") + "}",
	} {
		_, err := filterd.DecodeEvent([]byte(payload))
		if n := len(text(err)); n == 0 || n > 150_000 {
			t.Errorf("%s: an error of %d bytes", what, n)
		}
	}
	_, err := filterd.DecodeEvent([]byte(eventWith("source", `"<`+long+`"`)))
	same(t, "long source", complaint(t, err), `envelope: /source: "<`+long[:254]+"…")
	_, err = filterd.DecodeEvent([]byte(eventWith(long+"_", `1`)))
	same(t, "long name", complaint(t, err), "envelope: /"+long[:1023]+"…: an attribute's name consists of a-z and 0-9")
	_, err = filterd.DecodeEvent([]byte(eventWith("data", long)))
	same(t, "long number", complaint(t, err), ("malformed: not a float64: number " + long)[:256+len("malformed: ")]+"…")
}

// TestManyFailures checks the cap on the number of failures.
func TestManyFailures(t *testing.T) {
	members := []string{}
	for i := range 150 {
		members = append(members, "X"+strings.Repeat("a", i), "1")
	}
	_, err := filterd.DecodeEvent([]byte(eventWith(members...)))
	got := complaint(t, err)
	same(t, "failures", strings.Count(got, "an attribute's name"), 100)
	if !strings.HasSuffix(got, "; and 50 more failures") {
		t.Errorf("the error ends in %q", got[len(got)-40:])
	}
}
