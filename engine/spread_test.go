package engine_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// TestSpread gives an engine a condition that is dear: several goroutines
// evaluate it for one batch, and everything goes out in the order in which it
// came: to channels, to callbacks, and through a stage.
func TestSpread(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("there is one core")
	}
	var running, most atomic.Int64
	dear := filterd.FilterFunc(func(m *filterd.Message) (bool, error) {
		for now := running.Add(1); now > most.Load(); {
			most.Store(now)
		}
		time.Sleep(200 * time.Microsecond)
		running.Add(-1)
		return len(m.Payload)%2 == 0, nil
	})
	var mu sync.Mutex // guards got
	got := make(map[string][]string)
	add := func(to, payload string) {
		mu.Lock()
		defer mu.Unlock()
		got[to] = append(got[to], payload)
	}
	sink := filterd.SinkFunc(func(_ context.Context, batch []filterd.Delivery) {
		for _, d := range batch {
			add(d.Channel, string(d.Payload))
		}
	})
	e := newEngine(t, engine.Config{Sink: sink, QueueMessages: 1 << 20, Table: compile(t, engine.Definition{
		Rules: []engine.Rule{
			{Name: "channel", From: []string{"in"}, When: dear, To: to("out")},
			{Name: "callback", From: []string{"in"}, When: dear, To: call("back")},
			{Name: "staged", From: []string{"in"}, When: dear, Stage: &scripted{}, To: to("staged")},
		},
		Callbacks: map[string]engine.Callback{"back": func(_ context.Context, m *filterd.Message) error { add("back", string(m.Payload)); return nil }},
	})})
	source := newSource()
	stop := run(e, source)
	var want []string
	for i, deadline := 0, time.Now().Add(time.Minute); i < 20*64 || most.Load() < 2; {
		if time.Now().After(deadline) {
			t.Fatal("the condition never ran on two goroutines")
		}
		var batch []*filterd.Message
		for range 64 {
			payload := fmt.Sprintf(`{"do":"keep","i":%d}`, i)
			batch = append(batch, &filterd.Message{Channel: "in", Payload: []byte(payload)})
			if len(payload)%2 == 0 {
				want = append(want, payload)
			}
			i++
		}
		source.batches <- batch
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"out", "back", "staged"} {
		if !slices.Equal(got[to], want) {
			t.Errorf("%s got %d messages, want %d, or in another order", to, len(got[to]), len(want))
		}
	}
	if stats := e.Stats(); stats.Channels["in"].Received%64 != 0 || stats.Rules["channel"].Matched != uint64(len(want)) {
		t.Errorf("%+v", stats)
	}
}
