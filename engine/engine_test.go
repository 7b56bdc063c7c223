package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A channelSource delivers the batches it is given, as the copies that the
// subscriptions at that time let through.
type channelSource struct {
	batches chan []*filterd.Message

	mu    sync.Mutex
	names []string
	globs []string
	calls int
}

func newSource() *channelSource { return &channelSource{batches: make(chan []*filterd.Message)} }

func (s *channelSource) Subscribe(to filterd.Subscriptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names, s.globs = to.Channels, to.Globs
	s.calls++
}

func (s *channelSource) subscriptions() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.names, s.globs)
}

func (s *channelSource) Run(ctx context.Context, h filterd.Handler) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-s.batches:
			if !ok {
				return errors.New("source: broken")
			}
			h.Messages(ctx, batch)
		}
	}
}

// publish delivers a message as Redis would: once for each subscription.
func (s *channelSource) publish(channel, payload string) {
	s.mu.Lock()
	var batch []*filterd.Message
	for _, name := range s.names {
		if name == channel {
			batch = append(batch, message(channel, payload))
		}
	}
	for _, glob := range s.globs {
		if filterd.CompileGlob(glob).Match(channel) {
			m := message(channel, payload)
			m.Pattern = glob
			batch = append(batch, m)
		}
	}
	s.mu.Unlock()
	s.batches <- batch
}

// run starts the engine over a source and returns what stops it and yields
// Run's error.
func run(e *engine.Engine, s filterd.Source) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, s) }()
	return func() error { cancel(); return <-done }
}

// However many of a rule's entries a channel matches, the rule runs once; and
// a message counts once.
func TestOverlappingSubscriptions(t *testing.T) {
	rules := []engine.Rule{
		{Name: "both", From: []string{"prices.*", "prices.btc", "*.btc"}, To: to("both")},
		{Name: "globs", From: []string{"*.btc", "prices.*"}, To: to("globs")},
		{Name: "last", From: []string{"other", "p*"}, To: to("last")},
		{Name: "exact", From: []string{"prices.btc"}, To: to("exact")},
	}
	reg := registry(t, filterd.Contract{Channel: "prices.*", MaxSize: 10, DeadLetter: "dead"})
	for _, test := range []struct{ channel, want string }{
		{"prices.btc", "both:1 exact:1 globs:1 last:1"},
		{"prices.eth", "both:1 globs:1 last:1"},
		{"x.btc", "both:1 globs:1"},
		{"p", "last:1"},
		{"other", "last:1"},
	} {
		sink := &recorder{}
		e := newEngine(t, engine.Config{Table: compile(t, engine.Definition{Rules: rules, Registry: reg}), Sink: sink})
		count := func() string {
			counts := make(map[string]int)
			for _, sent := range sink.take() {
				counts[strings.Fields(sent)[0]]++
			}
			return strings.Trim(fmt.Sprint(counts), "map[]")
		}
		source := newSource()
		stop := run(e, source)
		eventually(t, "subscribed", func() bool { return source.subscriptions() == "[other prices.btc] [*.btc p* prices.*]" })
		source.publish(test.channel, `1`)
		source.publish(test.channel, `"more than ten bytes"`)
		if err := stop(); err != nil {
			t.Error(err)
		}
		got := count()
		var received, invalid uint64
		for _, c := range e.Stats().Channels {
			received += c.Received
			invalid += c.Invalid[filterd.ReasonSize]
		}
		wantReceived, wantInvalid, dead := uint64(2), uint64(0), ""
		if strings.HasPrefix(test.channel, "prices.") {
			wantInvalid, dead = 1, "dead:1 "
		}
		want := test.want
		if dead == "" {
			want = strings.ReplaceAll(want, ":1", ":2")
		} else {
			want = strings.Replace(want, "exact", dead+"exact", 1)
			if !strings.Contains(want, "dead") {
				want = strings.Replace(want, "globs", dead+"globs", 1)
			}
		}
		if got != want || received != wantReceived || invalid != wantInvalid {
			t.Errorf("%s: %s, %d received, %d invalid; want %s, %d, %d", test.channel, got, received, invalid, want, wantReceived, wantInvalid)
		}

		// Alone, a message stands for all its copies.
		if err := e.Process(t.Context(), message(test.channel, `1`)); err != nil {
			t.Error(err)
		}
		if got := count(); got != test.want {
			t.Errorf("%s by Process: %s, want %s", test.channel, got, test.want)
		}
	}
}

func TestProcessErrors(t *testing.T) {
	e := newEngine(t, engine.Config{Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, To: logTo(slog.LevelInfo)}), Sink: &recorder{}})
	err := e.Process(t.Context(), message("in", `{`))
	if !errors.Is(err, filterd.ErrInvalid) {
		t.Errorf("invalid message: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := e.Process(t.Context(), message("in", `1`)); err != engine.ErrClosed {
		t.Errorf("closed: %v", err)
	}
	if err := e.Reload(t.Context(), table(t, engine.Rule{Name: "r", From: []string{"in"}, To: logTo(slog.LevelInfo)})); err != engine.ErrClosed {
		t.Errorf("closed: %v", err)
	}
	for _, r := range []engine.Rule{
		{Name: "r", From: []string{"in"}, To: to("out")},
		{Name: "r", From: []string{"in"}, To: logTo(slog.LevelInfo), Stage: &scripted{}}, // which may emit
	} {
		if _, err := engine.New(engine.Config{Table: table(t, r)}); err == nil || err.Error() != "an engine whose rules send to channels needs a sink" {
			t.Errorf("no sink: %v", err)
		}
	}
}

func TestCallbacks(t *testing.T) {
	release := make(chan struct{})
	var blocked, fine atomic.Int64
	definition := engine.Definition{
		Callbacks: map[string]engine.Callback{
			"blocks": func(ctx context.Context, m *filterd.Message) error {
				blocked.Add(1)
				select {
				case <-release:
				case <-ctx.Done():
				}
				return nil
			},
			"panics": func(context.Context, *filterd.Message) error { panic("oh") },
			"fails":  func(context.Context, *filterd.Message) error { return errors.New("no") },
			"fine": func(_ context.Context, m *filterd.Message) error {
				fine.Add(1)
				m.Payload[0] = 'x' // it owns the message
				return nil
			},
		},
		Rules: []engine.Rule{
			{Name: "blocks", From: []string{"in"}, To: call("blocks")},
			{Name: "newest", From: []string{"in"}, To: call("blocks"), Overflow: engine.OverflowDropNewest},
			{Name: "panics", From: []string{"in"}, To: call("panics")},
			{Name: "fails", From: []string{"in"}, To: call("fails")},
			{Name: "fine", From: []string{"in"}, To: []engine.Target{{Callback: "fine"}, {Channel: "out"}}},
		},
	}
	sink := &recorder{}
	e := newEngine(t, engine.Config{Table: compile(t, definition), Sink: sink, QueueMessages: 10})
	const n = 100
	for i := range n {
		if i == 1 {
			eventually(t, "blocked", func() bool { return blocked.Load() == 2 })
		}
		if err := e.Process(t.Context(), message("in", `1`)); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 { // let the quick ones keep up with their short queues
			eventually(t, "kept up", func() bool {
				s := e.Stats()
				return s.Rules["fine"].Queued+s.Rules["fails"].Queued+s.Rules["panics"].Queued == 0
			})
		}
	}
	eventually(t, "quick callbacks are done", func() bool {
		s := e.Stats().Rules
		return fine.Load() == n && s["fine"].Delivered == 2*n && s["fails"].Undelivered == n && s["panics"].Panics == n
	})
	for _, sent := range sink.take() {
		if sent != "out 1" {
			t.Fatalf("a callback changed %q", sent)
		}
	}
	close(release)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	want := map[string]engine.RuleStats{
		"blocks": {Matched: n, Delivered: 11, Dropped: n - 11},
		"newest": {Matched: n, Delivered: 11, Dropped: n - 11},
		"panics": {Matched: n, Errors: n, Undelivered: n, Panics: n},
		"fails":  {Matched: n, Errors: n, Undelivered: n},
		"fine":   {Matched: n, Delivered: 2 * n},
	}
	if diff := cmp.Diff(want, e.Stats().Rules); diff != "" {
		t.Error(diff)
	}
}

// A callback that never returns costs its own messages, and they are counted.
func TestCloseWithBlockedCallback(t *testing.T) {
	entered, left, release := make(chan struct{}, 10), make(chan struct{}), make(chan struct{})
	e := newEngine(t, engine.Config{
		Table: compile(t, engine.Definition{
			Callbacks: map[string]engine.Callback{"blocks": func(ctx context.Context, _ *filterd.Message) error {
				entered <- struct{}{}
				<-release // whatever ctx says
				left <- struct{}{}
				return nil
			}},
			Rules: []engine.Rule{{Name: "r", From: []string{"in"}, To: call("blocks")}},
		}),
		DrainTimeout: 10 * time.Millisecond,
	})
	for range 5 {
		if err := e.Process(t.Context(), message("in", `1`)); err != nil {
			t.Fatal(err)
		}
	}
	<-entered
	if err := e.Close(); err == nil || err.Error() != "the drain ended with 4 messages dropped and 1 in the hands of callbacks that have not returned" {
		t.Errorf("%v", err)
	}
	close(release)
	<-left
	if s := e.Stats().Rules["r"]; s.Dropped != 4 {
		t.Errorf("%+v", s)
	}
}

func TestPublishFailures(t *testing.T) {
	sink := &recorder{broken: map[string]error{"broken": errors.New("NOPERM"), "dead.broken": errors.New("OOM")}}
	rule := func(name string, on engine.OnError, dead string) engine.Rule {
		return engine.Rule{Name: name, From: []string{"in"}, To: []engine.Target{{Channel: "broken"}, {Channel: "out"}}, OnError: on, DeadLetter: dead}
	}
	e := newEngine(t, engine.Config{Sink: sink, Table: table(t,
		rule("drop", engine.OnErrorDrop, ""),
		rule("dead", engine.OnErrorDeadLetter, "dead"),
		rule("both", engine.OnErrorDeadLetter, "dead.broken"),
	)})
	if err := e.Process(t.Context(), message("in", `1`)); err != nil {
		t.Fatal(err)
	}
	sent := sink.take()
	if len(sent) != 4 || sent[0] != "out 1" || sent[1] != "out 1" || sent[2] != "out 1" || !strings.Contains(sent[3], `"reason":"NOPERM"`) {
		t.Errorf("%q", sent)
	}
	stats := e.Stats()
	each := engine.RuleStats{Matched: 1, Errors: 1, Delivered: 1, Undelivered: 1}
	if diff := cmp.Diff(map[string]engine.RuleStats{"drop": each, "dead": each, "both": each}, stats.Rules); diff != "" {
		t.Error(diff)
	}
	if stats.DeadLetters != 1 || stats.DeadLettersLost != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestHalt(t *testing.T) {
	sink := &recorder{}
	source := newSource()
	e := newEngine(t, engine.Config{Sink: sink, Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, When: when(`data.a > 1`), To: to("out"), OnError: engine.OnErrorHalt})})
	stop := run(e, source)
	eventually(t, "subscribed", func() bool { return source.subscriptions() == "[in] []" })
	source.publish("in", `{"a":2}`)
	source.publish("in", `{}`)
	err := stop()
	var halted *engine.HaltError
	if !errors.As(err, &halted) || err.Error() != `halted by rule "r": when: 1:8: data.a is missing or null: > needs a value (write (data.a ?? 0), or ask data.a != nil first)` {
		t.Errorf("Run: %v", err)
	}
	if err := e.Process(t.Context(), message("in", `{"a":2}`)); !errors.As(err, &halted) {
		t.Errorf("Process: %v", err)
	}
	if stats := e.Stats(); stats.Refused != 1 || stats.Rules["r"].Errors != 1 {
		t.Errorf("%+v", stats)
	}
	if sent := sink.take(); len(sent) != 1 {
		t.Errorf("%q", sent)
	}
}

func TestSourceFails(t *testing.T) {
	e := newEngine(t, engine.Config{Sink: &recorder{}, Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, To: to("out")})})
	broken, other := newSource(), newSource()
	close(broken.batches)
	if err := e.Run(t.Context(), other, broken); err == nil || err.Error() != "source: broken" {
		t.Errorf("%v", err)
	}
}

// A message sees one table from start to end, nothing is lost or doubled by a
// reload, and what did not change stays subscribed.
func TestReloadUnderLoad(t *testing.T) {
	const messages, reloads = 20_000, 200
	var last atomic.Int64 // what the callback saw last
	var disorder atomic.Int64
	callbacks := map[string]engine.Callback{"order": func(_ context.Context, m *filterd.Message) error {
		var n int64
		_, _ = fmt.Sscan(string(m.Payload), &n)
		if n != last.Swap(n)+1 {
			disorder.Add(1)
		}
		return nil
	}}
	generation := func(n int) *engine.Table {
		name := fmt.Sprint("g", n)
		return compile(t, engine.Definition{Callbacks: callbacks, Rules: []engine.Rule{
			{Name: "a" + name, From: []string{"in"}, To: to(name)},
			{Name: "b" + name, From: []string{"in"}, To: to(name)},
			{Name: "order", From: []string{"in"}, To: call("order")},
		}})
	}
	sink := &recorder{}
	source := newSource()
	e := newEngine(t, engine.Config{Table: generation(0), Sink: sink, QueueMessages: messages})
	stop := run(e, source)
	eventually(t, "subscribed", func() bool { return source.subscriptions() == "[in] []" })
	published := make(chan struct{})
	go func() {
		defer close(published)
		for n := 1; n <= messages; n++ {
			source.publish("in", fmt.Sprint(n))
		}
	}()
	for n := 1; n <= reloads; n++ {
		if n%10 == 0 {
			if _, err := engine.Compile(engine.Definition{Rules: []engine.Rule{{}}}); err == nil {
				t.Fatal("an invalid table compiled")
			}
		}
		if err := e.Reload(t.Context(), generation(n)); err != nil {
			t.Fatal(err)
		}
	}
	<-published
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	sent := sink.take()
	if len(sent) != 2*messages {
		t.Fatalf("%d deliveries of %d", len(sent), 2*messages)
	}
	for i := 0; i < len(sent); i += 2 {
		if sent[i] != sent[i+1] {
			t.Fatalf("two tables treated one message: %q, %q", sent[i], sent[i+1])
		}
	}
	stats := e.Stats()
	if stats.Generation != reloads+1 || stats.Unrouted+stats.Refused > 0 || stats.Rules["order"].Delivered != messages || disorder.Load() > 0 {
		t.Errorf("%d generations, %d unrouted, order %+v, %d out of order", stats.Generation, stats.Unrouted, stats.Rules["order"], disorder.Load())
	}
}

// Process is safe from many goroutines, with reloads and the end among them.
func TestProcessConcurrently(t *testing.T) {
	sink := &recorder{}
	rules := table(t, engine.Rule{Name: "r", From: []string{"in"}, When: when(`data % 2 == 0 or data.x`), To: to("out")},
		engine.Rule{Name: "s", From: []string{"i*"}, When: when(`data >= 0`), Set: nil, To: logTo(slog.LevelDebug)})
	e := newEngine(t, engine.Config{Table: rules, Sink: sink})
	var accepted atomic.Uint64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				switch err := e.Process(context.Background(), message("in", "1")); err {
				case nil:
					accepted.Add(1)
				case engine.ErrClosed:
					return
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		if err := e.Reload(t.Context(), rules); err != nil {
			t.Error(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if s := e.Stats().Rules; s["r"].Errors != accepted.Load() || s["s"].Matched != accepted.Load() || s["s"].Delivered+s["s"].Dropped != accepted.Load() {
		t.Errorf("%d accepted, %+v", accepted.Load(), s)
	}
}

// What arrives from a channel that nobody knows, or in a flood of names, is
// treated and forgotten.
func TestManyChannelNames(t *testing.T) {
	sink := &recorder{}
	e := newEngine(t, engine.Config{Sink: sink, Table: table(t, engine.Rule{Name: "r", From: []string{"c*"}, To: to("out")})})
	for i := range 20_000 {
		if err := e.Process(t.Context(), message(fmt.Sprint("c", i), "1")); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Process(t.Context(), message("unknown", "1")); err != nil {
		t.Fatal(err)
	}
	stats := e.Stats()
	if len(stats.Channels) != 1 || stats.Channels["c*"].Received != 20_000 || stats.Unrouted != 1 || len(sink.take()) != 20_000 {
		t.Errorf("%+v", stats)
	}
}

// Errors that repeat are logged once a second, each rule's by itself.
func TestErrorsAreLoggedAtALimitedRate(t *testing.T) {
	var b strings.Builder
	logger := slog.New(slog.NewTextHandler(&b, nil))
	e := newEngine(t, engine.Config{Sink: &recorder{}, Logger: logger, Table: table(t,
		engine.Rule{Name: "a", From: []string{"in"}, When: when(`data.x.y`), To: to("out")},
		engine.Rule{Name: "b", From: []string{"in"}, When: when(`data.y.z`), To: to("out")},
	)})
	start := time.Now()
	for range 1000 {
		_ = e.Process(t.Context(), message("in", "{}"))
	}
	lines, most := strings.Count(b.String(), "\n"), 2+2*int(time.Since(start)/time.Second)
	if lines < 2 || lines > most || !strings.Contains(b.String(), "rule=b") {
		t.Errorf("%d lines, at most %d:\n%s", lines, most, b.String())
	}
}

// A rule that comes and goes while its callback hangs has one queue all the
// time, and loses nothing that fits in it.
func TestReloadWithHungCallback(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 1)
	callbacks := map[string]engine.Callback{"hang": func(context.Context, *filterd.Message) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		return nil
	}}
	with := engine.Rule{Name: "hang", From: []string{"in"}, To: call("hang")}
	other := engine.Rule{Name: "other", From: []string{"other"}, To: logTo(slog.LevelDebug)}
	e := newEngine(t, engine.Config{Table: compile(t, engine.Definition{Callbacks: callbacks, Rules: []engine.Rule{with, other}})})
	process := func() {
		t.Helper()
		if err := e.Process(t.Context(), message("in", "1")); err != nil {
			t.Fatal(err)
		}
	}
	process()
	<-entered
	before := runtime.NumGoroutine()
	for range 100 {
		for _, rules := range [][]engine.Rule{{other}, {with, other}} {
			if err := e.Reload(t.Context(), compile(t, engine.Definition{Callbacks: callbacks, Rules: rules})); err != nil {
				t.Fatal(err)
			}
		}
		process()
	}
	eventually(t, "one queue", func() bool { return runtime.NumGoroutine() <= before+2 })
	if s := e.Stats().Rules["hang"]; s.Matched != 101 || s.Queued != 101 {
		t.Errorf("%+v", s)
	}
	close(release)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if s := e.Stats().Rules["hang"]; s.Delivered != 101 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}
