package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func when(source string) filterd.Filter  { return exprfilter.MustCompile(source) }
func to(channel string) []engine.Target  { return []engine.Target{{Channel: channel}} }
func call(name string) []engine.Target   { return []engine.Target{{Callback: name}} }
func logTo(l slog.Level) []engine.Target { return []engine.Target{{Log: &l}} }

func value(t testing.TB, source string) filterd.Value {
	t.Helper()
	v, err := exprfilter.CompileValue(source)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func registry(t testing.TB, contracts ...filterd.Contract) *filterd.Registry {
	t.Helper()
	r, err := filterd.NewRegistry(contracts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func schema(t testing.TB, text string) *filterd.Schema {
	t.Helper()
	s, err := filterd.ParseSchema("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func compile(t testing.TB, d engine.Definition) *engine.Table {
	t.Helper()
	table, err := engine.Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func table(t testing.TB, rules ...engine.Rule) *engine.Table {
	t.Helper()
	return compile(t, engine.Definition{Rules: rules})
}

// newEngine makes an engine that the test closes.
func newEngine(t testing.TB, config engine.Config) *engine.Engine {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	e, err := engine.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func message(channel, payload string) *filterd.Message {
	return &filterd.Message{Channel: channel, Payload: []byte(payload)}
}

// A recorder is a sink that remembers "channel payload" of each delivery, and
// fails those to a channel in broken.
type recorder struct {
	broken map[string]error

	mu   sync.Mutex
	sent []string
}

func (r *recorder) Deliver(_ context.Context, batch []filterd.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range batch {
		if batch[i].Err = r.broken[batch[i].Channel]; batch[i].Err == nil {
			r.sent = append(r.sent, batch[i].Channel+" "+string(batch[i].Payload))
			batch[i].Receivers = 1
		}
	}
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent = nil
	return sent
}

// describe writes a result in lines: what was sent, then what rules made of
// the message.
func describe(r engine.Result) string {
	var lines []string
	if r.Invalid != nil {
		lines = append(lines, "invalid: "+r.Invalid.Error())
	}
	for _, o := range r.Outputs {
		target := o.Channel
		switch {
		case o.Callback != "":
			target = "callback:" + o.Callback
		case o.Log != nil:
			target = "log:" + o.Log.String()
		}
		payload := string(o.Payload)
		if o.DeadLetter {
			payload = "dead letter"
		}
		lines = append(lines, fmt.Sprintf("%s → %s %s", o.Rule, target, payload))
	}
	for _, o := range r.Outcomes {
		if o.Err != nil {
			lines = append(lines, fmt.Sprintf("%s failed: %v", o.Rule, o.Err))
		}
	}
	for _, err := range r.Lost {
		lines = append(lines, fmt.Sprintf("lost: %v", err))
	}
	return strings.Join(lines, "\n")
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
