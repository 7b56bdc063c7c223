package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/filterd/filterd/pubsub"
)

// size returns how much a test does: a little, or as much as the variable says.
// The task reloads sets it.
func size(t *testing.T, variable string, little int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return little
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// A reloading is an engine with its reloader, in the test's process.
type reloading struct {
	*reloader
	t    *testing.T
	file string
	log  *log
	rdb  *redis.Client
	stop func()
}

func newReloading(t *testing.T, text string) *reloading {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	r := &reloading{t: t, file: filepath.Join(t.TempDir(), "filterd.yaml"), log: &log{}}
	server := redistest.Start(t)
	r.rdb = redis.NewClient(&redis.Options{Addr: server.Addr})
	r.write(text)
	loaded, err := config.Load(r.file)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewJSONHandler(r.log, nil))
	r.reloader = &reloader{logger: logger, manager: newService(logger)}
	r.config.Store(loaded)
	if r.engine, err = loaded.Engine(engine.Config{Sink: pubsub.NewSink(r.rdb), Logger: r.logger}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	ended := make(chan error, 1)
	source := pubsub.NewSource(r.rdb, pubsub.SourceOptions{Logger: r.logger, OnReady: sync.OnceFunc(func() { close(ready) })})
	go func() { ended <- r.engine.Run(ctx, source) }() // ends with ctx
	<-ready
	r.stop = sync.OnceFunc(func() {
		cancel()
		for _, err := range []error{<-ended, r.engine.Close(), r.config.Load().Close(), r.rdb.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
		server.Stop()
	})
	t.Cleanup(r.stop)
	return r
}

func (r *reloading) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// A failure is logged once, however often its cause changes nothing, and again
// when somebody asks.
func TestReloadFailureIsLoggedOnce(t *testing.T) {
	const good, bad = "rules: {r: {from: in, to: out}}\n", "rules: {r: {from: in, too: out}}\n"
	r := newReloading(t, good)
	const what = "reload refused: the rules stay as they are"
	for i, step := range []struct {
		text   string
		asked  bool
		logged int
	}{
		{bad, false, 1}, {bad + "# still\n", false, 1}, {bad, true, 2}, {bad + "x", false, 3}, {good, false, 3}, {bad, false, 4},
	} {
		r.write(step.text)
		r.reload(t.Context(), step.asked)
		if got := len(r.log.lines(what)); got != step.logged {
			t.Errorf("step %d: logged %d times, want %d\n%s", i, got, step.logged, r.log)
		}
	}
	if s := r.engine.Stats(); s.Reloads != 1 || s.RefusedReloads != 5 || !strings.Contains(s.LastRefusal.Err.Error(), "filterd.yaml:1:23: rules.r.too: unknown key") {
		t.Errorf("%+v", s)
	}
	if got := fmt.Sprint(r.log.lines("refused")); !strings.Contains(got, "filterd.yaml:1:23 hint:did you mean to? key:rules.r.too") {
		t.Error(got)
	}
}

// One reload after the other under load, a tenth of them refused: nothing is
// lost, no message is seen by two generations, and order holds.
func TestReloadsUnderLoad(t *testing.T) {
	reloads := size(t, "FILTERD_RELOADS", 50)
	text := func(n int) string {
		switch {
		case n%30 == 10:
			return "rules: {a: {from: in"
		case n%30 == 20:
			return "rules: {a: {from: in, when: data.n >, to: all}}"
		case n%30 == 0 && n > 0:
			return "rules: {a: {from: in, to: all, tests: [{in: 1, out: drop}]}}"
		}
		return fmt.Sprintf("rules:\n  a: {from: in, when: data >= 0, to: g.%d}\n  a%[1]d: {from: in, to: g.%[1]d}\n  order: {from: in, to: all}\n", n)
	}
	r := newReloading(t, text(1))
	r.connected = nil
	got := r.rdb.PSubscribe(t.Context(), "g.*", "all")
	defer got.Close()
	for range 2 {
		if _, err := got.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	const window = 500 // messages on the way
	var received atomic.Int64
	var published []time.Time // by number
	var mu sync.Mutex         // guards published
	ended := make(chan struct{})
	sent := make(chan int, 1)
	go func() { // ends when the reloads have, or publishing fails
		n := 0
		defer func() { sent <- n }()
		for {
			select {
			case <-ended:
				return
			default:
			}
			if int64(n)-received.Load() >= window {
				time.Sleep(50 * time.Microsecond)
				continue
			}
			mu.Lock()
			published = append(published, time.Now())
			mu.Unlock()
			if err := r.rdb.Publish(context.Background(), "in", n).Err(); err != nil {
				t.Error(err)
				return
			}
			n++
		}
	}()
	var delays []time.Duration
	pairs := make(map[string]string) // number to the channel of its first copy
	copies := 0
	counted := make(chan struct{})
	go func() { // ends when the subscription is closed
		defer close(counted)
		for {
			m, err := got.ReceiveMessage(context.Background())
			if err != nil {
				return
			}
			if m.Channel == "all" {
				n := received.Load()
				if m.Payload != fmt.Sprint(n) {
					t.Errorf("message %s comes after %d", m.Payload, n-1)
				}
				mu.Lock()
				delays = append(delays, time.Since(published[n]))
				mu.Unlock()
				received.Add(1)
				continue
			}
			copies++
			if first, ok := pairs[m.Payload]; !ok {
				pairs[m.Payload] = m.Channel
			} else if delete(pairs, m.Payload); first != m.Channel {
				t.Errorf("message %s is of two generations: %s and %s", m.Payload, first, m.Channel)
			}
		}
	}()

	var took []time.Duration
	refused := 0
	for n := 2; n <= reloads+1; n++ {
		r.write(text(n))
		begin := time.Now()
		r.reload(t.Context(), true)
		took = append(took, time.Since(begin))
		if n%10 == 0 {
			refused++
		}
		for mark := received.Load(); received.Load() == mark; { // something passes between any two
			time.Sleep(50 * time.Microsecond)
		}
	}
	close(ended)
	n := <-sent
	for deadline := time.Now().Add(patience); received.Load() < int64(n) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	r.stop()
	_ = got.Close()
	<-counted
	s := r.engine.Stats()
	if received.Load() != int64(n) || copies != 2*n || len(pairs) > 0 {
		t.Errorf("%d of %d messages came, and %d of %d copies", received.Load(), n, copies, 2*n)
	}
	if s.RefusedReloads != uint64(refused) || s.Reloads != uint64(reloads-refused) || s.Gaps+s.Unrouted+s.Refused > 0 {
		t.Errorf("%d refused: %+v", refused, s)
	}
	slices.Sort(took)
	slices.Sort(delays)
	t.Logf("%d reloads, %d of them refused: %v each (median), %v the longest", reloads, refused, took[len(took)/2], took[len(took)-1])
	t.Logf("%d messages through Redis, there and back: %v (median), %v the longest", n, delays[len(delays)/2], delays[len(delays)-1])
}

// What a reload of many rules takes, and how long a message waits meanwhile.
func TestReloadOfManyRules(t *testing.T) {
	rules := size(t, "FILTERD_RULES", 500)
	text := func(version int) string {
		var b strings.Builder
		b.WriteString("rules:\n")
		for i := range rules {
			fmt.Fprintf(&b, "  r%d:\n    from: in\n    when: data.symbol == \"S%[1]d\" and data.price > %d\n    to: out\n", i, i+version)
			fmt.Fprintf(&b, "    tests:\n      - {in: {symbol: S%d, price: %d}, out: out}\n      - {in: {symbol: S%[1]d, price: 0}, out: drop}\n", i, i+version+1)
		}
		return b.String()
	}
	r := newReloading(t, text(0))
	payload := []byte(`{"symbol":"none","price":1}`) // no rule keeps it: what is measured is the engine
	const every = 100 * time.Microsecond
	var busy, late atomic.Int64 // the longest: in the engine, and with the wait for a processor
	stop := make(chan struct{})
	var hot sync.WaitGroup
	hot.Go(func() { // ends with stop
		m := &filterd.Message{Channel: "in", Payload: payload}
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-stop:
				return
			default:
			}
			time.Sleep(every)
			begin := time.Now()
			if err := r.engine.Process(context.Background(), m); err != nil {
				t.Error(err)
			}
			busy.Store(max(busy.Load(), int64(time.Since(begin))))
			late.Store(max(late.Load(), int64(time.Since(last)-every)))
		}
	})
	longest := func() string {
		return fmt.Sprintf("%v (%v)", time.Duration(busy.Swap(0)), time.Duration(late.Swap(0)))
	}
	time.Sleep(500 * time.Millisecond)
	idle := longest()
	var took []time.Duration
	var during []string
	for version := 1; version <= 5; version++ {
		r.write(text(version))
		runtime.GC()
		longest()
		begin := time.Now()
		r.reload(t.Context(), true)
		took = append(took, time.Since(begin))
		time.Sleep(10 * time.Millisecond) // what comes first after it counts as well
		during = append(during, longest())
	}
	close(stop)
	hot.Wait()
	if s := r.engine.Stats(); s.Reloads != 5 || s.RefusedReloads != 0 {
		t.Errorf("%+v\n%s", s, r.log)
	}
	t.Logf("%d rules, 2 tests each: reloads took %v", rules, took)
	t.Logf("the longest that a message took, and with the wait for a processor: %s before; %s", idle, strings.Join(during, ", "))
}

// Nothing grows from reload to reload: neither goroutines, nor memory, with
// modules that come, stay and go.
func TestReloadsLeaveNothing(t *testing.T) {
	reloads := size(t, "FILTERD_RELOADS", 60)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := newReloading(t, "rules: {r: {from: in, to: out}}")
	defer r.stop()
	code, err := os.ReadFile("../../filters/wasmfilter/testdata/probe.wasm")
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(r.file)
	text := func(n int) string {
		if n%10 == 0 {
			return "rules: ["
		}
		return fmt.Sprintf(`
channels: {in: {envelope: bytes}}
modules:
  stays: {path: stays.wasm, kv: memory}
  changes: {path: changes.wasm, kv: memory}
rules:
  r: {from: in, wasm: stays, to: "out.%d", tests: [{in: "0", out: drop}]}
  s%[1]d: {from: in, wasm: changes, to: out, tests: [{in: "0", out: drop}]}
`, n)
	}
	some := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			for name, end := range map[string]string{"stays.wasm": "xy", "changes.wasm": fmt.Sprintf("%02d", n%7)} {
				if err := os.WriteFile(filepath.Join(folder, name), append(bytes.Clone(code), "\x00\x03\x01"+end...), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r.write(text(n))
			r.reload(t.Context(), true)
			if err := r.engine.Process(t.Context(), &filterd.Message{Channel: "in", Payload: []byte("-")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	heap := func() int {
		t.Helper()
		var m runtime.MemStats
		for range 3 { // pools and finalizers need more than one
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	some(1, reloads/4)
	before, goroutines := heap(), runtime.NumGoroutine()
	some(reloads/4, reloads)
	after := heap() - len(r.log.String())
	t.Logf("the heap after %d reloads: %d KiB, after %d: %d KiB; goroutines: %d, %d", reloads/4, before>>10, reloads, after>>10, goroutines, runtime.NumGoroutine())
	if grown := after - before; grown > 1<<20+reloads<<10 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
	if s := r.engine.Stats(); s.RefusedReloads != uint64((reloads-1)/10) || s.Gaps > 0 {
		t.Errorf("%+v\n%s", s, r.log)
	}
}
