package exprfilter

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
)

// now() is when the message was received, however an expression is run.
func TestNow(t *testing.T) {
	received := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	message := func(payload string) *filterd.Message {
		return &filterd.Message{Channel: "a", Payload: []byte(payload), Received: received}
	}
	for _, test := range []struct{ source, payload, want string }{
		{`now() == date("2026-03-01T12:00:00Z")`, `{}`, "true"},
		{`now() - date(data.at) > duration("5m")`, `{"at": "2026-03-01T11:54:59Z"}`, "true"},
		{`now() - date(data.at) > duration("5m")`, `{"at": "2026-03-01T11:55:01Z"}`, "false"},
		{`data.a == 1 and now().Hour() in 8..17`, `{"a": 1}`, "true"},
		{`now(timezone("Asia/Tokyo")).Hour() == 21`, `{}`, "true"},
		{`any(data, # == now().Year())`, `[2025, 2026]`, "true"},
		{`(let at = now(); at.Year() == data.y and now() == at)`, `{"y": 2026}`, "true"},
		{`len($env) == 3`, `{}`, "true"}, // what has no now() doesn't see one
		{`now(data.a).Hour() == 1`, `{"a": 1}`, "1:1: reflect: Call using float64 as type *time.Location"},
	} {
		f, err := Compile(test.source)
		if err != nil {
			t.Errorf("%s: %v", test.source, err)
			continue
		}
		m := message(test.payload)
		kept, err := f.Matcher().Match(m)
		got := fmt.Sprint(kept)
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s on %s: got %s, want %s", test.source, test.payload, got, test.want)
		}
		e, err := f.Explain(m)
		if err != nil {
			t.Fatal(err)
		}
		if got = fmt.Sprint(e.Kept); e.Err != nil {
			got = e.Err.Error()
		}
		if got != test.want || e.Err == nil && e.Steps[0].Source == test.source && e.Steps[0].Value != test.want || strings.Contains(fmt.Sprint(e.Steps), "0x") {
			t.Errorf("%s on %s is explained as %s: %+v", test.source, test.payload, got, e.Steps)
		}
	}
	v, err := CompileValue(`string(now().Unix()) + data.a`)
	if err != nil {
		t.Fatal(err)
	}
	m := message(`{"a": "x"}`)
	projection := filterd.NewProjection(v.Paths())
	m.Bind(projection)
	if got, err := v.Bind(projection.Slots(v.Paths())).Evaluate(m); got != "1772366400x" || err != nil {
		t.Error(got, err)
	}
	// Where nobody says when it was received, it is received now.
	f := MustCompile(`now() - date(data) < duration("10s") and date(data) - now() < duration("10s")`)
	if kept, err := f.Matcher().Match(&filterd.Message{Payload: fmt.Appendf(nil, "%q", time.Now().Format(time.RFC3339Nano))}); !kept || err != nil {
		t.Error(kept, err)
	}
}
