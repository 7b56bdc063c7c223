package filterd_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// failer is what testing.T and rapid.T share.
type failer interface {
	Fatalf(format string, args ...any)
}

// checkAgainstJSON checks a decoded event against encoding/json's view of its
// payload.
func checkAgainstJSON(t failer, payload []byte, e *filterd.Event) {
	var members map[string]json.RawMessage
	var values map[string]any
	if err := json.Unmarshal(payload, &members); err != nil {
		t.Fatalf("accepted what encoding/json refuses: %v", err)
	}
	if err := json.Unmarshal(payload, &values); err != nil {
		t.Fatalf("accepted what encoding/json refuses: %v", err)
	}
	want := map[string]any{"specversion": filterd.SpecVersion}
	for name, value := range map[string]string{"id": e.ID, "source": e.Source, "type": e.Type,
		"datacontenttype": e.DataContentType, "dataschema": e.DataSchema, "subject": e.Subject} {
		if value != "" {
			want[name] = value
		}
	}
	for name, value := range e.Extensions {
		if n, ok := value.(int32); ok {
			value = float64(n)
		}
		want[name] = value
	}
	for name, value := range values {
		switch {
		case name == "data" || name == "data_base64":
		case name == "time" && value != nil: // compared below, decoded
			want[name] = value
		case value == nil:
			delete(values, name)
		}
	}
	data, hasData := members["data"]
	binary, _ := values["data_base64"].(string)
	_, hasBinary := values["data_base64"].(string)
	delete(values, "data")
	delete(values, "data_base64")
	if !reflect.DeepEqual(values, want) {
		t.Fatalf("%s: attributes are %v, want %v", payload, want, values)
	}
	when, timed := values["time"].(string)
	zero := strings.HasPrefix(when, "0001-01-01") || strings.HasPrefix(when, "0000-12-31") // Go's zero time, in some zone
	if !timed && !e.Time.IsZero() || timed && !zero && e.Time.IsZero() {
		t.Fatalf("%s: time is %v", payload, e.Time)
	}
	if hasBinary {
		decoded, err := base64.StdEncoding.DecodeString(binary)
		if err != nil || !bytes.Equal(decoded, e.Binary) || e.Binary == nil || e.Data != nil {
			t.Fatalf("%s: binary is %q, %v, data %q", payload, e.Binary, err, e.Data)
		}
	} else if e.Binary != nil || hasData != (e.Data != nil) || !bytes.Equal(data, e.Data) {
		t.Fatalf("%s: data is %q, want %q", payload, e.Data, data)
	}
}

// FuzzDecodeEvent has encoding/json for an oracle, and encodes again what it
// decoded.
func FuzzDecodeEvent(f *testing.F) {
	for _, seed := range []string{
		minimal, "", "{", "[]", `{"specversion":null}`, string(nested(20)),
		eventWith("time", `"2024-02-29T12:30:00.5+01:00"`, "subject", `"\ud83d\ude00"`, "data", `{"price":100.50}`),
		eventWith("time", `"2016-12-31t23:59:60z"`, "datacontenttype", `"text/plain; x=\"y\""`, "data_base64", `"AAH/"`),
		eventWith("time", `"0001-01-01T00:00:00Z"`, "dataschema", `"urn:x#f"`, "ext", `-2147483648`, "flag", `true`, "none", `null`),
		eventWith("source", `"https://u:p@[::1]:8080/a%20b;c?q=/?#f"`, "data", `null`),
		eventWith("id", "\"\xff\\ud800\"", "data", ` [1e5, -0, 9007199254740993, "\u0000"] `),
		`{"specversion":"1.0","\u0069d":"a","id":"b","source":"/s","type":"t","data":1,"data":{"a":1,"a":2}}`,
		eventWith("data", "1e400"), eventWith("data", `1`, "data_base64", `"AA=="`), eventWith("Ext", `{}`, "time", `"x"`),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := bytes.Clone(payload)
		e, err := filterd.DecodeEvent(payload)
		if !bytes.Equal(before, payload) {
			t.Fatalf("the payload was written to")
		}
		if err != nil {
			if complaint(t, err) == "" {
				t.Fatalf("an error without a failure")
			}
			return
		}
		checkAgainstJSON(t, payload, e)
		if err := e.Validate(); err != nil {
			t.Fatalf("decoded, but not valid: %v", err)
		}
		encoded := e.AppendJSON(nil)
		again, err := filterd.DecodeEvent(encoded)
		if err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		if diff := sameEvent(again, e); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", encoded, diff)
		}
	})
}
