package wasmexamples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"go.yaml.in/yaml/v4"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// An example is one folder.
type example struct {
	folder, file string
	maxSize      int      // in bytes
	imports      []string // of the host's functions, sorted
	configures   bool
	batch        bool
	built        bool // by the test: the module is not committed
}

var examples = []example{
	{folder: "c-filter", file: "filter.wasm", maxSize: 2200, imports: []string{"fail", "field", "field_f64"}, configures: true},
	{
		folder: "c-batch", file: "batch.wasm", maxSize: 4200, configures: true, batch: true,
		imports: []string{"fail", "field", "field_bytes", "field_f64", "field_kind", "select"},
	},
	{
		folder: "rust-normalise", file: "normalise.wasm", maxSize: 32 << 10, configures: true,
		imports: []string{"fail", "field", "field_bytes", "field_kind", "replace", "select"},
	},
	{
		folder: "go-alert", file: "alert.wasm", maxSize: 3 << 20, configures: true, batch: true, built: true,
		imports: []string{"channel", "emit", "fail", "field", "field_bytes", "field_kind", "kv_incr", "now_ns", "select"},
	},
	{
		folder: "as-filter", file: "filter.wasm", maxSize: 15 << 10, configures: true,
		imports: []string{"fail", "field", "field_bytes", "field_f64", "field_kind", "log", "select"},
	},
	{folder: "wat-minimum", file: "minimum.wasm", maxSize: 128},
}

func TestEveryFolderIsListed(t *testing.T) {
	scripts, err := filepath.Glob("*/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	var folders, listed []string
	for _, script := range scripts {
		folders = append(folders, filepath.Dir(script))
	}
	for _, e := range examples {
		listed = append(listed, e.folder)
	}
	slices.Sort(listed)
	if diff := cmp.Diff(folders, listed); diff != "" {
		t.Error(diff)
	}
}

// What a module exports and imports, how large it is.
func TestInterface(t *testing.T) {
	for _, e := range examples {
		t.Run(e.folder, func(t *testing.T) {
			code := e.code(t)
			if len(code) > e.maxSize {
				t.Errorf("%d bytes, want at most %d", len(code), e.maxSize)
			}
			ctx := t.Context()
			r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2))
			defer r.Close(ctx)
			compiled, err := r.CompileModule(ctx, code)
			if err != nil {
				t.Fatal(err)
			}

			want := map[string]string{"filterd_abi_v1": "() -> ()", "filterd_buffer": "(i32) -> (i32)", "filterd_process": "(i32) -> (i32)"}
			if e.configures {
				want["filterd_configure"] = "(i32) -> (i32)"
			}
			if e.batch {
				want["filterd_process_batch"] = "(i32) -> (i32)"
			}
			if e.built {
				want["_initialize"] = "() -> ()"
			}
			got := make(map[string]string)
			for name, f := range compiled.ExportedFunctions() {
				got[name] = signature(f)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("exports (-want +got):\n%s", diff)
			}
			if compiled.ExportedMemories()["memory"] == nil {
				t.Error("no memory is exported")
			}

			want, got = make(map[string]string), make(map[string]string)
			for _, name := range e.imports {
				want[name] = host[name]
			}
			for _, f := range compiled.ImportedFunctions() {
				switch module, name, _ := f.Import(); {
				case module == "filterd":
					got[name] = signature(f)
				case module != "wasi_snapshot_preview1" || !e.built:
					t.Errorf("imports %s.%s", module, name)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("imports (-want +got):\n%s", diff)
			}
		})
	}
}

// host lists what modules import, with the types of version 1.
var host = map[string]string{
	"replace":     "(i32,i32) -> ()",
	"emit":        "(i32,i32,i32,i32) -> (i32)",
	"fail":        "(i32,i32) -> ()",
	"log":         "(i32,i32,i32) -> ()",
	"channel":     "(i32,i32) -> (i32)",
	"field":       "(i32,i32) -> (i32)",
	"field_kind":  "(i32) -> (i32)",
	"field_f64":   "(i32) -> (f64)",
	"field_bool":  "(i32) -> (i32)",
	"field_bytes": "(i32,i32,i32) -> (i32)",
	"now_ns":      "() -> (i64)",
	"kv_get":      "(i32,i32,i32,i32) -> (i32)",
	"kv_set":      "(i32,i32,i32,i32,i32) -> (i32)",
	"kv_incr":     "(i32,i32,i64,i32) -> (i64)",
	"select":      "(i32) -> ()",
}

func signature(f api.FunctionDefinition) string {
	names := func(types []api.ValueType) string {
		var all []string
		for _, t := range types {
			all = append(all, api.ValueTypeName(t))
		}
		return "(" + strings.Join(all, ",") + ")"
	}
	return names(f.ParamTypes()) + " -> " + names(f.ResultTypes())
}

// Every module treats its messages as its folder says.
func TestMessages(t *testing.T) {
	for _, e := range examples {
		t.Run(e.folder, func(t *testing.T) { e.run(t, e.code(t)) })
	}
}

// What build.sh builds here behaves like the committed module, and is the same
// under the same versions.
func TestRebuild(t *testing.T) {
	for _, e := range examples {
		if e.built {
			continue
		}
		t.Run(e.folder, func(t *testing.T) {
			file := e.build(t)
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			versions, err := e.script("--versions")
			if err != nil {
				t.Fatal(err)
			}
			pinned, err := os.ReadFile(filepath.Join(e.folder, "toolchain.txt"))
			if err != nil {
				t.Fatal(err)
			}
			switch same := bytes.Equal(code, e.code(t)); {
			case same:
				return // TestMessages has run it
			case versions == string(pinned):
				t.Errorf("built by the committed module's toolchain, %s, it is another one: commit what build.sh builds", strings.TrimSpace(versions))
			default:
				t.Logf("built by %s, which makes another module than %s", strings.TrimSpace(versions), strings.TrimSpace(string(pinned)))
			}
			e.run(t, code)
		})
	}
}

// Each README's build line is the one of build.sh.
func TestBuildLines(t *testing.T) {
	for _, e := range examples {
		script, err := os.ReadFile(filepath.Join(e.folder, "build.sh"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(script), "\\\n\t", "")), "\n")
		line := strings.NewReplacer(`"${1:-`+e.file+`}"`, e.file, `"$rustc"`, "rustc", `"$pinned"`, "assemblyscript@0.28.20").Replace(lines[len(lines)-1])
		if !strings.Contains(e.readme(t), "```sh\n"+line+"\n```") {
			t.Errorf("%s/README.md does not say: %s", e.folder, line)
		}
	}
}

// script runs build.sh. The compilers of npm are not fetched for a test: once
// they were, npm has them.
func (e example) script(args ...string) (string, error) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		return "", err
	}
	var stderr strings.Builder
	command := exec.Command(shell, append([]string{filepath.Join(e.folder, "build.sh")}, args...)...)
	command.Env = append(os.Environ(), "npm_config_offline=true", "npm_config_update_notifier=false")
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(output), err
}

// build builds the module in a folder of the test's, which is skipped where
// the toolchain is missing.
func (e example) build(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), e.file)
	_, err := e.script(file)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 77, errors.Is(err, exec.ErrNotFound):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return file
}

// code returns the module. What is not committed is built once: by go itself,
// for there is no shell everywhere.
func (e example) code(t *testing.T) []byte {
	t.Helper()
	if e.built {
		code, err := alert()
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	code, err := os.ReadFile(filepath.Join(e.folder, e.file))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

var alert = sync.OnceValues(func() ([]byte, error) {
	folder, err := os.MkdirTemp("", "go-alert")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "alert.wasm")
	command := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", file, "./go-alert")
	command.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", command, err, output)
	}
	return os.ReadFile(file)
})

// A sample is a line of messages.ndjson.
type sample struct {
	Channel string          `json:"channel"`
	In      json.RawMessage `json:"in"`
	Verdict string          `json:"verdict"`
	Out     json.RawMessage `json:"out"`
	Error   string          `json:"error"`
	Emit    []struct {
		Channel string          `json:"channel"`
		Payload json.RawMessage `json:"payload"`
	} `json:"emit"`
}

func (s sample) message() *filterd.Message {
	noon := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	return &filterd.Message{Channel: s.Channel, Payload: bytes.Clone(s.In), Received: noon}
}

// String describes what is expected of the sample.
func (s sample) String() string {
	lines := []string{s.Verdict}
	if s.Error != "" {
		lines[0] += ": " + s.Error
	}
	if s.Out != nil {
		lines[0] += " " + string(s.Out)
	}
	for _, emitted := range s.Emit {
		lines = append(lines, emitted.Channel+" "+string(emitted.Payload))
	}
	return strings.Join(lines, "\n")
}

// describe describes a result as a sample is.
func describe(r filterd.StageResult) string {
	lines := []string{"drop"}
	var guest *wasmfilter.GuestError
	switch {
	case errors.As(r.Err, &guest):
		lines[0] = "error: " + guest.Text
	case r.Err != nil:
		lines[0] = "fault: " + r.Err.Error()
	case r.Keep && r.Payload != nil:
		lines[0] = "replace " + string(r.Payload)
	case r.Keep:
		lines[0] = "pass"
	}
	for _, d := range r.Emitted {
		lines = append(lines, d.Channel+" "+string(d.Payload))
	}
	return strings.Join(lines, "\n")
}

func (e example) samples(t *testing.T) (all []sample) {
	t.Helper()
	file, err := os.Open(filepath.Join(e.folder, "messages.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := json.NewDecoder(file)
	lines.DisallowUnknownFields()
	for {
		var s sample
		err := lines.Decode(&s)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
}

func (e example) readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e.folder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Of the lines for filterd.yaml in a README, what an engine is made of.
type rules struct {
	Modules map[string]struct {
		Path    string   `yaml:"path"`
		Config  any      `yaml:"config"`
		Publish []string `yaml:"publish"`
		KV      string   `yaml:"kv"`
	} `yaml:"modules"`
	Rules map[string]struct {
		From string `yaml:"from"`
		When string `yaml:"when"`
		Wasm string `yaml:"wasm"`
		To   string `yaml:"to"`
	} `yaml:"rules"`
}

// load loads the module as its README configures it, and returns its rule.
func (e example) load(t *testing.T, r *wasmfilter.Runtime, code []byte) (*wasmfilter.Module, engine.Rule) {
	t.Helper()
	_, text, _ := strings.Cut(e.readme(t), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	var file rules
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	for name, rule := range file.Rules {
		module, ok := file.Modules[rule.Wasm]
		if want := "wasm-examples/" + e.folder + "/" + e.file; !ok || module.Path != want {
			t.Fatalf("rule %s: module %s, path %s, want %s", name, rule.Wasm, module.Path, want)
		}
		config, err := json.Marshal(module.Config)
		if err != nil {
			t.Fatal(err)
		}
		if module.Config == nil {
			config = nil
		}
		m, err := r.Load(t.Context(), wasmfilter.ModuleConfig{
			Name: rule.Wasm, Code: code, Config: config, Publish: module.Publish, KV: module.KV,
		})
		if err != nil {
			t.Fatal(err)
		}
		compiled := engine.Rule{
			Name: name, From: []string{rule.From}, Stage: m, To: []engine.Target{{Channel: rule.To}},
			OnError: engine.OnErrorDeadLetter, DeadLetter: "failed",
		}
		if rule.When != "" {
			compiled.When = exprfilter.MustCompile(rule.When)
		}
		return m, compiled
	}
	t.Fatal("README.md has no rule")
	return nil, engine.Rule{}
}

// run treats the samples one by one, as a batch and in an engine.
func (e example) run(t *testing.T, code []byte) {
	samples := e.samples(t)
	r, err := wasmfilter.NewRuntime(t.Context(), wasmfilter.RuntimeConfig{CacheDir: cache(), Workers: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})

	for _, size := range []int{1, len(samples)} {
		t.Run(fmt.Sprintf("batches of %d", size), func(t *testing.T) {
			m, _ := e.load(t, r, code)
			defer m.Close()
			projection := filterd.NewProjection(m.Paths())
			runner := m.Bind(projection.Slots(m.Paths()))
			for batch := range slices.Chunk(samples, size) {
				var messages []*filterd.Message
				for _, s := range batch {
					messages = append(messages, s.message())
					messages[len(messages)-1].Bind(projection)
				}
				results := make([]filterd.StageResult, len(messages))
				runner.Run(t.Context(), messages, results)
				for i, s := range batch {
					if diff := cmp.Diff(s.String(), describe(results[i])); diff != "" {
						t.Errorf("%s (-want +got):\n%s", s.In, diff)
					}
				}
			}
			stats := m.Stats()
			if len(stats.Faults) > 0 || stats.Started != 1 {
				t.Errorf("%+v", stats)
			}
			if calls := uint64(1); e.batch && size > 1 && stats.Calls != calls {
				t.Errorf("%d calls for a batch of %d", stats.Calls, size)
			}
		})
	}

	t.Run("engine", func(t *testing.T) {
		_, rule := e.load(t, r, code) // the engine closes it
		var want []string
		for _, s := range samples {
			for _, emitted := range s.Emit {
				want = append(want, emitted.Channel+" "+string(emitted.Payload))
			}
			switch s.Verdict {
			case "pass":
				want = append(want, rule.To[0].Channel+" "+string(s.In))
			case "replace":
				want = append(want, rule.To[0].Channel+" "+string(s.Out))
			case "error":
				want = append(want, fmt.Sprintf("failed module %q: %s", rule.Stage.(*wasmfilter.Module).Info().Name, s.Error))
			}
		}

		table, err := engine.Compile(engine.Definition{Rules: []engine.Rule{rule}})
		if err != nil {
			t.Fatal(err)
		}
		sink := &recorder{}
		eng, err := engine.New(engine.Config{Table: table, Sink: sink, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			if err := eng.Process(t.Context(), s.message()); err != nil {
				t.Error(err)
			}
		}
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
		// Order holds for each target.
		target := func(sent string) string { channel, _, _ := strings.Cut(sent, " "); return channel }
		byTarget := func(a, b string) int { return strings.Compare(target(a), target(b)) }
		slices.SortStableFunc(want, byTarget)
		slices.SortStableFunc(sink.sent, byTarget)
		if diff := cmp.Diff(want, sink.sent); diff != "" {
			t.Errorf("sent (-want +got):\n%s", diff)
		}
	})
}

// A recorder keeps what is delivered: of a dead letter the reason.
type recorder struct {
	mu   sync.Mutex
	sent []string
}

func (r *recorder) Deliver(_ context.Context, batch []filterd.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range batch {
		payload := string(d.Payload)
		if d.Channel == "failed" {
			var letter struct {
				Data struct {
					Reason string `json:"reason"`
				} `json:"data"`
			}
			if err := json.Unmarshal(d.Payload, &letter); err == nil {
				payload = letter.Data.Reason
			}
		}
		r.sent = append(r.sent, d.Channel+" "+payload)
	}
}

// Compiled modules are kept for the run of the tests: a Go module takes a
// second.
var cacheFolder struct {
	once sync.Once
	path string
}

func cache() string {
	cacheFolder.once.Do(func() { cacheFolder.path, _ = os.MkdirTemp("", "wasm-examples") })
	return cacheFolder.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(cache())
	os.Exit(code)
}

// The hosts' functions are listed by the SDKs too, with the very names.
func TestSDKsKnowTheHost(t *testing.T) {
	for _, file := range []string{"host_wasip1.go", "c/filterd.h", "rust/filterd.rs", "assemblyscript/filterd.ts"} {
		text, err := os.ReadFile(filepath.Join("..", "guest", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(host)) {
			if !strings.Contains(string(text), name) {
				t.Errorf("%s does not know %s", file, name)
			}
		}
	}
}
