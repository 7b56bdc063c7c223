//go:build !wasip1

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// A language has an SDK, and a module in testdata that makes every call.
type language struct {
	name  string
	build func(t *testing.T, output string) *exec.Cmd
	json  bool // the SDK writes JSON strings
}

var languages = []language{
	{name: "c", build: buildC},
	{name: "c with a buffer of its own", build: buildOwnBuffer},
	{name: "rust", build: buildRust, json: true},
	{name: "assemblyscript", build: buildAssemblyScript, json: true},
	{name: "go", build: buildGo, json: true},
}

// find skips the test where a tool is missing.
func find(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skip(err)
	}
	return path
}

func buildC(t *testing.T, output string) *exec.Cmd {
	clang := find(t, "clang")
	find(t, "wasm-ld")
	if targets, _ := exec.Command(clang, "-print-targets").Output(); !bytes.Contains(targets, []byte("wasm32")) {
		t.Skip("clang has no target wasm32")
	}
	return exec.Command(clang, "--target=wasm32", "-O2", "-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-nostdlib",
		"-Wl,--no-entry,--strip-all,--stack-first", "-o", output, "testdata/calls.c")
}

func buildOwnBuffer(t *testing.T, output string) *exec.Cmd {
	command := buildC(t, output)
	command.Args = append(command.Args, "-DFILTERD_NO_BUFFER")
	return command
}

func buildRust(t *testing.T, output string) *exec.Cmd {
	const target = "wasm32-unknown-unknown"
	for _, rustc := range []string{"rustc", "/usr/bin/rustc"} {
		libs, err := exec.Command(rustc, "--print", "target-libdir", "--target", target).Output()
		if err != nil {
			continue
		}
		if _, err := os.Stat(strings.TrimSpace(string(libs))); err == nil {
			return exec.Command(rustc, "--edition", "2021", "--target", target, "--crate-type", "cdylib", "-D", "warnings",
				"-O", "-C", "lto", "-C", "panic=abort", "-C", "strip=symbols", "-o", output, "testdata/calls.rs")
		}
	}
	t.Skip("there is no rustc with the target " + target)
	return nil
}

// The compiler is not fetched for a test: once it was, npm has it.
func buildAssemblyScript(t *testing.T, output string) *exec.Cmd {
	npx := find(t, "npx")
	run := func(args ...string) *exec.Cmd {
		command := exec.Command(npx, append([]string{"--yes", "--package=assemblyscript@0.28.20", "asc"}, args...)...)
		command.Env = append(os.Environ(), "npm_config_offline=true", "npm_config_update_notifier=false")
		return command
	}
	if output, err := run("--version").CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, output)
	}
	return run("testdata/calls.ts", "-O3", "--runtime", "incremental", "--use", "abort=", "-o", output)
}

func buildGo(_ *testing.T, output string) *exec.Cmd {
	command := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", output, "./testdata/calls")
	command.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	return command
}

// Every SDK's every call does the same, in calls about one message and about
// many.
func TestSDKs(t *testing.T) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "calls.wasm")
			if output, err := l.build(t, file).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, output)
			}
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var log logged
			r, err := wasmfilter.NewRuntime(t.Context(), wasmfilter.RuntimeConfig{
				Workers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)), CacheDir: filepath.Join(t.TempDir(), "cache"),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
			t.Run("config", func(t *testing.T) { testConfig(t, r, code) })
			t.Run("calls", func(t *testing.T) { testCalls(t, r, code, l, &log) })
			t.Run("long run", func(t *testing.T) { testLongRun(t, r, code) })
			if l.name == "go" {
				t.Run("panic", func(t *testing.T) { testPanic(t, r, code, &log) })
			}
		})
	}
}

// A caller calls a module.
type caller struct {
	t          *testing.T
	module     *wasmfilter.Module
	projection *filterd.Projection
	runner     filterd.StageRunner
}

func load(t *testing.T, r *wasmfilter.Runtime, code []byte, name, config string) *caller {
	t.Helper()
	m, err := r.Load(t.Context(), wasmfilter.ModuleConfig{
		Name: name, Code: code, Config: []byte(config), Publish: []string{"side"}, KV: "memory", Memory: 10 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() }) // the runtime's Close tells
	projection := filterd.NewProjection(m.Paths())
	return &caller{t, m, projection, m.Bind(projection.Slots(m.Paths()))}
}

var noon = time.Date(2024, 2, 29, 12, 0, 0, 123_456_789, time.UTC)

func (c *caller) call(payloads ...string) (all []string) {
	messages := make([]*filterd.Message, len(payloads))
	for i, payload := range payloads {
		messages[i] = &filterd.Message{Channel: "prices", Payload: []byte(payload), Received: noon}
		messages[i].Bind(c.projection)
	}
	results := make([]filterd.StageResult, len(messages))
	c.runner.Run(c.t.Context(), messages, results)
	for _, r := range results {
		text := "drop"
		var guest *wasmfilter.GuestError
		switch {
		case errors.As(r.Err, &guest):
			text = "error " + guest.Text
		case r.Err != nil:
			text = "fault " + r.Err.Error()
		case r.Keep && r.Payload != nil:
			text = "replace " + string(r.Payload)
		case r.Keep:
			text = "pass"
		}
		for _, d := range r.Emitted {
			text += "; " + d.Channel + " " + string(d.Payload)
		}
		all = append(all, text)
	}
	return all
}

func testConfig(t *testing.T, r *wasmfilter.Runtime, code []byte) {
	const ask = `{"do":"config"}`
	for config, want := range map[string]string{
		`{}`:                               `replace 7000 -`,
		`{"number":1.5,"word":"a"}`:        `replace 1500 a`,
		`{"number":-12.25e1,"word":""}`:    `replace -122500 `,
		`{"number":1E-2}`:                  `replace 10 -`,
		`{"number":0.015625}`:              `replace 15 -`,
		`{"number":123456789012345678e-9}`: `replace 123456789012 -`,
		` { "o" : { "word" : "x}" , "a": [ "\"" , 1 ] } , "n":null, "word" : "y" , "number" : 3 } `: `replace 3000 y`,
		`{"word":"\u00fc \ud83d\ude00\t\"\\\/ü","words":"no"}`:                                      "replace 7000 ü 😀\t\"\\/ü",
		`{"wor":"no","word":"\u003cyes>"}`:                                                          `replace 7000 <yes>`,
	} {
		got := load(t, r, code, config, config).call(ask)
		if got[0] != want {
			t.Errorf("%s: %s, want %s", config, got[0], want)
		}
	}
	for config, want := range map[string]string{
		`{"number":"1"}`:  "config: number must be a number",
		`{"number":null}`: "config: number must be a number",
		`{"word":7}`:      "config: word must be a string",
	} {
		_, err := r.Load(t.Context(), wasmfilter.ModuleConfig{Name: "m", Code: code, Config: []byte(config), KV: "memory"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

func testCalls(t *testing.T, r *wasmfilter.Runtime, code []byte, l language, log *logged) {
	long := strings.Repeat("0123456789", 30)
	huge := strings.Repeat("long ", 40_000)
	calls := []struct{ payload, want string }{
		{`{"do":"pass"}`, `pass`},
		{`{"do":"drop"}`, `drop`},
		{`{"do":"fail","v":["grün"]}`, `error grün`},
		{`{"do":"nothing known"}`, `error unknown`},
		{`{ "do": "payload" }`, `replace { "do": "payload" }`},
		{`{"do":"payload","v":["` + huge + `"]}`, `replace {"do":"payload","v":["` + huge + `"]}`},
		{`{"do":"channel"}`, `replace prices`},
		{`{"do":"now"}`, fmt.Sprint("replace ", noon.UnixNano())},
		{`{"do":"kind"}`, `replace 0`},
		{`{"do":"kind","v":[null]}`, `replace 1`},
		{`{"do":"kind","v":[false]}`, `replace 2`},
		{`{"do":"kind","v":[-1]}`, `replace 3`},
		{`{"do":"kind","v":[""]}`, `replace 4`},
		{`{"do":"kind","v":[[]]}`, `replace 5`},
		{`{"do":"kind","v":[{}]}`, `replace 6`},
		{`{"do":"text"}`, `replace missing`},
		{`{"do":"text","v":[ null ]}`, `replace null`},
		{`{"do":"text","v":[ true ]}`, `replace true`},
		{`{"do":"text","v":[1.50]}`, `replace 1.50`},
		{`{"do":"text","v":[""]}`, `replace `},
		{`{"do":"text","v":["plain"]}`, `replace plain`},
		{`{"do":"text","v":["\u00fc\n\ud83d\ude00"]}`, "replace ü\n😀"},
		{`{"do":"text","v":["` + long + `"]}`, `replace ` + long},
		{`{"do":"text","v":[{"a": [1, "]"]}]}`, `replace {"a": [1, "]"]}`},
		{`{"do":"bool"}`, `replace 0`},
		{`{"do":"bool","v":[true]}`, `replace 1`},
		{`{"do":"bool","v":[false]}`, `replace 0`},
		{`{"do":"bool","v":[1]}`, `replace 0`},
		{`{"do":"number","v":[-1.5]}`, `replace -1500`},
		{`{"do":"number","v":["1.5"]}`, `replace NaN`},
		{`{"do":"number"}`, `replace NaN`},
		{`{"do":"emit","v":[[1]]}`, `replace -1; side [1]`},
		{`{"do":"emit","v":["not JSON"]}`, `replace -31`}, // the contract of channels that are not declared
		{`{"do":"emit33"}`, `replace -2` + strings.Repeat("; side 7", 32)},
		{`{"do":"log","v":["it is ` + l.name + `"]}`, `drop`},
		{`{"do":"get"}`, `replace missing`},
		{`{"do":"set","v":["` + long + `"]}`, `replace 0`},
		{`{"do":"get"}`, `replace ` + long},
		{`{"do":"incr"}`, `replace -2`},
		{`{"do":"incr"}`, `replace -4`},
	}
	if l.json {
		calls = append(calls, struct{ payload, want string }{`{"do":"json","v":["\"\\\u001f/ü\ud83d\ude00"]}`, `replace "\"\\\u001f/ü😀"`})
	}
	var payloads, want []string
	for _, c := range calls {
		payloads, want = append(payloads, c.payload), append(want, c.want)
	}
	for _, size := range []int{1, 2, len(payloads)} {
		t.Run(fmt.Sprintf("batches of %d", size), func(t *testing.T) {
			c := load(t, r, code, t.Name(), `{}`)
			var got []string
			for batch := range slices.Chunk(payloads, size) {
				got = append(got, c.call(batch...)...)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			stats := c.module.Stats()
			if want := uint64(len(payloads)+size-1) / uint64(size); stats.Calls != want || stats.Started != 1 {
				t.Errorf("%d calls of %d instances, want %d of 1", stats.Calls, stats.Started, want)
			}
			if line := `text="it is ` + l.name + `"`; !strings.Contains(log.String(), line) {
				t.Errorf("%s is not in the log: %s", line, log.String())
			}
		})
	}
}

// What a handler allocates is freed, and buffers that grew leave nothing.
func testLongRun(t *testing.T, r *wasmfilter.Runtime, code []byte) {
	c := load(t, r, code, "long run", `{}`)
	payload := `{"do":"text","v":["` + strings.Repeat(`long `, 20_000) + `\n"]}`
	want := c.call(payload)[0]
	for i := range 100 { // 10 MB in, 10 MB out: more than there is
		switch got := c.call(payload + strings.Repeat(" ", i)); {
		case got[0] != want:
			t.Fatalf("call %d: %.100s, want %.100s", i, got[0], want)
		case i%20 == 0:
			if got := c.call(payload, `{"do":"now"}`, payload); got[0] != want || got[2] != want {
				t.Fatalf("call %d: %.100q", i, got)
			}
		}
	}
	if stats := c.module.Stats(); stats.Started != 1 {
		t.Errorf("%+v", stats)
	}
}

// A panic ends the instance, not the module, and its text is in the log.
func testPanic(t *testing.T, r *wasmfilter.Runtime, code []byte, log *logged) {
	c := load(t, r, code, "panic", `{}`)
	got := c.call(`{"do":"panic"}`, `{"do":"pass"}`)
	if !strings.HasPrefix(got[0], "fault ") || got[1] != "pass" {
		t.Error(got)
	}
	if !strings.Contains(log.String(), "panic: as told") {
		t.Errorf("not in the log: %s", log.String())
	}
}

// logged keeps what is logged.
type logged struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}
