package wasmfilter_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd/filters/wasmfilter"
)

func TestGuestKV(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	config := wasmfilter.ModuleConfig{Name: "one", Code: readGuest(t, "probe.wasm"), KV: "memory", KVKeys: 3}
	one := load(t, r, config)
	config.Name = "two"
	two := load(t, r, config)
	for _, step := range []struct {
		m             *wasmfilter.Module
		payload, want string
	}{
		{one, "kga", `keep "missing"`},
		{one, "ksa=value", `keep "0"`},
		{one, "kga", `keep "value"`},
		{two, "kga", `keep "missing"`}, // a namespace of its own
		{one, "kin=41", `keep "41"`},
		{one, "kin=1", `keep "42"`},
		{one, "kgn", `keep "42"`},
		{one, "kin=-50", `keep "-8"`},
		{one, "ks=", `keep "0"`},
		{one, "ksx=y", `keep "-1"`}, // three keys
		{one, "kix=1", `error: module "one": kv_incr: no room for another key (in handle < filterd_process)`},
		{one, "kia=1", `error: module "one": kv_incr: the value of "a" is no whole number (in handle < filterd_process)`},
		{one, "kg" + strings.Repeat("k", 1025), `error: module "one": kv_get: a key of 1025 bytes, at most 1024 are allowed (in handle < filterd_process)`},
		{one, "kga", `keep "value"`}, // of another instance
	} {
		if got := show(run(t, step.m, step.payload)[0]); got != step.want {
			t.Errorf("%.20s: got %s, want %s", step.payload, got, step.want)
		}
	}
	if stats := one.Stats(); stats.KVKeys != 3 || stats.KVBytes != 3*128+1+5+1+2 {
		t.Errorf("%+v", stats)
	}
	// It survives a reload, and ends with the last module of its name.
	config.Name = "one"
	again := load(t, r, config)
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if got := show(run(t, again, "kga")[0]); got != `keep "value"` {
		t.Error(got)
	}
	if stats := again.Stats(); stats.Calls < 10 {
		t.Errorf("%+v", stats)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if got := show(run(t, load(t, r, config), "kga")[0]); got != `keep "missing"` {
		t.Error(got)
	}
}

// A store is a KV that isn't in memory.
type store struct {
	calls int
	slow  bool
}

var errStore = errors.New("connection\nrefused")

func (s *store) call(ctx context.Context) error {
	if s.slow {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.calls++; s.calls > 1 {
		return errStore
	}
	return nil
}

func (s *store) Get(ctx context.Context, key, b []byte) ([]byte, bool, error) {
	return append(b, key...), true, s.call(ctx)
}

func (s *store) Set(ctx context.Context, _, _ []byte, ttl time.Duration) (bool, error) {
	return true, s.call(ctx)
}

func (s *store) Incr(ctx context.Context, _ []byte, delta int64, _ time.Duration) (int64, error) {
	return delta, s.call(ctx)
}

func TestStore(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	s := &store{}
	m := load(t, r, wasmfilter.ModuleConfig{Name: "test", Code: readGuest(t, "probe.wasm"), Store: s})
	if got := show(run(t, m, "kgkey")[0]); got != `keep "key"` {
		t.Error(got)
	}
	result := run(t, m, "ksa=b")[0]
	if got := show(result); got != `error: module "test": kv_set: connection\nrefused (in handle < filterd_process)` || !errors.Is(result.Err, errStore) {
		t.Error(got)
	}
	s.slow = true
	result = run(t, m, "kia=1")[0] // a fault: the runner's context has not ended
	if got := show(result); got != `error: module "test": kv_incr: context deadline exceeded (in handle < filterd_process)` {
		t.Error(got)
	}
	if stats := m.Stats(); stats.Faults["host"] != 2 {
		t.Errorf("%+v", stats)
	}
}

// What runs apart leaves nothing behind: neither keys, nor faults, nor counts.
func TestApart(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	inRedis := &store{}
	for _, config := range []wasmfilter.ModuleConfig{
		{Name: "memory", KV: "memory", KVKeys: 1},
		{Name: "store", Store: inRedis},
	} {
		config.Code = readGuest(t, "probe.wasm")
		m := load(t, r, config)
		a, err := m.Apart(time.Now)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range [][2]string{{"kga", `keep "missing"`}, {"kin=2", `keep "2"`}} {
			if got := show(run(t, a, step[0])[0]); got != step[1] {
				t.Errorf("%s: %s: got %s, want %s", config.Name, step[0], got, step[1])
			}
		}
		for range 9 {
			run(t, a, "u") // traps, and is called again
		}
		if stats := a.Stats(); stats.Breaker != wasmfilter.BreakerClosed || stats.Refused != 0 {
			t.Errorf("%s: apart: %+v", config.Name, stats)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		stats := m.Stats()
		if stats.Calls != 0 || stats.KVKeys != 0 || len(stats.Faults) != 0 || stats.Refused != 0 || stats.Breaker != wasmfilter.BreakerClosed {
			t.Errorf("%s: %+v", config.Name, stats)
		}
		if got := show(run(t, m, "-")[0]); got != `keep` { // its code is still there
			t.Errorf("%s: %s", config.Name, got)
		}
	}
	if inRedis.calls != 0 {
		t.Errorf("%d calls of the store", inRedis.calls)
	}
}
