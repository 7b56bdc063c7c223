package filterd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/filterd/filterd"
)

// TestMessageViews has what a message is in each envelope.
func TestMessageViews(t *testing.T) {
	const auto, events, raw, bytes = filterd.EnvelopeAuto, filterd.EnvelopeCloudEvents, filterd.EnvelopeRaw, filterd.EnvelopeBytes
	full := eventWith("data", `{"price":100.50}`, "time", `"2024-02-29T12:00:00Z"`, "ext", `7`, "gone", `null`)
	attributes := map[string]any{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2024-02-29T12:00:00Z", "ext": 7.0}
	plain := map[string]any{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
	none := map[string]any{}
	price := map[string]any{"price": 100.5}
	for _, c := range []struct {
		envelope   filterd.Envelope
		payload    string
		data       any
		attributes map[string]any
		isEvent    bool
		complaint  string
	}{
		{auto, full, price, attributes, true, ""},
		{events, full, price, attributes, true, ""},
		{auto, minimal, nil, plain, true, ""},
		{events, eventWith("data", `null`), nil, plain, true, ""},
		{events, eventWith("data_base64", `"AAH/"`), "\x00\x01\xff", plain, true, ""},
		{events, eventWith("data_base64", `""`, "data", `null`), "", plain, true, ""},
		{events, eventWith("data", `1`, "data", `2`), 2.0, plain, true, ""},
		{auto, `{"price":100.50}`, price, none, false, ""},
		{auto, `[1,"a",null,true]`, []any{1.0, "a", nil, true}, none, false, ""},
		{auto, `null`, nil, none, false, ""},
		{auto, ` "specversion" `, "specversion", none, false, ""},
		{auto, `{"a":{"specversion":"1.0"}}`, map[string]any{"a": map[string]any{"specversion": "1.0"}}, none, false, ""},
		{auto, `{"\u0073pecversion":"1.0","id":"1","source":"/s","type":"t"}`, nil, plain, true, ""},
		{auto, `{"specversion":null}`, nil, nil, false,
			"envelope: /specversion: required attribute is missing; /id: required attribute is missing; /source: required attribute is missing; /type: required attribute is missing"},
		{auto, `{"SpecVersion":"1.0"}`, map[string]any{"SpecVersion": "1.0"}, none, false, ""},
		{auto, `price`, nil, nil, false, "malformed: not JSON: invalid character 'p' looking for beginning of value at byte 1"},
		{auto, ``, nil, nil, false, "malformed: not JSON: the payload is empty"},
		{raw, minimal, map[string]any{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, none, false, ""},
		{raw, `{"specversion":1}`, map[string]any{"specversion": 1.0}, none, false, ""},
		{raw, `x`, nil, nil, false, "malformed: not JSON: invalid character 'x' looking for beginning of value at byte 1"},
		{events, `{"price":1}`, nil, nil, false,
			"envelope: /specversion: required attribute is missing; /id: required attribute is missing; /source: required attribute is missing; /type: required attribute is missing"},
		{events, `[]`, nil, nil, false, "envelope: an event is a JSON object, not an array"},
		{bytes, "\xff{", "\xff{", none, false, ""},
		{bytes, "", "", none, false, ""},
		{bytes, minimal, minimal, none, false, ""},
	} {
		what := string(c.envelope) + " " + c.payload
		m := &filterd.Message{Channel: "c", Payload: []byte(c.payload)}
		same(t, what, complaint(t, registry(t, filterd.Contract{Channel: "c", Envelope: c.envelope}).Check(m)), c.complaint)
		data, err := m.Data()
		same(t, "error of Data of "+what, complaint(t, err), c.complaint)
		same(t, "data of "+what, data, c.data)
		got, err := m.Attributes()
		same(t, "error of Attributes of "+what, complaint(t, err), c.complaint)
		same(t, "attributes of "+what, got, c.attributes)
		same(t, what+" is an event", m.IsEvent(), c.isEvent)
		e, err := m.Event()
		switch {
		case c.isEvent:
			same(t, "error of Event of "+what, text(err), "")
			checkAgainstJSON(t, m.Payload, e)
		case c.complaint != "":
			same(t, "error of Event of "+what, complaint(t, err), c.complaint)
		case !errors.Is(err, filterd.ErrNoEvent):
			t.Errorf("error of Event of %s: %v", what, err)
		}
	}
}

// TestMessageUnchecked checks that a message nobody checked is in the envelope
// auto, and that checking it puts it into its contract's.
func TestMessageUnchecked(t *testing.T) {
	m := &filterd.Message{Channel: "c", Payload: []byte(minimal)}
	same(t, "event before", m.IsEvent(), true)
	r := registry(t, filterd.Contract{Channel: "c", Envelope: filterd.EnvelopeBytes}, filterd.Contract{Channel: "d"})
	same(t, "check", text(r.Check(m)), "")
	same(t, "event after", m.IsEvent(), false)
	data, err := m.Data()
	same(t, "data", data, any(minimal))
	same(t, "error", text(err), "")
	m.Channel = "d"
	same(t, "check as another", text(r.Check(m)), "")
	same(t, "event as another", m.IsEvent(), true)
}

// TestMessageDecodesOnce checks that a message is decoded lazily, and once.
func TestMessageDecodesOnce(t *testing.T) {
	m := &filterd.Message{Channel: "c", Payload: []byte(`{"a":1}`)}
	copy(m.Payload, `{"b":2}`) // nobody has looked yet
	first, err := m.Data()
	same(t, "error", text(err), "")
	same(t, "data", first, any(map[string]any{"b": 2.0}))
	if n := testing.AllocsPerRun(10, func() { _, _ = m.Data() }); n != 0 {
		t.Errorf("%v allocations for data that is decoded", n)
	}
	first.(map[string]any)["c"] = 3.0 // forbidden, but shows that it is shared
	second, _ := m.Data()
	same(t, "second look", second, first)
}

func TestMessageErrorNamesChannel(t *testing.T) {
	m := &filterd.Message{Channel: "prices", Payload: []byte(`{`)}
	_, err := m.Data()
	same(t, "error", text(err), "prices: malformed: not JSON: unexpected end of JSON input at byte 1")
	m.Channel = "other"
	_, err = m.Attributes()
	same(t, "error", text(err), "other: malformed: not JSON: unexpected end of JSON input at byte 1")
}

func TestMessageReset(t *testing.T) {
	r := registry(t, filterd.Contract{Channel: "c", Envelope: filterd.EnvelopeRaw})
	m := &filterd.Message{Channel: "c", Payload: []byte(`{`)}
	same(t, "check", complaint(t, r.Check(m)), "malformed: not JSON: unexpected end of JSON input at byte 1")
	m.Reset([]byte(minimal))
	data, err := m.Data()
	same(t, "error", text(err), "")
	same(t, "data in the same envelope", data, any(map[string]any{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}))
}

func TestMessageClone(t *testing.T) {
	r := registry(t, filterd.Contract{Channel: "c", Envelope: filterd.EnvelopeRaw})
	m := &filterd.Message{Channel: "c", Pattern: "*", ID: "1-0", Payload: []byte(`{"specversion":[1]}`)}
	same(t, "check", text(r.Check(m)), "")
	p := filterd.NewProjection([]filterd.Path{filterd.PathData})
	m.Bind(p)
	clone := m.Clone()
	data, _ := m.Data()
	data.(map[string]any)["specversion"].([]any)[0] = "changed"
	clear(m.Payload)
	same(t, "names", []string{clone.Channel, clone.Pattern, clone.ID}, []string{"c", "*", "1-0"})
	same(t, "payload", string(clone.Payload), `{"specversion":[1]}`)
	value, err := clone.Field(0)
	same(t, "error", text(err), "")
	same(t, "data", value, any(map[string]any{"specversion": []any{1.0}}))
}

func TestProjection(t *testing.T) {
	const data, event, channel = filterd.PathData, filterd.PathEvent, filterd.PathChannel
	p := filterd.NewProjection([]filterd.Path{event, data}, nil, []filterd.Path{data, channel, event})
	slots := p.Slots([]filterd.Path{data, event, channel, data})
	same(t, "slots", slots, []int{1, 0, 2, 1})
	m := &filterd.Message{Channel: "c", Payload: []byte(eventWith("data", `7`))}
	m.Bind(p)
	for i, want := range []any{7.0, map[string]any{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, "c"} {
		got, err := m.Field(slots[i])
		same(t, "error", text(err), "")
		same(t, "field", got, want)
	}
	m.Reset([]byte("{"))
	for _, slot := range slots[:2] {
		_, err := m.Field(slot)
		same(t, "error", complaint(t, err), "malformed: not JSON: unexpected end of JSON input at byte 1")
	}
	got, err := m.Field(slots[2])
	same(t, "channel of a malformed payload", got, any("c"))
	same(t, "error", text(err), "")

	defer func() {
		same(t, "panic", recover(), any("filterd: path channel is not in the projection"))
	}()
	filterd.NewProjection([]filterd.Path{data}).Slots([]filterd.Path{channel})
}

// TestMessageDataIsJSON checks that data is what encoding/json makes of it.
func TestMessageDataIsJSON(t *testing.T) {
	for _, value := range []string{`9007199254740993`, `1e-400`, `-0`, `{"a":1,"a":{"b":2},"a":3}`, `{"a":{"b":1},"a":{"c":2}}`, `"\ud800\ud83d\ude00"`, "\"\xff\""} {
		var want any
		if err := json.Unmarshal([]byte(value), &want); err != nil {
			t.Fatal(err)
		}
		for _, payload := range []string{value, eventWith("data", value)} {
			got, err := (&filterd.Message{Payload: []byte(payload)}).Data()
			same(t, "error", text(err), "")
			same(t, payload, got, want)
		}
	}
}

func TestMessageDecode(t *testing.T) {
	type trade struct{ Price float64 }
	for _, test := range []struct{ payload, want string }{
		{`{"price":2}`, "{2} <nil>"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"price":3}}`, "{3} <nil>"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"eyJwcmljZSI6NH0="}`, "{4} <nil>"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t"}`, "{0} unexpected end of JSON input"},
		{`{"price":"x"}`, "{0} json: cannot unmarshal string into Go struct field trade.Price of type float64"},
		{`{`, "{0} c: malformed: not JSON: unexpected end of JSON input at byte 1"},
	} {
		var got trade
		err := (&filterd.Message{Channel: "c", Payload: []byte(test.payload)}).Decode(&got)
		same(t, test.payload, fmt.Sprintf("%v %v", got, err), test.want)
	}
}
