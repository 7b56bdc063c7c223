package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

func tap(t *testing.T, e *engine.Engine, options engine.TapOptions) *engine.Tap {
	t.Helper()
	tap, err := e.Tap(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tap.Close)
	return tap
}

// seen returns what a tap shows next, in a line.
func seen(t *testing.T, tap *engine.Tap) string {
	t.Helper()
	select {
	case s := <-tap.Seen():
		line := fmt.Sprintf("%s %s %s", s.Outcome, s.Channel, s.Payload)
		if s.Err != nil {
			line += " (" + s.Err.Error() + ")"
		}
		for _, o := range s.Outputs {
			if o.DeadLetter {
				line += " → dead letter to " + o.Channel
				continue
			}
			line += fmt.Sprintf(" → %s%s%s %s", o.Channel, o.Callback, o.Log, o.Payload)
		}
		return line
	case <-time.After(30 * time.Second):
		t.Fatal("the tap shows nothing")
		return ""
	}
}

// A tap shows what a rule makes of every message, however that is decided.
func TestTap(t *testing.T) {
	strict := registry(t, filterd.Contract{Channel: "in", Schema: schema(t, `{"required": ["do"]}`)})
	tapped := engine.Rule{
		Name: "r", From: []string{"in"}, When: when(`data.n > 1`),
		Set: []engine.Member{{Name: "x", Constant: []byte("1")}}, To: append(to("out"), to("out2")...),
		OnError: engine.OnErrorDeadLetter, DeadLetter: "dead",
	}
	staged := tapped
	staged.Stage, staged.Set = &scripted{}, nil
	grouped := tapped // with others that fail on the same
	grouped.OnError, grouped.DeadLetter = "", ""
	other := engine.Rule{Name: "other", From: []string{"in"}, To: to("elsewhere")}
	for _, test := range []struct {
		name  string
		rules []engine.Rule
		want  map[string]string
	}{
		{"plain", []engine.Rule{other, tapped}, map[string]string{
			`{"do":"keep","n":2}`: `kept in {"do":"keep","n":2} → out {"do":"keep","n":2,"x":1} → out2 {"do":"keep","n":2,"x":1}`,
			`{"do":"keep","n":1}`: `not_kept in {"do":"keep","n":1}`,
			`{"do":"keep"}`:       `failed in {"do":"keep"} (when: 1:8: data.n is missing or null: > needs a value (write (data.n ?? 0), or ask data.n != nil first)) → dead letter to dead`,
			`{"n":2}`:             `invalid in {"n":2} (in: schema: missing property 'do')`,
		}},
		{"group", append(manyFailing(40)[:40], grouped, other), map[string]string{
			`{"do":"keep","n":1}`:  `not_kept in {"do":"keep","n":1}`,
			`{"do":"","n":"text"}`: `failed in {"do":"","n":"text"} (when: 1:8: data.n is a string and 1 a number: > takes two numbers or two strings (float(data.n) makes a number of it))`,
		}},
		{"stage", []engine.Rule{other, staged}, map[string]string{
			`{"do":"keep","n":2}`:  `kept in {"do":"keep","n":2} → out {"do":"keep","n":2} → out2 {"do":"keep","n":2}`,
			`{"do":"drop","n":2}`:  `filtered in {"do":"drop","n":2}`,
			`{"do":"[7]","n":2}`:   `kept in {"do":"[7]","n":2} → out [7] → out2 [7]`,
			`{"do":"emit","n":2}`:  `filtered in {"do":"emit","n":2} → side 1 → side 2`,
			`{"do":"fail","n":2}`:  `failed in {"do":"fail","n":2} (module m: out of fuel) → dead letter to dead`,
			`{"do":"keep","n":0}`:  `not_kept in {"do":"keep","n":0}`,
			`{"do":"keep","n":""}`: `failed in {"do":"keep","n":""} (when: 1:8: data.n is a string and 1 a number: > takes two numbers or two strings (float(data.n) makes a number of it)) → dead letter to dead`,
			`{`:                    `invalid in { (in: malformed: not JSON: unexpected end of JSON input at byte 1)`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newEngine(t, engine.Config{Table: compile(t, engine.Definition{Registry: strict, Rules: test.rules}), Sink: &recorder{}})
			tap := tap(t, e, engine.TapOptions{Rule: "r"})
			for payload, want := range test.want {
				_ = e.Process(t.Context(), message("in", payload))
				if diff := cmp.Diff(want, seen(t, tap)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", payload, diff)
				}
			}
			if tap.Skipped() > 0 {
				t.Errorf("%d messages were skipped", tap.Skipped())
			}
		})
	}
}

// A tap follows its rule through reloads, and shows what it was asked for.
func TestTapFollowsItsRule(t *testing.T) {
	rule := engine.Rule{Name: "r", From: []string{"in"}, When: when(`data > 1`), To: to("out")}
	other := engine.Rule{Name: "other", From: []string{"in"}, To: to("out")}
	e := newEngine(t, engine.Config{Table: table(t, rule), Sink: &recorder{}})
	all := tap(t, e, engine.TapOptions{Rule: "r"})
	matches := tap(t, e, engine.TapOptions{Rule: "r", Outcomes: []engine.TapOutcome{engine.TapKept, engine.TapFailed}})
	send := func(payload string) {
		t.Helper()
		if err := e.Process(t.Context(), message("in", payload)); err != nil {
			t.Fatal(err)
		}
	}
	reload := func(rules ...engine.Rule) {
		t.Helper()
		if err := e.Reload(t.Context(), table(t, rules...)); err != nil {
			t.Fatal(err)
		}
	}
	send("1")
	reload(other)
	send("2")
	reload(other, rule)
	send("3")
	send(`"4"`)
	for _, want := range []string{"not_kept in 1", "kept in 3 → out 3", `failed in "4"`} {
		if got := seen(t, all); !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, want := range []string{"kept in 3 → out 3", `failed in "4"`} {
		if got := seen(t, matches); !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	matches.Close()
	matches.Close()
	send("5")
	seen(t, all)
	if len(matches.Seen()) > 0 {
		t.Error("a closed tap shows something")
	}
	if _, err := e.Tap(engine.TapOptions{Rule: "none"}); !errors.Is(err, engine.ErrNoRule) {
		t.Errorf("a tap of no rule: %v", err)
	}
}

// Nobody waits for a tap, and it holds a bounded part of what it shows.
func TestTapIsBounded(t *testing.T) {
	e := newEngine(t, engine.Config{Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, To: to("out")}), Sink: &recorder{}})
	var taps []*engine.Tap
	for range engine.MaxTaps {
		taps = append(taps, tap(t, e, engine.TapOptions{Rule: "r", Rate: 1 << 30}))
	}
	if _, err := e.Tap(engine.TapOptions{Rule: "r"}); !errors.Is(err, engine.ErrTooManyTaps) {
		t.Errorf("one tap more: %v", err)
	}
	taps[1].Close()
	slow := tap(t, e, engine.TapOptions{Rule: "r", Rate: 2})

	payload := append(append([]byte(`"`), bytes.Repeat([]byte("x"), engine.MaxTapped)...), '"')
	begin := time.Now()
	const sent = 1000
	for range sent {
		if err := e.Process(t.Context(), &filterd.Message{Channel: "in", Payload: payload}); err != nil {
			t.Fatal(err)
		}
	}
	seconds := int(time.Since(begin)/time.Second) + 1
	if n := len(slow.Seen()); n < 2 || n > 2*seconds || slow.Skipped() != uint64(sent-n) {
		t.Errorf("%d messages shown and %d skipped in %d s", n, slow.Skipped(), seconds)
	}
	n := len(taps[0].Seen())
	if n == 0 || n+int(taps[0].Skipped()) != sent {
		t.Errorf("%d messages shown and %d skipped of %d", n, taps[0].Skipped(), sent)
	}
	first := <-taps[0].Seen()
	if len(first.Payload) != engine.MaxTapped || first.Bytes != len(payload) || first.Outputs[0].Bytes != len(payload) || &first.Outputs[0].Payload[0] != &first.Payload[0] {
		t.Errorf("%d of %d bytes are shown", len(first.Payload), first.Bytes)
	}
	payload[0] = '!'
	if first.Payload[0] != '"' {
		t.Error("the tap shares memory with the message")
	}
}
