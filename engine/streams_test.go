package engine_test

import (
	"fmt"
	"testing"

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
	if s := e.Stats(); s.Channels["a"].Received != 2 || s.Unrouted != 1 { // the second group's copy is the same entry
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
	if got := fmt.Sprintf("%+v", table.Subscriptions()); got != "{Channels:[a] Globs:[] Streams:[{Name:a Group:filterd Field:event ClaimIdle:15s MaxDeliveries:5} {Name:a Group:second Field:event ClaimIdle:15s MaxDeliveries:5}]}" {
		t.Error(got)
	}
}
