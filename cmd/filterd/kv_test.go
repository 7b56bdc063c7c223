package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/redistest"
)

// A module with kv: redis counts in Redis when the daemon runs, and in memory
// in dry runs.
func TestKVInRedis(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	server := redistest.Start(t)
	module, err := filepath.Abs("../../filters/wasmfilter/testdata/probe.wasm")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "filterd.yaml")
	text := fmt.Sprintf(`
redis: {url: "%s"}
channels:
  in: {envelope: bytes}
modules:
  m: {path: %s, kv: redis}
rules:
  count:
    from: in
    wasm: m
    to: out
    tests:
      - {in: "kicounter=1", out: out}
`, server.URL(), module)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(stdin string, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(append([]string{"filterd"}, args...), strings.NewReader(stdin), &out, &errs); code != 0 {
			t.Fatalf("%q: exit code %d\n%s", args, code, errs.String())
		}
		return out.String()
	}
	command("", "check", "-c", file)
	command("", "test", "-c", file)
	for range 2 { // each begins anew
		out := command("kicounter=1\nkicounter=1\n", "replay", "-c", file, "--channel", "in")
		var last delivery
		for line := range strings.Lines(out) {
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				t.Fatal(err)
			}
		}
		if last.Payload == nil || *last.Payload != "2" {
			t.Errorf("replay: %s", out)
		}
	}
	if keys := server.Do("KEYS", "*"); keys != "" {
		t.Errorf("dry runs left %s", keys)
	}

	server.Do("SET", "filterd:kv:m:counter", "41")
	if got := runAndAsk(t, server.Addr, "run", "-c", file); got != "42" {
		t.Errorf("run: the counter is %q", got)
	}
	if got := server.Do("GET", "filterd:kv:m:counter"); got != "42" {
		t.Errorf("run: Redis has %s", got)
	}

	port := redistest.FreePort(t)
	if got := runAndAsk(t, "127.0.0.1:"+port, "run", "-c", file, "--embedded", "--port", port); got != "1" {
		t.Errorf("run --embedded: the counter is %q", got)
	}
}

// runAndAsk runs the daemon, and returns what its rule makes of one message.
func runAndAsk(t *testing.T, addr string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	daemon, stop := context.WithCancel(ctx)
	go func() { // ends with daemon
		ended <- newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}).RunContext(daemon, append([]string{"filterd"}, args...))
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer rdb.Close()
	for rdb.PubSubNumSub(ctx, "in").Val()["in"] == 0 {
		if ctx.Err() != nil {
			t.Fatal("the daemon does not subscribe")
		}
		time.Sleep(5 * time.Millisecond)
	}
	out := rdb.Subscribe(ctx, "out")
	defer out.Close()
	if _, err := out.Receive(ctx); err != nil { // it is subscribed
		t.Fatal(err)
	}
	if err := rdb.Publish(ctx, "in", "kicounter=1").Err(); err != nil {
		t.Fatal(err)
	}
	message, err := out.ReceiveMessage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return message.Payload
}
