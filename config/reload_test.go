package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/pubsub"
)

// A folder is where a test's files are.
type folder struct {
	*testing.T
	path string
}

func newFolder(t *testing.T) folder {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	return folder{t, t.TempDir()}
}

func (f folder) write(name, text string) {
	f.Helper()
	path := filepath.Join(f.path, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.Fatal(err)
	}
	write(f.T, path, text)
}

// module copies a module of the repository, with a section of the test's name
// at its end, so that two of them are not the same.
func (f folder) module(name, from string, different bool) {
	f.Helper()
	code, err := os.ReadFile(from)
	if err != nil {
		f.Fatal(err)
	}
	if different {
		code = append(code, 0, 3, 1, 'x', 'y') // a custom section
	}
	f.write(name, string(code))
}

// files returns names of files in the folder, each with a mark if it could not
// be read.
func (f folder) files(files []File) string {
	var names []string
	for _, file := range files {
		name, err := filepath.Rel(f.path, file.Path)
		if err != nil {
			f.Error(err)
		}
		if file.SHA256 == "" {
			name += "?"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

const probe = "../filters/wasmfilter/testdata/probe.wasm"

func TestFiles(t *testing.T) {
	f := newFolder(t)
	f.write("schemas/price.json", `{"$ref": "parts/common.json#/$defs/price"}`)
	f.write("schemas/parts/common.json", `{"$defs": {"price": {"$ref": "qty.json"}, "other": {"$ref": "#/$defs/price"}}}`)
	f.write("schemas/parts/qty.json", `{"type": "object"}`)
	f.write("inline.json", `true`)
	f.write("password", `x`)
	f.module("m.wasm", probe, false)
	f.write("filterd.yaml", `
redis: {password: "${file:password}"}
channels:
  a: {schema: schemas/price.json}
  b: {schema: schemas/price.json}
  c: {schema: {properties: {x: {$ref: inline.json}}}}
modules: {m: {path: m.wasm, kv: memory}}
rules: {r: {from: a, wasm: m, to: out}}
`)
	path := filepath.Join(f.path, "filterd.yaml")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const all = "filterd.yaml password schemas/price.json schemas/parts/common.json schemas/parts/qty.json inline.json m.wasm"
	if got := f.files(c.Files); got != all {
		t.Errorf("%s\nwant %s", got, all)
	}
	f.write("schemas/parts/qty.json", `{`)
	if err := os.Remove(filepath.Join(f.path, "m.wasm")); err != nil {
		t.Fatal(err)
	}
	_, err = Load(path)
	var refused *Error
	if !errors.As(err, &refused) || f.files(refused.Files) != strings.Replace(all, "m.wasm", "m.wasm?", 1) {
		t.Errorf("%v", err)
	}
	for _, want := range []string{"qty.json", "m.wasm: no such file or directory"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if _, err = Load(path + "x"); !errors.As(err, &refused) || f.files(refused.Files) != "filterd.yamlx?" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestFileChanged(t *testing.T) {
	f := newFolder(t)
	const rules = "rules: {r: {from: a, to: b}}\n"
	f.write("filterd.yaml", rules)
	path := filepath.Join(f.path, "filterd.yaml")
	long := time.Now().Add(-time.Hour)
	touch := func(at time.Time) {
		t.Helper()
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	touch(long)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	file := &c.Files[0]
	changed := func(what string, want bool) {
		t.Helper()
		for range 2 {
			if file.Changed() != want {
				t.Errorf("%s: changed is %v", what, !want)
			}
		}
	}
	changed("nothing", false)
	touch(time.Now())
	changed("touched", false)
	f.write("filterd.yaml", strings.Replace(rules, "a", "x", 1)) // of the same size, and maybe the same time
	touch(file.modified)
	changed("other content", true)
	f.write("filterd.yaml", rules)
	changed("the old content", false)
	f.write("filterd.yaml", rules+"\n")
	changed("a line more", true)
	f.write("filterd.yaml", strings.Repeat("#", maxSize+1))
	changed("too large a file", true)
	var refused *Error
	if _, err := Load(path); !errors.As(err, &refused) || refused.Files[0].SHA256 != "" || refused.Files[0].Changed() {
		t.Errorf("%v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	changed("removed", true)
	missing := &File{Path: path, limit: maxSize}
	if missing.Changed() {
		t.Error("what was not there has changed")
	}
	f.write("filterd.yaml", "")
	if !missing.Changed() {
		t.Error("what was not there is there, and has not changed")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	changed("a folder", true)
}

// A payloads is a sink that keeps what comes.
type payloads struct {
	mu  sync.Mutex
	got []string
}

func (p *payloads) Deliver(_ context.Context, batch []filterd.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range batch {
		p.got = append(p.got, fmt.Sprintf("%s %s", d.Channel, d.Payload))
	}
}

// process returns what the engine makes of a message, once its modules have.
func (p *payloads) process(t *testing.T, e *engine.Engine, payload string) string {
	t.Helper()
	if err := e.Process(t.Context(), &filterd.Message{Channel: "in", Payload: []byte(payload)}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s := e.Stats()
		queued := 0
		for _, r := range s.Rules {
			queued += r.Queued
		}
		if queued == 0 {
			p.mu.Lock()
			defer p.mu.Unlock()
			slices.Sort(p.got) // a module's come when it has done them
			got := strings.Join(p.got, ",")
			p.got = nil
			return got
		}
	}
	t.Fatal("the queue does not drain")
	return ""
}

// A reload keeps what did not change, and what changed keeps its KV; what is
// refused changes nothing.
func TestReload(t *testing.T) {
	f := newFolder(t)
	f.module("m.wasm", probe, false)
	text := `
channels: {in: {envelope: bytes}, out: {envelope: bytes}}
modules:
  m: {path: m.wasm, kv: memory, publish: out}
  same: {path: m.wasm, kv: memory}
rules:
  r: {from: in, wasm: m, to: out}
  s: {from: other, wasm: same, to: out}
`
	f.write("filterd.yaml", text)
	c, err := Load(filepath.Join(f.path, "filterd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sink := &payloads{}
	e, err := c.Engine(engine.Config{Sink: sink, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(e.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}()
	process := func(payload, want string) {
		t.Helper()
		if got := sink.process(t, e, payload); got != want {
			t.Errorf("%s: got %s, want %s", payload, got, want)
		}
	}
	reload := func(want Changes) {
		t.Helper()
		next, err := c.Reload(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		changes := next.Changes(c)
		for i, file := range changes.Files {
			changes.Files[i] = filepath.Base(file)
		}
		if diff := cmp.Diff(want, changes); diff != "" {
			t.Error(diff)
		}
		c = next
	}
	refuse := func(want string) {
		t.Helper()
		before := e.Stats()
		next, err := c.Reload(t.Context(), e)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%v, want %s", err, want)
		}
		after := e.Stats()
		if next != nil || after.Generation != before.Generation || after.RefusedReloads != before.RefusedReloads+1 || after.LastRefusal.Err != err {
			t.Errorf("%v, %+v", next, after)
		}
	}
	stage := func(c *Config, name string) *wasmfilter.Module {
		i := slices.IndexFunc(c.Rules, func(r engine.Rule) bool { return r.Name == name })
		return c.Rules[i].Stage.(*wasmfilter.Module)
	}
	process("kin=41", "out 41")
	first := stage(c, "r")

	f.write("filterd.yaml", text+"  t: {from: in, to: copy}\n")
	reload(Changes{Added: []string{"t"}, Files: []string{"filterd.yaml"}})
	process("kin=1", "copy kin=1,out 42")
	if stage(c, "r") != first {
		t.Error("a module that did not change was loaded again")
	}

	// A test with a fault, in the place of the running module.
	with := func(test string) string {
		return strings.Replace(text, "wasm: m, to: out}", "wasm: m, to: out, tests: ["+test+"]}", 1)
	}
	f.write("filterd.yaml", with("{in: 'kin=100', out: out}, {in: u, out: out}"))
	refuse(`filterd.yaml:7:70: rules.r.tests[1]: the test fails: want out, got error: module "m": trapped: unreachable`)
	f.write("filterd.yaml", "rules: [")
	refuse("this is no YAML")
	f.module("m.wasm", "files.go", false)
	f.write("filterd.yaml", text)
	refuse("modules.m.path: module \"m\": byte 0: not a WebAssembly module")
	process("kin=1", "copy kin=1,out 43") // nothing of this was seen by the module that runs

	// Other code, with tests that pass.
	f.module("m.wasm", probe, true)
	f.write("filterd.yaml", with("{in: 'kin=100', out: out}"))
	reload(Changes{Changed: []string{"r", "s"}, Removed: []string{"t"}, Files: []string{"filterd.yaml", "m.wasm"}})
	process("kin=1", "out 44")
	for deadline := time.Now().Add(30 * time.Second); first.Stats().Instances > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the old module is left: %+v", first.Stats())
		}
	}

	// A contract binds the module that publishes.
	second, same := stage(c, "r"), stage(c, "s")
	f.write("filterd.yaml", strings.Replace(text, "out: {envelope: bytes}", "out: {envelope: raw}", 1))
	reload(Changes{Changed: []string{"r"}, Files: []string{"filterd.yaml"}})
	if stage(c, "r") == second || stage(c, "s") != same {
		t.Error("wrong modules were loaded again")
	}

	// Without modules, and back.
	f.write("filterd.yaml", "rules: {s: {from: in, to: plain}}")
	reload(Changes{Changed: []string{"s"}, Removed: []string{"r"}, Files: []string{"filterd.yaml"}})
	process("1", "plain 1")
	f.write("filterd.yaml", text)
	reload(Changes{Added: []string{"r"}, Changed: []string{"s"}, Files: []string{"filterd.yaml", "m.wasm"}})
	process("kix=1", "out 1")

	if err := os.Remove(filepath.Join(f.path, "filterd.yaml")); err != nil {
		t.Fatal(err)
	}
	refuse("filterd.yaml: no such file or directory")
	if err := os.Mkdir(filepath.Join(f.path, "filterd.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	refuse("filterd.yaml: this is no regular file")
	process("kix=1", "out 2")
	if _, err := (&Config{}).Reload(t.Context(), e); err == nil {
		t.Error("what is no file was reloaded")
	}
}

// A program that knows nothing of leases doesn't run a group's file: it would
// send what the leader does.
func TestEngineNeedsALease(t *testing.T) {
	c, err := parse("ha: {group: prices}\nrules: {r: {from: a, to: {log: info}}}\n")
	if err != nil {
		t.Fatal(err)
	}
	const want = "filterd.yaml has the section ha: the engine needs a lease, as pubsub.NewLease makes one for group prices"
	if _, err := c.Engine(engine.Config{}); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	eng, err := c.Engine(engine.Config{Lease: pubsub.NewLease(nil, "prices", pubsub.LeaseOptions{})})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Close(); err != nil {
		t.Error(err)
	}
}
