package filterd_test

import (
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID      = "00f067aa0ba902b7"
	traceparent = "00-" + traceID + "-" + spanID + "-01"
)

// What is not exactly a traceparent is none.
func TestParseTraceparent(t *testing.T) {
	for text, want := range map[string]string{
		traceparent:                                   traceparent,
		"00-" + traceID + "-" + spanID + "-00":        "00-" + traceID + "-" + spanID + "-00",
		"00-" + traceID + "-" + spanID + "-03":        "00-" + traceID + "-" + spanID + "-03",
		"01-" + traceID + "-" + spanID + "-ff":        traceparent, // who comes next reads what all versions have
		"01-" + traceID + "-" + spanID + "-01-future": traceparent,
		"":                                                      "",
		"00-" + traceID + "-" + spanID + "-1":                   "",
		"00-" + traceID + "-" + spanID + "-01-":                 "",
		"00-" + traceID + "-" + spanID + "-01 ":                 "",
		"01-" + traceID + "-" + spanID + "-01future":            "",
		"ff-" + traceID + "-" + spanID + "-01":                  "",
		"00-" + strings.ToUpper(traceID) + "-" + spanID + "-01": "",
		"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01":  "",
		"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01": "",
		"00-" + strings.Repeat("g", 32) + "-" + spanID + "-01":  "",
		"00_" + traceID + "_" + spanID + "_01":                  "",
		" " + traceparent[:54]:                                  "",
		"00-" + traceID[:31] + "K-" + spanID + "-01":            "", // the Kelvin sign's lower case is k
		"00-" + traceID + "-" + spanID[:14] + "\u00e9" + "-01":  "",
		strings.Repeat("00-"+traceID+"-"+spanID+"-01,", 1<<10):  "",
	} {
		got, ok := filterd.ParseTraceparent(text)
		switch {
		case want == "" && (ok || got != filterd.TraceContext{}):
			t.Errorf("%q is %+v", text, got)
		case want != "" && (!ok || got.Traceparent() != want):
			t.Errorf("%q is %s, %v; want %s", text, got.Traceparent(), ok, want)
		}
	}
}

// A message is in the trace that its event says.
func TestMessageTraceContext(t *testing.T) {
	event := func(attributes string) string {
		return `{"specversion":"1.0","id":"1","source":"s","type":"t",` + attributes + `"data":{"traceparent":"` + traceparent + `"}}`
	}
	for _, test := range []struct{ name, payload, want, state string }{
		{"one", event(`"traceparent":"` + traceparent + `",`), traceparent, ""},
		{"with a state", event(`"tracestate":"a=1,b=\u0032","traceparent":"` + traceparent + `",`), traceparent, "a=1,b=2"},
		{"with escapes", event(`"trac\u0065parent":"\u0030` + traceparent[1:] + `",`), traceparent, ""},
		{"the last one counts", event(`"traceparent":"x","traceparent":"` + traceparent + `",`), traceparent, ""},
		{"a state with a line break", event(`"tracestate":"a=1\u00a0b","traceparent":"` + traceparent + `",`), traceparent, ""},
		{"a state that is too long", event(`"tracestate":"` + strings.Repeat("a=1,", 200) + `","traceparent":"` + traceparent + `",`), traceparent, ""},
		{"in the data only", event(``), "", ""},
		{"null", event(`"traceparent":null,`), "", ""},
		{"a number", event(`"traceparent":1,`), "", ""},
		{"garbage", event(`"traceparent":"garbage",`), "", ""},
		{"no event", `{"traceparent":"` + traceparent + `"}`, "", ""},
		{"a faulty event", `{"specversion":"1.0","id":"","traceparent":"` + traceparent + `"}`, "", ""},
		{"no JSON", `{"traceparent":"` + traceparent + `"`, "", ""},
		{"nothing", ``, "", ""},
	} {
		m := &filterd.Message{Channel: "in", Payload: []byte(test.payload)}
		got, ok := m.TraceContext()
		if ok != (test.want != "") || ok && got.Traceparent() != test.want || got.State != test.state {
			t.Errorf("%s: %s, %q, %v", test.name, got.Traceparent(), got.State, ok)
		}
	}
	m := &filterd.Message{Channel: "in", Payload: []byte(event(`"n":1,`))}
	plain := &filterd.Message{Channel: "in", Payload: []byte(`{"n":1}`)}
	if n := testing.AllocsPerRun(100, func() { m.TraceContext(); plain.TraceContext() }); n != 0 {
		t.Errorf("%v allocations for messages without a trace", n)
	}
}

// FuzzTraceparent holds what is read of a traceparent against what is written.
func FuzzTraceparent(f *testing.F) {
	f.Add(traceparent)
	f.Add("cc-" + traceID + "-" + spanID + "-01-what-the-future-will-be-like")
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := filterd.ParseTraceparent(text)
		if !ok {
			return
		}
		if again, ok := filterd.ParseTraceparent(got.Traceparent()); !ok || again != got {
			t.Errorf("%q is %+v, and that is %+v, %v", text, got, again, ok)
		}
		if !strings.HasPrefix(text[2:], got.Traceparent()[2:53]) {
			t.Errorf("%q is %s", text, got.Traceparent())
		}
	})
}
