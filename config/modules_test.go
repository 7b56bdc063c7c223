package config

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/pubsub"
)

// module returns the path and the hash of an example that keeps a price if
// price times qty is above its min.
func module(t *testing.T) (path, hash string) {
	t.Helper()
	path, err := filepath.Abs("../wasm-examples/c-filter/filter.wasm")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, fmt.Sprintf("%x", sha256.Sum256(code))
}

func TestModules(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path, hash := module(t)
	c, err := parse(fmt.Sprintf(`
modules:
  large: {path: %s, sha256: %s, memory: 1MiB, fuel: 1_000_000, config: {min: 50000}, publish: ["whale-*"], kv: memory}
rules:
  trades:
    from: PRICE_DATA
    when: data.symbol startsWith "BTC"
    wasm: large
    key: data.symbol
    set: {big: true}
    to: large-trades
    tests:
      - {in: {symbol: BTC-USD, price: 60000, qty: 1}, out: large-trades}
      - {in: {symbol: BTC-USD, price: 40000, qty: 1}, out: drop}
      - {in: {symbol: BTC-USD, price: x, qty: 1}, out: error}
      - {in: {symbol: ETH-USD, price: x}, out: drop}
`, path, hash))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	results, err := c.RunTests()
	if err != nil || len(results) != 4 {
		t.Fatal(err, results)
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%s: got %s, want %s", r.Test, r.Got, r.Want)
		}
	}
	result, err := c.Table.NewProcessor().Process(&filterd.Message{Channel: "PRICE_DATA", Payload: []byte(`{"symbol":"BTC","price":60000,"qty":1}`)})
	if err != nil || len(result.Outputs) != 1 || !json.Valid(result.Outputs[0].Payload) {
		t.Errorf("%+v, %v", result, err)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

// What a module keeps is there from one test of a rule to the next, and tests of
// other rules don't touch it, whether they share the module or not.
func TestModulesAreTestedByRule(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path, err := filepath.Abs(probe)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(fmt.Sprintf(`
channels: {in: {envelope: bytes}}
modules: {m: {path: %s, kv: memory}}
rules:
  plain: {from: in, to: out, tests: [{in: kin=1, out: out}]}
  first: {from: in, wasm: m, to: '${"n." + data}', allow: "n.*", tests: [{in: kin=1, out: n.1}, {in: kin=1, out: n.2}]}
  untested: {from: in, wasm: m, to: '${"n." + data}', allow: "n.*"}
  second: {from: in, wasm: m, to: '${"n." + data}', allow: "n.*", tests: [{in: kin=1, out: n.1}, {in: kin=1, out: n.2}]}
`, path))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	results, err := c.RunTests()
	if err != nil || len(results) != 5 {
		t.Fatal(err, results)
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%s: got %s, want %s", r.Test, r.Got, r.Want)
		}
	}
}

// Modules in a runtime of the program's have their own file's contracts, and
// end with it.
func TestRuntime(t *testing.T) {
	runtime, err := wasmfilter.NewRuntime(t.Context(), wasmfilter.RuntimeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := runtime.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	path, err := filepath.Abs("../filters/wasmfilter/testdata/probe.wasm")
	if err != nil {
		t.Fatal(err)
	}
	load := func(contract, problem string) (*Config, error) {
		return parse(fmt.Sprintf(`
channels:
  out: {envelope: %s}
  in: {envelope: bytes}
modules:
  m: {path: %s, publish: out, kv: memory}
  unused: {path: %[2]s, kv: memory}
rules:
  r: {from: in, wasm: m, to: elsewhere%s}
`, contract, path, problem), Runtime(runtime))
	}
	process := func(c *Config, payload string) (outputs string) {
		t.Helper()
		result, err := c.Table.NewProcessor().Process(&filterd.Message{Channel: "in", Payload: []byte(payload)})
		if err != nil {
			t.Fatal(err)
		}
		for _, output := range result.Outputs {
			outputs += fmt.Sprintf("%s %s;", output.Channel, output.Payload)
		}
		return outputs
	}
	var loaded []*Config
	for _, contract := range []string{"bytes", "raw"} {
		c, err := load(contract, "")
		if err != nil {
			t.Fatal(err)
		}
		loaded = append(loaded, c)
	}
	for i, want := range []string{"out text;elsewhere mout\ntext;", ""} { // text is no JSON
		if got := process(loaded[i], "mout\ntext"); got != want {
			t.Errorf("file %d: got %q, want %q", i, got, want)
		}
	}

	// What modules of a name keep ends with the last of them.
	if got := process(loaded[0], "kskey=value"); got != "elsewhere 0;" {
		t.Error(got)
	}
	if got := process(loaded[1], "kgkey"); got != "elsewhere value;" {
		t.Error(got)
	}
	if _, err := load("raw", ", on_error: none"); err == nil {
		t.Error("no problem")
	}
	for _, c := range loaded {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	c, err := load("raw", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := process(c, "kgkey"); got != "elsewhere missing;" {
		t.Errorf("a module of a file that is closed is left: %s", got)
	}
}

func TestStores(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path, _ := module(t)
	text := "modules:\n  a: {path: " + path + ", kv: redis}\n  b: {path: " + path + ", kv: memory}\nrules:\n  r: {from: a, to: b, wasm: a}\n  s: {from: a, to: b, wasm: b}\n"
	var asked []string
	stores := Stores(func(redis pubsub.Options, module string) (wasmfilter.KV, error) {
		asked = append(asked, redis.Host+" "+module)
		return nil, errors.New("no")
	})
	if _, err := parse("redis: {host: h}\n"+text, stores); err == nil || !strings.Contains(err.Error(), ": modules.a.kv: no\n") {
		t.Errorf("%v", err)
	}
	if _, err := parse("redis: {hots: h}\n"+text, stores); err == nil || strings.Contains(err.Error(), "modules") { // nothing to connect to
		t.Errorf("%v", err)
	}
	if !slices.Equal(asked, []string{"h a"}) {
		t.Errorf("asked for %q", asked)
	}
	c, err := parse(text) // in memory
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestModuleProblems(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path, hash := module(t)
	rule := "rules:\n  r: {from: a, to: b, wasm: m}\n"
	for _, test := range []struct{ modules, want string }{
		{"{path: missing.wasm}", "2:13: modules.m.path: missing.wasm: no such file or directory"},
		{"{sha256: " + hash + "}", "2:3: modules.m: path is missing"},
		{"{path: " + path + ", sha256: " + strings.Repeat("f", 64) + "}", "modules.m.sha256: the file's hash is " + hash},
		{"{path: " + path + ", fuel: 0}", "modules.m.fuel: want a number from 1 to 1125899906842624"},
		{"{path: " + path + ", kv: disk}", "modules.m.kv: unknown value disk: want memory or redis"},
		{"{path: " + path + ", memroy: 1MiB}", "modules.m.memroy: unknown key"},
		{"{path: filterd.yaml}", `modules.m.path: module "m": byte 0: not a WebAssembly module`},
		{"{path: " + path + ", config: {min: many}}", `modules.m.path: module "m": `},
		{"{path: " + path + "}\n  m2: {path: " + path + "}", ""},
	} {
		folder := t.TempDir()
		text := "modules:\n  m: " + test.modules + "\n" + rule
		write(t, filepath.Join(folder, "filterd.yaml"), text)
		c, err := Parse("filterd.yaml", []byte(text), Folder(folder))
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s:\n got %v\nwant %s", test.modules, err, test.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Warnings) != 1 || c.Warnings[0].Message != "no rule has this module" {
			t.Errorf("warnings: %v", c.Warnings)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := parse("modules: {large: {path: " + path + "}}\nrules: {r: {from: a, to: b, wasm: lagre}}")
	if err == nil || !strings.Contains(err.Error(), "did you mean large?") {
		t.Errorf("%v", err)
	}
	c, err := parse("rules: {r: {from: a, to: b, key: data.x}}")
	if err != nil || len(c.Warnings) != 1 {
		t.Errorf("%v, %v", c, err)
	}
}
