package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// gapSource is a source that has one gap and ends.
type gapSource filterd.Gap

func (gapSource) Subscribe(filterd.Subscriptions) {}

func (s gapSource) Run(_ context.Context, h filterd.Handler) error {
	h.Gap(filterd.Gap(s))
	return nil
}

// Rules that ask for it get the gaps of what they take messages from, past
// their condition and their set, at all targets that are not computed.
func TestOnGap(t *testing.T) {
	from := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.FixedZone("", 3600))
	gap := filterd.Gap{Channels: []string{"a", "b.*", "c"}, From: from, To: from.Add(1500 * time.Millisecond), Reason: "the server closed the connection"}
	const asEvent = `{"channels":[%s],"from":"2026-01-02T02:04:05.006Z","to":"2026-01-02T02:04:06.506Z","length":1.5,"reason":"the server closed the connection"}`
	var called []string
	callback := func(_ context.Context, m *filterd.Message) error {
		called = append(called, m.Channel+" "+dataOf(t, m.Payload))
		return nil
	}
	info := slog.LevelInfo
	rules := []engine.Rule{
		{Name: "both", From: []string{"b.*", "x", "a"}, OnGap: true, When: when("false"), Set: []engine.Member{{Name: "m", Constant: []byte("1")}},
			To: []engine.Target{{Channel: "gaps"}, {Computed: value(t, `data.to`)}, {Callback: "f"}, {Log: &info}}, Allow: []string{"out.*"}},
		{Name: "silent", From: []string{"a"}, To: to("other")},
		{Name: "elsewhere", From: []string{"y", "b.1"}, OnGap: true, To: to("gaps")},
		{Name: "broken", From: []string{"c"}, OnGap: true, To: to("closed"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"},
	}
	sink, logged := &recorder{broken: map[string]error{"closed": errors.New("NOPERM")}}, &strings.Builder{}
	e := newEngine(t, engine.Config{
		Table:  compile(t, engine.Definition{Rules: rules, Callbacks: map[string]engine.Callback{"f": callback}}),
		Sink:   sink,
		Logger: slog.New(slog.NewTextHandler(logged, nil)),
	})
	if err := e.Run(t.Context(), gapSource(gap)); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	sent := sink.take()
	if len(sent) != 2 || !strings.HasPrefix(sent[0], "gaps ") || !strings.HasPrefix(sent[1], "dead ") || !strings.Contains(sent[1], engine.GapType) {
		t.Fatalf("sent %q", sent)
	}
	event, err := filterd.DecodeEvent([]byte(strings.TrimPrefix(sent[0], "gaps ")))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(asEvent, `"b.*","a"`)
	if event.Type != engine.GapType || event.Source != "filterd" || string(event.Data) != want || !event.Time.Equal(gap.To) {
		t.Errorf("event: %+v, data %s", event, event.Data)
	}
	if diff := cmp.Diff([]string{"b.* " + want}, called); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(logged.String(), engine.GapType) {
		t.Errorf("log:\n%s", logged)
	}
	stats := e.Stats()
	if stats.Gaps != 1 || stats.GapTime != 1500*time.Millisecond {
		t.Errorf("%d gaps of %v", stats.Gaps, stats.GapTime)
	}
	wantRules := map[string]engine.RuleStats{
		"both": {Gaps: 1, Delivered: 3}, "silent": {}, "elsewhere": {}, "broken": {Gaps: 1, Undelivered: 1, Errors: 1},
	}
	if diff := cmp.Diff(wantRules, stats.Rules); diff != "" {
		t.Error(diff)
	}
}

// dataOf returns the data of an event.
func dataOf(t testing.TB, payload []byte) string {
	t.Helper()
	var event struct{ Data json.RawMessage }
	if err := json.Unmarshal(payload, &event); err != nil {
		t.Fatal(err)
	}
	return string(event.Data)
}

func TestOnGapFaults(t *testing.T) {
	contracts := registry(t,
		filterd.Contract{Channel: "prices", Schema: schema(t, `{"required": ["price"]}`)},
		filterd.Contract{Channel: "events", Envelope: filterd.EnvelopeCloudEvents, Schema: schema(t, `{"required": ["reason"]}`)},
		filterd.Contract{Channel: "tiny", MaxSize: 10},
	)
	targets := []engine.Target{{Channel: "undeclared"}, {Channel: "prices"}, {Channel: "events"}, {Channel: "tiny"}}
	_, err := engine.Compile(engine.Definition{Registry: contracts, Rules: []engine.Rule{
		{Name: "refused", From: []string{"a"}, OnGap: true, To: targets},
		{Name: "computed", From: []string{"a"}, OnGap: true, To: []engine.Target{{Computed: value(t, "data.to")}}, Allow: []string{"b"}},
		{Name: "without", From: []string{"a"}, To: targets},
	}})
	want := strings.Join([]string{
		`rule "refused": to: the contract of prices refuses the events of on_gap: missing property 'price' (a rule of its own, with when: false, can send them elsewhere)`,
		`rule "refused": to: the contract of tiny refuses the events of on_gap: 266 bytes are over the limit of 10 (a rule of its own, with when: false, can send them elsewhere)`,
		`rule "computed": on_gap: the events of gaps go to no ${…} target: add a channel, a callback or the log to the rule's targets`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
