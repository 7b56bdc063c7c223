package wasmfilter_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd/filters/wasmfilter"
)

func TestLoadErrors(t *testing.T) {
	edit := func(change func(m *moduleText)) []byte {
		m := minimalText()
		change(m)
		return m.bytes()
	}
	rename := func(from, to string) []byte {
		return edit(func(m *moduleText) {
			m.exports[to] = m.exports[from]
			delete(m.exports, from)
		})
	}
	imports := func(module, name string, typ int) []byte {
		return edit(func(m *moduleText) { m.imports = []importText{{module, name, typ}} })
	}
	with := func(export string, typ int, body []byte) []byte {
		return edit(func(m *moduleText) {
			m.exports[export] = len(m.funcs)
			m.funcs = append(m.funcs, funcText{typ, body})
		})
	}
	minimal := minimalText().bytes()
	for _, test := range []struct {
		name   string
		config wasmfilter.ModuleConfig
		want   string
	}{
		{"no code", wasmfilter.ModuleConfig{}, `byte 0: not a WebAssembly module: it does not begin with \0asm`},
		{"text", wasmfilter.ModuleConfig{Code: []byte("(module)")}, `byte 0: not a WebAssembly module: it does not begin with \0asm`},
		{"component", wasmfilter.ModuleConfig{Code: []byte("\x00asm\x0d\x00\x01\x00")}, "this is a component: filterd runs core modules only"},
		{"truncated", wasmfilter.ModuleConfig{Code: minimal[:len(minimal)-3]}, "byte 109: a section of 14 bytes in a module with 11 left"},
		{"pin", wasmfilter.ModuleConfig{Code: []byte("x"), SHA256: "ABCD"}, "its sha256 is 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, pinned is ABCD"},
		{"nothing in it", wasmfilter.ModuleConfig{Code: minimal[:8]}, "no export filterd_abi_v1: not a module for filterd"},
		{"command", wasmfilter.ModuleConfig{Code: rename("filterd_abi_v1", "_start")}, "a WASI command, with a main that runs once: filterd calls a module for each message, and needs the export filterd_abi_v1 (Go: go build -buildmode=c-shared)"},
		{"Extism", wasmfilter.ModuleConfig{Code: imports("extism:host/env", "input_length", typeWhole)}, "made for Extism: filterd has an interface of its own"},
		{"later version", wasmfilter.ModuleConfig{Code: rename("filterd_abi_v1", "filterd_abi_v2")}, "implements version 2 of the interface: this filterd knows version 1"},
		{"missing exports", wasmfilter.ModuleConfig{Code: edit(func(m *moduleText) {
			delete(m.exports, "filterd_buffer")
			delete(m.exports, "filterd_process")
			m.pages = -1
		})}, "no export memory\nno export filterd_buffer (i32) -> i32\nno export filterd_process (i32) -> i32"},
		{"wrong types", wasmfilter.ModuleConfig{Code: edit(func(m *moduleText) {
			m.exports["filterd_process"] = m.exports["filterd_abi_v1"]
			m.exports["filterd_process_batch"] = m.exports["filterd_abi_v1"]
		})}, "export filterd_process has the type () -> (), want (i32) -> i32\nexport filterd_process_batch has the type () -> (), want (i32) -> i32"},
		{"unknown import", wasmfilter.ModuleConfig{Code: imports("filterd", "publish", typePair)}, "unknown import filterd.publish (i32, i32) -> ()"},
		{"import with escapes", wasmfilter.ModuleConfig{Code: imports("\x1b[2J", "\n", typePair)}, `unknown import \x1b[2J.\n (i32, i32) -> ()`},
		{"AssemblyScript's abort", wasmfilter.ModuleConfig{Code: imports("env", "abort", typePair)}, "unknown import env.abort (i32, i32) -> () (AssemblyScript: compile with --use abort=)"},
		{"wrong type of an import", wasmfilter.ModuleConfig{Code: imports("filterd", "replace", typeQuery)}, "import filterd.replace has the type (i32, i32) -> i32, want (i32, i32) -> ()"},
		{"the meter's import", wasmfilter.ModuleConfig{Code: imports("filterd_meter", "refuel", typeWhole)}, "unknown import filterd_meter.refuel () -> i64\nbyte 37: import \"refuel\" from \"filterd_meter\": that module belongs to the meter"},
		{"kv without", wasmfilter.ModuleConfig{Code: readGuest(t, "probe.wasm")}, "import filterd.kv_get: the module is given no kv\nimport filterd.kv_set: the module is given no kv\nimport filterd.kv_incr: the module is given no kv"},
		{"host function that isn't given", wasmfilter.ModuleConfig{Code: readGuest(t, "hostfunction.wasm")}, "unknown import host.wanted (i32, i32) -> i32"},
		{"memory", wasmfilter.ModuleConfig{Code: edit(func(m *moduleText) { m.pages = 300 })}, "byte 43: a memory of 300 pages, at most 256 are allowed"},
		{"configuration for nobody", wasmfilter.ModuleConfig{Code: minimal, Config: json.RawMessage(`{"a": 1}`)}, "a configuration is given, but there is no export filterd_configure"},
		{"no JSON", wasmfilter.ModuleConfig{Code: minimal, Config: json.RawMessage(`{`)}, "the configuration is not JSON"},
		{"bounds", wasmfilter.ModuleConfig{Code: minimal, Fuel: -1, KVKeys: -1, Memory: 7, KV: "disk"}, "fuel -1: a bound is not negative\nkv keys -1: a bound is not negative\nmemory 7: want 65536 to 4294967296 bytes\nunknown kv \"disk\": want memory"},
		{"types do not fit", wasmfilter.ModuleConfig{Code: with("f", typeUnary, nil)}, "byte 132: 0 operands at the end of a block with 1 results"},
		{"endless start function", wasmfilter.ModuleConfig{StartFuel: 1_000_000, Code: edit(func(m *moduleText) {
			m.start = len(m.funcs)
			m.funcs = append(m.funcs, funcText{typeUnit, forever})
		})}, "start: out of fuel: more than 1000000 instructions (in $3)"},
		{"endless _initialize", wasmfilter.ModuleConfig{StartFuel: 1_000_000, Code: with("_initialize", typeUnit, forever)}, "_initialize: out of fuel: more than 1000000 instructions (in $3)"},
		{"trapping filterd_configure", wasmfilter.ModuleConfig{Code: with("filterd_configure", typeUnary, []byte{0x00})}, "filterd_configure: trapped: unreachable (in $3)"},
		{"refusing filterd_configure", wasmfilter.ModuleConfig{Code: with("filterd_configure", typeUnary, []byte{0x41, 5})}, "filterd_configure refuses: error 5"},
		{"refusing with a text", wasmfilter.ModuleConfig{Code: readGuest(t, "probe.wasm"), KV: "memory", Config: json.RawMessage(`["R"]`)}, `filterd_configure refuses: not \x1b[31mtoday`},
		{"endless filterd_configure", wasmfilter.ModuleConfig{Code: readGuest(t, "probe.wasm"), KV: "memory", StartFuel: 1_000_000, Config: json.RawMessage(`["L"]`)}, "filterd_configure: out of fuel: more than 1000000 instructions (in filterd_configure)"},
		{"a message in filterd_configure", wasmfilter.ModuleConfig{Code: readGuest(t, "probe.wasm"), KV: "memory", Config: json.RawMessage(`["N"]`)}, "filterd_configure: now_ns: there is no message: not in filterd_process (in filterd_configure)"},
		{"buffer that is none", wasmfilter.ModuleConfig{Code: edit(func(m *moduleText) {
			m.funcs[1].body = []byte{0x41, 8}
			m.exports["filterd_configure"] = 2
		})}, "filterd_configure: filterd_buffer returned 0x8, which is not a multiple of 16"},
		{"buffer beyond memory", wasmfilter.ModuleConfig{Code: edit(func(m *moduleText) {
			m.funcs[1].body = []byte{0x41, 0x70} // -16
			m.exports["filterd_configure"] = 2
		})}, "filterd_configure: filterd_buffer returned 0xfffffff0 for 16 bytes, which reaches beyond the memory of 65536 bytes"},
		{"no buffer", wasmfilter.ModuleConfig{Code: edit(func(m *moduleText) {
			m.funcs[1].body = []byte{0x41, 0}
			m.exports["filterd_configure"] = 2
		})}, "filterd_configure: module \"m\": filterd_buffer refuses 16 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRuntime(t, wasmfilter.RuntimeConfig{})
			test.config.Name = "m"
			m, err := r.Load(context.Background(), test.config)
			if err == nil {
				_ = m.Close()
				t.Fatal("it loads")
			}
			if want := `module "m": ` + test.want; err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

func TestLoadInfo(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	code := readGuest(t, "probe.wasm")
	m := load(t, r, wasmfilter.ModuleConfig{Name: "probe", Code: code, KV: "memory", Config: json.RawMessage(`["data.a", "data[\"a\"]", "data[\"b c\"]", "X"]`)})
	info := m.Info()
	if info.Name != "probe" || len(info.SHA256) != 64 || info.Size != len(code) || info.Metered <= info.Size || !info.Batch || info.StartFuel == 0 || info.Memory == 0 || info.Memory%65536 != 0 {
		t.Errorf("%+v", info)
	}
	// Equal paths are one field.
	if got := len(m.Paths()); got != 2 || m.Paths()[0] != "data.a" || m.Paths()[1] != `data["b c"]` {
		t.Errorf("fields %q", m.Paths())
	}
	if !strings.HasPrefix(info.String(), "probe (sha256 ") {
		t.Error(info)
	}
	if stats := m.Stats(); stats.Instances != 1 || stats.Started != 1 || stats.Breaker != wasmfilter.BreakerClosed {
		t.Errorf("%+v", stats)
	}
	again := load(t, r, wasmfilter.ModuleConfig{Name: "again", Code: code, KV: "memory", SHA256: strings.ToUpper(info.SHA256)})
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if got := run(t, again, "1")[0].Err; got == nil || got.Error() != `module "again": closed` {
		t.Error(got)
	}
	if got := run(t, m, "1")[0]; !got.Keep || got.Err != nil { // it has the same compiled code
		t.Errorf("%+v", got)
	}
	if err := r.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := r.Load(context.Background(), wasmfilter.ModuleConfig{Name: "late", Code: code, KV: "memory"}); err == nil {
		t.Error("a closed runtime loads")
	}
}

func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	code := goGuest(t)
	var took [2]time.Duration
	for k := range took {
		r := newRuntime(t, wasmfilter.RuntimeConfig{CacheDir: dir})
		took[k] = load(t, r, wasmfilter.ModuleConfig{Code: code}).Info().CompileTime
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if took[1] > took[0]*2/3 {
		t.Errorf("first %v, second %v: nothing is cached", took[0], took[1])
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	refused := func(want string) {
		t.Helper()
		if _, err := wasmfilter.NewRuntime(context.Background(), wasmfilter.RuntimeConfig{CacheDir: dir}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	refused("others can write to " + dir + " (mode 0770): chmod 700 it")
	if os.Geteuid() == 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		refused("belongs to user 12345")
	}
	dir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("compilation cache")
}

func TestDamagedCache(t *testing.T) {
	dir := t.TempDir()
	code := readGuest(t, "decide.wasm")
	load(t, newRuntime(t, wasmfilter.RuntimeConfig{CacheDir: dir}), wasmfilter.ModuleConfig{Code: code})
	files, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{20, 500, len(whole) - 1} {
		if err := os.WriteFile(files[0], whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		m := load(t, newRuntime(t, wasmfilter.RuntimeConfig{CacheDir: dir}), wasmfilter.ModuleConfig{Code: code})
		if result := run(t, m, string(trade))[0]; !result.Keep {
			t.Error(result)
		}
		if again, err := os.ReadFile(files[0]); err != nil || len(again) != len(whole) {
			t.Error(len(again), err)
		}
	}
}
