package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A hook is a webhook that remembers what it is given.
type hook struct {
	concurrency int
	post        func(ctx context.Context, m *filterd.Message) error // nil: takes it

	mu     sync.Mutex
	posted []string
}

func (h *hook) Concurrency() int { return h.concurrency }

func (h *hook) Post(ctx context.Context, rule string, m *filterd.Message) error {
	if h.post != nil {
		if err := h.post(ctx, m); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.posted = append(h.posted, rule+" "+string(m.Payload))
	return nil
}

func (h *hook) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.posted)
}

func post(name string) []engine.Target { return []engine.Target{{Webhook: name}} }

// What a slow target does not take goes the way of what a channel does not take.
func TestSlowTargetFails(t *testing.T) {
	definition := engine.Definition{
		Callbacks: map[string]engine.Callback{
			"fails":  func(context.Context, *filterd.Message) error { return errors.New("no") },
			"panics": func(context.Context, *filterd.Message) error { panic("oh") },
		},
		Webhooks: map[string]engine.Webhook{"down": &hook{concurrency: 2, post: func(_ context.Context, m *filterd.Message) error {
			m.Payload[0] = 'x' // it owns the message
			return errors.New("503")
		}}},
	}
	for name, to := range map[string]engine.Target{"callback": {Callback: "fails"}, "panic": {Callback: "panics"}, "webhook": {Webhook: "down"}} {
		definition.Rules = append(definition.Rules, engine.Rule{
			Name: name, From: []string{"in"}, Set: []engine.Member{{Name: "b", Constant: []byte("2")}}, To: []engine.Target{to},
			OnError: engine.OnErrorDeadLetter, DeadLetter: "dead." + name,
		})
	}
	definition.Rules = append(definition.Rules,
		engine.Rule{Name: "drops", From: []string{"in"}, To: post("down")},
		engine.Rule{Name: "passes", From: []string{"in"}, To: post("down"), OnError: engine.OnErrorPass},
		engine.Rule{Name: "lost", From: []string{"in"}, To: post("down"), OnError: engine.OnErrorDeadLetter, DeadLetter: "broken"})
	sink := &recorder{broken: map[string]error{"broken": errors.New("OOM")}}
	e := newEngine(t, engine.Config{Table: compile(t, definition), Sink: sink})
	if err := e.Process(t.Context(), message("in", `{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have failed", func() bool {
		s := e.Stats()
		return s.DeadLetters == 3 && s.DeadLettersLost == 1 && s.Rules["drops"].Undelivered == 1 && s.Rules["passes"].Undelivered == 1
	})
	sent := sink.take()
	slices.Sort(sent)
	if len(sent) != 3 {
		t.Fatalf("%q", sent)
	}
	for i, want := range []string{`"rule":"callback","reason":"callback: no"`, `"rule":"panic","reason":"callback panics panicked: oh`, `"rule":"webhook","reason":"503"`} {
		if !strings.Contains(sent[i], want) || !strings.Contains(sent[i], `"payload":"{\"a\":1}"`) { // as it came in
			t.Errorf("%s\nwant %s", sent[i], want)
		}
	}
	for name, s := range e.Stats().Rules {
		if s.Errors != 1 || s.Undelivered != 1 || s.Delivered+s.Dropped != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestSlowTargetHalts(t *testing.T) {
	e := newEngine(t, engine.Config{Table: compile(t, engine.Definition{
		Webhooks: map[string]engine.Webhook{"down": &hook{concurrency: 1, post: func(context.Context, *filterd.Message) error { return errors.New("410") }}},
		Rules:    []engine.Rule{{Name: "r", From: []string{"in"}, To: post("down"), OnError: engine.OnErrorHalt}},
	})})
	source := newSource()
	stop := run(e, source)
	eventually(t, "subscribed", func() bool { return source.subscriptions() == "[in] []" })
	source.publish("in", `1`)
	eventually(t, "halted", func() bool {
		var halted *engine.HaltError
		return errors.As(e.Process(t.Context(), message("other", `1`)), &halted)
	})
	if err := stop(); err == nil || err.Error() != `halted by rule "r": 410` {
		t.Errorf("%v", err)
	}
}

// Messages of one key stay in order, and those of another don't wait for them.
func TestWebhookOrder(t *testing.T) {
	release := make(chan struct{})
	h := &hook{concurrency: 4, post: func(_ context.Context, m *filterd.Message) error {
		if strings.Contains(string(m.Payload), `"slow"`) {
			<-release
		}
		return nil
	}}
	e := newEngine(t, engine.Config{Table: compile(t, engine.Definition{
		Webhooks: map[string]engine.Webhook{"h": h},
		Rules:    []engine.Rule{{Name: "r", From: []string{"in"}, Key: value(t, "data.k"), To: post("h")}},
	})})
	const keys, each = 20, 10
	want := make(map[string][]string)
	send := func(key string, i int) {
		payload := fmt.Sprintf(`{"k":%q,"n":%d}`, key, i)
		if err := e.Process(t.Context(), message("in", payload)); err != nil {
			t.Fatal(err)
		}
		want[key] = append(want[key], "r "+payload)
	}
	send("slow", 0)
	for i := range each {
		for k := range keys {
			send(fmt.Sprint("k", k), i)
		}
	}
	// One of four lanes is blocked. That all keys share it is as likely as 4^-20.
	eventually(t, "others go on", func() bool { return len(h.all()) > 0 })
	close(release)
	eventually(t, "all are there", func() bool { return len(h.all()) == 1+keys*each })
	got := make(map[string][]string)
	for _, line := range h.all() {
		_, key, _ := strings.Cut(line, `"k":"`)
		key, _, _ = strings.Cut(key, `"`)
		got[key] = append(got[key], line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A key that fails is counted, and its message goes by the channel.
func TestWebhookKeyFails(t *testing.T) {
	h := &hook{concurrency: 4}
	e := newEngine(t, engine.Config{Table: compile(t, engine.Definition{
		Webhooks: map[string]engine.Webhook{"h": h},
		Rules:    []engine.Rule{{Name: "r", From: []string{"in"}, Key: value(t, "data.a + 1"), To: post("h")}},
	})})
	if err := e.Process(t.Context(), message("in", `{}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "posted", func() bool { return e.Stats().Rules["r"].Delivered == 1 })
	if s := e.Stats().Rules["r"]; s.Errors != 1 || s.Undelivered != 0 {
		t.Errorf("%+v", s)
	}
}

// The end of a drain makes a webhook give up. What it had in hand is counted,
// and is no failure: the message was not refused.
func TestCloseWithWebhookThatRetries(t *testing.T) {
	sink := &recorder{}
	h := &hook{concurrency: 1, post: func(ctx context.Context, _ *filterd.Message) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	e := newEngine(t, engine.Config{Sink: sink, DrainTimeout: 10 * time.Millisecond, Table: compile(t, engine.Definition{
		Webhooks: map[string]engine.Webhook{"h": h},
		Rules:    []engine.Rule{{Name: "r", From: []string{"in"}, To: post("h"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"}},
	})})
	for range 3 {
		if err := e.Process(t.Context(), message("in", `1`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err == nil || err.Error() != "the drain ended with 3 messages dropped and 0 in the hands of callbacks that have not returned" {
		t.Errorf("%v", err)
	}
	if s := e.Stats().Rules["r"]; s.Dropped != 3 || s.Undelivered != 0 || len(sink.take()) != 0 {
		t.Errorf("%+v", s)
	}
}

// An event of a gap comes before no condition, so it has no key: it goes by its
// channel.
func TestWebhookGetsGaps(t *testing.T) {
	h := &hook{concurrency: 4}
	e := newEngine(t, engine.Config{Table: compile(t, engine.Definition{
		Webhooks: map[string]engine.Webhook{"h": h},
		Rules:    []engine.Rule{{Name: "r", From: []string{"in"}, OnGap: true, Key: value(t, "data.k"), To: post("h")}},
	})})
	if err := e.Run(t.Context(), gapSource{Channels: []string{"in"}, Reason: "cut"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "posted", func() bool { return len(h.all()) == 1 })
	if s := e.Stats().Rules["r"]; s.Errors != 0 || !strings.Contains(h.all()[0], `"reason":"cut"`) {
		t.Errorf("%+v %q", s, h.all())
	}
}
