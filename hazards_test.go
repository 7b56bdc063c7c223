package filterd_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
)

// TestNumbers has the numbers on which decoders differ. They are what
// encoding/json makes of them; the bytes of an event's data are kept.
func TestNumbers(t *testing.T) {
	for number, want := range map[string]float64{
		"9007199254740993":  9007199254740992, // 2^53+1 rounds
		"-9007199254740993": -9007199254740992,
		"1e-400":            0,
		"100.50":            100.5,
		"1e308":             1e308,
	} {
		data, err := (&filterd.Message{Payload: []byte(number)}).Data()
		same(t, "error", text(err), "")
		same(t, number, data, any(want))
		same(t, "bytes", string(decoded(t, eventWith("data", number)).Data), number)
	}
	data, _ := (&filterd.Message{Payload: []byte("-0")}).Data()
	if zero, ok := data.(float64); !ok || zero != 0 || !math.Signbit(zero) {
		t.Errorf("-0 is %v", data)
	}
}

// TestNoFloat64 checks that a number which is no float64 condemns the whole
// message, wherever it stands.
func TestNoFloat64(t *testing.T) {
	for _, payload := range []string{
		"1e400", `[1,{"a":-1e400}]`, eventWith("data", "1e400"), eventWith("data", `{"a":[1e400]}`),
		eventWith("ext", "1e400"), `{"specversion":"1.0","data":1e400,"data":1}`, eventWith("data", "1", "data_base64", "1e400"),
	} {
		for _, err := range []error{check(t, filterd.EnvelopeAuto, payload), check(t, filterd.EnvelopeRaw, payload)} {
			if got := complaint(t, err); !strings.HasPrefix(got, "malformed: not a float64: number ") {
				t.Errorf("%s: %s", payload, got)
			}
		}
	}
	same(t, "bytes", text(check(t, filterd.EnvelopeBytes, "1e400")), "")
}

// check holds a payload against a contract with an envelope and nothing else.
func check(t testing.TB, envelope filterd.Envelope, payload string) error {
	t.Helper()
	r := registry(t, filterd.Contract{Channel: "c", Envelope: envelope})
	return r.Check(&filterd.Message{Channel: "c", Payload: []byte(payload)})
}

// TestDepth checks encoding/json's limit of 10,000 levels.
func TestDepth(t *testing.T) {
	const malformed = "malformed: not JSON: invalid character '[' exceeded max depth at byte "
	same(t, "10,000", complaint(t, check(t, filterd.EnvelopeRaw, string(nested(10_000)))), "")
	same(t, "10,001", complaint(t, check(t, filterd.EnvelopeRaw, string(nested(10_001)))), malformed+"10001")
	same(t, "9,999 in an event", complaint(t, check(t, filterd.EnvelopeAuto, eventWith("data", string(nested(9_999))))), "")
	same(t, "10,000 in an event", complaint(t, check(t, filterd.EnvelopeAuto, eventWith("data", string(nested(10_000))))), malformed+"10062")
	same(t, "1,000,000", complaint(t, check(t, filterd.EnvelopeRaw, strings.Repeat("[", 1_000_000))), malformed+"10001")
}

// hostile has large payloads that are made to be slow. Those with many members
// or deep nesting have the largest size that contracts allow by default; where
// only length counts, a quarter of that shows it as well.
func hostile() map[string]string {
	const size = 1 << 18
	fill := func(format string) string {
		size := 1 << 20
		var b strings.Builder
		for i := 0; b.Len() < size-200; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	head := strings.TrimSuffix(minimal, "}")
	return map[string]string{
		"100,000 members":         head + fill(`,"x%06d":1`) + "}",
		"100,000 refused members": head + fill(`,"X%06d":1`) + "}",
		"100,000 duplicates":      head + fill(`,"dup":%d`) + "}",
		"100,000 parameters":      eventWith("datacontenttype", `"a/b`+fill(`;p%06d=v`)+`"`),
		"100,000 nulls":           head + fill(`,"X%d":null`) + "}",
		"escaped names":           head + fill(`,"\u0061%06d":1`) + "}",
		"members of data":         eventWith("data", `{"a":0`+fill(`,"x%06d":1`)+"}"),
		"deep data":               eventWith("data", "["+strings.Repeat(string(nested(9_000))+",", 58)+"1]"),
		"backslashes":             eventWith("data", `"`+strings.Repeat(`\\`, size/2-100)+`"`),
		"escaped quotes":          eventWith("id", `"`+strings.Repeat(`\"`, size/2-100)+`"`),
		"a long number":           eventWith("data", "0."+strings.Repeat("0", size-100)+"1"),
		"a long source":           eventWith("source", `"/`+strings.Repeat("a%20", size/4-100)+`"`),
		"a source of slashes":     eventWith("source", `"`+strings.Repeat("/", size-100)+`"`),
		"a source of colons":      eventWith("source", `"//`+strings.Repeat(":", size-100)+`"`),
		"a long fraction":         eventWith("time", `"2024-02-29T12:00:00.`+strings.Repeat("1", size-200)+`Z"`),
		"long base64":             eventWith("data_base64", `"`+strings.Repeat("AAAA", size/4-100)+`"`),
		"spaces":                  eventWith("data", strings.Repeat(" ", size-100)+"1"),
	}
}

// TestHostilePayloads checks that no payload takes much longer than
// encoding/json takes for it. The factor is far from both what is measured (at
// most eight) and what a quadratic step would bring (thousands).
func TestHostilePayloads(t *testing.T) {
	for what, payload := range hostile() {
		if len(payload) > 1<<20 {
			t.Errorf("%s: %d bytes", what, len(payload))
		}
		checkFactor(t, what, 30, []byte(payload), func(payload []byte) { _, _ = filterd.DecodeEvent(payload) })
	}
}

// TestHostilePayloadsAgainstSchema is the same for a schema that says no to
// all of it.
func TestHostilePayloadsAgainstSchema(t *testing.T) {
	s := schema(t, `{"type":"array","items":{"type":"object","properties":{"a":{"type":"number"}},"required":["b"],"additionalProperties":false}}`)
	r := registry(t, filterd.Contract{Channel: "c", Envelope: filterd.EnvelopeRaw, Schema: s})
	payload := []byte("[" + strings.Repeat(`{"a":"x","c":1},`, 60_000) + `{}]`)
	checkFactor(t, "failures", 100, payload, func(payload []byte) {
		_ = r.Check(&filterd.Message{Channel: "c", Payload: payload})
	})
}

// checkFactor checks that a function takes at most some times as long for a
// payload as encoding/json. A busy machine gets two more tries.
func checkFactor(t *testing.T, what string, limit float64, payload []byte, run func(payload []byte)) {
	t.Helper()
	var factor float64
	for range 3 {
		var document any
		start := time.Now()
		_ = json.Unmarshal(payload, &document)
		oracle := max(time.Since(start), time.Millisecond)
		start = time.Now()
		run(payload)
		if factor = float64(time.Since(start)) / float64(oracle); factor <= limit {
			return
		}
	}
	t.Errorf("%s: %.0f times as long as encoding/json", what, factor)
}
