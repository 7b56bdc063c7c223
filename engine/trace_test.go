package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/tracing"
)

// An event keeps the trace that it came with, byte for byte, whether it is
// republished as it is or set changes its data.
func TestTraceparentIsKept(t *testing.T) {
	const trace = `"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=1,b=\u0032"`
	payload := `{"specversion":"1.0","id":"1","source":"s","type":"t", ` + trace + `,"data":{"n":2}}`
	plain := engine.Rule{Name: "plain", From: []string{"in"}, To: to("plain")}
	changed := engine.Rule{Name: "changed", From: []string{"in"}, Set: []engine.Member{{Name: "m", Value: value(t, `data.n + 1`)}}, To: to("changed")}
	result, err := table(t, plain, changed).NewProcessor().Process(message("in", payload))
	if err != nil || len(result.Outputs) != 2 {
		t.Fatalf("%d outputs, %v", len(result.Outputs), err)
	}
	for _, o := range result.Outputs {
		if !strings.Contains(string(o.Payload), trace) {
			t.Errorf("%s: the trace is lost in %s", o.Rule, o.Payload)
		}
	}
	if got := string(result.Outputs[0].Payload); got != payload {
		t.Errorf("%s is republished as %s", payload, got)
	}
	if got := string(result.Outputs[1].Payload); !strings.Contains(got, `"m":3`) {
		t.Errorf("nothing is set in %s", got)
	}
}

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceparent = "00-" + traceID + "-00f067aa0ba902b7-01"
)

// traced returns an event with a traceparent, and with data.
func traced(traceparent, data string) string {
	return `{"specversion":"1.0","id":"1","source":"s","type":"t","traceparent":"` + traceparent + `","data":` + data + `}`
}

// record returns a tracer, and what it has recorded. The test fails if a span
// does not end.
func record(t *testing.T, options tracing.Options) (*tracing.Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	t.Cleanup(func() {
		if begun, ended := len(recorder.Started()), len(recorder.Ended()); begun != ended {
			t.Errorf("%d spans begin, %d end", begun, ended)
		}
	})
	return tracing.New(trace.NewTracerProvider(trace.WithSpanProcessor(recorder)), options), recorder
}

// outline writes spans in lines: the name, those that it is below, its error, and
// what became of the message at rules.
func outline(spans []trace.ReadOnlySpan) string {
	names := map[string]string{"00f067aa0ba902b7": "the publisher"}
	for _, s := range spans {
		names[s.SpanContext().SpanID().String()] = s.Name()
	}
	var lines []string
	for _, s := range spans {
		line := s.Name()
		if s.Parent().IsValid() {
			line += " < " + names[s.Parent().SpanID().String()]
		}
		if s.Status().Description != "" {
			line += " !" + s.Status().Description
		}
		for _, event := range s.Events() {
			line += fmt.Sprintf(" [%s %s]", event.Attributes[0].Value.AsString(), event.Attributes[1].Value.AsString())
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// A message's span tells what rules made of it, and what they sent is below it.
func TestTracer(t *testing.T) {
	tracer, spans := record(t, tracing.Options{})
	var mu sync.Mutex
	told := map[string]string{}
	tell := func(who string, ctx context.Context) {
		at, _ := filterd.TraceContextOf(ctx)
		mu.Lock()
		defer mu.Unlock()
		told[who] = at.Traceparent()
	}
	sink := &recorder{broken: map[string]error{"broken": errors.New("connection lost")}}
	e := newEngine(t, engine.Config{Tracer: tracer, Sink: sink, Table: compile(t, engine.Definition{
		Registry: registry(t, filterd.Contract{Channel: "in", Schema: schema(t, `{"properties":{"n":{"type":"number"}}}`), DeadLetter: "invalid"}),
		Rules: []engine.Rule{
			{Name: "kept", From: []string{"in"}, To: []engine.Target{{Channel: "out"}, {Stream: "stream"}, {Callback: "me"}, {Webhook: "ops"}}},
			{Name: "unkept", From: []string{"in"}, When: when(`data.n > 1000`), To: to("out")},
			{Name: "fails", From: []string{"in"}, When: when(`data.n.x == 1`), To: to("out")},
			{Name: "letters", From: []string{"in"}, When: when(`data.n.x == 2`), To: to("out"), OnError: engine.OnErrorDeadLetter, DeadLetter: "dead"},
			{Name: "lost", From: []string{"in"}, To: to("broken")},
			{Name: "shadow", From: []string{"in"}, To: to("out"), Shadow: true},
			{Name: "staged", From: []string{"in"}, Stage: &scripted{}, To: to("after")},
		},
		Callbacks: map[string]engine.Callback{"me": func(ctx context.Context, _ *filterd.Message) error { tell("callback", ctx); return nil }},
		Webhooks: map[string]engine.Webhook{"ops": &hook{concurrency: 1, post: func(ctx context.Context, _ *filterd.Message) error {
			tell("webhook", ctx)
			return errors.New("refused")
		}}},
	})})
	if err := e.Process(t.Context(), message("in", traced(traceparent, `{"n":1,"do":"keep"}`))); err != nil {
		t.Fatal(err)
	}
	if err := e.Process(t.Context(), message("in", traced(traceparent, `{"n":"x"}`))); err == nil {
		t.Fatal("the message is valid")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	want := `call me < process in
post ops < process in !refused
process in < the publisher !in: schema: /data/n: got string, want number
process in < the publisher !rule fails: when: 1:8: data.n is a number: it has no member x [kept kept] [letters failed] [lost kept] [shadow kept] [staged kept] [fails failed]
publish after < rule staged
publish broken < process in !connection lost
publish dead < process in
publish invalid < process in
publish out < process in
rule staged < process in [staged kept]
xadd stream < process in`
	if got := outline(spans.Ended()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, s := range spans.Ended() {
		at := filterd.TraceContext{TraceID: s.SpanContext().TraceID(), SpanID: s.SpanContext().SpanID(), Flags: 1}.Traceparent()
		if s.Name() == "call me" && told["callback"] != at || s.Name() == "post ops" && told["webhook"] != at {
			t.Errorf("%s is %s, told are %v", s.Name(), at, told)
		}
		if got := s.SpanContext().TraceID().String(); got != traceID {
			t.Errorf("%s is in trace %s", s.Name(), got)
		}
	}
	if got := sink.take(); !slices.Contains(got, "out "+traced(traceparent, `{"n":1,"do":"keep"}`)) {
		t.Errorf("the event is not the one that came: %q", got)
	}
}

// A callback's or webhook's place in a trace is its own span; that of a message
// that nobody records is where that came from.
func TestTraceContextOfTargets(t *testing.T) {
	unsampled := traceparent[:len(traceparent)-1] + "0"
	tracer, spans := record(t, tracing.Options{})
	for _, test := range []struct {
		tracer        engine.Tracer
		payload, want string
	}{
		{tracer, traced(unsampled, `1`), unsampled},
		{tracer, traced("garbage", `1`), ""},
		{tracer, `1`, ""},
		{tracer, traced(traceparent, `1`), "SPAN"},
		{nil, traced(traceparent, `1`), ""},
	} {
		got := make(chan string, 1)
		e := newEngine(t, engine.Config{Tracer: test.tracer, Table: compile(t, engine.Definition{
			Rules: []engine.Rule{{Name: "r", From: []string{"in"}, To: post("ops")}},
			Webhooks: map[string]engine.Webhook{"ops": &hook{concurrency: 1, post: func(ctx context.Context, _ *filterd.Message) error {
				at, ok := filterd.TraceContextOf(ctx)
				if ok {
					got <- at.Traceparent()
				} else {
					got <- ""
				}
				return nil
			}}},
		})})
		if err := e.Process(t.Context(), message("in", test.payload)); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		want := test.want
		for _, s := range spans.Ended() {
			if s.Name() == "post ops" {
				want = strings.Replace(want, "SPAN", "00-"+traceID+"-"+s.SpanContext().SpanID().String()+"-01", 1)
			}
		}
		if at := <-got; at != want {
			t.Errorf("%s: %q, want %q", test.payload, at, want)
		}
	}
}

// An event goes on as it came, unless the engine is told to make its own span the
// traceparent; what is in no recorded trace stays as it is in any case.
func TestReplaceTraceparent(t *testing.T) {
	unsampled := traceparent[:len(traceparent)-1] + "0"
	other := "00-" + strings.Repeat("a", 32) + "-00f067aa0ba902b7-01"
	const state = `"tracestate":"a=1,b=\u0032",`
	withState := strings.Replace(traced(traceparent, `{"n":1}`), `"data"`, state+`"data"`, 1)
	for _, test := range []struct{ name, do, in, want string }{
		{"as it is", ``, traced(traceparent, `{"n":1}`), traced("SPAN", `{"n":1}`)},
		{"the state stays", ``, withState, strings.Replace(withState, traceparent, "SPAN", 1)},
		{"with escapes", ``, strings.Replace(traced(traceparent, `{"n":1}`), `"00-`, `"\u00300-`, 1), traced("SPAN", `{"n":1}`)},
		{"of the future", ``, traced("cc"+traceparent[2:]+"-more", `{"n":1}`), traced("SPAN", `{"n":1}`)},
		{"made by a stage", traced(traceparent, `2`), traced(traceparent, `{"n":1}`), traced("SPAN", `2`)},
		{"a stage's own trace", traced(other, `2`), traced(traceparent, `{"n":1}`), traced(other, `2`)},
		{"a stage makes it raw", `[1]`, traced(traceparent, `{"n":1}`), `[1]`},
		{"a stage forgets it", `{"specversion":"1.0","id":"1","source":"s","type":"t"}`, withState,
			`{"specversion":"1.0","id":"1","source":"s","type":"t","traceparent":"SPAN","tracestate":"a=1,b=2"}`},
		{"too large then", strings.Repeat(" ", 400) + `{"specversion":"1.0","id":"1","source":"s","type":"t"}`, traced(traceparent, `{"n":1}`), ""},
		{"not sampled", ``, traced(unsampled, `{"n":1}`), traced(unsampled, `{"n":1}`)},
		{"garbage", ``, traced("garbage", `{"n":1}`), traced("garbage", `{"n":1}`)},
		{"no event", ``, `{"traceparent":"` + traceparent + `"}`, `{"traceparent":"` + traceparent + `"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, replace := range []bool{false, true} {
				tracer, spans := record(t, tracing.Options{})
				sink := &recorder{}
				rule := engine.Rule{Name: "r", From: []string{"in"}, To: to("out")}
				if test.do != "" {
					rule.Stage = &scripted{}
				}
				e := newEngine(t, engine.Config{Tracer: tracer, ReplaceTraceparent: replace, Sink: sink, Table: compile(t, engine.Definition{
					Registry: registry(t, filterd.Contract{Channel: "out", MaxSize: 500}), Rules: []engine.Rule{rule},
				})})
				payload := test.in
				if test.do != "" {
					payload = strings.Replace(payload, `{"n":1}`, fmt.Sprintf(`{"n":1,"do":%q}`, test.do), 1)
				}
				if err := e.Process(t.Context(), message("in", payload)); err != nil {
					t.Fatal(err)
				}
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				want := test.want
				if !replace && test.do == "" {
					want = test.in
				} else if !replace || want == "" {
					want = test.do
				}
				for _, s := range spans.Ended() {
					if s.Name() == "publish out" {
						want = strings.Replace(want, "SPAN", "00-"+traceID+"-"+s.SpanContext().SpanID().String()+"-01", 1)
					}
				}
				if got := strings.Replace(strings.Join(sink.take(), "\n"), `,"filterdhops":1`, "", 1); got != "out "+want {
					t.Errorf("replace %v: got\n%s\nwant\n%s", replace, got, want)
				}
			}
		})
	}
}

// Messages without a trace begin one as often as they are told to; what is not
// sampled, or no trace, is no message's parent.
func TestTracerSamples(t *testing.T) {
	for _, test := range []struct {
		name, payload string
		sample        float64
		want          string
	}{
		{"raw, unasked", `1`, 0, ""},
		{"raw", `1`, 1, "process in [r kept]\npublish out < process in"},
		{"an event with garbage", traced("garbage", `1`), 1, "process in [r kept]\npublish out < process in"},
		{"not sampled", traced(traceparent[:len(traceparent)-1]+"0", `1`), 1, ""},
		{"sampled", traced(traceparent, `1`), 0, "process in < the publisher [r kept]\npublish out < process in"},
	} {
		tracer, spans := record(t, tracing.Options{Sample: test.sample})
		sink := &recorder{}
		e := newEngine(t, engine.Config{Tracer: tracer, Sink: sink, Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, To: to("out")})})
		m := message("in", test.payload)
		m.Received = time.Now().Add(-20 * time.Microsecond)
		if err := e.Process(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got := outline(spans.Ended()); got != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, got, test.want)
		}
		if got := sink.take(); len(got) != 1 || got[0] != "out "+test.payload {
			t.Errorf("%s: %q", test.name, got)
		}
		exemplars := e.Exemplars("r")
		if len(exemplars) != min(1, len(spans.Ended())) {
			t.Fatalf("%s: exemplars %+v", test.name, exemplars)
		}
		for _, s := range spans.Ended() {
			x := exemplars[0]
			if s.Name() == "publish out" && (x.TraceID != s.SpanContext().TraceID() || x.SpanID != s.SpanContext().SpanID() || x.Took < 20*time.Microsecond || x.Time.IsZero()) {
				t.Errorf("%s: %+v", test.name, x)
			}
		}
	}
}

// A span ends however its message's way does: in a full queue, at the end, with
// the lease, with the next batch.
func TestSpansEnd(t *testing.T) {
	t.Run("queue", func(t *testing.T) {
		tracer, spans := record(t, tracing.Options{})
		held, release := make(chan struct{}, 10), make(chan struct{})
		e := newEngine(t, engine.Config{Tracer: tracer, QueueMessages: 1, Table: compile(t, engine.Definition{
			Rules: []engine.Rule{{Name: "r", From: []string{"in"}, To: call("slow")}, {Name: "c", From: []string{"in"}, To: call("slow"), Overflow: engine.OverflowConflate}},
			Callbacks: map[string]engine.Callback{"slow": func(context.Context, *filterd.Message) error {
				held <- struct{}{}
				<-release
				return nil
			}},
		})})
		for i := range 3 {
			if err := e.Process(t.Context(), message("in", traced(traceparent, `1`))); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				<-held
				<-held
			}
		}
		close(release)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		got := outline(spans.Ended())
		for _, want := range []string{"call slow < process in !the message gave way in a full queue, or at the end", "call slow < process in !a newer message with the same key took its place"} {
			if strings.Count(got, want) != 1 {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	})
	t.Run("flight", func(t *testing.T) {
		tracer, spans := record(t, tracing.Options{})
		e := newEngine(t, engine.Config{Tracer: tracer, Sink: &starter{err: errors.New("connection lost")}, Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, To: to("out")})})
		err := e.Run(t.Context(), sourceFunc(func(ctx context.Context, h filterd.Handler) error {
			b := h.(filterd.Beginner)
			b.Begin(ctx, []*filterd.Message{message("in", traced(traceparent, `1`))})
			if got := outline(spans.Ended()); got != "process in < the publisher [r kept]" {
				t.Errorf("begun: %s", got)
			}
			b.End()
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		if got := outline(spans.Ended()); !strings.Contains(got, "publish out < process in !connection lost") {
			t.Error(got)
		}
	})
	t.Run("lease", func(t *testing.T) {
		tracer, spans := record(t, tracing.Options{})
		e := newEngine(t, engine.Config{Tracer: tracer, Lease: &endingLease{}, Sink: &recorder{}, Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, To: to("out")})})
		if err := e.Process(t.Context(), message("in", traced(traceparent, `1`))); err != nil {
			t.Fatal(err)
		}
		if got := outline(spans.Ended()); !strings.Contains(got, "publish out < process in !the lease had ended") {
			t.Error(got)
		}
	})
}

// An endingLease is held the first time it is asked.
type endingLease struct{ asked bool }

func (l *endingLease) Held() (uint64, bool) {
	held := !l.asked
	l.asked = true
	return 1, held
}

// What names and events say can't keep spans from being sent.
func TestSpansHoldAnyName(t *testing.T) {
	tracer, spans := record(t, tracing.Options{})
	e := newEngine(t, engine.Config{Tracer: tracer, Sink: &recorder{}, Table: table(t, engine.Rule{Name: "r", From: []string{"*"}, To: logTo(slog.LevelDebug)})})
	m := message("\xff"+strings.Repeat("\u20ac", 1000), strings.Replace(traced(traceparent, `1`), `"id":"1"`, `"id":"`+strings.Repeat("x", 10_000)+`"`, 1))
	m.Pattern = "*"
	if err := e.Process(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range spans.Ended() {
		for _, a := range s.Attributes() {
			if text := a.Value.String(); len(text) > tracing.MaxText+8 || text != strings.ToValidUTF8(text, "?") {
				t.Errorf("%s: %s is %q", s.Name(), a.Key, text)
			}
			if s.Name() == "process *" {
				got[string(a.Key)] = a.Value.String()
			}
		}
	}
	for key, want := range map[string]string{"messaging.system": "redis", "messaging.destination.template": "*", "messaging.message.id": strings.Repeat("x", tracing.MaxText), "messaging.operation.type": "process", "cloudevents.event_source": "s"} {
		if got[key] != want {
			t.Errorf("%s is %q", key, got[key])
		}
	}
}

// Messages without a trace cost a tracer no memory.
func TestTracerAllocatesNothing(t *testing.T) {
	count := func(tracer engine.Tracer) (allocations float64) {
		e := newEngine(t, engine.Config{Tracer: tracer, Sink: &starter{}, Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, When: when(`data.n > 1`), To: to("out")})})
		batch := []*filterd.Message{message("in", `{"n":2,"s":"text"}`), message("in", trade)}
		err := e.Run(t.Context(), sourceFunc(func(ctx context.Context, h filterd.Handler) error {
			allocations = testing.AllocsPerRun(100, func() {
				for _, m := range batch {
					m.Reset(m.Payload)
				}
				h.Messages(ctx, batch)
			})
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		return allocations
	}
	tracer, _ := record(t, tracing.Options{})
	if off, on := count(nil), count(tracer); on > off {
		t.Errorf("%v allocations with a tracer, %v without", on, off)
	}
}

// BenchmarkTracer measures a batch of 64 messages, all of them kept, with no
// tracer, and with one: of messages without a trace, in one that nobody samples,
// and in one that is recorded, and thrown away.
func BenchmarkTracer(b *testing.B) {
	at := func(traceparent string) string {
		return strings.Replace(trade, `"data"`, `"traceparent":"`+traceparent+`","data"`, 1)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(&tracetest.NoopExporter{}))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	on := tracing.New(provider, tracing.Options{})
	for _, test := range []struct {
		name    string
		tracer  engine.Tracer
		payload string
	}{
		{"off", nil, trade}, {"off, in a trace", nil, at(traceparent)},
		{"on", on, trade}, {"not sampled", on, at(traceparent[:len(traceparent)-1] + "0")}, {"sampled", on, at(traceparent)},
	} {
		b.Run(test.name, func(b *testing.B) {
			e := newEngine(b, engine.Config{
				Tracer: test.tracer,
				Table:  table(b, engine.Rule{Name: "r", From: []string{"in"}, When: when(`data.symbol == "BTC-USD" && data.price * data.qty > 10000`), To: to("out")}),
				Sink:   filterd.SinkFunc(func(context.Context, []filterd.Delivery) {}),
			})
			source := &batches{B: b}
			for range 64 {
				source.batch = append(source.batch, message("in", test.payload))
			}
			b.ReportAllocs()
			if err := e.Run(b.Context(), source); err != nil {
				b.Fatal(err)
			}
		})
	}
}
