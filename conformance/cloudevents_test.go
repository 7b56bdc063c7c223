package conformance

import (
	"encoding/json"
	"flag"
	"fmt"
	"mime"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"pgregory.net/rapid"

	"github.com/filterd/filterd"
)

var update = flag.Bool("update", false, "write the table of divergences into README.md")

// with returns an event of four required attributes with members set to other
// JSON texts, given as name and text in turn. An empty text removes the member.
func with(members ...string) string {
	names := []string{"specversion", "id", "source", "type"}
	texts := map[string]string{"specversion": `"1.0"`, "id": `"1"`, "source": `"/s"`, "type": `"t"`}
	for i := 0; i < len(members); i += 2 {
		if !slices.Contains(names, members[i]) {
			names = append(names, members[i])
		}
		texts[members[i]] = members[i+1]
	}
	var parts []string
	for _, name := range names {
		if texts[name] != "" {
			parts = append(parts, `"`+name+`":`+texts[name])
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// The ways in which the two can disagree on an event.
const (
	agree      = ""
	sdkAccepts = "the SDK accepts it"
	sdkRefuses = "the SDK refuses it"
	sdkReads   = "the SDK reads another " // attribute
)

// events are what both are asked about. Where they disagree, the table says
// how and why that is right; README.md has those lines.
var events = []struct {
	what, payload string
	divergence    string
	why           string
}{
	{"only what is required", with(), agree, ""},
	{"every attribute", with("datacontenttype", `"application/json"`, "dataschema", `"https://a.example/s.json"`, "subject", `"b"`,
		"time", `"2024-02-29T12:30:00.123456789+01:00"`, "ext", `"x"`, "flag", `true`, "count", `-7`, "data", `{"price":100.50}`), agree, ""},
	{"data before its type", `{"data":{"a":1},"type":"t","id":"1","source":"/s","specversion":"1.0","datacontenttype":"application/json"}`, agree, ""},
	{"specversion last", `{"type":"t","id":"1","source":"/s","ext":"x","data":[1],"specversion":"1.0"}`, agree, ""},
	{"data null", with("data", `null`), agree, ""},
	{"data a string", with("data", `"text"`), agree, ""},
	{"data a string with JSON in it", with("data", `"{\"a\":1}"`), agree, ""},
	{"data text", with("datacontenttype", `"text/plain"`, "data", `"a\nb"`), agree, ""},
	{"data of a +json type", with("datacontenttype", `"application/vnd.x+json"`, "data", `[1]`), sdkRefuses,
		"the SDK takes no other types for JSON than application/json and text/json; the specification takes all that end in +json"},
	{"binary data", with("datacontenttype", `"application/octet-stream"`, "data_base64", `"AAH/"`), agree, ""},
	{"escaped names", `{"specversion":"1.0","\u0069d":"1","source":"/s","type":"t"}`, agree, ""},
	{"escapes and other scripts", with("id", `"\u00e9\ud83d\ude00 é😀"`), agree, ""},
	{"an absolute source", with("source", `"https://u@a.example:8080/b?c#d"`), agree, ""},
	{"a urn for source", with("source", `"urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"`), agree, ""},
	{"dataschema with a fragment", with("dataschema", `"https://a.example/s.json#/$defs/x"`), agree, ""},
	{"an attribute null", with("subject", `null`), agree, ""},
	{"an extension null", with("ext", `null`), agree, ""},
	{"the largest integer", with("ext", `2147483647`), agree, ""},
	{"the smallest integer", with("ext", `-2147483648`), agree, ""},

	{"not an object", `[]`, agree, ""},
	{"not JSON", `{"specversion":"1.0"`, agree, ""},
	{"no id", with("id", ""), agree, ""},
	{"no source", with("source", ""), agree, ""},
	{"no type", with("type", ""), agree, ""},
	{"no specversion", with("specversion", ""), agree, ""},
	{"an empty id", with("id", `""`), agree, ""},
	{"an empty source", with("source", `""`), agree, ""},
	{"an empty type", with("type", `""`), agree, ""},
	{"an id that is a number", with("id", `1`), agree, ""},
	{"specversion 2.0", with("specversion", `"2.0"`), agree, ""},
	{"specversion a number", with("specversion", `1.0`), agree, ""},
	{"time without an offset", with("time", `"2024-02-29T12:30:00"`), agree, ""},
	{"time without a day", with("time", `"2024-02"`), agree, ""},
	{"time in words", with("time", `"yesterday"`), agree, ""},
	{"time a number", with("time", `1709209800`), agree, ""},
	{"a broken media type", with("datacontenttype", `"a/b/c"`), agree, ""},
	{"a name with an underscore", with("my_ext", `"x"`), agree, ""},
	{"a name with a letter beyond ASCII", with("é", `"x"`), agree, ""},
	{"an extension that is an object", with("ext", `{}`), agree, ""},
	{"an extension that is an array", with("ext", `[]`), agree, ""},
	{"an integer of more than 32 bits", with("ext", `2147483648`), agree, ""},
	{"base64 of another alphabet", with("data_base64", `"_-8="`), agree, ""},
	{"base64 without padding", with("data_base64", `"AA"`), agree, ""},

	{"specversion 0.3", with("specversion", `"0.3"`), sdkAccepts,
		"filterd speaks 1.0 only"},
	{"specversion twice", `{"specversion":"1.0","specversion":"1.0","id":"1","source":"/s","type":"t"}`, sdkRefuses,
		"JSON leaves duplicates open; filterd lets the last one count, as encoding/json does"},
	{"id twice", `{"specversion":"1.0","id":"0","id":"1","source":"/s","type":"t"}`, agree, ""},
	{"id null, then an id", `{"specversion":"1.0","id":null,"id":"1","source":"/s","type":"t"}`, agree, ""},
	{"an id, then id null", `{"specversion":"1.0","id":"1","id":null,"source":"/s","type":"t"}`, agree, ""},
	{"datacontenttype twice", with("datacontenttype", `"text/plain","datacontenttype":"application/json"`, "data", `1`), sdkRefuses,
		"JSON leaves duplicates open; filterd lets the last one count, as encoding/json does"},
	{"data and data_base64", with("data", `1`, "data_base64", `"AA=="`), sdkAccepts,
		"the specification has them exclude each other"},
	{"data null and data_base64", with("data", `null`, "data_base64", `"AA=="`), agree, ""},
	{"data_base64 null", with("data_base64", `null`), sdkRefuses,
		"filterd takes null for absent everywhere but in data"},
	{"data_base64 a number", with("data_base64", `1234`), agree, ""},
	{"base64 with a line break", with("data_base64", `"AAH/\nAAH/"`), agree, ""},
	{"base64 with bits left over", with("data_base64", `"AB=="`), sdkAccepts,
		"no encoder of RFC 4648 writes it"},
	{"base64 with an escape", with("data_base64", `"AAH\/"`), sdkRefuses,
		"it is a JSON string; the SDK does not undo the escapes of this one"},
	{"a blank id", with("id", `" "`), sdkRefuses,
		"a space is not the empty string"},
	{"an id with a control character", with("id", `"a\u0000"`), sdkAccepts,
		"the specification's strings have no control characters"},
	{"an id with a noncharacter", with("id", `"\uffff"`), sdkAccepts,
		"the specification's strings have no noncharacters"},
	{"an id with a lone surrogate", with("id", `"\ud800"`), agree, ""},
	{"an id of invalid UTF-8", with("id", "\"\xff\""), sdkReads + "id",
		"filterd decodes it to U+FFFD, as encoding/json does; the SDK keeps the bytes"},
	{"a source with a space", with("source", `"a b"`), sdkAccepts,
		"RFC 3986 has no spaces; Go's net/url, which the SDK asks, lets them through"},
	{"a source beyond ASCII", with("source", `"/é"`), sdkAccepts,
		"RFC 3986 is ASCII; Go's net/url lets the rest through"},
	{"a source with brackets", with("source", `"/a[1]"`), sdkAccepts,
		"RFC 3986 has brackets only around an IP address; Go's net/url lets them through"},
	{"a source with two fragments", with("source", `"a#b#c"`), sdkAccepts,
		"RFC 3986 has one fragment; Go's net/url lets more through"},
	{"a source with an escaped host", with("source", `"http://a%20b/"`), sdkRefuses,
		"RFC 3986 allows it; Go's net/url refuses it"},
	{"a source with an empty fragment", with("source", `"/s#"`), sdkReads + "source",
		"filterd keeps the text; the SDK writes the URL anew and loses the #"},
	{"an empty subject", with("subject", `""`), sdkAccepts,
		"a subject that is present is not empty"},
	{"an empty datacontenttype", with("datacontenttype", `""`), agree, ""},
	{"datacontenttype null", with("datacontenttype", `null`), sdkRefuses,
		"an attribute that is null is absent"},
	{"datacontenttype without a slash", with("datacontenttype", `"json"`), sdkAccepts,
		"a media type of RFC 2046 has a subtype"},
	{"an empty dataschema", with("dataschema", `""`), sdkAccepts,
		"a dataschema that is present is not empty"},
	{"dataschema null", with("dataschema", `null`), agree, ""},
	{"a relative dataschema", with("dataschema", `"/s.json"`), agree, ""},
	{"a broken dataschema", with("dataschema", `"%zz"`), sdkAccepts,
		"it is no URI; the SDK takes it for absent"},
	{"an empty time", with("time", `""`), sdkAccepts,
		"it is no timestamp; the SDK takes it for absent"},
	{"time null", with("time", `null`), agree, ""},
	{"time in lower case", with("time", `"2024-02-29t12:30:00z"`), sdkRefuses,
		"RFC 3339 allows t and z; Go's time.Parse refuses them"},
	{"time with a comma", with("time", `"2024-02-29T12:30:00,5Z"`), sdkAccepts,
		"RFC 3339 has a point; Go's time.Parse lets a comma through"},
	{"time with an hour of one digit", with("time", `"2024-02-29T1:30:00Z"`), sdkAccepts,
		"RFC 3339 has two digits; Go's time.Parse lets one through"},
	{"time with an offset of a day", with("time", `"2024-02-29T12:30:00+24:00"`), sdkAccepts,
		"RFC 3339 ends at 23:59; Go's time.Parse lets 24:00 through"},
	{"a leap second", with("time", `"2016-12-31T23:59:60Z"`), sdkRefuses,
		"RFC 3339 has leap seconds at the end of a month; filterd reads them as the second after"},
	{"a name in upper case", with("Ext", `"x"`), sdkAccepts,
		"names are lower-case; the SDK makes them so"},
	{"an attribute's name in upper case", with("ID", `"x"`), agree, ""},
	{"an empty name", with("", `"x"`), sdkAccepts,
		"names are not empty; the SDK takes it for the end of the event, and reads nothing behind it"},
	{"an extension named as one of 0.3", with("schemaurl", `"/x"`), agree, ""},
	{"an integer with a fraction of zero", with("ext", `1.0`), sdkAccepts,
		"the JSON format has integers without a fraction"},
	{"an integer with an exponent", with("ext", `1e2`), sdkAccepts,
		"the JSON format has integers without an exponent"},
	{"an extension with a fraction", with("ext", `1.5`), sdkAccepts,
		"the specification has no such type; the SDK cuts the fraction off"},
	{"an extension with a control character", with("ext", `"a\n"`), sdkAccepts,
		"the specification's strings have no control characters"},
	{"an extension that is empty", with("ext", `""`), agree, ""},
	{"text data that is no string", with("datacontenttype", `"text/plain"`, "data", `{"a":1}`), sdkRefuses,
		"the specification leaves it open; filterd keeps any JSON"},
	{"data beyond float64", with("data", `1e400`), agree, ""},
	{"spaces around data", with("data", ` [1] `), sdkReads + "data",
		"filterd takes the value; the SDK keeps the space before it"},
	{"nothing but null", `null`, agree, ""},
}

// compare asks both about an event and says how they disagree.
func compare(payload []byte) string {
	ours, err := filterd.DecodeEvent(payload)
	var theirs ce.Event
	sdkErr := json.Unmarshal(payload, &theirs)
	if sdkErr == nil {
		sdkErr = theirs.Validate()
	}
	switch {
	case err != nil && sdkErr != nil:
		return agree
	case err != nil:
		return sdkAccepts
	case sdkErr != nil:
		return sdkRefuses
	}
	if names := differences(ours, theirs); len(names) > 0 {
		return sdkReads + strings.Join(names, ", ")
	}
	return agree
}

// differences names what two readings of an event do not have in common.
func differences(ours *filterd.Event, theirs ce.Event) []string {
	var names []string
	differ := func(name string, different bool) {
		if different {
			names = append(names, name)
		}
	}
	differ("specversion", theirs.SpecVersion() != filterd.SpecVersion)
	differ("id", theirs.ID() != ours.ID)
	differ("source", theirs.Source() != ours.Source)
	differ("type", theirs.Type() != ours.Type)
	differ("datacontenttype", theirs.DataContentType() != ours.DataContentType)
	differ("dataschema", theirs.DataSchema() != ours.DataSchema)
	differ("subject", theirs.Subject() != ours.Subject)
	differ("time", !theirs.Time().Equal(ours.Time))
	extensions := make(map[string]any)
	for name, value := range ours.Extensions {
		extensions[name] = value
	}
	differ("extension", fmt.Sprintf("%#v", extensions) != fmt.Sprintf("%#v", nonNil(theirs.Extensions())))
	differ("data", string(theirs.Data()) != string(dataBytes(ours)) || theirs.DataBase64 != (ours.Binary != nil))
	return names
}

func nonNil(m map[string]any) map[string]any {
	if m == nil {
		m = make(map[string]any)
	}
	return m
}

// dataBytes returns data as the SDK has it: text for what is not JSON.
func dataBytes(e *filterd.Event) []byte {
	if e.Binary != nil {
		return e.Binary
	}
	kind, _, _ := mime.ParseMediaType(e.DataContentType)
	var s string
	if kind != "" && !strings.HasSuffix(kind, "json") && json.Unmarshal(e.Data, &s) == nil {
		return []byte(s)
	}
	return e.Data
}

func TestDivergences(t *testing.T) {
	for _, e := range events {
		if got := compare([]byte(e.payload)); got != e.divergence {
			t.Errorf("%s: %s: %q, but the table has %q", e.what, e.payload, got, e.divergence)
		}
		if (e.divergence == agree) != (e.why == "") {
			t.Errorf("%s: a divergence has a reason, and nothing else has", e.what)
		}
	}
}

// TestReadme checks that README.md lists the divergences.
func TestReadme(t *testing.T) {
	const open, end = "<!-- divergences -->\n", "<!-- end of divergences -->\n"
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), open)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("README.md has no lines %q and %q", open, end)
	}
	var table strings.Builder
	table.WriteString("| event with | divergence | because |\n|---|---|---|\n")
	for _, e := range events {
		if e.divergence != agree {
			fmt.Fprintf(&table, "| %s | %s | %s |\n", e.what, e.divergence, e.why)
		}
	}
	want := before + open + table.String() + end + after
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != want {
		t.Error("README.md lists other divergences than the table: run this test with -update")
	}
}

// TestRoundTrips sends events through both: what filterd writes the SDK reads,
// and what the SDK writes filterd reads, to the same event.
func TestRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ours := anyEvent(t)
		if err := ours.Validate(); err != nil {
			t.Fatal(err)
		}
		written := ours.AppendJSON(nil)
		var theirs ce.Event
		if err := json.Unmarshal(written, &theirs); err != nil {
			t.Fatalf("%s: the SDK can't read it: %v", written, err)
		}
		if err := theirs.Validate(); err != nil {
			t.Fatalf("%s: not valid for the SDK: %v", written, err)
		}
		if names := differences(ours, theirs); len(names) > 0 {
			t.Fatalf("%s: the SDK reads another %q: %v", written, names, theirs)
		}
		rewritten, err := json.Marshal(theirs)
		if err != nil {
			t.Fatal(err)
		}
		back, err := filterd.DecodeEvent(rewritten)
		if err != nil {
			t.Fatalf("%s: filterd can't read it: %v", rewritten, err)
		}
		if names := differences(back, theirs); len(names) > 0 {
			t.Fatalf("%s: filterd reads another %q", rewritten, names)
		}
	})
}

// anyEvent generates a valid event that is in none of the divergences.
func anyEvent(t *rapid.T) *filterd.Event {
	text := rapid.StringOfN(rapid.RuneFrom([]rune{'a', 'Z', '0', '"', '\\', '/', '<', 'é', '😀'}), 1, 6, -1)
	optional := func(g *rapid.Generator[string], label string) string {
		return rapid.OneOf(rapid.Just(""), g).Draw(t, label)
	}
	e := &filterd.Event{
		ID:         text.Draw(t, "id"),
		Source:     rapid.SampledFrom([]string{"/s", "urn:x:1", "https://u@[::1]:8/a%20b?q#f", "a"}).Draw(t, "source"),
		Type:       text.Draw(t, "type"),
		DataSchema: optional(rapid.SampledFrom([]string{"urn:s", "http://s/#/a"}), "dataschema"),
		Subject:    optional(text, "subject"),
	}
	if rapid.Bool().Draw(t, "timed") {
		zone := time.FixedZone("", rapid.IntRange(-1439, 1439).Draw(t, "offset")*60)
		e.Time = time.Unix(rapid.Int64Range(0, 253_000_000_000).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).In(zone)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "extensions") {
		if e.Extensions == nil {
			e.Extensions = make(map[string]any)
		}
		value := rapid.OneOf(rapid.Map(text, func(s string) any { return s }),
			rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.Int32(), func(n int32) any { return n }))
		e.Extensions[fmt.Sprintf("x%d", i)] = value.Draw(t, "extension")
	}
	switch rapid.IntRange(0, 3).Draw(t, "data") {
	case 1:
		e.DataContentType = optional(rapid.SampledFrom([]string{"application/json", "text/json; charset=utf-8"}), "content type")
		e.Data = rapid.SampledFrom([]json.RawMessage{[]byte(`null`), []byte(`{"price":100.50}`), []byte(`[1e5,"\u00e9",{}]`), []byte(`"text"`)}).Draw(t, "JSON")
	case 2:
		e.DataContentType = "text/plain"
		e.Data = filterd.AppendString(nil, text.Draw(t, "text"))
	case 3:
		e.DataContentType = optional(rapid.Just("application/octet-stream"), "content type")
		e.Binary = rapid.SliceOfN(rapid.Byte(), 1, 5).Draw(t, "binary")
	}
	return e
}
