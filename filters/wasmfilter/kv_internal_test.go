package wasmfilter

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestMemoryKV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemoryKV(time.Now)
		s.limit(kvLimits{3, 3*kvOverhead + 100})
		ctx := context.Background()
		get := func(key, want string) {
			t.Helper()
			value, found, err := s.Get(ctx, []byte(key), []byte("+"))
			got := string(value)
			if !found {
				got = "missing"
			}
			if got != want || err != nil {
				t.Errorf("%s: got %s, want %s (%v)", key, got, want, err)
			}
		}
		set := func(key, value string, ttl time.Duration, want bool) {
			t.Helper()
			if got, err := s.Set(ctx, []byte(key), []byte(value), ttl); got != want || err != nil {
				t.Errorf("set %s: %v, %v", key, got, err)
			}
		}
		incr := func(key string, delta int64, ttl time.Duration, want string) {
			t.Helper()
			sum, err := s.Incr(ctx, []byte(key), delta, ttl)
			got := fmt.Sprint(sum)
			if err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("incr %s: got %s, want %s", key, got, want)
			}
		}
		get("a", "missing")
		set("a", "1", 0, true)
		get("a", "+1")
		incr("a", 41, time.Second, "42") // the key stays for ever
		get("a", "+42")
		incr("b", -5, time.Second, "-5")
		time.Sleep(time.Second / 2)
		incr("b", math.MinInt64+5, time.Hour, fmt.Sprint(math.MinInt64)) // its time stays
		incr("b", -1, 0, `the value of "b" would go beyond 64 bits`)
		set("b", "x", time.Second, true) // a new one
		incr("b", 1, 0, `the value of "b" is no whole number`)
		for _, odd := range []string{"+1", "01", "-0", " 1", ""} { // which Redis does not count with either
			set("b", odd, time.Second, true)
			incr("b", 1, 0, `the value of "b" is no whole number`)
		}
		set("b", "x", time.Second, true)
		time.Sleep(time.Second * 3 / 4)
		get("b", "+x")
		time.Sleep(time.Second / 4)
		get("b", "missing")
		get("a", "+42")
		incr("b", math.MaxInt64, 0, fmt.Sprint(math.MaxInt64))
		incr("b", 1, 0, `the value of "b" would go beyond 64 bits`)
		incr("b", 0, 0, fmt.Sprint(math.MaxInt64))
		set("c", "x", time.Second, true)
		set("d", "x", 0, false) // three keys
		incr("d", 1, 0, "no room for another key")
		get("d", "missing")
		set("c", string(make([]byte, 100)), time.Second, false) // too many bytes
		get("c", "+x")                                          // the old one stays
		time.Sleep(time.Second)
		set("d", "x", 0, true) // c has given way
		if keys, bytes := s.size(); keys != 3 || bytes != 3*kvOverhead+3+2+1+len("9223372036854775807") {
			t.Error(keys, bytes)
		}
	})
}

// TestMemoryKVModel holds the KV against a simple one.
func TestMemoryKVModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newMemoryKV(time.Now)
		s.limit(kvLimits{4, 4 * (kvOverhead + 8)})
		ctx := context.Background()
		model := make(map[string]string)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			key := rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e"}).Draw(t, "key")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				value := rapid.StringMatching(`[0-9]{0,12}`).Draw(t, "value")
				if stored, _ := s.Set(ctx, []byte(key), []byte(value), time.Hour); stored {
					model[key] = value
				}
			case 1:
				delta := rapid.Int64Range(-1000, 1000).Draw(t, "delta")
				if sum, err := s.Incr(ctx, []byte(key), delta, 0); err == nil {

					before, _ := strconv.ParseInt(model[key], 10, 64)
					if sum != before+delta {
						t.Fatalf("%d + %d = %d", before, delta, sum)
					}
					model[key] = fmt.Sprint(sum)
				}
			case 2:
				value, found, _ := s.Get(ctx, []byte(key), nil)
				if want, ok := model[key]; ok != found || want != string(value) {
					t.Fatalf("%q: got %q, want %q", key, value, want)
				}
			}
			bytes := 0
			for key, value := range model {
				bytes += kvOverhead + len(key) + len(value)
			}
			if keys, got := s.size(); keys != len(model) || got != bytes || keys > 4 {
				t.Fatalf("%d keys, %d bytes, want %d, %d", keys, got, len(model), bytes)
			}
		}
	})
}

func TestBreakerTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Module{settings: settings{name: "test"}}
		b := newBreaker(testLogger, false)
		fault := func() { b.fault(m.fault(FaultTrap, "trapped")) }
		allowed := func(want, wantProbe bool) {
			t.Helper()
			if probe, err := b.allow(); probe != wantProbe || (err == nil) != want {
				t.Errorf("%v, %v", probe, err)
			}
		}
		var pauses []time.Duration
		for range maxFaults {
			allowed(true, false)
			fault()
			pauses = append(pauses, b.backoff())
		}
		if got := fmt.Sprint(pauses); got != "[0s 5ms 10ms 20ms 0s]" {
			t.Error(got)
		}
		for pause := minPause; pause < 4*maxPause; pause *= 2 {
			allowed(false, false)
			time.Sleep(min(pause, maxPause) - 1)
			if b.state() != BreakerOpen {
				t.Error(pause, b.state())
			}
			allowed(false, false)
			time.Sleep(time.Nanosecond)
			if b.state() != BreakerHalfOpen {
				t.Error(pause, b.state())
			}
			allowed(true, true)
			allowed(false, false) // one probe at a time
			b.abandon()
			allowed(true, true)
			fault()
		}
		time.Sleep(maxPause)
		allowed(true, true)
		b.success()
		allowed(true, false)
		if b.state() != BreakerClosed || b.backoff() != 0 {
			t.Error(b.state())
		}
		fault()
		allowed(true, false)
	})
}

func TestEscape(t *testing.T) {
	long := make([]byte, 2000)
	for k := range long {
		long[k] = "aé"[k%3]
	}
	for text, want := range map[string]string{
		"plain é 😀":      "plain é 😀",
		"\x00\n\x1b[31m": `\x00\n\x1b[31m`,
		"\xff\u202e":     `\xff\u202e`,
		`"\`:             `"\`,
	} {
		if got := escape(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	if got := len(escape(long)); got > maxText || got < maxText-4 {
		t.Error(got)
	}
	if got := escape(make([]byte, 2000)); len(got) != maxText {
		t.Error(len(got))
	}
}

func TestFrames(t *testing.T) {
	m := &Module{settings: settings{imports: 3}}
	for trace, want := range map[string]string{
		"":                                     "",
		".f(i32) i32\n\t.g(i32,i64) (i32,i32)": "f < g",
		"filterd_meter.refuel(i64) i64\n\t.$17()\n\t.a(b)<c>(f32)": "a(b)<c>",
		"filterd.emit(i32,i32,i32,i32) i32\n\t.$4()\n\t.$9()":      "$4 < $7",
		".a()\n\t.b()\n\t.c()\n\t.d()\n\t.e()\n\t... maybe":        "a < b < c < d < …",
		".\x1b()\n\t\t0x12: file.go":                               `\x1b`,
	} {
		if got := m.frames(trace); got != want {
			t.Errorf("%q: got %s, want %s", trace, got, want)
		}
	}
}

// A ttl is an i32: below zero it is never, not 49 days.
func TestMilliseconds(t *testing.T) {
	for ms, want := range map[int32]time.Duration{0: 0, 1500: 1500 * time.Millisecond, math.MaxInt32: math.MaxInt32 * time.Millisecond, -1: -time.Millisecond} {
		if got := milliseconds(uint64(uint32(ms))); got != want {
			t.Errorf("%d: got %v, want %v", ms, got, want)
		}
	}
}
