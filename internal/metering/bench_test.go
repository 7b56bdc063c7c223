package metering_test

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero/api"
)

// loopModule counts its parameter down to zero, in the tightest loop there is.
func loopModule() []byte {
	a := newAsm()
	t := a.sig([]byte{i32}, nil)
	a.export("run", 0, a.fn(t, nil, ops(
		0x03, void, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b,
	)))
	return a.bytes()
}

// fibModule is the naive recursion.
func fibModule() []byte {
	a := newAsm()
	t := a.sig([]byte{i32}, []byte{i32})
	a.export("run", 0, a.fn(t, nil, ops(
		0x20, 0, 0x41, 2, 0x48, 0x04, i32, 0x20, 0, 0x05,
		0x20, 0, 0x41, 1, 0x6b, 0x10, 0, 0x20, 0, 0x41, 2, 0x6b, 0x10, 0, 0x6a, 0x0b,
	)))
	return a.bytes()
}

// bytesModule sums up the first n bytes of memory.
func bytesModule() []byte {
	a := newAsm()
	a.memory(1, 1)
	t := a.sig([]byte{i32}, []byte{i32})
	a.export("run", 0, a.fn(t, ops(1, 2, i32), ops(
		0x03, void,
		0x20, 1, 0x20, 2, 0x2d, 0, 0, 0x6a, 0x21, 1, // sum += memory[i]
		0x20, 2, 0x41, 1, 0x6a, 0x22, 2, 0x20, 0, 0x49, 0x0d, 0, 0x0b, // i++ < n
		0x20, 1,
	)))
	return a.bytes()
}

func BenchmarkMetering(b *testing.B) {
	for _, c := range []struct {
		name   string
		binary []byte
		arg    uint64
	}{
		{"loop", loopModule(), 10_000},
		{"fib", fibModule(), 20},
		{"bytes", bytesModule(), 324},
	} {
		b.Run(c.name, func(b *testing.B) { compare(b, c.binary, "run", c.arg) })
	}
}

// compare runs a function with and without meters in turns, and reports both
// and their ratio.
func compare(b *testing.B, binary []byte, name string, args ...uint64) {
	b.Helper()
	h := newHost(b)
	h.budget = 1 << 60
	plain, metered := h.instantiate(b, binary), h.instantiate(b, instrument(b, binary))
	compareModules(b, h, plain, metered, name, args...)
}

func compareModules(b *testing.B, h *host, plain, metered api.Module, name string, args ...uint64) {
	b.Helper()
	ctx := context.Background()
	stack := make([]uint64, 8)
	best := [2]float64{}
	functions := [2]api.Function{plain.ExportedFunction(name), metered.ExportedFunction(name)}
	run := func(i, n int) float64 {
		start := now()
		for range n {
			copy(stack, args)
			if err := functions[i].CallWithStack(ctx, stack); err != nil {
				b.Fatal(err)
			}
		}
		return float64(now()-start) / float64(n)
	}
	for i := range functions { // as many as take a millisecond
		run(i, 3)
	}
	n := max(1, int(1e6/run(0, 3)))
	for b.Loop() {
		h.budget = 1 << 60
		for i := range functions {
			if ns := run(i, n); best[i] == 0 || ns < best[i] {
				best[i] = ns
			}
		}
	}
	b.ReportMetric(best[0], "ns-without")
	b.ReportMetric(best[1], "ns-with")
	b.ReportMetric(best[1]/best[0], "ratio")
	b.ReportMetric(0, "ns/op")
}
