package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// stamped is a message as a publisher stamps it.
func stamped(channel, producer string, sequence int) *filterd.Message {
	return &filterd.Message{Channel: channel, Received: time.Unix(int64(sequence), 0), Payload: fmt.Appendf(nil,
		`{"producer":%q,"sequence":"%020d","specversion":"1.0","id":"1","source":"s","type":"t","data":{}}`, producer, sequence)}
}

func heartbeat(text string) *filterd.Message {
	return &filterd.Message{Channel: filterd.StampsChannel, Received: time.Unix(100, 0), Payload: []byte(text)}
}

// What stamps show to be missing is counted by channel, logged, remembered, and
// told to the rules that ask for gaps.
func TestStamps(t *testing.T) {
	contracts := registry(t, filterd.Contract{Channel: "p.*", Stamped: true}, filterd.Contract{Channel: "q"})
	rules := []engine.Rule{
		{Name: "all", From: []string{"p.*", "q", "p.1"}, To: to("all")},
		{Name: "gaps", From: []string{"p.1"}, OnGap: true, When: when("false"), To: to("gaps")},
	}
	sink, logged, source := &recorder{}, &strings.Builder{}, newSource()
	e := newEngine(t, engine.Config{
		Table: compile(t, engine.Definition{Registry: contracts, Rules: rules}), Sink: sink, Logger: slog.New(slog.NewTextHandler(logged, nil)),
	})
	copies := func(m *filterd.Message) []*filterd.Message { // through both subscriptions
		c := m.Clone()
		c.Pattern = "p.*"
		return []*filterd.Message{m, c}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, source) }() // ends with ctx
	source.batches <- copies(stamped("p.1", "a", 3))
	if want := "[__filterd:stamps p.1 q] [p.*]"; source.subscriptions() != want {
		t.Errorf("subscribed to %s", source.subscriptions())
	}
	source.batches <- copies(stamped("p.1", "a", 4))
	source.batches <- copies(stamped("p.1", "a", 7)) // 2 lost
	source.batches <- copies(stamped("p.1", "b", 9)) // another producer's first
	source.batches <- copies(stamped("p.1", "a", 6)) // late: 1 lost
	other := stamped("p.2", "a", 1)
	other.Pattern = "p.*"
	source.batches <- []*filterd.Message{other, stamped("q", "a", 1), stamped("q", "a", 9), message("p.1", "{}")}
	source.batches <- []*filterd.Message{
		heartbeat(`{"producer":"a","sequences":{"p.1":7,"p.2":5,"q":99,"elsewhere":7}}`), // 4 of p.2
		heartbeat(`{"producer":"stranger","sequences":{"p.1":7}}`),
		heartbeat(`{`),
	}
	source.batches <- nil // the others are done
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	stats := e.Stats()
	lost := map[string]uint64{}
	for name, channel := range stats.Channels {
		lost[name] = channel.Lost
	}
	if diff := cmp.Diff(map[string]uint64{"p.*": 5, "q": 0}, lost); diff != "" {
		t.Error(diff)
	}
	if stats.Gaps != 0 || stats.Unrouted != 0 || stats.Rules["gaps"].Gaps != 1 {
		t.Errorf("gaps %d, unrouted %d, rules %+v", stats.Gaps, stats.Unrouted, stats.Rules)
	}
	wantGaps := []filterd.Gap{
		{Channels: []string{"p.1"}, From: time.Unix(4, 0), To: time.Unix(7, 0), Reason: "messages of a producer are missing", Producer: "a", Lost: 2},
		{Channels: []string{"p.2"}, From: time.Unix(1, 0), To: time.Unix(100, 0), Reason: "messages of a producer are missing", Producer: "a", Lost: 4},
	}
	if diff := cmp.Diff(wantGaps, e.Gaps()); diff != "" {
		t.Error(diff)
	}
	var told []string
	for _, sent := range sink.take() {
		if payload, ok := strings.CutPrefix(sent, "gaps "); ok {
			told = append(told, dataOf(t, []byte(payload)))
		}
	}
	if diff := cmp.Diff([]string{`{"channels":["p.1"],"from":"1970-01-01T00:00:04Z","to":"1970-01-01T00:00:07Z","length":3,"reason":"messages of a producer are missing","lost":2,"producer":"a"}`}, told); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{
		`level=WARN msg="messages lost" lost=2 channel=p.1 producer=a since=`,
		`level=WARN msg="invalid heartbeat" channel=__filterd:stamps error="heartbeat: unexpected end of JSON input"`,
	} {
		if strings.Count(logged.String(), line) != 1 {
			t.Errorf("log without one %q:\n%s", line, logged)
		}
	}
}

// Who doesn't listen to a channel for a while loses nothing by that.
func TestStampsAreForgotten(t *testing.T) {
	contracts := registry(t, filterd.Contract{Channel: "p", Stamped: true})
	compiled := func(from string) *engine.Table {
		return compile(t, engine.Definition{Registry: contracts, Rules: []engine.Rule{{Name: "r", From: []string{from}, To: to("x")}}})
	}
	e := newEngine(t, engine.Config{Table: compiled("p"), Sink: &recorder{}})
	process := func(sequence int) {
		t.Helper()
		if err := e.Process(t.Context(), stamped("p", "a", sequence)); err != nil {
			t.Fatal(err)
		}
	}
	lost := func() uint64 { return e.Stats().Channels["p"].Lost }
	process(1)
	process(3)
	for _, from := range []string{"p*", "[op]", "p"} { // it is listened to all along
		if err := e.Reload(t.Context(), compiled(from)); err != nil {
			t.Fatal(err)
		}
	}
	process(5)
	if got := lost(); got != 2 {
		t.Errorf("lost %d, want 2", got)
	}
	for _, from := range []string{"other", "p"} {
		if err := e.Reload(t.Context(), compiled(from)); err != nil {
			t.Fatal(err)
		}
	}
	process(9)
	if got := lost(); got != 2 {
		t.Errorf("after a while without it: lost %d, want 2", got)
	}
	source := newSource()
	close(source.batches)
	_ = e.Run(t.Context(), source) // nobody listens after that
	process(12)
	if got := lost(); got != 2 {
		t.Errorf("after a run: lost %d, want 2", got)
	}
}

// A table that is at work yet when others take over begins no series that they
// don't go on with: it has heard what came before nobody listened.
func TestStampsOfAnEarlierTable(t *testing.T) {
	contracts := registry(t, filterd.Contract{Channel: "p", Stamped: true})
	for _, test := range []struct {
		name  string
		froms []string // of the tables that take over
		lost  uint64
	}{
		{"goes on", []string{"p*"}, 3},
		{"is left", []string{"other"}, 0},
		{"is left and listened to again", []string{"other", "p"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			entered, gate := make(chan bool, 10), make(chan struct{})
			slow := filterd.FilterFunc(func(*filterd.Message) (bool, error) { entered <- true; <-gate; return true, nil })
			compiled := func(from string) *engine.Table {
				return compile(t, engine.Definition{Registry: contracts, Rules: []engine.Rule{{Name: "r", From: []string{from}, When: slow, To: to("x")}}})
			}
			e := newEngine(t, engine.Config{Table: compiled("p"), Sink: &recorder{}})
			process := func(sequence int) {
				if err := e.Process(t.Context(), stamped("p", "a", sequence)); err != nil {
					t.Error(err)
				}
			}
			first := make(chan struct{})
			go func() { // ends with the gate
				defer close(first)
				process(1)
			}()
			<-entered
			over, cancel := context.WithCancel(t.Context())
			cancel() // nobody waits for the first table
			for _, from := range test.froms {
				if err := e.Reload(over, compiled(from)); err != nil {
					t.Fatal(err)
				}
			}
			close(gate)
			<-first
			if err := e.Reload(t.Context(), compiled("p")); err != nil {
				t.Fatal(err)
			}
			process(5)
			if got := e.Stats().Channels["p"].Lost; got != test.lost {
				t.Errorf("lost %d, want %d", got, test.lost)
			}
		})
	}
}

func TestStampedTargets(t *testing.T) {
	contracts := registry(t, filterd.Contract{Channel: "out*", Stamped: true})
	const why = ` is stamped: messages keep the stamps that they came with, and what the rule drops would count as lost there`
	_, err := engine.Compile(engine.Definition{Registry: contracts, Rules: []engine.Rule{{Name: "r", From: []string{"in"}, To: to("out1")}}})
	if want := `rule "r": to: channel out1` + why; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	computed := compile(t, engine.Definition{Registry: contracts, Rules: []engine.Rule{
		{Name: "r", From: []string{"in"}, To: []engine.Target{{Computed: value(t, `"out" + data`)}}, Allow: []string{"out*"}},
	}})
	result, err := computed.NewProcessor().Process(message("in", `"2"`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(result), "r failed: to: channel out2"+why; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
