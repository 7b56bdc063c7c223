package projection_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/filterd/filterd/internal/projection"
)

// pairs returns the members of an object as "name=value" texts.
func pairs(document string, at int) []string {
	var all []string
	for m := range projection.Members([]byte(document), at) {
		all = append(all, m.Name([]byte(document))+"="+string(m.Value.Of([]byte(document))))
	}
	return all
}

func TestMembers(t *testing.T) {
	for _, c := range []struct{ document, want string }{
		{`{}`, ""},
		{` { } `, ""},
		{`{"a":1}`, "a=1"},
		{" {\t\"a\" :\n1 ,\r\"b\" : true } ", "a=1 b=true"},
		{`{"a":null,"b":[1,{"c":"}"}],"d":{"e":{}}}`, `a=null b=[1,{"c":"}"}] d={"e":{}}`},
		{`{"a":"\"","b":"\\","c":"\\\"","d":"\\\\"}`, `a="\"" b="\\" c="\\\"" d="\\\\"`},
		{`{"a\"b":"x:,{}[]"}`, `a"b="x:,{}[]"`},
		{`{"\u0061":1,"a":2,"":3}`, "a=1 a=2 =3"},
		{`{"a":-1.5e+3}`, "a=-1.5e+3"},
		{`[{"a":1}]`, ""},
		{`"a"`, ""},
		{`1`, ""},
		{``, ""},
	} {
		if got := strings.Join(pairs(c.document, 0), " "); got != c.want {
			t.Errorf("%s: got %s, want %s", c.document, got, c.want)
		}
	}
	if got := strings.Join(pairs(`[{"a":1},{"b":2}]`, 9), " "); got != "b=2" {
		t.Errorf("from an offset: %s", got)
	}
	if got := pairs(`{"a":1}`, 99); got != nil {
		t.Errorf("from an offset outside: %q", got)
	}
}

func TestMembersStops(t *testing.T) {
	count := 0
	for range projection.Members([]byte(`{"a":1,"b":2}`), 0) {
		count++
		break
	}
	if count != 1 {
		t.Errorf("went on to %d members", count)
	}
}

// TestMembersOfInvalid checks documents that are no JSON: the result means
// nothing, but stays within the document.
func TestMembersOfInvalid(t *testing.T) {
	for _, document := range []string{
		`{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":"`, `{"a":"\`, `{"a":"\"`, `{"a":[`, `{"a":]`, `{"a":}`, `{"a":1`, `{"a":1,`,
		`{"a" 1}`, `{a:1}`, `{"a":1 "b":2}`, `{"a":tru`, `{"a":{"b":[}`, `{,}`, `{"a":,}`, `{\"`, "{\"\\",
	} {
		checkWithin(t, []byte(document))
	}
}

// checkWithin checks that every span lies within the document and ends where
// it may.
func checkWithin(t *testing.T, document []byte) {
	t.Helper()
	for m := range projection.Members(document, 0) {
		value := projection.Span{Start: int(m.Value.Start), End: int(m.Value.End)}
		for _, span := range []projection.Span{m.Key, value} {
			if span.Start < 0 || span.End < span.Start || span.End > len(document) {
				t.Fatalf("%q: span %v", document, span)
			}
		}
		m.Name(document)
	}
}

func TestSpanOf(t *testing.T) {
	document := []byte("abcd")
	part := projection.Span{Start: 1, End: 3}.Of(document)
	_ = append(part, 'x')
	if string(document) != "abcd" {
		t.Errorf("appending to a span wrote %q", document)
	}
	part[0] = 'B'
	if string(document) != "aBcd" {
		t.Errorf("the span does not alias the document: %q", document)
	}
}

func TestUnquote(t *testing.T) {
	for literal, want := range map[string]string{
		`""`:                 "",
		`"abc"`:              "abc",
		`"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t",
		`"\u00e9\u0000"`:     "é\x00",
		`"\ud83d\ude00"`:     "😀",
		`"\ud83d"`:           "\ufffd",
		"\"\xffa\xc3\"":      "\ufffda\ufffd",
		"\"é\u2028\"":        "é\u2028",
		`"`:                  "",
		``:                   "",
		"\"control\x01\"":    "control\x01", // no JSON, and nobody asks
	} {
		if got := projection.Unquote([]byte(literal)); got != want {
			t.Errorf("%s: got %q, want %q", literal, got, want)
		}
	}
}

func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, `{"a":"\\\"","b":[{"c":"]}"}],"a":null}`, `{"\u0061":-1e5,"a":"\ud800"}`, "{\"\xff\":{\"\":[]} , \"b\" :true}",
		`{"a":`, `{"a":"\`, `[1]`, `"{"`, `{"a":{"b":{"c":[[],{}]}},"d":"{[\"]}"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		checkWithin(t, document)
		var want map[string]json.RawMessage
		if err := json.Unmarshal(document, &want); err != nil {
			if !json.Valid(document) {
				return
			}
			want = nil // no object
		}
		got := make(map[string]json.RawMessage)
		for m := range projection.Members(document, 0) {
			name := m.Name(document)
			got[name] = m.Value.Of(document)
			var decoded string
			if err := json.Unmarshal(m.Key.Of(document), &decoded); err != nil || decoded != name {
				t.Fatalf("%q: a key is %q, want %q, %v", document, name, decoded, err)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%q: got %q, want %q", document, got, want)
		}
		for name, value := range want {
			if !bytes.Equal(got[name], value) {
				t.Fatalf("%q: %q is %q, want %q", document, name, got[name], value)
			}
		}
	})
}
