package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A scripted stage does what the data's member "do" says.
type scripted struct {
	closed  atomic.Int64
	running atomic.Int64
	most    atomic.Int64 // runners at work at the same time
	largest atomic.Int64 // batch
	before  func(m *filterd.Message)
}

func (s *scripted) Paths() []filterd.Path { return []filterd.Path{"data.do", "event.type"} }
func (s *scripted) Close() error          { s.closed.Add(1); return nil }

func (s *scripted) Bind(slots []int) filterd.StageRunner { return &scriptedRunner{s, slots} }

type scriptedRunner struct {
	*scripted
	slots []int
}

func (r *scriptedRunner) Run(_ context.Context, batch []*filterd.Message, results []filterd.StageResult) {
	r.most.Store(max(r.most.Load(), r.running.Add(1)))
	defer r.running.Add(-1)
	r.largest.Store(max(r.largest.Load(), int64(len(batch))))
	for i, m := range batch {
		if r.before != nil {
			r.before(m)
		}
		switch do := string(m.Lookup(r.slots[0]).AppendBytes(nil)); do {
		case "keep":
			results[i].Keep = true
		case "type":
			results[i] = filterd.StageResult{Keep: true, Payload: fmt.Appendf(nil, "%q", m.Lookup(r.slots[1]).AppendBytes(nil))}
		case "drop":
		case "emit":
			results[i].Emitted = []filterd.Delivery{{Channel: "side", Payload: []byte(`1`)}, {Channel: "side", Payload: []byte(`2`)}}
		case "fail":
			results[i] = filterd.StageResult{Keep: true, Payload: []byte(`0`), Emitted: []filterd.Delivery{{Channel: "side"}}, Err: errors.New("module m: out of fuel")}
		default:
			results[i] = filterd.StageResult{Keep: true, Payload: []byte(do)}
		}
	}
}

// A stage comes after when and before set; dry runs and the engine agree.
func TestStage(t *testing.T) {
	event := func(data string) string {
		return `{"specversion":"1.0","id":"1","source":"s","type":"t","data":` + data + `}`
	}
	for _, test := range []struct{ payload, want string }{
		{`{"do":"keep"}`, `r → out {"do":"keep","n":1}`},
		{`{"do":"drop"}`, ``},
		{`{"do":"emit"}`, "r → side 1\nr → side 2"},
		{`{"do":"fail"}`, "r → dead dead letter\nr failed: module m: out of fuel"},
		{`{"do":"{\"x\": 1 }"}`, `r → out {"x": 1,"n":1 }`},
		{`{"do":"[]"}`, "r → dead dead letter\nr failed: set: data is not an object: only an object has members to set"},
		{`{"do":"{"}`, "r → dead dead letter\nr failed: set: in: malformed: not JSON: unexpected end of JSON input at byte 1"},
		{`{"do":"keep","skip":true}`, ``},
		{event(`{"do":"keep"}`), `r → out ` + strings.Replace(event(`{"do":"keep","n":1}`), `}}`, `},"filterdhops":1}`, 1)},
		{event(`{"do":"type"}`), "r → dead dead letter\nr failed: set: data is not an object: only an object has members to set"},
	} {
		t.Run(test.payload, func(t *testing.T) {
			stage := &scripted{}
			rule := engine.Rule{
				Name: "r", From: []string{"in"}, When: when(`data.skip == nil`), Stage: stage,
				Set: []engine.Member{{Name: "n", Constant: []byte("1")}}, To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead",
			}
			result, err := table(t, rule).NewProcessor().Process(message("in", test.payload))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, describe(result)); diff != "" {
				t.Error(diff)
			}
			var dry []string
			for _, o := range result.Outputs {
				if !o.DeadLetter {
					dry = append(dry, o.Channel+" "+string(o.Payload))
				}
			}

			sink := &recorder{}
			e := newEngine(t, engine.Config{Table: table(t, rule), Sink: sink})
			if err := e.Process(t.Context(), message("in", test.payload)); err != nil {
				t.Fatal(err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			var live []string
			for _, sent := range sink.take() {
				if !strings.HasPrefix(sent, "dead ") {
					live = append(live, sent)
				}
			}
			if diff := cmp.Diff(dry, live); diff != "" {
				t.Errorf("the engine says something else: %s", diff)
			}
			errs := uint64(strings.Count(test.want, "failed"))
			matched := uint64(1 - strings.Count(test.payload, "skip"))
			if s := e.Stats(); s.Rules["r"].Errors != errs || s.Rules["r"].Matched != matched || s.DeadLetters != errs {
				t.Errorf("%+v", s)
			}
			eventually(t, "closed", func() bool { return stage.closed.Load() == 1 })
		})
	}
}

// Messages of one channel and key keep their order; those of others don't wait.
func TestStageOrder(t *testing.T) {
	const keys, each = 8, 500
	stage := &scripted{}
	sink := &recorder{}
	e := newEngine(t, engine.Config{
		Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, Stage: stage, Key: value(t, `data.key`), To: to("out")}),
		Sink:  sink, Workers: 4, QueueMessages: keys * each,
	})
	for i := range each {
		for key := range keys {
			if err := e.Process(t.Context(), message("in", fmt.Sprintf(`{"do":"keep","key":%d,"n":%d}`, key, i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	next := make([]int, keys)
	for _, sent := range sink.take() {
		var key, n int
		if _, err := fmt.Sscanf(sent, `out {"do":"keep","key":%d,"n":%d}`, &key, &n); err != nil || n != next[key] {
			t.Fatalf("%s, want %d: %v", sent, next[key], err)
		}
		next[key]++
	}
	for key, n := range next {
		if n != each {
			t.Errorf("key %d: %d of %d", key, n, each)
		}
	}
	if stage.largest.Load() > 64 {
		t.Errorf("a batch of %d", stage.largest.Load())
	}
}

// A stage that blocks stalls neither the reader nor another rule; what gives
// way is counted; and a retired table's stage is closed when its queue has
// drained, not before.
func TestStageBlocks(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	unblock := func() { once.Do(func() { close(release) }) }
	defer unblock()
	blocked := &scripted{before: func(*filterd.Message) { <-release }}
	sink := &recorder{}
	rules := func(stage filterd.Stage) *engine.Table {
		return table(t,
			engine.Rule{Name: "blocked", From: []string{"in"}, Stage: stage, To: to("slow")},
			engine.Rule{Name: "free", From: []string{"in"}, To: to("out")},
		)
	}
	e := newEngine(t, engine.Config{Table: rules(blocked), Sink: sink, Workers: 2, QueueMessages: 10})
	process := func(n int) {
		t.Helper()
		for range n {
			if err := e.Process(t.Context(), message("in", `{"do":"keep"}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	process(1)
	eventually(t, "blocked", func() bool { return blocked.running.Load() == 1 })
	process(99)
	if sent := len(sink.take()); sent != 100 {
		t.Errorf("%d of 100 messages got past the blocked stage", sent)
	}
	if s := e.Stats().Rules["blocked"]; s.Matched != 100 || s.Dropped != 89 || s.Queued != 11 {
		t.Errorf("%+v", s)
	}

	fresh := &scripted{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the blocked messages hold the old table
	if err := e.Reload(ctx, rules(fresh)); err != nil {
		t.Fatal(err)
	}
	if blocked.closed.Load() != 0 {
		t.Error("closed while messages wait for it")
	}
	unblock()
	eventually(t, "the old stage is closed", func() bool { return blocked.closed.Load() == 1 })
	process(1)
	if err := e.Reload(t.Context(), rules(fresh)); err != nil { // the same stage again
		t.Fatal(err)
	}
	if fresh.closed.Load() != 0 {
		t.Error("closed though the new table has it")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last stage is closed", func() bool { return fresh.closed.Load() == 1 })
	if s := e.Stats().Rules["blocked"]; s.Matched != s.Dropped+s.Delivered {
		t.Errorf("%+v", s)
	}
}
