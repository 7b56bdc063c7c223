package filterd_test

import (
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// TestAttributes has, for every attribute rule of CloudEvents 1.0.2, values
// that are accepted (no complaint) and values that are refused.
func TestAttributes(t *testing.T) {
	for name, values := range map[string][]struct{ value, complaint string }{
		"id": {
			{`"1"`, ""},
			{`" "`, ""},
			{`"Ü-42"`, ""},
			{`"\ud83d\ude00"`, ""},
			{``, "/id: required attribute is missing"},
			{`null`, "/id: required attribute is missing"},
			{`""`, "/id: must not be empty"},
			{`1`, "/id: want a string, got a number"},
			{`true`, "/id: want a string, got a boolean"},
			{`["1"]`, "/id: want a string, got an array"},
			{`{"id":"1"}`, "/id: want a string, got an object"},
			{`"a\nb"`, "/id: control character U+000A is not allowed"},
			{`"a\u0000b"`, "/id: control character U+0000 is not allowed"},
			{`"a\u001fb"`, "/id: control character U+001F is not allowed"},
			{`"a\u007fb"`, "/id: control character U+007F is not allowed"},
			{`"a\u0085b"`, "/id: control character U+0085 is not allowed"},
			{`"a\u009fb"`, "/id: control character U+009F is not allowed"},
			{`"a\u00a0b"`, ""},
			{`"\ufdcf"`, ""},
			{`"\ufdd0"`, "/id: noncharacter U+FDD0 is not allowed"},
			{`"\ufdef"`, "/id: noncharacter U+FDEF is not allowed"},
			{`"\ufdf0"`, ""},
			{`"\ufffd"`, ""},
			{`"\ufffe"`, "/id: noncharacter U+FFFE is not allowed"},
			{`"\uffff"`, "/id: noncharacter U+FFFF is not allowed"},
			{`"\ud83f\udffe"`, "/id: noncharacter U+1FFFE is not allowed"},
			{`"\udbff\udfff"`, "/id: noncharacter U+10FFFF is not allowed"},
		},
		"source": {
			{`"/s"`, ""},
			{`"s"`, ""},
			{`"./a:b"`, ""},
			{`"?q"`, ""},
			{`"#f"`, ""},
			{`"//host/path"`, ""},
			{`"https://user:pw@example.com:8080/a/b;c=1?q=1&r=/?#f/?"`, ""},
			{`"http://[::1]:80/"`, ""},
			{`"http://[v1.a:b]/"`, ""},
			{`"http://a%20b/"`, ""},
			{`"http://host:/"`, ""},
			{`"urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"`, ""},
			{`"mailto:a@b.example"`, ""},
			{`"1-555-123-4567"`, ""},
			{`"%41"`, ""},
			{``, "/source: required attribute is missing"},
			{`null`, "/source: required attribute is missing"},
			{`""`, "/source: must not be empty"},
			{`7`, "/source: want a string, got a number"},
			{`"a b"`, `/source: "a b" is not a URI reference (RFC 3986)`},
			{`"%zz"`, `/source: "%zz" is not a URI reference (RFC 3986)`},
			{`"%4"`, `/source: "%4" is not a URI reference (RFC 3986)`},
			{`"ü"`, `/source: "ü" is not a URI reference (RFC 3986)`},
			{`"a\\b"`, `/source: "a\\b" is not a URI reference (RFC 3986)`},
			{`"<a>"`, `/source: "<a>" is not a URI reference (RFC 3986)`},
			{`":a"`, `/source: ":a" is not a URI reference (RFC 3986)`},
			{`"1a:b"`, `/source: "1a:b" is not a URI reference (RFC 3986)`},
			{`"a_b:c"`, `/source: "a_b:c" is not a URI reference (RFC 3986)`},
			{`"a#b#c"`, `/source: "a#b#c" is not a URI reference (RFC 3986)`},
			{`"a[b"`, `/source: "a[b" is not a URI reference (RFC 3986)`},
			{`"/a[1]"`, `/source: "/a[1]" is not a URI reference (RFC 3986)`},
			{`"?a[1]"`, `/source: "?a[1]" is not a URI reference (RFC 3986)`},
			{`"http://host:x/"`, `/source: "http://host:x/" is not a URI reference (RFC 3986)`},
			{`"http://a:b:1/"`, `/source: "http://a:b:1/" is not a URI reference (RFC 3986)`},
			{`"http://a@b@c/"`, `/source: "http://a@b@c/" is not a URI reference (RFC 3986)`},
			{`"http://::1/"`, `/source: "http://::1/" is not a URI reference (RFC 3986)`},
			{`"http://[::1/"`, `/source: "http://[::1/" is not a URI reference (RFC 3986)`},
			{`"http://[::1]x/"`, `/source: "http://[::1]x/" is not a URI reference (RFC 3986)`},
			{`"http://[1.2.3.4]/"`, `/source: "http://[1.2.3.4]/" is not a URI reference (RFC 3986)`},
			{`"http://[fe80::1%25en0]/"`, `/source: "http://[fe80::1%25en0]/" is not a URI reference (RFC 3986)`},
			{`"http://[v.a]/"`, `/source: "http://[v.a]/" is not a URI reference (RFC 3986)`},
			{`"http://[vg.a]/"`, `/source: "http://[vg.a]/" is not a URI reference (RFC 3986)`},
			{`"http://[v1.]/"`, `/source: "http://[v1.]/" is not a URI reference (RFC 3986)`},
		},
		"specversion": {
			{`"1.0"`, ""},
			{`"\u0031.0"`, ""},
			{``, "/specversion: required attribute is missing"},
			{`null`, "/specversion: required attribute is missing"},
			{`""`, "/specversion: must not be empty"},
			{`"1.0.2"`, `/specversion: want "1.0", got "1.0.2"`},
			{`"0.3"`, `/specversion: want "1.0", got "0.3"`},
			{`" 1.0"`, `/specversion: want "1.0", got " 1.0"`},
			{`1.0`, "/specversion: want a string, got a number"},
		},
		"type": {
			{`"t"`, ""},
			{`"com.example.price.v1"`, ""},
			{``, "/type: required attribute is missing"},
			{`null`, "/type: required attribute is missing"},
			{`""`, "/type: must not be empty"},
			{`false`, "/type: want a string, got a boolean"},
		},
		"datacontenttype": {
			{``, ""},
			{`null`, ""},
			{`"application/json"`, ""},
			{`"application/vnd.example+json; charset=utf-8"`, ""},
			{`"text/plain;charset=\"utf-8\""`, ""},
			{`"TEXT/HTML"`, ""},
			{`""`, "/datacontenttype: must not be empty"},
			{`{}`, "/datacontenttype: want a string, got an object"},
			{`"json"`, `/datacontenttype: "json" is not a media type (RFC 2046)`},
			{`"a/"`, `/datacontenttype: "a/" is not a media type (RFC 2046)`},
			{`"/b"`, `/datacontenttype: "/b" is not a media type (RFC 2046)`},
			{`"a/b/c"`, `/datacontenttype: "a/b/c" is not a media type (RFC 2046)`},
			{`"a b/c"`, `/datacontenttype: "a b/c" is not a media type (RFC 2046)`},
			{`"a/b; charset"`, `/datacontenttype: "a/b; charset" is not a media type (RFC 2046)`},
			{`"a/b; x=1; x=2"`, `/datacontenttype: "a/b; x=1; x=2" is not a media type (RFC 2046)`},
		},
		"dataschema": {
			{``, ""},
			{`null`, ""},
			{`"https://example.com/price.json"`, ""},
			{`"https://example.com/price.json#/$defs/price"`, ""},
			{`"urn:example:price"`, ""},
			{`""`, "/dataschema: must not be empty"},
			{`1`, "/dataschema: want a string, got a number"},
			{`"/price.json"`, `/dataschema: "/price.json" is not an absolute URI (RFC 3986)`},
			{`"//example.com/price.json"`, `/dataschema: "//example.com/price.json" is not an absolute URI (RFC 3986)`},
			{`"https://exa mple.com"`, `/dataschema: "https://exa mple.com" is not an absolute URI (RFC 3986)`},
		},
		"subject": {
			{``, ""},
			{`null`, ""},
			{`"BTC-USD"`, ""},
			{`""`, "/subject: must not be empty"},
			{`[]`, "/subject: want a string, got an array"},
			{`"a\tb"`, "/subject: control character U+0009 is not allowed"},
		},
		"time": {
			{``, ""},
			{`null`, ""},
			{`"2024-02-29T12:30:00Z"`, ""},
			{`"2024-02-29t12:30:00z"`, ""},
			{`"2024-02-29T12:30:00.123456789Z"`, ""},
			{`"2024-02-29T12:30:00.1234567890123Z"`, ""},
			{`"2024-02-29T12:30:00+05:30"`, ""},
			{`"2024-02-29T12:30:00-23:59"`, ""},
			{`"2024-02-29T12:30:00-00:00"`, ""},
			{`"0000-01-01T00:00:00Z"`, ""},
			{`"9999-12-31T23:59:59Z"`, ""},
			{`"2016-12-31T23:59:60Z"`, ""},
			{`"2016-12-31T23:59:60.5Z"`, ""},
			{`"2017-01-01T05:29:60+05:30"`, ""},
			{`""`, "/time: must not be empty"},
			{`1709209800`, "/time: want a string, got a number"},
			{`"2024-02-29"`, `/time: "2024-02-29" is not a timestamp (RFC 3339)`},
			{`"2024-02-29 12:30:00Z"`, `/time: "2024-02-29 12:30:00Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:00"`, `/time: "2024-02-29T12:30:00" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30Z"`, `/time: "2024-02-29T12:30Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T1:30:00Z"`, `/time: "2024-02-29T1:30:00Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:00,5Z"`, `/time: "2024-02-29T12:30:00,5Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:00.Z"`, `/time: "2024-02-29T12:30:00.Z" is not a timestamp (RFC 3339)`},
			{`"2023-02-29T12:30:00Z"`, `/time: "2023-02-29T12:30:00Z" is not a timestamp (RFC 3339)`},
			{`"2024-13-01T12:30:00Z"`, `/time: "2024-13-01T12:30:00Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T24:00:00Z"`, `/time: "2024-02-29T24:00:00Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:60:00Z"`, `/time: "2024-02-29T12:60:00Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:61Z"`, `/time: "2024-02-29T12:30:61Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:00+24:00"`, `/time: "2024-02-29T12:30:00+24:00" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:00+05:60"`, `/time: "2024-02-29T12:30:00+05:60" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:00+0530"`, `/time: "2024-02-29T12:30:00+0530" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:60Z"`, `/time: "2024-02-29T12:30:60Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-28T23:59:60Z"`, `/time: "2024-02-28T23:59:60Z" is not a timestamp (RFC 3339)`},
			{`"2016-12-31T23:59:60+01:00"`, `/time: "2016-12-31T23:59:60+01:00" is not a timestamp (RFC 3339)`},
			{`"9999-12-31T23:59:60Z"`, `/time: "9999-12-31T23:59:60Z" is not a timestamp (RFC 3339)`},
			{`"2024-02-29T12:30:00Z\u0000"`, "/time: control character U+0000 is not allowed"},
		},
		"ext": {
			{`null`, ""},
			{`"text"`, ""},
			{`""`, ""},
			{`true`, ""},
			{`false`, ""},
			{`0`, ""},
			{`-0`, ""},
			{`2147483647`, ""},
			{`-2147483648`, ""},
			{`2147483648`, "/ext: 2147483648 is not an integer of 32 bits"},
			{`-2147483649`, "/ext: -2147483649 is not an integer of 32 bits"},
			{`1.0`, "/ext: 1.0 is not an integer of 32 bits"},
			{`1e0`, "/ext: 1e0 is not an integer of 32 bits"},
			{`1E2`, "/ext: 1E2 is not an integer of 32 bits"},
			{`{}`, "/ext: an extension is a string, a boolean or an integer, not an object"},
			{`[1]`, "/ext: an extension is a string, a boolean or an integer, not an array"},
			{`"a\rb"`, "/ext: control character U+000D is not allowed"},
		},
		"data_base64": {
			{`null`, ""},
			{`""`, ""},
			{`"AAEC/w=="`, ""},
			{`"AAEC_w=="`, "/data_base64: want a base64 string (RFC 4648, with padding)"},
			{`"AAEC/w"`, "/data_base64: want a base64 string (RFC 4648, with padding)"},
			{`"AAEC\n/w=="`, "/data_base64: want a base64 string (RFC 4648, with padding)"},
			{`"AAEC/w==\r\n"`, "/data_base64: want a base64 string (RFC 4648, with padding)"},
			{`"AAEC/x=="`, "/data_base64: want a base64 string (RFC 4648, with padding)"},
			{`1`, "/data_base64: want a base64 string (RFC 4648, with padding)"},
			{`{}`, "/data_base64: want a base64 string (RFC 4648, with padding)"},
		},
	} {
		for _, v := range values {
			want := v.complaint
			if want != "" {
				want = "envelope: " + want
			}
			_, err := filterd.DecodeEvent([]byte(eventWith(name, v.value)))
			same(t, name+" "+v.value, complaint(t, err), want)
		}
	}
}

func TestAttributeNames(t *testing.T) {
	for name, want := range map[string]string{
		"a":                     "",
		"0":                     "",
		"com0example":           "",
		strings.Repeat("a", 99): "",
		"":                      "/: an attribute's name is not empty",
		"Ext":                   "/Ext: an attribute's name consists of a-z and 0-9",
		"ID":                    "/ID: an attribute's name consists of a-z and 0-9",
		"my_ext":                "/my_ext: an attribute's name consists of a-z and 0-9",
		"my-ext":                "/my-ext: an attribute's name consists of a-z and 0-9",
		"é":                     "/é: an attribute's name consists of a-z and 0-9",
		"a/b~c":                 "/a~1b~0c: an attribute's name consists of a-z and 0-9",
	} {
		if want != "" {
			want = "envelope: " + want
		}
		_, err := filterd.DecodeEvent([]byte(eventWith(name, `"x"`)))
		same(t, name, complaint(t, err), want)
	}
}

func TestExtensionValues(t *testing.T) {
	e := decoded(t, eventWith("s", `"\u0061\/"`, "t", `true`, "f", `false`, "n", `-7`, "none", `null`))
	same(t, "extensions", e.Extensions, map[string]any{"s": "a/", "t": true, "f": false, "n": int32(-7)})
	if e = decoded(t, minimal); e.Extensions != nil {
		t.Errorf("extensions of an event without any: %v", e.Extensions)
	}
}

// TestEveryFailure checks that an event's failures are all reported, in the
// order of the payload, what is missing last.
func TestEveryFailure(t *testing.T) {
	_, err := filterd.DecodeEvent([]byte(`{"time":"now","Ext":1,"source":"a b","big":1.5,"id":"","data":1,"data_base64":"AA=="}`))
	same(t, "complaint", complaint(t, err), `envelope: /time: "now" is not a timestamp (RFC 3339); `+
		`/Ext: an attribute's name consists of a-z and 0-9; `+
		`/source: "a b" is not a URI reference (RFC 3986); `+
		`/big: 1.5 is not an integer of 32 bits; `+
		`/id: must not be empty; `+
		`/specversion: required attribute is missing; `+
		`/type: required attribute is missing; `+
		`/data_base64: an event has data or data_base64, not both`)
}
