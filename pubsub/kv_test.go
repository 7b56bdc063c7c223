package pubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/internal/faultproxy"
	"github.com/filterd/filterd/internal/redistest"
)

var _ wasmfilter.KV = (*KV)(nil)

// try says what a call of a KV came to.
func try[T any](value T, err error) string {
	if err != nil {
		_, reason, _ := strings.Cut(err.Error(), ": ") // behind the server's address
		return "error: " + reason
	}
	return fmt.Sprint(value)
}

func get(s *KV, key string) string {
	value, found, err := s.Get(context.Background(), []byte(key), []byte("+"))
	if err == nil && !found {
		return "missing"
	}
	return try(string(value), err)
}

func TestKV(t *testing.T) {
	server := redistest.Start(t)
	rdb, ctx := client(t, server.Addr), t.Context()
	one, other := NewKV(rdb, "one"), NewKV(client(t, server.Addr), "one") // as of two processes
	set := func(key, value string, ttl time.Duration) string {
		return try(one.Set(ctx, []byte(key), []byte(value), ttl))
	}
	incr := func(key string, delta int64, ttl time.Duration) string {
		return try(other.Incr(ctx, []byte(key), delta, ttl))
	}
	const lasting = time.Hour
	for i, step := range []struct{ got, want string }{
		{get(one, "a"), "missing"},
		{set("a", "1", 0), "true"},
		{get(other, "a"), "+1"},
		{incr("a", 41, lasting), "42"},
		{server.Do("TTL", "filterd:kv:one:a"), "-1"}, // it was there, for good
		{set("a", "", lasting), "true"},
		{get(one, "a"), "+"},
		{server.Do("TTL", "filterd:kv:one:a"), "3600"},
		{incr("b", -5, 1500*time.Millisecond), "-5"},
		{incr("b", math.MinInt64+5, lasting), fmt.Sprint(math.MinInt64)},
		{fmt.Sprint(server.Do("TTL", "filterd:kv:one:b") <= "2"), "true"}, // counts from its creation
		{incr("b", -1, 0), "error: ERR increment or decrement would overflow"},
		{incr("n", 1, 0), "1"},
		{server.Do("TTL", "filterd:kv:one:n"), "-1"},
		{set("n", "text", lasting), "true"},
		{incr("n", 1, lasting), "error: ERR value is not an integer or out of range"},
		{get(one, "n"), "+text"},
		{set("large", strings.Repeat("x", maxKVValue), lasting), "true"},
		{set("large", strings.Repeat("x", maxKVValue+1), lasting), "false"},
		{fmt.Sprint(len(get(other, "large"))), fmt.Sprint(maxKVValue + 1)},
		{set("\x00\xff", "\x00\xff", 0), "true"},
		{get(one, "\x00\xff"), "+\x00\xff"},
		{server.Do("LPUSH", "filterd:kv:one:list", "x"), "1"}, // by somebody else
		{get(one, "list"), "error: WRONGTYPE Operation against a key holding the wrong kind of value"},
	} {
		if step.got != step.want {
			t.Errorf("step %d: got %.80q, want %q", i, step.got, step.want)
		}
	}
	if set("short", "x", time.Millisecond) != "true" {
		t.Error("not set")
	}
	eventually(t, "it expires", func() bool { return get(one, "short") == "missing" && get(one, "b") == "missing" })
	if got := incr("b", 1, lasting); got != "1" {
		t.Errorf("a counter that has expired: %s", got)
	}
	// Names that end as others' keys begin.
	if _, err := NewKV(rdb, "a").Set(ctx, []byte("b:c"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"a:b", "a%3Ab", "", ":"} {
		for _, key := range []string{"c", "b:c", "a:b:c"} {
			if got := get(NewKV(rdb, module), key); got != "missing" {
				t.Errorf("%s of module %q: %s", key, module, got)
			}
		}
	}
}

// A Redis without room refuses a value, and fails to count.
func TestKVWithoutRoom(t *testing.T) {
	server := redistest.Start(t)
	s, ctx := NewKV(client(t, server.Addr), "m"), t.Context()
	if got := try(s.Incr(ctx, []byte("there"), 1, time.Hour)); got != "1" {
		t.Error(got)
	}
	server.Do("CONFIG", "SET", "maxmemory", "1")
	if got := try(s.Set(ctx, []byte("k"), []byte("v"), 0)); got != "false" {
		t.Errorf("set: %s", got)
	}
	for _, ttl := range []time.Duration{0, time.Hour} {
		if got := try(s.Incr(ctx, []byte("k"), 1, ttl)); got != "error: OOM command not allowed when used memory > 'maxmemory'." {
			t.Errorf("incr: %s", got)
		}
	}
	if got := get(s, "k"); got != "missing" {
		t.Error(got)
	}
	if got := get(s, "there"); got != "+1" {
		t.Error(got)
	}
}

// Nothing is counted twice, not even by a client that repeats commands.
func TestKVDoesNotRepeat(t *testing.T) {
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), MaxRetries: 10, MaxRetryBackoff: -1, ContextTimeoutEnabled: true})
	defer rdb.Close()
	s := NewKV(rdb, "m")
	if got := try(s.Incr(t.Context(), []byte("k"), 1, time.Hour)); got != "1" { // connects
		t.Fatal(got)
	}
	proxy.Set(faultproxy.Fault{LoseReplies: true})
	failed := make(chan error, 1)
	go func() { // ends when its connection is cut
		_, err := s.Incr(t.Context(), []byte("k"), 1, time.Hour)
		failed <- err
	}()
	eventually(t, "the server counts", func() bool { return server.Do("GET", "filterd:kv:m:k") == "2" })
	proxy.Set(faultproxy.Fault{})
	proxy.Cut()
	if err := <-failed; err == nil {
		t.Error("no error")
	}
	if got := get(s, "k"); got != "+2" {
		t.Error(got)
	}
}

// stateful loads the guest that does what a message says, with a KV in Redis,
// and the same without.
func stateful(t *testing.T, rdb redis.UniversalClient) (with, without *wasmfilter.Module) {
	t.Helper()
	code, err := os.ReadFile("../filters/wasmfilter/testdata/probe.wasm")
	if err != nil {
		t.Fatal(err)
	}
	r, err := wasmfilter.NewRuntime(t.Context(), wasmfilter.RuntimeConfig{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	with, err = r.Load(t.Context(), wasmfilter.ModuleConfig{Name: "with", Code: code, Store: NewKV(rdb, "with")})
	if err == nil {
		without, err = r.Load(t.Context(), wasmfilter.ModuleConfig{Name: "without", Code: code, KV: "memory"})
	}
	if err != nil {
		t.Fatal(err)
	}
	return with, without
}

// ask has a module treat one message.
func ask(m *wasmfilter.Module, payload string) (string, error) {
	results := make([]filterd.StageResult, 1)
	m.Bind(nil).Run(context.Background(), []*filterd.Message{{Channel: "c", Payload: []byte(payload)}}, results)
	return string(results[0].Payload), results[0].Err
}

// wantFault checks that an error is the fault of a host function.
func wantFault(t *testing.T, err error) {
	t.Helper()
	var fault *wasmfilter.Fault
	if !errors.As(err, &fault) || fault.Kind != wasmfilter.FaultHost {
		t.Errorf("got %v, want a fault of a host function", err)
	}
}

// recovers waits until a module counts again.
func recovers(t *testing.T, m *wasmfilter.Module) {
	t.Helper()
	eventually(t, "the module counts again", func() bool {
		_, err := ask(m, "kicounter=1")
		return err == nil
	})
}

func TestKVServerDies(t *testing.T) {
	server := redistest.Start(t)
	with, without := stateful(t, client(t, server.Addr))
	for _, want := range []string{"1", "2"} {
		if got, err := ask(with, "kicounter=1"); got != want || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	other, _ := stateful(t, client(t, server.Addr)) // as in another process
	if got, err := ask(other, "kicounter=1"); got != "3" || err != nil {
		t.Errorf("another process: %q, %v", got, err)
	}
	server.Stop()
	for _, payload := range []string{"kicounter=1", "kgcounter", "kscounter=1"} {
		_, err := ask(with, payload)
		wantFault(t, err)
	}
	if got, err := ask(without, "kicounter=1"); got != "1" || err != nil {
		t.Errorf("another module: %q, %v", got, err)
	}
	server.Restart()
	recovers(t, with)
}

// A Redis that is silent costs a call its deadline, and no other module
// anything.
func TestKVHangs(t *testing.T) {
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	with, without := stateful(t, client(t, proxy.Addr()))
	if _, err := ask(with, "kicounter=1"); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []faultproxy.Fault{{LoseReplies: true}, {LoseRequests: true, LoseReplies: true}} {
		proxy.Set(fault)
		for _, payload := range []string{"kicounter=1", "kgcounter", "kscounter=1"} { // on new connections, too
			ended := make(chan error, 1)
			go func() { // ends at the call's deadline
				_, err := ask(with, payload)
				ended <- err
			}()
			for range 100 {
				if _, err := ask(without, "kicounter=1"); err != nil {
					t.Errorf("another module: %v", err)
				}
			}
			select {
			case err := <-ended:
				wantFault(t, err)
			case <-time.After(patience):
				t.Fatal("it hangs")
			}
		}
		proxy.Set(faultproxy.Fault{})
		recovers(t, with)
	}
}
