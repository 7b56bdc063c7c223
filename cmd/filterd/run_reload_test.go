package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/redistest"
)

// A daemon is a filterd run of its own process, on a Redis of its own, with its
// files in a folder.
type daemon struct {
	*testing.T
	folder string
	rdb    *redis.Client
	server *redistest.Server
	cmd    *exec.Cmd
	log    *log
	got    *redis.PubSub // what rules send to v1, v2, …
}

// log is what a process writes, as lines of JSON.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines returns the lines whose msg is the given one.
func (l *log) lines(msg string) (lines []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == msg {
			lines = append(lines, fields)
		}
	}
	return lines
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// patience is for a machine that has other things to do.
const patience = 60 * time.Second

// rules is a file whose one rule sends all messages to a channel.
func rules(to string) string {
	return "redis: {url: \"${REDIS_URL}\"}\nrules:\n  r: {from: in, to: " + to + "}\n"
}

// newDaemon makes the folder; start starts the process.
func newDaemon(t *testing.T) *daemon {
	d := &daemon{T: t, folder: filepath.Join(t.TempDir(), "etc"), server: redistest.Start(t), log: &log{}}
	d.rdb = redis.NewClient(&redis.Options{Addr: d.server.Addr})
	t.Cleanup(func() { _ = d.rdb.Close() })
	return d
}

func (d *daemon) path(name string) string { return filepath.Join(d.folder, name) }

func (d *daemon) write(name, text string) {
	d.Helper()
	d.must(os.MkdirAll(filepath.Dir(d.path(name)), 0o700))
	d.must(os.WriteFile(d.path(name), []byte(text), 0o600))
}

func (d *daemon) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// start runs the daemon until it is ready; shell, if not empty, comes before
// its command.
func (d *daemon) start(shell ...string) {
	d.Helper()
	ended := d.launch(shell...)
	d.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				d.Errorf("the daemon ended with %v\n%s", err, d.log)
			}
		case <-time.After(patience):
			_ = d.cmd.Process.Kill()
			d.Errorf("the daemon does not end\n%s", d.log)
		}
	})
	d.got = d.rdb.PSubscribe(d.Context(), "v*")
	d.Cleanup(func() { _ = d.got.Close() })
	if _, err := d.got.Receive(d.Context()); err != nil {
		d.Fatal(err)
	}
	d.waitFor("ready", 1, "")
}

// launch starts the process, which the caller ends, and returns how it ends.
func (d *daemon) launch(shell ...string) <-chan error {
	d.Helper()
	args := append(shell, "filterd", "run", "-c", d.path("filterd.yaml"), "-o", "json")
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Env = append(os.Environ(), "REDIS_URL="+d.server.URL(), "XDG_CACHE_HOME="+d.TempDir())
	d.cmd.Stderr = d.log
	d.must(d.cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- d.cmd.Wait() }() // ends with the process
	return ended
}

// waitFor waits for the nth line with a msg, and that it contains a text.
func (d *daemon) waitFor(msg string, n int, text string) {
	d.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if lines := d.log.lines(msg); len(lines) >= n {
			if line := fmt.Sprint(lines[n-1]); !strings.Contains(line, text) {
				d.Fatalf("no %q in %s", text, line)
			}
			return
		}
	}
	d.Fatalf("no line %q\n%s", msg, d.log)
}

// eventually waits for what the daemon brings about.
func (d *daemon) eventually(what string, condition func() bool) {
	d.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.Fatalf("never: %s\n%s", what, d.log)
		}
	}
}

// where returns the channel that a message is sent to.
func (d *daemon) where(payload string) string {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	defer cancel()
	d.must(d.rdb.Publish(ctx, "in", payload).Err())
	m, err := d.got.ReceiveMessage(ctx)
	if err != nil {
		d.Fatalf("%s is sent nowhere: %v\n%s", payload, err, d.log)
	}
	return m.Channel
}

// serves says where messages must go now.
func (d *daemon) serves(channel string) {
	d.Helper()
	if got := d.where("1"); got != channel {
		d.Fatalf("messages go to %s, not %s\n%s", got, channel, d.log)
	}
}

// becomes waits until messages go to a channel. Before that they must go to
// another one.
func (d *daemon) becomes(channel, before string) {
	d.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		switch got := d.where("1"); got {
		case channel:
			return
		case before:
		default:
			d.Fatalf("messages go to %s", got)
		}
	}
	d.Fatalf("messages go to %s for ever\n%s", before, d.log)
}

// replace puts a file in the place of another, as editors and mv do.
func (d *daemon) replace(name, text string) {
	d.Helper()
	d.write(name+".tmp", text)
	d.must(os.Rename(d.path(name+".tmp"), d.path(name)))
}

func TestReloadOnRename(t *testing.T) {
	d := newDaemon(t)
	d.write("filterd.yaml", rules("v1"))
	d.start()
	d.serves("v1")
	for i := 2; i < 5; i++ {
		d.replace("filterd.yaml", rules(fmt.Sprint("v", i)))
		d.becomes(fmt.Sprint("v", i), fmt.Sprint("v", i-1))
	}
	d.waitFor("reloaded", 3, "added:[] changed:[r]")
	d.waitFor("reloaded", 3, "generation:4")
}

// A file that is written in two halves is taken when it is whole.
func TestReloadOnWrite(t *testing.T) {
	d := newDaemon(t)
	d.write("filterd.yaml", rules("v1"))
	d.start()
	file, err := os.Create(d.path("filterd.yaml"))
	d.must(err)
	text := rules("v2") + "  s: {from: in, to: w2}\n"
	_, err = file.WriteString(text[:len(text)/2])
	d.must(err)
	d.must(file.Sync())
	d.serves("v1") // whether the half was tried or not
	_, err = file.WriteString(text[len(text)/2:])
	d.must(err)
	d.must(file.Close())
	d.becomes("v2", "v1")
}

// A ConfigMap of Kubernetes is swapped by a link to the folder of its files.
func TestReloadOnLinkSwap(t *testing.T) {
	d := newDaemon(t)
	swap := func(version, text string) {
		t.Helper()
		d.write(version+"/filterd.yaml", text)
		d.must(os.Symlink(version, d.path("..data_tmp")))
		d.must(os.Rename(d.path("..data_tmp"), d.path("..data")))
	}
	swap("..1", rules("v1"))
	d.must(os.Symlink("..data/filterd.yaml", d.path("filterd.yaml")))
	d.start()
	d.serves("v1")
	swap("..2", rules("v2"))
	d.must(os.RemoveAll(d.path("..1")))
	d.becomes("v2", "v1")
	swap("..3", rules("v3"))
	d.becomes("v3", "v2")
}

// A file that is gone, and even its folder, stops nothing, and is taken when
// it is there again.
func TestReloadOnReturn(t *testing.T) {
	d := newDaemon(t)
	d.write("filterd.yaml", rules("v1"))
	d.start()
	d.must(os.Remove(d.path("filterd.yaml")))
	d.waitFor("refused", 1, "filterd.yaml level:ERROR msg:refused problem:no such file or directory")
	d.serves("v1")
	d.write("filterd.yaml", rules("v2"))
	d.becomes("v2", "v1")
	d.must(os.RemoveAll(d.folder))
	d.waitFor("refused", 2, "problem:no such file or directory")
	d.serves("v2")
	d.write("filterd.yaml", rules("v3"))
	d.becomes("v3", "v2")
}

// What is wrong is said with its place, and nothing changes.
func TestReloadRefuses(t *testing.T) {
	d := newDaemon(t)
	file := func(schema, to string) string {
		return strings.Replace(rules(to), "rules:", "channels: {in: {schema: "+schema+"}}\nrules:", 1)
	}
	d.write("schemas/in.json", `{"type": "number"}`)
	d.write("filterd.yaml", file("schemas/in.json", "v1"))
	d.start()
	d.serves("v1")
	d.write("filterd.yaml", file("schemas/in.json", "v2")[:60]+"[")
	d.waitFor("refused", 1, "this is no YAML")
	d.waitFor("refused", 1, "filterd.yaml:2:")
	d.waitFor("reload refused: the rules stay as they are", 1, "generation:1")
	d.serves("v1")
	d.replace("filterd.yaml", file("schemas/in.json", "v2"))
	d.becomes("v2", "v1")

	d.replace("schemas/in.json", `{"type": "nummer"}`)
	d.waitFor("refused", 2, "key:channels.in.schema")
	d.serves("v2")
	d.replace("schemas/in.json", `{"type": "integer"}`)
	d.waitFor("reloaded", 2, "schemas/in.json]")
	d.serves("v2")

	d.replace("filterd.yaml", strings.Replace(file("schemas/in.json", "v3"), "REDIS_URL}", "REDIS_URL}/3", 1))
	d.becomes("v3", "v2")
	const stays = "the section redis has changed: the connection stays as it is until filterd is started again"
	d.waitFor(stays, 1, "")
	d.replace("filterd.yaml", strings.Replace(file("schemas/in.json", "v4"), "REDIS_URL}\"", "REDIS_URL}\", max_message: 65MiB", 1))
	d.becomes("v4", "v3")
	d.waitFor(stays, 2, "")
}

// A module's file is taken only if it compiles and the tests of its rules pass.
func TestReloadOfModule(t *testing.T) {
	d := newDaemon(t)
	read := func(name string) string {
		t.Helper()
		code, err := os.ReadFile("../../filters/wasmfilter/testdata/" + name)
		d.must(err)
		return string(code)
	}
	d.write("m.wasm", read("probe.wasm"))
	d.write("filterd.yaml", `
redis: {url: "${REDIS_URL}"}
channels: {in: {envelope: bytes}}
modules: {m: {path: m.wasm, kv: memory, publish: v2}}
rules:
  r: {from: in, wasm: m, to: v1, tests: [{in: "kin=100", out: v1}, {in: "0", out: drop}]}
`)
	d.start()
	counter := func(want string) {
		t.Helper()
		d.must(d.rdb.Publish(d.Context(), "in", "kin=1").Err())
		m, err := d.got.ReceiveMessage(d.Context())
		if err != nil || m.Payload != want {
			t.Fatalf("%v, %v, want %s\n%s", m, err, want, d.log)
		}
	}
	counter("1")
	d.replace("m.wasm", "no module")
	d.waitFor("refused", 1, "not a WebAssembly module")
	counter("2")
	d.replace("m.wasm", read("minimal.wasm")) // which has no kv, and keeps everything
	d.waitFor("refused", 2, "key:rules.r.tests[1] level:ERROR msg:refused problem:the test fails: want drop, got v1")
	counter("3")
	d.replace("m.wasm", read("probe.wasm")+"\x00\x03\x01xy")
	d.waitFor("reloaded", 1, "changed:[r] files:["+d.path("m.wasm")+"]")
	counter("4")
}

// A signal reloads whatever has changed.
func TestReloadOnHangup(t *testing.T) {
	d := newDaemon(t)
	d.write("filterd.yaml", rules("v1"))
	d.start()
	for n := 1; n < 4; n++ {
		d.must(d.cmd.Process.Signal(syscall.SIGHUP))
		d.waitFor("reloaded", n, "added:[] changed:[]")
		d.serves("v1")
	}
}

// Where nothing can be watched, files are looked at.
func TestReloadWithoutWatch(t *testing.T) {
	limit := []string{"unshare", "-U", "-r", "sh", "-c", `echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"`, "sh"}
	if out, err := exec.Command(limit[0], append(limit[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no limit can be set here: %v, %s", err, out)
	}
	d := newDaemon(t)
	d.write("filterd.yaml", rules("v1"))
	d.start(limit...)
	d.waitFor("files can't be watched: they are looked at from time to time", 1, "every")
	d.replace("filterd.yaml", rules("v2"))
	d.becomes("v2", "v1")
}
