package metering_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var goGuest struct {
	once   sync.Once
	binary []byte
	err    error
}

// buildGoGuest returns the Go guest of testdata as a module.
func buildGoGuest(t testing.TB) []byte {
	t.Helper()
	goGuest.once.Do(func() {
		dir, err := os.MkdirTemp("", "metering")
		if err != nil {
			goGuest.err = err
			return
		}
		defer func() { _ = os.RemoveAll(dir) }()
		file := filepath.Join(dir, "guest.wasm")
		command := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", file, "./testdata/goguest")
		command.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
		command.Stderr = os.Stderr
		if goGuest.err = command.Run(); goGuest.err == nil {
			goGuest.binary, goGuest.err = os.ReadFile(file)
		}
	})
	if goGuest.err != nil {
		t.Fatal(goGuest.err)
	}
	return goGuest.binary
}

func BenchmarkGoGuest(b *testing.B) {
	binary := buildGoGuest(b)
	h := newHost(b)
	h.budget = 1 << 60
	start := now()
	plain := h.instantiate(b, binary)
	middle := now()
	instrumented := instrument(b, binary)
	b.Logf("%d bytes, instrumented %d in %d ms", len(binary), len(instrumented), (now()-middle)/1e6)
	after := now()
	metered := h.instantiate(b, instrumented)
	b.Logf("compiled in %d ms, instrumented in %d ms", (middle-start)/1e6, (now()-after)/1e6)
	if _, err := h.call(plain, "_initialize", 1<<60); err != nil {
		b.Fatal(err)
	}
	if _, err := h.call(metered, "_initialize", 1<<60); err != nil {
		b.Fatal(err)
	}
	b.Logf("_initialize: %d fuel", h.used(metered))
	for _, c := range []struct {
		name string
		args []uint64
	}{{"scan", nil}, {"decode", nil}, {"sorted", []uint64{100}}, {"counted", []uint64{200}}, {"fib", []uint64{15}}} {
		b.Run(c.name, func(b *testing.B) {
			compareModules(b, h, plain, metered, c.name, c.args...)
			if _, err := h.call(metered, c.name, 1<<60, c.args...); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(h.used(metered)), "fuel")
		})
	}
}
