package filterd_test

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// TestShapesOfEvents treats payloads after others like them, as a channel does,
// and holds what comes of it against a projection that has seen no other.
func TestShapesOfEvents(t *testing.T) {
	paths := []filterd.Path{"event.id", "event.time", "event.a", "data.a", "data.b[1]", "data", "event"}
	start := eventWith("time", `"2026-11-23T12:00:00Z"`, "a", `1`, "subject", `"s"`, "dataschema", `"urn:x"`, "datacontenttype", `"application/json"`,
		"data_base64", `null`, "data", `{"a":"x","b":[1,2]}`)
	replacements := []string{
		`"1"`, `"2"`, `""`, `"é"`, "\"\xff\"", `"\n"`, "\"\x7f\"", `null`, `true`, `1`, `1.5`, `2147483648`, `1e400`, `"AA=="`, `"1.0"`, `"0.3"`,
		`"2026-11-23T12:00:01Z"`, `"2026-02-30T12:00:00Z"`, `"/s"`, `"a b"`, `"urn:y"`, `"/relative"`, `"text/plain"`, `"json"`, `{}`, `[]`,
	}
	random := rand.New(rand.NewPCG(5, 6))
	for _, contract := range []filterd.Contract{{Channel: "c"}, {Channel: "c", Envelope: filterd.EnvelopeCloudEvents}} {
		r := registry(t, contract)
		seasoned := filterd.NewProjection(paths)
		m := &filterd.Message{Channel: "c"}
		m.Bind(seasoned)
		for range 20_000 {
			payload := start
			for range 1 + random.IntN(2) {
				payload = replaceValue(payload, replacements[random.IntN(len(replacements))], random)
			}
			m.Reset([]byte(payload))
			other := &filterd.Message{Channel: "c", Payload: []byte(payload)}
			fresh := filterd.NewProjection(paths)
			other.Bind(fresh)
			got, want := r.Check(m), r.Check(other)
			if text(got) != text(want) || m.IsEvent() != other.IsEvent() {
				t.Fatalf("%s: %v, want %v", payload, got, want)
			}
			for i, path := range paths {
				if got, want := m.Lookup(seasoned.Slots(paths)[i]), other.Lookup(fresh.Slots(paths)[i]); !reflect.DeepEqual(got, want) {
					t.Fatalf("%s, %s: %v, want %v", payload, path, got, want)
				}
			}
			data, _ := m.Data()
			otherData, _ := other.Data()
			attributes, _ := m.Attributes()
			otherAttributes, _ := other.Attributes()
			if !reflect.DeepEqual(data, otherData) || !reflect.DeepEqual(attributes, otherAttributes) {
				t.Fatalf("%s: %v and %v, want %v and %v", payload, data, attributes, otherData, otherAttributes)
			}
		}
	}
}

// replaceValue replaces the value of some member.
func replaceValue(payload, with string, random *rand.Rand) string {
	colons := strings.Split(payload, `":`)
	at := 1 + random.IntN(len(colons)-1)
	end := strings.IndexAny(colons[at], ",}]")
	if end < 0 || strings.ContainsAny(colons[at][:end], "{[") {
		return payload
	}
	colons[at] = with + colons[at][end:]
	return strings.Join(colons, `":`)
}
