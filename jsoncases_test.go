package filterd_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// jsonCases are documents in the classes that JSON test suites have: y is
// JSON, n is not, and i is up to the parser, where ours does as encoding/json
// does. The value says whether that is to accept.
func jsonCases() map[string]map[string]bool {
	cases := map[string]map[string]bool{"y": {}, "n": {}, "i": {}}
	add := func(class string, accepted bool, documents ...string) {
		for _, d := range documents {
			cases[class][d] = accepted
		}
	}

	// Numbers: every sign, integer, fraction and exponent, well formed or not.
	for _, sign := range []string{"", "-"} {
		for _, integer := range []string{"0", "1", "10", "12345678901234567890"} {
			for _, fraction := range []string{"", ".0", ".50", ".000000000000000000001"} {
				for _, exponent := range []string{"", "e0", "E5", "e+2", "e-2", "e02"} {
					add("y", true, sign+integer+fraction+exponent)
				}
			}
		}
	}
	for _, good := range []string{"0", "-1", "2.5"} {
		for _, tail := range []string{".", "e", "E+", "e-", ".e1", "e1.5", "x", "_0", "..1", "e1e1", " 1", "f", "n", "/**/", "\x00"} {
			if good == "2.5" && tail[0] == '.' && tail != "..1" {
				tail = "." + tail
			}
			add("n", false, good+tail)
		}
	}
	add("n", false, "+1", "--1", "-", "-x", "01", "-01", "00", ".5", "-.5", "0x1F", "0b1", "0o7", "1,000", "NaN", "nan", "-NaN",
		"Infinity", "-Infinity", "inf", "1e", "０", "1 000", "０1", "1e1é", "- 1", "1e 1", "1 .5", "1. 5")
	add("i", true, "9007199254740993", "1e-400", "-1e-400", "5e-324", "1.7976931348623157e308", "0e999999999", "1e-999999999",
		strings.Repeat("9", 308), "0."+strings.Repeat("0", 5000)+"1")
	add("i", false, "1e400", "-1e400", "1.8e308", "1e999999999", strings.Repeat("9", 310))

	// Strings.
	for _, escape := range []string{`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\u0000`, `\u00e9`, `\uABcd`, `\ud83d\ude00`, `\u007f`} {
		add("y", true, `"`+escape+`"`, `"a`+escape+`b"`, `{"`+escape+`":1}`)
	}
	add("y", true, `""`, `" "`, `"é€😀"`, "\"\x7f\"", "\"\u2028\u2029\"", "\"\ufeff\"", `"`+strings.Repeat("a", 10_000)+`"`, `"/**/"`, `"{\"a\":1}"`)
	for c := range rune(0x20) {
		add("n", false, fmt.Sprintf("\"%c\"", c), fmt.Sprintf("{\"%c\":1}", c))
	}
	for _, escape := range []string{`\`, `\a`, `\v`, `\0`, `\x41`, `\'`, `\e`, `\U0041`, `\u`, `\u1`, `\u12`, `\u123`, `\u12G4`, `\u 123`, `\ud83d\u`, "\\\n", `\é`, "\\\xff"} {
		add("n", false, `"`+escape+`"`)
	}
	add("n", false, `"`, `"a`, `'a'`, "`a`", `a"`, `"a"b"`, `"a" "b"`, `“a”`, `"\"`, `\u0041`, `a`)
	for _, lone := range []string{`\ud800`, `\udfff`, `\ud800\ud800`, `\udc00\ud800`, `\ud800a`, `a\udbff`, `\ud800\n`} {
		add("i", true, `"`+lone+`"`)
	}
	for _, invalid := range []string{"\xff", "\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "a\xc3b"} {
		add("i", true, `"`+invalid+`"`, `{"`+invalid+`":"`+invalid+`"}`)
	}

	// Structure.
	add("y", true, "null", "true", "false", "[]", "{}", "[[]]", "[null]", `[1,"a",null,true,{}]`, `{"a":{}}`, `{"":0}`, `{"a":[{"b":[]}]}`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, " \t\r\n[ \t\r\n1 \t\r\n, \t\r\n2 \t\r\n] \t\r\n", "{ \"a\" : 1 }", string(nested(1000)), string(nested(9_999)))
	for _, value := range []string{"1", `"a"`, "[]", "{}", "null"} {
		add("n", false, value+"]", value+"}", value+",", ","+value, value+" "+value, "["+value, "["+value+",", "["+value+",]", "[,"+value+"]",
			"["+value+",,"+value+"]", "["+value+":"+value+"]", "["+value+"}", "("+value+")", "//a\n"+value, "#a\n"+value, value+"\v", value+"\f",
			value+"\u00a0", value+"\u2028", "\ufeff"+value, value+"\x00", value+";", "["+value+"]]", "{"+value+"}", `{"a":`+value, `{"a":`+value+",}",
			`{"a":`+value+"]", `{"a" `+value+"}", `{"a"::`+value+"}", `{"a":`+value+` "b":`+value+"}", `{a:`+value+"}", `{'a':`+value+"}", `{1:`+value+"}",
			`{null:`+value+"}", `{:`+value+"}", `{"a":`+value+":"+value+"}", `{,"a":`+value+"}", `{"a":`+value+",,\"b\":1}", `{["a"]:`+value+"}")
	}
	add("n", false, "", " ", "\n", "\x00", "{", "}", "[", "]", ":", ",", "[}", "{]", "{:}", "{,}", "[,]", "nul", "nulll", "NULL", "Null", "tru", "True", "fals", "undefined",
		"None", `{"a"}`, `{"a":}`, `{"a":,"b":1}`, "[1 2]", `["a" "b"]`, "[...]", "<a/>", "[1,\n", strings.Repeat("[", 1000), strings.Repeat(`{"a":`, 1000), "[\\n]", "{}{}", "[]\n[]")
	add("i", false, string(nested(10_001)), strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000))

	// Encodings.
	for _, wide := range []func(string) string{
		func(s string) string { return "\x00" + strings.Join(strings.Split(s, ""), "\x00") },
		func(s string) string { return strings.Join(strings.Split(s, ""), "\x00") + "\x00" },
		func(s string) string { return "\x00\x00\x00" + strings.Join(strings.Split(s, ""), "\x00\x00\x00") },
	} {
		add("n", false, wide(`"a"`), wide(`{}`), wide(`[1]`), "\xfe\xff"+wide(`[]`), "\xff\xfe"+wide(`[]`))
	}
	return cases
}

// TestJSONCases checks that raw messages and events accept the documents that
// they should, and that encoding/json gives the same verdict and value.
func TestJSONCases(t *testing.T) {
	total := 0
	for class, documents := range jsonCases() {
		for document, accepted := range documents {
			total++
			what := fmt.Sprintf("%s %.80q", class, document)
			var want any
			if err := json.Unmarshal([]byte(document), &want); (err == nil) != accepted {
				t.Fatalf("%s: encoding/json says %v", what, err)
			}
			data, err := (&filterd.Message{Channel: "c", Payload: []byte(document)}).Data()
			if (err == nil) != accepted {
				t.Errorf("%s as a message: %v", what, err)
			} else if accepted {
				if !reflect.DeepEqual(data, want) { // cmp can't go that deep
					t.Errorf("%s: data is %.80v, want %.80v", what, data, want)
				}
			} else if got := complaint(t, err); !strings.HasPrefix(got, "malformed: ") {
				t.Errorf("%s as a message: %s", what, got)
			}

			payload := []byte(strings.TrimSuffix(minimal, "}") + `,"data":` + document + "}")
			event, err := filterd.DecodeEvent(payload)
			if valid := json.Unmarshal(payload, new(any)) == nil; valid != (err == nil) {
				t.Errorf("%s as data: %v", what, err)
			} else if valid != accepted {
				t.Errorf("%s as data: accepted %v", what, valid)
			}
			if accepted {
				same(t, what, string(event.Data), strings.Trim(document, " \t\r\n"))
			}
		}
	}
	if total < 500 {
		t.Errorf("only %d cases", total)
	}
}
