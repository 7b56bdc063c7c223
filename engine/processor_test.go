package engine_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

const event = `{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"symbol":"BTC","price":100.50,"qty":2}}`

func TestProcessor(t *testing.T) {
	set := func(name, source string) engine.Member { return engine.Member{Name: name, Value: value(t, source)} }
	constant := func(name, text string) engine.Member { return engine.Member{Name: name, Constant: []byte(text)} }
	computed := func(source string) engine.Target { return engine.Target{Computed: value(t, source)} }
	level := slog.LevelWarn
	number := schema(t, `{"type":"object","required":["price"],"properties":{"price":{"type":"number"}}}`)

	for _, test := range []struct {
		name      string
		rules     []engine.Rule
		contracts []filterd.Contract
		channel   string
		payload   string
		want      string
	}{
		{
			name:    "a kept message passes byte for byte",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`data.price > 100`), To: to("out")}},
			payload: ` { "price" : 100.50 } `, want: `r → out  { "price" : 100.50 } `,
		},
		{
			name:    "a message that is not kept goes nowhere",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`data.price > 101`), To: to("out")}},
			payload: `{"price":100.50}`, want: ``,
		},
		{
			name: "rules act in their order, with and without a condition",
			rules: []engine.Rule{
				{Name: "a", From: []string{"in"}, When: when(`data.price > 1`), To: to("x")},
				{Name: "b", From: []string{"in"}, To: to("y")},
				{Name: "c", From: []string{"in"}, When: filterd.All, To: to("z")},
				{Name: "d", From: []string{"other"}, To: to("z")},
				{Name: "e", From: []string{"i?"}, When: when(`event == {} and channel == "in"`), To: to("x")},
			},
			payload: `{"price":2}`, want: "a → x {\"price\":2}\nb → y {\"price\":2}\nc → z {\"price\":2}\ne → x {\"price\":2}",
		},
		{
			name:    "event and data of an event",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`event.type == "t" and data.symbol == "BTC" and event.subject == nil`), To: to("out")}},
			payload: event, want: "r → out " + event,
		},
		{
			name:    "an error is neither kept nor not",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`data.a.b > 1`), To: to("out")}},
			payload: `{}`, want: `r failed: when: 1:8: data.a is missing or null: it has no member b (write data.a?.b)`,
		},
		{
			name:    "not negates no error",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`not (data.a > 1)`), To: to("out")}},
			payload: `{}`, want: `r failed: when: 1:13: data.a is missing or null: > needs a value (write (data.a ?? 0), or ask data.a != nil first)`,
		},
		{
			name:    "on_error pass",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`data.a > 1`), Set: []engine.Member{constant("x", "1")}, To: to("out"), OnError: engine.OnErrorPass}},
			payload: `{}`, want: "r → out {}\nr failed: when: 1:8: data.a is missing or null: > needs a value (write (data.a ?? 0), or ask data.a != nil first)",
		},
		{
			name:    "on_error pass that fails again",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`data.a > 1`), To: []engine.Target{{Channel: "out"}, computed(`data.c`)}, Allow: []string{"o*"}, OnError: engine.OnErrorPass}},
			payload: `{}`, want: "r failed: when: 1:8: data.a is missing or null: > needs a value (write (data.a ?? 0), or ask data.a != nil first); passing it on: to: the target is <nil>, not the name of a channel",
		},
		{
			name:    "on_error dead_letter",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`data.a > 1`), To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}},
			payload: `{}`, want: "r → dead dead letter\nr failed: when: 1:8: data.a is missing or null: > needs a value (write (data.a ?? 0), or ask data.a != nil first)",
		},
		{
			name:    "set adds and replaces, and leaves the rest",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, Set: []engine.Member{set("notional", `data.price * data.qty`), constant("qty", `3`), set("who.what", `"<&>"`)}, To: to("out")}},
			payload: `{"symbol" : "BTC", "price": 100.50 , "qty" :2 }`,
			want:    `r → out {"symbol" : "BTC", "price": 100.50 , "qty" :3,"notional":201,"who.what":"<&>" }`,
		},
		{
			name:    "set in an event counts the hop",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, Set: []engine.Member{set("n", `data.price * 2`)}, To: to("out")}},
			payload: event,
			want:    `r → out {"specversion":"1.0","id":"1","source":"s","type":"t","data":{"symbol":"BTC","price":100.50,"qty":2,"n":201},"filterdhops":1}`,
		},
		{
			name:    "set sees the payload as it came in, to as it goes out",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, Set: []engine.Member{set("a", `data.b`), set("b", `data.a`)}, To: []engine.Target{computed(`"out-" + data.a`)}, Allow: []string{"out-*"}}},
			payload: `{"a":"1","b":"2"}`, want: `r → out-2 {"a":"2","b":"1"}`,
		},
		{
			name:    "set where data is no object",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, Set: []engine.Member{constant("a", "1")}, To: to("out")}},
			payload: `[{"a":2}]`, want: "r failed: set: data is not an object: only an object has members to set",
		},
		{
			name:    "set where an event has no data",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, Set: []engine.Member{constant("a", "1")}, To: to("out")}},
			payload: `{"specversion":"1.0","id":"1","source":"s","type":"t"}`, want: "r failed: set: the event has no data member to set members of",
		},
		{
			name:    "a value that JSON can't express",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, Set: []engine.Member{set("a", `data.x / data.y`)}, To: to("out")}},
			payload: `{"x":0,"y":0}`, want: "r failed: set: a: the value is NaN, which JSON can't express",
		},
		{
			name:    "a target that is not allowed holds back the others",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, To: []engine.Target{{Channel: "out"}, computed(`data.c`)}, Allow: []string{"alerts.*"}}},
			payload: `{"c":"admin"}`, want: `r failed: to: the target "admin" is not in the rule's allow list`,
		},
		{
			name:    "callbacks and the log",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, To: []engine.Target{{Callback: "page"}, {Log: &level}}}},
			payload: `1`, want: "r → callback:page 1\nr → log:WARN 1",
		},
		{
			name:      "a message that breaks its contract reaches no rule",
			rules:     []engine.Rule{{Name: "r", From: []string{"in"}, To: to("out")}},
			contracts: []filterd.Contract{{Channel: "in", Schema: number}},
			payload:   `{"price":"x"}`, want: "invalid: in: schema: /price: got string, want number",
		},
		{
			name:      "and may have a dead letter",
			rules:     []engine.Rule{{Name: "r", From: []string{"in"}, To: to("out")}},
			contracts: []filterd.Contract{{Channel: "i*", DeadLetter: "bad"}},
			payload:   `{`, want: "invalid: in: malformed: not JSON: unexpected end of JSON input at byte 1\n → bad dead letter",
		},
		{
			name:      "a dead letter that breaks its channel's contract is lost",
			rules:     []engine.Rule{{Name: "r", From: []string{"in"}, To: to("out")}},
			contracts: []filterd.Contract{{Channel: "in", DeadLetter: "bad"}, {Channel: "bad", MaxSize: 10}},
			payload:   `{`, want: "invalid: in: malformed: not JSON: unexpected end of JSON input at byte 1\nlost: dead letter: bad: size: N bytes are over the limit of 10",
		},
		{
			name:      "what breaks the target's contract is the rule's error",
			rules:     []engine.Rule{{Name: "r", From: []string{"in"}, To: []engine.Target{{Channel: "free"}, {Channel: "out"}}}},
			contracts: []filterd.Contract{{Channel: "out", Schema: number}},
			payload:   `{}`, want: "r failed: to: out: schema: missing property 'price'",
		},
		{
			name:      "bytes are a string",
			rules:     []engine.Rule{{Name: "r", From: []string{"in"}, When: when(`data startsWith "x"`), To: to("out")}},
			contracts: []filterd.Contract{{Channel: "in", Envelope: filterd.EnvelopeBytes}},
			payload:   "x\x00\xff", want: "r → out x\x00\xff",
		},
		{
			name:    "a loop that is allowed counts hops without a set",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, To: to("in"), LoopAllowed: true}},
			payload: `{"specversion":"1.0","id":"1","source":"s","type":"t","filterdhops":7,"data":1}`,
			want:    `r → in {"specversion":"1.0","id":"1","source":"s","type":"t","filterdhops":8,"data":1}`,
		},
		{
			name:    "and ends",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, To: to("in"), LoopAllowed: true}},
			payload: `{"specversion":"1.0","id":"1","source":"s","type":"t","filterdhops":8}`,
			want:    `r failed: loop: the event has passed through filterd 8 times: the limit is 8`,
		},
		{
			name:    "and takes events only",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, To: to("in"), LoopAllowed: true}},
			payload: `{}`, want: `r failed: loop: a rule with loop: allowed takes events only`,
		},
		{
			name:    "a hop count that is none",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, To: to("in"), LoopAllowed: true}},
			payload: `{"specversion":"1.0","id":"1","source":"s","type":"t","filterdhops":"x"}`,
			want:    `r failed: loop: attribute filterdhops is x, not a count`,
		},
		{
			name:    "a channel without rules",
			rules:   []engine.Rule{{Name: "r", From: []string{"in"}, To: to("out")}},
			channel: "other", payload: `{}`, want: ``,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := compile(t, engine.Definition{
				Registry:  registry(t, test.contracts...),
				Rules:     test.rules,
				Callbacks: map[string]engine.Callback{"page": nop},
			})
			if test.channel == "" {
				test.channel = "in"
			}
			result, err := table.NewProcessor().Process(message(test.channel, test.payload))
			if err != nil {
				t.Fatal(err)
			}
			got := describe(result)
			if i := strings.Index(got, "bad: size: "); i >= 0 { // a dead letter's length varies
				got = got[:i] + "bad: size: N" + got[strings.Index(got, " bytes are"):]
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// One message can't make a rule do more than 32 things, and a message that
// many rules take is decoded once.
func TestProcessorManyRules(t *testing.T) {
	var rules []engine.Rule
	for i := range 1000 {
		rules = append(rules, engine.Rule{Name: fmt.Sprint("r", i), From: []string{"in"}, When: when(fmt.Sprintf("data.n == %d", i)), To: to("out")})
	}
	p := table(t, rules...).NewProcessor()
	for _, n := range []int{0, 7, 999} {
		result, err := p.Process(message("in", fmt.Sprintf(`{"n":%d}`, n)))
		if err != nil || len(result.Outcomes) != 1 || result.Outcomes[0].Rule != fmt.Sprint("r", n) {
			t.Errorf("%d: %v, %v", n, result.Outcomes, err)
		}
	}
}

func TestDeadLetter(t *testing.T) {
	received := time.Date(2026, 11, 23, 12, 0, 0, 5, time.UTC)
	process := func(contract filterd.Contract, payload []byte) engine.DeadLetter {
		t.Helper()
		contract.Channel, contract.DeadLetter = "in", "dead"
		rule := engine.Rule{Name: "r", From: []string{"in"}, When: when(`data.a > 1`), To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}
		table := compile(t, engine.Definition{Registry: registry(t, contract), Rules: []engine.Rule{rule}})
		result, err := table.NewProcessor().Process(&filterd.Message{Channel: "in", Payload: payload, Received: received})
		if err != nil || len(result.Outputs) != 1 {
			t.Fatal(err, result.Outputs)
		}
		e, err := filterd.DecodeEvent(result.Outputs[0].Payload)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != engine.DeadLetterType || !e.Time.Equal(received) || e.ID == "" {
			t.Errorf("event %+v", e)
		}
		var d engine.DeadLetter
		if err := json.Unmarshal(e.Data, &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	text := func(s string) *string { return &s }
	number := schema(t, `{"properties":{"a":{"type":"number"}}}`)
	umlauts := strings.Repeat("ü", 2000) // two bytes each: 1 KiB ends between them after one more byte
	for _, test := range []struct {
		name     string
		contract filterd.Contract
		payload  string
		want     engine.DeadLetter
	}{
		{"of a rule", filterd.Contract{}, `{"a":null}`, engine.DeadLetter{Rule: "r", Reason: "when: 1:8: data.a is missing or null: > needs a value (write (data.a ?? 0), or ask data.a != nil first)", Payload: text(`{"a":null}`)}},
		{"of a contract", filterd.Contract{Schema: number}, `{"a":"<"}`, engine.DeadLetter{Reason: "in: schema: /a: got string, want number", Pointer: "/a", Payload: text(`{"a":"<"}`)}},
		{"of bytes that are no text", filterd.Contract{}, "\xff", engine.DeadLetter{Reason: "in: malformed: not JSON: invalid character 'ÿ' looking for beginning of value at byte 1", PayloadBase64: []byte("\xff")}},
		{"of an oversized message", filterd.Contract{MaxSize: 1025}, "x" + umlauts, engine.DeadLetter{Reason: "in: size: 4001 bytes are over the limit of 1025", Payload: text(("x" + umlauts)[:1023]), Truncated: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.want.Channel, test.want.Time = "in", received
			if diff := cmp.Diff(test.want, process(test.contract, []byte(test.payload))); diff != "" {
				t.Error(diff)
			}
		})
	}
}
