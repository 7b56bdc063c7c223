package wasmfilter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// show writes a result as a line.
func show(r filterd.StageResult) string {
	if r.Err != nil {
		return "error: " + r.Err.Error()
	}
	text := "drop"
	if r.Keep {
		text = "keep"
	}
	if r.Payload != nil {
		text += " " + fmt.Sprintf("%q", r.Payload)
	}
	for _, d := range r.Emitted {
		text += fmt.Sprintf(" +%s %q", d.Channel, d.Payload)
	}
	return text
}

func probe(t testing.TB, r *wasmfilter.Runtime, config string) *wasmfilter.Module {
	t.Helper()
	return load(t, r, wasmfilter.ModuleConfig{
		Code: readGuest(t, "probe.wasm"), KV: "memory", Fuel: 10_000_000,
		Config: json.RawMessage(config), Publish: []string{"out", "prices", "alerts.*"}, Registry: registry(t),
	})
}

func registry(t testing.TB) *filterd.Registry {
	t.Helper()
	schema, err := filterd.ParseSchema("price", []byte(`{"type": "object", "required": ["price"]}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := filterd.NewRegistry(
		filterd.Contract{Channel: "prices", Envelope: filterd.EnvelopeRaw, Schema: schema, Validate: filterd.ValidateOff},
		filterd.Contract{Channel: "out", Envelope: filterd.EnvelopeBytes},
		filterd.Contract{Channel: "channel", Envelope: filterd.EnvelopeBytes},
	)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// probes are payloads for the guest probe, with what becomes of them.
var probes = []struct{ payload, want string }{
	{"", "keep"},
	{"0", "drop"},
	{"1", "keep"},
	{"2new", `keep "new"`},
	{"2", `keep ""`},
	{"inew", "keep"}, // replaced, but passed unchanged
	{"r", `error: module "test": filterd_process: verdict 2, but replace was not called`},
	{"x", `error: module "test": filterd_process: verdict 17: want 0, 1, 2 or an error below 0`},
	{"eno\tgood \x1b[31m\xff", `error: module "test": no\tgood \x1b[31m\xff`},
	{"n", `error: module "test": error -7`},
	{"u", `error: module "test": trapped: unreachable (in handle < PROCESS)`},
	{"p", `error: module "test": replace: pointer 0xfffffff0 with length 64 reaches beyond the memory of 196608 bytes (in handle < PROCESS)`},
	{"4", `error: module "test": replace: pointer POINTER with length 4294967295 reaches beyond the memory of 196608 bytes (in handle < PROCESS)`},
	{"O", `error: module "test": log: there is no level 9 (in handle < PROCESS)`},
	{"a", `error: module "test": field: fields are declared in filterd_configure (in handle < PROCESS)`},
	{"z", `error: module "test": field_kind: there is no field 99 (in handle < PROCESS)`},
	{"y", `error: module "test": select: message 99 of COUNT (in handle < PROCESS)`},
	{"l", `error: module "test": out of fuel: more than BUDGET (in handle < PROCESS)`},
	{"d", `error: module "test": stack overflow: more than 1048576 bytes (in deep < deep < deep < deep < …)`},
	{"mout\nhello", `keep +out "hello"`},
	{"malerts.x\n1", `keep +alerts.x "1"`},
	{"malert\n1", `error: module "test": error -11`},
	{"mprices\n{\"price\": 1}", `keep +prices "{\"price\": 1}"`},
	{"mprices\n{}", `error: module "test": error -13`},
	{"mout\n", `keep +out ""`},
	{"M1", `error: module "test": error -22`},
	{"E", `error: module "test": x`},
	{"U", `error: module "test": trapped: unreachable (in handle < PROCESS)`},
	{"c", `keep "channel"`},
	{"ohello", "keep"},
}

// expect fills in what is different in a batch.
func expect(want string, batch int) string {
	process, budget := "filterd_process", "10000000 instructions"
	if batch > 1 {
		process, budget = "filterd_process_batch", fmt.Sprintf("%d instructions for %d messages", 10000000*batch, batch)
	}
	return strings.NewReplacer("PROCESS", process, "BUDGET", budget, "COUNT", fmt.Sprint(batch)).Replace(want)
}

// pointers differ with the guest's layout.
func withoutPointer(s string) string {
	before, after, ok := strings.Cut(s, "replace: pointer 0x")
	if !ok || strings.HasPrefix(after, "fffffff0") {
		return s
	}
	_, after, _ = strings.Cut(after, " ")
	return before + "replace: pointer POINTER " + after
}

func TestSingle(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, "[]")
	for _, p := range probes {
		got := withoutPointer(show(run(t, m, p.payload)[0]))
		if want := expect(p.want, 1); got != want {
			t.Errorf("%q: got  %s\n\twant %s", p.payload, got, want)
		}
		// A message that goes well closes the breaker, and finds a fresh guest.
		if got := show(run(t, m, "2next")[0]); got != `keep "next"` {
			t.Fatalf("after %q: %s", p.payload, got)
		}
	}
	stats := m.Stats()
	want := map[wasmfilter.FaultKind]uint64{"abi": 8, "fuel": 1, "stack": 1, "trap": 2}
	if !cmp.Equal(stats.Faults, want) {
		t.Errorf("faults %v, want %v", stats.Faults, want)
	}
	if stats.Started != 13 || stats.Instances != 1 || stats.Errors != 6 || stats.Calls != uint64(2*len(probes)) || stats.Messages != stats.Calls || stats.Fuel < 10_000_000 || stats.Fuel > 20_000_000 {
		t.Errorf("%+v", stats)
	}
}

// TestBatchAgrees holds a batch against its messages alone, whatever its
// order.
func TestBatchAgrees(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, `["data"]`)
	for _, p := range probes {
		for _, batch := range [][]string{
			{p.payload, "2after"},
			{"2before", p.payload},
			{"0", "eno", p.payload, "mout\nx", "1"},
		} {
			var want []string
			count := len(batch)
			for _, payload := range batch {
				single := show(run(t, m, payload)[0])
				if payload == p.payload && strings.HasPrefix(single, "error") {
					single = expect(p.want, count)
				}
				want = append(want, withoutPointer(single))
			}
			var got []string
			for _, result := range run(t, m, batch...) {
				got = append(got, withoutPointer(show(result)))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("batch %q: alone and together (-, +):\n%s", batch, diff)
			}
		}
	}
	if breaker := m.Stats().Breaker; breaker != wasmfilter.BreakerClosed {
		t.Error(breaker)
	}
}

func TestBatchFaults(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, "[]")
	const trapped = `error: module "test": trapped: unreachable (in handle < filterd_process_batch)`
	const again = `error: module "test": trapped: unreachable (in handle < filterd_process)` // the last one is alone
	for _, test := range []struct {
		name  string
		batch []string
		want  []string
	}{
		{"two culprits", []string{"1", "u", "2a", "u", "2b", "s"}, []string{"keep", trapped, `keep "a"`, trapped, `keep "b"`, `keep "2"`}},
		{"the last one", []string{"1", "u"}, []string{"keep", trapped}},
		{"the first one", []string{"u", "u"}, []string{trapped, again}},
		{"undecided", []string{"1", "q", "2a", "0"}, []string{"keep", `error: module "test": filterd_process_batch left message 1 of 4 undecided`, `keep "a"`, "drop"}},
		{"all undecided", []string{"q", "q", "q"}, []string{
			`error: module "test": filterd_process_batch left message 0 of 3 undecided`,
			`error: module "test": filterd_process_batch left message 0 of 2 undecided`,
			"keep",
		}},
		{"wrong result", []string{"1", "w", "1"}, []string{"keep", `error: module "test": filterd_process_batch returned 3, want 0`, "keep"}},
		{"nothing selected", []string{"S", "1"}, []string{`error: module "test": replace: no message of the batch is selected (in filterd_process_batch)`, "keep"}},
		{"not in order", []string{"D", "1", "u", "2a", "2b"}, []string{trapped, "keep", trapped, `keep "a"`, `keep "b"`}},
		{"not in order, twice", []string{"D", "D", "u", "2a", "2b"}, []string{trapped, trapped, again, `keep "a"`, `keep "b"`}},
		{"a trap after all verdicts", []string{"T", "2a", "mout\nx"}, []string{"keep", `keep "a"`, `keep +out "x"`}},
		{"what the culprit emitted is void", []string{"mout\n1", "U", "mout\n2"}, []string{`keep +out "1"`, trapped, `keep +out "2"`}},
		{"verdicts that make no sense", []string{"x", "r", "1"}, []string{
			`error: module "test": filterd_process: verdict 17: want 0, 1, 2 or an error below 0`,
			`error: module "test": filterd_process: verdict 2, but replace was not called`,
			"keep",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, m, "1") // the breaker starts from nothing
			var got []string
			for _, result := range run(t, m, test.batch...) {
				got = append(got, show(result))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("want and got (-, +):\n%s", diff)
			}
			if got := show(run(t, m, "2next")[0]); got != `keep "next"` {
				t.Error(got)
			}
		})
	}
}

// TestBatchSizes has batches that are too large: for the guest's buffer, for
// one call, and messages that are too large for any.
func TestBatchSizes(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	for config, want := range map[string]string{"[]": "keep", `["B"]`: `error: module "test": filterd_buffer refuses 401 bytes`} {
		m := probe(t, r, config)
		var batch, wants []string
		for k := range 200 {
			batch, wants = append(batch, fmt.Sprintf("2%d", k)), append(wants, fmt.Sprintf("keep \"%d\"", k))
		}
		batch, wants = append(batch, "1"+strings.Repeat("x", 400), "s"), append(wants, want, `keep "202"`)
		if want != "keep" {
			wants[201] = `keep "201"`
		}
		var got []string
		for _, result := range run(t, m, batch...) {
			got = append(got, show(result))
		}
		if diff := cmp.Diff(wants, got); diff != "" {
			t.Errorf("%s: want and got (-, +):\n%s", config, diff)
		}
		for k, result := range run(t, m, "1"+strings.Repeat("x", 200_000), "1"+strings.Repeat("y", 200_000), "1"+strings.Repeat("z", 3_000_000), "1") {
			if config == "[]" && show(result) != "keep" {
				t.Error(k, show(result))
			}
		}
		if stats := m.Stats(); stats.Started != 1 || len(stats.Faults) != 0 {
			t.Errorf("%+v", stats)
		}
		if config != "[]" {
			continue
		}
		// The guest's memory ends at 16 MiB.
		if got := show(run(t, m, "1"+strings.Repeat("x", 20<<20))[0]); !strings.HasSuffix(got, "refuses 20971521 bytes") {
			t.Error(got)
		}
	}
}

func TestFields(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, `["data.s", "data.n", "data.b", "data.o", "data.a[1]", "data[\"a b\"]", "data.missing.x", "data.null", "event.type", "data.s", "data.e", "data"]`)
	long := strings.Repeat("long ", 300)
	payloads := []string{
		`f`, // no JSON
		`{"s":"plain","n":12.5,"b":true,"o":{"x": [1, 2]},"a":[0,"one"],"a b":"key","null":null,"e":""}`,
		`{"s":"esc\n\"aped\" é \ud83d\ude00","n":-1e3,"b":false,"o":[],"a":["x","Pr` + "\u00e9" + `s"],"a b":{},"e":"` + "\xff" + `"}`,
		`{"s":1,"s":"last wins","n":"no number","n":3,"e":"` + long + `"}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t.v1","data":{"s":"in an event","n":0.001}}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t.v1","data_base64":"eyJzIjoieCJ9"}`,
		`{"s":"\u0000\ud800"}`,
	}
	want := [][]string{
		nil,
		{"4 plain", "3 12500", "2 1", `6 {"x": [1, 2]}`, "4 one", "4 key", "0 ", "1 ", "0 ", "4 "},
		{"4 esc\n\"aped\" é 😀", "3 -1000000", "2 0", "5 []", "4 Pr\u00e9s", "6 {}", "0 ", "0 ", "0 ", "4 \ufffd"},
		{"4 last wins", "3 3000", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "4 " + long},
		{"4 in an event", "3 1", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "4 t.v1", "0 "},
		{"0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "4 t.v1", "0 ", `4 {"s":"x"}`},
		{"4 \x00\ufffd", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "0 ", "0 "},
	}
	projection := filterd.NewProjection([]filterd.Path{filterd.PathChannel}, m.Paths())
	runner := m.Bind(projection.Slots(m.Paths()))
	for _, batch := range [][]int{{0, 1, 2, 3, 4, 5, 6}, {0}, {1}, {2}, {3}, {4}, {5}, {6}, {2, 2}} {
		messages := make([]*filterd.Message, len(batch))
		for k, n := range batch {
			messages[k] = &filterd.Message{Channel: "channel", Payload: []byte(payloads[n])}
			messages[k].Bind(projection)
		}
		results := make([]filterd.StageResult, len(batch))
		runner.Run(context.Background(), messages, results)
		for k, n := range batch {
			if n == 0 {
				if got, want := show(results[k]), `keep "0 \n0 \n0 \n0 \n0 \n0 \n0 \n0 \n0 \n0 \n0 \n"`; got != want {
					t.Errorf("no JSON: %s", got)
				}
				continue
			}
			got := strings.Split(string(results[k].Payload), "\n")
			joined := strings.Join(want[n], "\n")
			if !strings.HasPrefix(string(results[k].Payload), joined) {
				t.Errorf("batch %v, message %d: %q\nwant %q (%v)", batch, n, got, want[n], results[k].Err)
			}
		}
	}
}

func TestFieldsTooLittleRoom(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, `["data[0]"]`)
	// The guest gives room for three bytes.
	if got := string(run(t, m, `["text"]`)[0].Payload); len(got) != 4 || got[:3] != "tex" {
		t.Errorf("%q", got)
	}
}

func TestNow(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, "[]")
	received := time.Unix(1_700_000_000, 123)
	messages := []*filterd.Message{{Payload: []byte("t"), Received: received}, {Payload: []byte("t")}}
	results := make([]filterd.StageResult, 2)
	for range 2 {
		m.Bind(nil).Run(context.Background(), messages, results)
		if got := string(results[0].Payload); got != "1700000000000000123" {
			t.Error(got)
		}
		if got := string(results[1].Payload); len(got) != 19 || got == string(results[0].Payload) {
			t.Error(got)
		}
	}
}

func TestConfigureAgain(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, `["data.a", "K"]`) // declares another field in the second instance
	run(t, m, "x")
	if got := show(run(t, m, "1")[0]); got != `error: module "test": fresh instance: filterd_configure: declares other fields than the first instance: ["data.a" "data.other"], not ["data.a"]` {
		t.Error(got)
	}
	if got := show(run(t, m, "1")[0]); got != "keep" {
		t.Error(got)
	}
}

func TestBreaker(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	m := probe(t, r, `["Z"]`) // only the first instance starts
	run(t, m, "u")
	for range 3 {
		if got := show(run(t, m, "1")[0]); !strings.Contains(got, "fresh instance: filterd_configure: trapped: unreachable") {
			t.Error(got)
		}
	}
	results := run(t, m, "1", "1", "1")
	if got := show(results[0]); !strings.Contains(got, "fresh instance") {
		t.Error(got)
	}
	for _, result := range results[1:] {
		var open *wasmfilter.BreakerError
		if !errors.As(result.Err, &open) || open.Faults != 5 || !strings.HasPrefix(open.Error(), `module "test" is not called after 5 faults in a row, the last: module "test": fresh instance: `) {
			t.Error(show(result))
		}
	}
	if stats := m.Stats(); stats.Breaker != wasmfilter.BreakerOpen || stats.Refused != 2 || stats.Faults["trap"] != 5 || stats.Instances != 0 {
		t.Errorf("%+v", stats)
	}
	// The breaker stays with the name and the code, not with the module.
	again := probe(t, r, "[]")
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if got := show(run(t, again, "1")[0]); !strings.Contains(got, "is not called") {
		t.Error(got)
	}
	deadline := time.Now().Add(10 * time.Second)
	for show(run(t, again, "1")[0]) != "keep" {
		if time.Now().After(deadline) {
			t.Fatal("the breaker stays open")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if stats := again.Stats(); stats.Breaker != wasmfilter.BreakerClosed || stats.Faults["trap"] != 5 {
		t.Errorf("%+v", stats)
	}
}

func TestRecycling(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	config := wasmfilter.ModuleConfig{Name: "calls", Code: readGuest(t, "probe.wasm"), KV: "memory", RecycleCalls: 3}
	m := load(t, r, config)
	var got []string
	for range 7 {
		got = append(got, string(run(t, m, "s")[0].Payload))
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "1", "2", "3", "1"}, got); diff != "" {
		t.Error(diff)
	}
	if stats := m.Stats(); stats.Recycled != 2 || stats.Started != 3 || stats.Instances != 1 {
		t.Errorf("%+v", stats)
	}
	config.Name, config.RecycleCalls, config.Memory = "memory", 0, 1<<20
	m = load(t, r, config)
	for range 2000 {
		if got := show(run(t, m, "g")[0]); got != "keep" {
			t.Fatal(got)
		}
	}
	if stats := m.Stats(); stats.Recycled != 2 || stats.Instances > 1 {
		t.Errorf("%+v", stats)
	}
}

// TestHostile has a guest that never ends beside others that must not notice.
func TestHostile(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	bad := load(t, r, wasmfilter.ModuleConfig{Name: "bad", Code: readGuest(t, "probe.wasm"), KV: "memory", Fuel: 1 << 50}) // days
	good := probe(t, r, "[]")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { // ends with ctx
		results := make([]filterd.StageResult, 1)
		bad.Bind(nil).Run(ctx, []*filterd.Message{{Payload: []byte("l")}}, results)
		done <- results[0].Err
	}()
	for range 20 {
		for range 50 {
			if got := show(run(t, good, "2x")[0]); got != `keep "x"` {
				t.Error(got)
			}
		}
		// The collector waits until everyone has come to a halt: a guest does
		// at the end of its slice, or this never returns.
		runtime.GC()
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestInterruption(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{Workers: 1})
	m := load(t, r, wasmfilter.ModuleConfig{Code: readGuest(t, "probe.wasm"), KV: "memory", Fuel: math.MaxInt32 * 100})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	messages := []*filterd.Message{{Payload: []byte("2a")}, {Payload: []byte("l")}, {Payload: []byte("1")}}
	results := make([]filterd.StageResult, 3)
	m.Bind(nil).Run(ctx, messages, results)
	if got := show(results[0]); got != `keep "a"` {
		t.Error(got)
	}
	for _, result := range results[1:] {
		if !errors.Is(result.Err, context.DeadlineExceeded) || result.Err.Error() != `module "test": stopped: context deadline exceeded` {
			t.Error(result.Err)
		}
	}
	// One instance: a second runner waits for it, as long as it may.
	long, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { m.Bind(nil).Run(long, messages[1:2], make([]filterd.StageResult, 1)) })
	time.Sleep(20 * time.Millisecond)
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	m.Bind(nil).Run(short, messages[:1], results)
	if got := show(results[0]); got != `error: module "test": context deadline exceeded` {
		t.Error(got)
	}
	wait.Go(func() { m.Bind(nil).Run(context.Background(), messages[:1], results) })
	time.Sleep(10 * time.Millisecond)
	stop()
	wait.Wait()
	if got := show(results[0]); got != `keep "a"` {
		t.Error(got)
	}
	if stats := m.Stats(); len(stats.Faults) != 0 || stats.Instances != 1 {
		t.Errorf("%+v", stats)
	}
	// Close waits for the call, and whoever waits for an instance gets an
	// error.
	long, stop = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	wait.Go(func() { m.Bind(nil).Run(long, messages[1:2], make([]filterd.StageResult, 1)) })
	time.Sleep(10 * time.Millisecond)
	wait.Go(func() { m.Bind(nil).Run(context.Background(), messages[:1], results) })
	time.Sleep(10 * time.Millisecond)
	if err := m.Close(); err != nil || long.Err() == nil {
		t.Error(err, long.Err())
	}
	wait.Wait()
	if got := show(results[0]); got != `error: module "test": closed` {
		t.Error(got)
	}
}

func TestConcurrency(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{Workers: 3})
	m := probe(t, r, "[]")
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for k := range 300 {
				word := fmt.Sprintf("%d.%d", g, k)
				batch, want := []string{"2" + word}, []string{"keep \"" + word + "\""}
				switch k % 10 {
				case 3:
					batch, want = append(batch, "kicount=1"), append(want, "")
				case 5:
					batch, want = append(batch, "x", "1"), append(want, `error: module "test": filterd_process: verdict 17: want 0, 1, 2 or an error below 0`, "keep")
				}
				for at, result := range run(t, m, batch...) {
					if got := show(result); want[at] != "" && got != want[at] {
						t.Errorf("%q: got %s, want %s", batch[at], got, want[at])
					}
				}
			}
		})
	}
	wait.Wait()
	if got := show(run(t, m, "kgcount=")[0]); got != `keep "240"` {
		t.Error(got)
	}
	if stats := m.Stats(); stats.Instances > 3 || stats.Faults["abi"] != 240 || stats.Messages != 8*300+240+480+1 {
		t.Errorf("%+v", stats)
	}
}

// TestManyRules has 64 rules on one module.
func TestManyRules(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{Workers: 2})
	m := probe(t, r, "[]")
	var wait sync.WaitGroup
	for range 64 {
		runner := m.Bind(nil)
		wait.Go(func() {
			results := make([]filterd.StageResult, 1)
			for range 20 {
				runner.Run(context.Background(), []*filterd.Message{{Payload: []byte("2x")}}, results)
				if got := show(results[0]); got != `keep "x"` {
					t.Error(got)
				}
			}
		})
	}
	wait.Wait()
	if stats := m.Stats(); stats.Started > 2 || stats.Messages != 64*20 {
		t.Errorf("%+v", stats)
	}
}

func TestAllocations(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	ctx := context.Background()
	for _, test := range []struct {
		guest, payload string
		messages       int
		want           float64
	}{
		{"minimal.wasm", "x", 1, 0},
		{"decide.wasm", strings.Repeat("x", 324), 1, 0},
		{"decide.wasm", strings.Repeat("x", 324), 64, 0},
		{"field.wasm", `{"price":101.5}`, 1, 0},
		{"field.wasm", `{"price":101.5}`, 64, 0},
		{"probe.wasm", "1", 1, 0},
		{"probe.wasm", "c", 1, 1}, // the new payload
		{"probe.wasm", "kgmissing", 1, 1},
	} {
		m := load(t, r, wasmfilter.ModuleConfig{Code: readGuest(t, test.guest), KV: "memory"})
		p := filterd.NewProjection(m.Paths())
		runner := m.Bind(p.Slots(m.Paths()))
		messages := make([]*filterd.Message, test.messages)
		for k := range messages {
			messages[k] = &filterd.Message{Channel: "channel", Payload: []byte(test.payload)}
			messages[k].Bind(p)
		}
		results := make([]filterd.StageResult, test.messages)
		runner.Run(ctx, messages, results)
		if got := testing.AllocsPerRun(200, func() { runner.Run(ctx, messages, results) }); got != test.want {
			t.Errorf("%s, %d × %.10q: %v allocations, want %v", test.guest, test.messages, test.payload, got, test.want)
		}
	}
}

func TestLog(t *testing.T) {
	var lines strings.Builder
	logger := slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	r := newRuntime(t, wasmfilter.RuntimeConfig{Logger: logger})
	m := probe(t, r, "[]")
	run(t, m, "ohello\x1b[2J\nworld", "mnowhere\nx")
	want := `level=INFO msg=guest module=test text=hello\x1b[2J\nworld
level=WARN msg="emit: the channel is not allowed by publish" module=test channel=nowhere
`
	if diff := cmp.Diff(want, lines.String()); diff != "" {
		t.Error(diff)
	}
	for range 100 {
		run(t, m, "oagain")
	}
	if got := strings.Count(lines.String(), "again"); got != 19 {
		t.Errorf("%d lines", got)
	}
}

func TestGoGuest(t *testing.T) {
	var lines strings.Builder
	r := newRuntime(t, wasmfilter.RuntimeConfig{Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	m := load(t, r, wasmfilter.ModuleConfig{Code: goGuest(t)})
	for _, p := range []struct{ payload, want string }{
		{string(trade), "keep"},
		{"other", "drop"},
		{"panic: no luck", `error: module "test": trapped: unreachable: panic: panic: no luck`},
		{"exit", `error: module "test": exited with code 3`},
		{"print hello", "drop"},
		{"file", "drop"},
		{"sleep", "drop"},
		{string(trade), "keep"},
		{strings.Repeat("B", 1<<20), "drop"},
	} {
		if got, _, _ := strings.Cut(show(run(t, m, p.payload)[0]), " (in $"); got != p.want {
			t.Errorf("%.20q: got %s, want %s", p.payload, got, p.want)
		}
	}
	if !strings.Contains(lines.String(), `text="print hello"`) {
		t.Error(lines.String())
	}
	stats := m.Stats()
	if stats.Faults["exit"] != 1 || stats.Faults["trap"] != 1 || stats.Started != 3 {
		t.Errorf("%+v", stats)
	}
	t.Logf("start: %v, %d fuel, %d bytes of memory", m.Info().StartTime, m.Info().StartFuel, m.Info().Memory)
}

func TestHostFunctions(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	type key struct{}
	config := wasmfilter.ModuleConfig{Name: "test", Code: readGuest(t, "hostfunction.wasm")}
	function := wanted[0]
	var seen *filterd.Message
	function.Call = func(ctx context.Context, guest wasmfilter.Guest, stack []uint64) error {
		seen = guest.Message()
		payload, err := guest.Bytes(uint32(stack[0]), uint32(stack[1]))
		if err != nil {
			return err
		}
		if ctx.Value(key{}) != "value" {
			return errors.New("not the runner's context")
		}
		switch string(payload) {
		case "error":
			return io.ErrUnexpectedEOF
		case "panic":
			panic("no\nluck")
		case "pointer":
			_, err = guest.Bytes(0xffff0000, 0xffff)
			return err
		}
		stack[0] = 0
		return nil
	}
	config.HostFunctions = []wasmfilter.HostFunction{function}
	m := load(t, r, config)
	other := load(t, r, wasmfilter.ModuleConfig{Name: "other", Code: config.Code, HostFunctions: wanted}) // of the same name
	ctx := context.WithValue(context.Background(), key{}, "value")
	for _, p := range []struct{ payload, want string }{
		{"BTC", "drop"},
		{"error", `error: module "test": wanted: unexpected EOF (in $1)`},
		{"panic", `error: module "test": a host function panicked: no (in $1)`},
		{"pointer", `error: module "test": wanted: pointer 0xffff0000 with length 65535 reaches beyond the memory of 65536 bytes (in $1)`},
	} {
		messages := []*filterd.Message{{Payload: []byte(p.payload)}}
		results := make([]filterd.StageResult, 1)
		m.Bind(nil).Run(ctx, messages, results)
		if got := show(results[0]); !strings.HasPrefix(got, strings.TrimSuffix(p.want, "$1)")) {
			t.Errorf("%s: got %s, want %s", p.payload, got, p.want)
		}
		if seen != messages[0] {
			t.Error("another message")
		}
		if got := errors.Is(results[0].Err, io.ErrUnexpectedEOF); got != (p.payload == "error") {
			t.Error(p.payload, got)
		}
	}
	if got := show(run(t, other, "BTC")[0]); got != "keep" {
		t.Error(got)
	}
	config.HostFunctions = append(config.HostFunctions, function, wasmfilter.HostFunction{Module: "filterd", Name: "x", Params: []wasmfilter.ValueType{0x7b}})
	_, err := r.Load(ctx, config)
	want := `module "test": host function host.wanted: is there twice
host function filterd.x: the module filterd is filterd's
host function filterd.x: a name and a function are required
host function filterd.x: unknown type 0x7b`
	if err == nil || err.Error() != want {
		t.Error(err)
	}
}
