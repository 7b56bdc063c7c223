package engine

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/filterd/filterd/internal/projection"
)

// splice sets members of an event's data, or of a raw document, as a rule's
// set stage does.
func splice(payload string, inEvent bool, members ...string) (string, error) {
	var s splicer
	s.reset([]byte(payload))
	at := 0
	if inEvent {
		var err error
		if at, err = s.data(); err != nil {
			return "", err
		}
		s.member(hopsAttribute, []byte("1"))
	}
	for i := 0; i < len(members); i += 2 {
		s.dataMember(members[i], []byte(members[i+1]))
	}
	out, err := s.finish(at)
	return string(out), err
}

func TestSplice(t *testing.T) {
	for _, test := range []struct {
		payload string
		event   bool
		set     []string
		want    string
	}{
		{`{}`, false, []string{"a", "1"}, `{"a":1}`},
		{` { } `, false, []string{"a", "1", "b", "2"}, ` {"a":1,"b":2 } `},
		{`{"a":1}`, false, []string{"a", "2"}, `{"a":2}`},
		{`{"a":1,"b":{"a":1} }`, false, []string{"c", "[]", "a", "null"}, `{"a":null,"b":{"a":1},"c":[] }`},
		{`{"a":1,"a":2,"a":3}`, false, []string{"a", "4"}, `{"a":1,"a":2,"a":4}`},
		{`{"\u0061":1}`, false, []string{"a", "2"}, `{"\u0061":2}`},
		{`{"a":"}\"]","b":[{"c":"\\"}]}`, false, []string{"b", "0", `"`, "1"}, `{"a":"}\"]","b":0,"\"":1}`},
		{`{"data":{"a":1},"x":2}`, true, []string{"a", "2"}, `{"data":{"a":2},"x":2,"filterdhops":1}`},
		{`{"filterdhops":7,"data":{},"data":{ "a":1}}`, true, []string{"b", "2"}, `{"filterdhops":1,"data":{},"data":{ "a":1,"b":2}}`},
		{`{"data":{}}`, true, []string{"b", "2"}, `{"data":{"b":2},"filterdhops":1}`},
	} {
		got, err := splice(test.payload, test.event, test.set...)
		if err != nil || got != test.want {
			t.Errorf("%s %v:\n got %s %v\nwant %s", test.payload, test.set, got, err, test.want)
		}
	}
}

// A spliced document says what encoding/json makes of the same change, and
// every byte of it that isn't a set value comes from the original, in order.
func FuzzSplice(f *testing.F) {
	f.Add([]byte(`{"a":1}`), "a")
	f.Add([]byte(` {"a" : {"b":[1,2]} , "c":"\"}" , "a":2}`), "c")
	f.Add([]byte("{\"\\u0061\":1,\"\xff\":2}"), "a")
	f.Fuzz(func(t *testing.T, payload []byte, name string) {
		var want any
		if json.Unmarshal(payload, &want) != nil {
			return
		}
		const text = `"\u0000 set \u0000"`
		var s splicer
		s.reset(payload)
		s.dataMember(name, []byte(text))
		got, err := s.finish(0)
		object, ok := want.(map[string]any)
		if !ok || object == nil {
			if err == nil {
				t.Fatalf("%q is no object, but set gave %q", payload, got)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		encoded, _ := json.Marshal(name)
		var decoded string // a name that is not UTF-8 changes
		_ = json.Unmarshal(encoded, &decoded)
		object[decoded] = "\x00 set \x00"
		var have any
		if err := json.Unmarshal(got, &have); err != nil {
			t.Fatalf("%q → %q: %v", payload, got, err)
		}
		if !reflect.DeepEqual(want, have) {
			t.Fatalf("%q → %q", payload, got)
		}
		before, after, found := bytes.Cut(got, []byte(text))
		if !found || !bytes.HasSuffix(payload, after) {
			t.Fatalf("%q → %q: the end changed", payload, got)
		}
		kept := 0
		for kept < len(before) && kept < len(payload) && before[kept] == payload[kept] {
			kept++
		}
		if added := len(before) - kept; added > len(encoded)+2 && added > len(name)*6+5 {
			t.Fatalf("%q → %q: the start changed", payload, got)
		}
	})
}

func TestEncode(t *testing.T) {
	var s splicer
	s.reset(nil)
	for _, test := range []struct {
		value any
		want  string
	}{
		{nil, "null"}, {true, "true"}, {1.5, "1.5"}, {201.0, "201"}, {1e21, "1e+21"}, {3, "3"},
		{"<&>", `"<&>"`}, {[]any{1.0, "a"}, `[1,"a"]`}, {map[string]any{"b": 1.0, "a": nil}, `{"a":null,"b":1}`},
	} {
		got, err := s.encode(test.value)
		if err != nil || string(got) != test.want {
			t.Errorf("%v: %s, %v; want %s", test.value, got, err, test.want)
		}
	}
	for value, want := range map[any]string{
		math.Inf(1):     "the value is +Inf, which JSON can't express",
		complex(1, 2):   "the value can't be expressed in JSON: json: unsupported type: complex128",
		make(chan bool): "the value can't be expressed in JSON: json: unsupported type: chan bool",
	} {
		if _, err := s.encode(value); err == nil || err.Error() != want {
			t.Errorf("%v: %v; want %s", value, err, want)
		}
	}
}

// The spans that edits are made of are those of the values.
func TestSpliceLargeObject(t *testing.T) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i := range 10_000 {
		b.WriteString(`"k`)
		b.WriteString(string(rune('a' + i%26)))
		b.WriteString(`":0,`)
	}
	b.WriteString(`"last":1}`)
	n := 0
	for range projection.Members(b.Bytes(), 0) {
		n++
	}
	if n != 10_001 {
		t.Errorf("%d members", n)
	}
}
