package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// entry returns an entry of a stream, which lets settle know what becomes of
// it.
func entry(stream, group, id, payload string, settle func(*filterd.Entry)) *filterd.Message {
	m := &filterd.Message{Channel: stream, ID: id, Payload: []byte(payload), Entry: &filterd.Entry{}}
	m.Entry.Init(stream, group, id, settle)
	return m
}

// A stream and a channel of the same name have nothing to do with each other,
// and neither have the groups of a stream.
func TestStreamsAreNotChannels(t *testing.T) {
	a := filterd.Stream{Name: "a"}
	b := filterd.Stream{Name: "a", Group: "second"}
	source := newSource()
	e := newEngine(t, engine.Config{Sink: &recorder{}, Table: table(t,
		engine.Rule{Name: "channel", From: []string{"a", "?"}, To: to("xx")},
		engine.Rule{Name: "first", Streams: []filterd.Stream{a}, To: to("y")},
		engine.Rule{Name: "second", Streams: []filterd.Stream{b}, To: []engine.Target{{Stream: "a.out", MaxLen: 7}}},
		engine.Rule{Name: "all", From: []string{"a"}, Streams: []filterd.Stream{a, b}, To: to("z")},
	)})
	stop := run(e, source)
	source.batches <- []*filterd.Message{message("a", "1")}
	source.batches <- []*filterd.Message{entry("a", filterd.DefaultGroup, "1-1", "2", nil)}
	source.batches <- []*filterd.Message{entry("a", "second", "1-1", "3", nil)}
	source.batches <- []*filterd.Message{entry("a", "third", "1-1", "4", nil)}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"channel": 1, "first": 1, "second": 1, "all": 3}
	for rule, s := range e.Stats().Rules {
		if s.Delivered != want[rule] {
			t.Errorf("%s: %d delivered, want %d", rule, s.Delivered, want[rule])
		}
	}
	if s := e.Stats(); s.Channels["a"].Received != 2 || s.Unrouted != 0 { // the second group's copy is the same entry; the third's stays pending
		t.Errorf("%+v", s)
	}
	// The only copy there is stands for all groups.
	table := table(t,
		engine.Rule{Name: "first", Streams: []filterd.Stream{a}, To: to("y")},
		engine.Rule{Name: "second", Streams: []filterd.Stream{b}, To: to("z")},
		engine.Rule{Name: "channel", From: []string{"a"}, To: to("x")})
	result, err := table.NewProcessor().Process(&filterd.Message{Channel: "a", ID: "1-1", Payload: []byte("1")})
	if got := describe(result); err != nil || got != "first → y 1\nsecond → z 1" {
		t.Errorf("got %s, %v", got, err)
	}
	if got := fmt.Sprintf("%+v", table.Subscriptions()); got != "{Channels:[a] Globs:[] Sharded:[] Streams:[{Name:a Group:filterd Field:event ClaimIdle:15s MaxDeliveries:5} {Name:a Group:second Field:event ClaimIdle:15s MaxDeliveries:5}]}" {
		t.Error(got)
	}
}

// What becomes of an entry is what its targets make of it.
func TestEntries(t *testing.T) {
	stream := []filterd.Stream{{Name: "in"}}
	fault := &filterd.ValidationError{Channel: "in", Reason: filterd.ReasonEntry, Failures: []filterd.Failure{{Detail: "no field event"}}}
	down := errors.New("down")
	number := filterd.Contract{Channel: "in", Schema: schema(t, `{"type":"number"}`), DeadLetter: "dead", DeadLetterStream: true}
	for _, test := range []struct {
		name     string
		rule     engine.Rule
		contract filterd.Contract
		fault    *filterd.ValidationError
		broken   string // what the sink can't reach
		refused  string // what refuses the message
		outcome  filterd.EntryOutcome
		sent     string // "channel payload", and ! where that is guarded
		stats    engine.RuleStats
		lost     uint64 // dead letters
	}{
		{name: "not kept", rule: engine.Rule{When: when(`data > 1`), To: to("out")}},
		{name: "published", rule: engine.Rule{To: to("out")}, sent: "out 1", stats: engine.RuleStats{Matched: 1, Delivered: 1}},
		{name: "appended", rule: engine.Rule{To: []engine.Target{{Stream: "out"}, {Stream: "too"}}}, sent: "out 1! too 1!",
			outcome: filterd.EntryAcknowledged, stats: engine.RuleStats{Matched: 1, Delivered: 2}},
		{name: "appended and published", rule: engine.Rule{To: []engine.Target{{Stream: "out"}, {Channel: "too"}}}, sent: "out 1 too 1",
			stats: engine.RuleStats{Matched: 1, Delivered: 2}},
		{name: "not published", rule: engine.Rule{To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}, broken: "out",
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "not appended", rule: engine.Rule{To: []engine.Target{{Stream: "out"}}}, broken: "out",
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "refused", rule: engine.Rule{To: to("out")}, refused: "out", stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "refused by one of two", rule: engine.Rule{To: []engine.Target{{Stream: "out"}, {Stream: "too"}}, OnError: engine.OnErrorPass}, refused: "out",
			sent: "too 1!", stats: engine.RuleStats{Matched: 1, Delivered: 1, Errors: 1, Undelivered: 1}},
		{name: "refused by one, and the other is away", rule: engine.Rule{To: []engine.Target{{Channel: "out"}, {Channel: "too"}}}, refused: "out", broken: "too",
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Matched: 1, Errors: 2, Undelivered: 2}},
		{name: "refused with a dead letter", rule: engine.Rule{To: []engine.Target{{Stream: "out"}, {Channel: "too"}}, OnError: engine.OnErrorDeadLetter, DeadLetter: "dead", DeadLetterStream: true}, refused: "out",
			sent: "too 1 dead letter r in/1-1/r", stats: engine.RuleStats{Matched: 1, Delivered: 1, Errors: 1, Undelivered: 1}},
		{name: "refused, and its dead letter can't be written", rule: engine.Rule{To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}, refused: "out", broken: "dead",
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "refused, and so is its dead letter", rule: engine.Rule{To: to("dead"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}, refused: "dead",
			stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}, lost: 1},
		{name: "refused, and halts", rule: engine.Rule{To: to("out"), OnError: engine.OnErrorHalt}, refused: "out",
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "taken by another", rule: engine.Rule{To: []engine.Target{{Stream: "taken"}}},
			outcome: filterd.EntryAcknowledged, stats: engine.RuleStats{Matched: 1}},
		{name: "called", rule: engine.Rule{To: call("fine")}, stats: engine.RuleStats{Matched: 1, Delivered: 1}},
		{name: "called and appended", rule: engine.Rule{To: []engine.Target{{Callback: "slow"}, {Stream: "out"}}}, sent: "out 1",
			stats: engine.RuleStats{Matched: 1, Delivered: 2}},
		{name: "called in vain", rule: engine.Rule{To: call("broken")}, outcome: filterd.EntryFailed,
			stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "called in vain, with a dead letter", rule: engine.Rule{To: call("broken"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}, sent: "dead letter r in/1-1/r",
			stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "called in vain, and so is its dead letter", rule: engine.Rule{To: call("broken"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}, broken: "dead",
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}},
		{name: "the rule fails", rule: engine.Rule{When: when(`data.a.b > 1`), To: to("out")}, stats: engine.RuleStats{Errors: 1}},
		{name: "the rule fails and passes it", rule: engine.Rule{When: when(`data.a.b > 1`), OnError: engine.OnErrorPass, To: []engine.Target{{Stream: "out"}}},
			sent: "out 1!", outcome: filterd.EntryAcknowledged, stats: engine.RuleStats{Errors: 1, Delivered: 1}},
		{name: "the rule fails with a dead letter", rule: engine.Rule{When: when(`data.a.b > 1`), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead", DeadLetterStream: true, To: to("out")},
			sent: "dead letter r in/1-1/r!", outcome: filterd.EntryAcknowledged, stats: engine.RuleStats{Errors: 1}},
		{name: "its dead letter can't be written", rule: engine.Rule{When: when(`data.a.b > 1`), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead", To: to("out")}, broken: "dead",
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Errors: 1}},
		{name: "its dead letter is refused", rule: engine.Rule{When: when(`data.a.b > 1`), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead", DeadLetterStream: true, To: to("out")}, refused: "dead",
			stats: engine.RuleStats{Errors: 1}, lost: 1},
		{name: "called in vain, and its dead letter is refused", rule: engine.Rule{To: call("broken"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}, refused: "dead",
			stats: engine.RuleStats{Matched: 1, Errors: 1, Undelivered: 1}, lost: 1},
		{name: "the rule halts", rule: engine.Rule{When: when(`data.a.b > 1`), OnError: engine.OnErrorHalt, To: to("out")},
			outcome: filterd.EntryPostponed, stats: engine.RuleStats{Errors: 1}},
		{name: "invalid", contract: filterd.Contract{Channel: "in", Envelope: filterd.EnvelopeCloudEvents}, rule: engine.Rule{To: to("out")}},
		{name: "no message", fault: fault, contract: number, rule: engine.Rule{OnError: engine.OnErrorDeadLetter, DeadLetter: "other", To: to("out")},
			sent: "dead letter  in/1-1/!", outcome: filterd.EntryAcknowledged},
		{name: "no message, no contract", fault: fault, rule: engine.Rule{OnError: engine.OnErrorDeadLetter, DeadLetter: "other", To: to("out")},
			sent: "dead letter r in/1-1/r"},
		{name: "no message, no dead letter", fault: fault, rule: engine.Rule{To: to("out")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sent []string
			sink := filterd.SinkFunc(func(_ context.Context, batch []filterd.Delivery) {
				whole := !slices.ContainsFunc(batch, func(d filterd.Delivery) bool { return d.Channel == test.refused })
				for i := range batch {
					d := &batch[i]
					switch d.Channel {
					case test.broken:
						d.Err = down
						continue
					case test.refused:
						d.Err = fmt.Errorf("%s: %w", d.Channel, filterd.ErrRefused)
						continue
					case "taken":
						d.Err = filterd.ErrTaken
					default:
						text := d.Channel + " " + string(d.Payload)
						var letter struct {
							ID   string
							Data engine.DeadLetter
						}
						if json.Unmarshal(d.Payload, &letter) == nil && letter.ID != "" {
							text = fmt.Sprintf("dead letter %s %s", letter.Data.Rule, letter.ID)
						}
						if d.Entry != nil {
							text += "!"
						}
						sent = append(sent, text)
					}
					if d.Receivers = 1; d.Entry != nil && whole {
						d.Entry.Acknowledge()
					}
				}
			})
			release := make(chan struct{})
			callbacks := map[string]engine.Callback{
				"fine":   func(context.Context, *filterd.Message) error { return nil },
				"broken": func(context.Context, *filterd.Message) error { return down },
				"slow":   func(context.Context, *filterd.Message) error { <-release; return nil },
			}
			rule := test.rule
			rule.Name, rule.Streams = "r", stream
			d := engine.Definition{Rules: []engine.Rule{rule}, Callbacks: callbacks}
			if test.contract.Channel != "" {
				d.Registry = registry(t, test.contract)
			}
			e := newEngine(t, engine.Config{Sink: sink, Table: compile(t, d)})
			settled := make(chan filterd.EntryOutcome, 2)
			m := entry("in", filterd.DefaultGroup, "1-1", "1", func(e *filterd.Entry) { settled <- e.Outcome() })
			m.Entry.Fault = test.fault
			_ = e.Process(t.Context(), m) // an invalid message's error
			m.Entry.Release()
			if len(settled) > 0 && rule.To[0].Callback == "slow" {
				t.Error("it was let go of while a callback had it")
			}
			close(release)
			if got := <-settled; got != test.outcome {
				t.Errorf("outcome %d, want %d", got, test.outcome)
			}
			if got := strings.Join(sent, " "); got != test.sent {
				t.Errorf("sent %q, want %q", got, test.sent)
			}
			eventually(t, "the queue is empty", func() bool { return e.Stats().Rules["r"].Queued == 0 }) // which it is after the release
			if got := e.Stats().Rules["r"]; !reflect.DeepEqual(got, test.stats) {
				t.Errorf("got  %+v\nwant %+v", got, test.stats)
			}
			if got := e.Stats().DeadLettersLost; got != test.lost {
				t.Errorf("%d dead letters lost, want %d", got, test.lost)
			}
		})
	}
}

// Dead letters say how many of them their stream keeps: those of contracts, of
// rules, and of targets.
func TestDeadLettersAreBounded(t *testing.T) {
	var sent []string
	sink := filterd.SinkFunc(func(_ context.Context, batch []filterd.Delivery) {
		for i := range batch {
			if d := &batch[i]; d.Channel == "out" {
				d.Err = errors.New("down")
			} else {
				sent = append(sent, fmt.Sprintln(d.Channel, d.Stream, d.MaxLen))
			}
		}
	})
	contract := filterd.Contract{Channel: "in", Envelope: filterd.EnvelopeRaw, DeadLetter: "bad", DeadLetterStream: true, DeadLetterMaxLen: 5}
	e := newEngine(t, engine.Config{Sink: sink, Table: compile(t, engine.Definition{Registry: registry(t, contract), Rules: []engine.Rule{
		{Name: "r", From: []string{"in"}, When: when("data > 1"), To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead", DeadLetterStream: true, DeadLetterMaxLen: 7},
	}})})
	for _, payload := range []string{"x", `"1"`, "2"} {
		_ = e.Process(t.Context(), message("in", payload)) // an invalid message's error
	}
	if got := strings.Join(sent, ""); got != "bad true 5\ndead true 7\ndead true 7\n" {
		t.Errorf("sent %s", got)
	}
}

// A full queue makes a stream wait, and nothing of it gives way; what gives way
// to a channel's messages is delivered again.
func TestEntriesWaitForRoom(t *testing.T) {
	gate := make(chan struct{})
	callbacks := map[string]engine.Callback{"gate": func(context.Context, *filterd.Message) error { <-gate; return nil }}
	d := engine.Definition{Callbacks: callbacks, Rules: []engine.Rule{{Name: "r", From: []string{"c"}, Streams: []filterd.Stream{{Name: "in"}}, To: call("gate")}}}
	e := newEngine(t, engine.Config{Table: compile(t, d), QueueMessages: 1})
	outcomes := make(chan string, 10)
	process := func(ctx context.Context, id string) {
		m := entry("in", filterd.DefaultGroup, id, "1", func(e *filterd.Entry) { outcomes <- fmt.Sprint(e.ID, " ", e.Outcome()) })
		if err := e.Process(ctx, m); err != nil {
			t.Error(err)
		}
		m.Entry.Release()
	}
	process(t.Context(), "1-1")
	eventually(t, "the callback has the first", func() bool { return e.Stats().Rules["r"].Queued == 1 })
	process(t.Context(), "1-2") // fills the queue
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	process(ctx, "1-3")
	if got := <-outcomes; got != "1-3 1" {
		t.Errorf("got %s, want it postponed", got)
	}
	if err := e.Process(t.Context(), message("c", "1")); err != nil {
		t.Fatal(err)
	}
	if got := <-outcomes; got != "1-2 1" {
		t.Errorf("got %s, want it postponed", got)
	}
	close(gate)
	if got := <-outcomes; got != "1-1 0" {
		t.Errorf("got %s, want it done", got)
	}
	if s := e.Stats().Rules["r"]; s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

// conflate keeps the newest message of each key, in the place of the oldest.
func TestConflate(t *testing.T) {
	gate, got := make(chan struct{}), make(chan string, 10)
	d := engine.Definition{
		Callbacks: map[string]engine.Callback{"gate": func(_ context.Context, m *filterd.Message) error {
			<-gate
			got <- string(m.Payload)
			return nil
		}},
		Rules: []engine.Rule{{Name: "r", From: []string{"c"}, Key: value(t, "data.k"), Overflow: engine.OverflowConflate, To: call("gate")}},
	}
	e := newEngine(t, engine.Config{Table: compile(t, d)})
	process := func(payload string) {
		t.Helper()
		if err := e.Process(t.Context(), message("c", payload)); err != nil {
			t.Fatal(err)
		}
	}
	process(`{"k":0}`)
	eventually(t, "the callback has the first", func() bool { return e.Stats().Rules["r"].Queued == 1 })
	for _, payload := range []string{`{"k":1,"n":1}`, `{"k":2,"n":2}`, `{"k":1,"n":3}`, `{"k":"1","n":4}`, `{"k":2,"n":5}`, `{"n":6}`} {
		process(payload)
	}
	close(gate)
	want := []string{`{"k":0}`, `{"k":1,"n":3}`, `{"k":2,"n":5}`, `{"k":"1","n":4}`, `{"n":6}`}
	for _, want := range want {
		if got := <-got; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if s := e.Stats().Rules["r"]; s.Conflated != 2 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

// An entry that no rule takes any more, after a reload, stays pending.
func TestUnroutedEntry(t *testing.T) {
	e := newEngine(t, engine.Config{Sink: &recorder{}, Table: table(t, engine.Rule{Name: "r", Streams: []filterd.Stream{{Name: "other"}}, To: to("out")})})
	outcome := filterd.EntryOutcome(-1)
	m := entry("in", filterd.DefaultGroup, "1-1", "1", func(e *filterd.Entry) { outcome = e.Outcome() })
	_ = e.Process(t.Context(), m)
	m.Entry.Release()
	if outcome != filterd.EntryPostponed {
		t.Errorf("outcome %d", outcome)
	}
}
