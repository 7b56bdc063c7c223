package metering_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/filterd/filterd/internal/metering"
)

// recursions are modules whose function "run" calls itself without end.
func recursions() map[string][]byte {
	modules := make(map[string][]byte)
	add := func(name string, build func(a *asm)) {
		a := newAsm()
		build(a)
		modules[name] = a.bytes()
	}
	add("direct", func(a *asm) { a.run(nil, call(0)) })
	add("with parameters and results", func(a *asm) {
		t := a.sig([]byte{i32, f64}, []byte{f64, i32})
		f := a.fn(t, nil, cat(ops(0x20, 0, 0x20, 1), call(0)))
		_ = f
		a.run(nil, cat(i32c(1), ops(0x44, 0, 0, 0, 0, 0, 0, 0, 0), call(0), ops(0x1a, 0x1a)))
	})
	add("mutual", func(a *asm) {
		a.run(nil, call(1))
		a.fn(0, nil, call(2))
		a.fn(0, nil, call(0))
	})
	add("indirect", func(a *asm) {
		a.table(1, 1)
		a.run(nil, cat(i32c(0), ops(0x11, 0, 0)))
		a.elems = append(a.elems, cat(byte(0), i32c(0), byte(0x0b), 1, byte(0)))
	})
	add("by a table that the guest fills", func(a *asm) {
		a.table(1, 1)
		a.run(nil, cat(i32c(0), ops(0xd2, 0), bulk(16, 0), byte(0x1a), ops(0x26, 0), i32c(0), ops(0x11, 0, 0)))
	})
	add("from within a loop", func(a *asm) { a.run(nil, endless(call(0))) })
	add("with many values that live across calls", func(a *asm) {
		get := a.sig(nil, []byte{i64})
		a.fn(get, nil, i64c(1))
		values := repeat(call(0), 200)
		sum := repeat([]byte{0x7c}, 199)
		a.run(nil, cat(values, call(1), sum, byte(0x1a)))
	})
	add("with vectors that live across calls", func(a *asm) {
		get := a.sig(nil, []byte{v128})
		a.fn(get, nil, ops(0xfd, 12, make([]byte, 16)))
		a.run(nil, cat(repeat(call(0), 1000), call(1), repeat([]byte{0xfd, 0x51}, 999), byte(0x1a)))
	})
	add("with a place for every local's every value", func(a *asm) {
		get := a.sig(nil, []byte{i64})
		a.fn(get, nil, i64c(1))
		a.run(ops(1, 8, i64), cat(repeat(cat(call(0), ops(0x20, 0, 0x7c, 0x21, 0)), 5000), call(1)))
	})
	add("with values handed over at many places", func(a *asm) {
		get := a.sig(nil, []byte{i32})
		a.fn(get, nil, i32c(0))
		var set []byte
		for i := range 100 {
			set = append(set, cat(call(0), ops(0x21, i))...)
		}
		code := set
		for range 60 {
			code = cat(ops(0x02, void), call(0), ops(0x0d, 0), code, byte(0x0b))
		}
		var use []byte
		for i := range 100 {
			use = append(use, cat(ops(0x20, i, 0x1a))...)
		}
		a.run(ops(1, 100, i32), cat(code, use, call(1)))
	})
	return modules
}

// TestRecursionOverflows checks that recursion ends as a stack overflow that
// the host can tell from other traps, quickly and without much memory.
func TestRecursionOverflows(t *testing.T) {
	for name, binary := range recursions() {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.instantiate(t, instrument(t, binary))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := h.call(m, "run", 1<<40)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, errOverflow) {
				t.Fatalf("got %v", err)
			}
			t.Logf("%v, %d KiB", took, (after.TotalAlloc-before.TotalAlloc)>>10)
			if took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			// The stack grows by doubling, so that twice its last size was allocated.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 40<<20 {
				t.Errorf("%d MiB allocated", grown>>20)
			}
		})
	}
}

// TestHeightIsRestored leaves a function in every way there is, and checks that
// the height is what it was.
func TestHeightIsRestored(t *testing.T) {
	leaf := func(a *asm) int { return a.fn(a.unit(), nil, nil) }
	for name, code := range map[string][]byte{
		"end":                  cat(call(0)),
		"return":               cat(call(0), byte(0x0f)),
		"return from a block":  cat(call(0), ops(0x02, void, 0x03, void, 0x0f, 0x0b, 0x0b)),
		"br":                   cat(call(0), ops(0x0c, 0)),
		"br from a block":      cat(call(0), ops(0x02, void, 0x0c, 1, 0x0b)),
		"br_if":                cat(call(0), ops(0x41, 1, 0x0d, 0)),
		"br_if not taken":      cat(call(0), ops(0x41, 0, 0x0d, 0)),
		"br_table":             cat(call(0), ops(0x02, void, 0x41, 0, 0x0e, 1, 1, 0, 0x0b)),
		"br_table's default":   cat(call(0), ops(0x02, void, 0x41, 9, 0x0e, 1, 0, 1, 0x0b)),
		"return in dead code":  cat(call(0), ops(0x0f, 0x0f, 0x0c, 0)),
		"one way of an if":     cat(call(0), ops(0x41, 1, 0x04, void, 0x0f, 0x0b)),
		"else":                 cat(call(0), ops(0x41, 0, 0x04, void, 0x05, 0x0f, 0x0b)),
		"several calls, loops": cat(repeat(call(0), 5), ops(0x41, 3, 0x21, 0, 0x03, void), call(0), ops(0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b)),
	} {
		a := newAsm()
		leaf(a)
		a.run(ops(1, 1, i32), code)
		h := newHost(t)
		m := h.instantiate(t, instrument(t, a.bytes()))
		for range 3 {
			if _, err := h.call(m, "run", 1<<40); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := m.ExportedGlobal(metering.ExportHeight).Get(); got != metering.DefaultStackBytes {
				t.Errorf("%s: height %d", name, got)
			}
		}
	}
}

// TestDepth checks how deep ordinary recursion gets.
func TestDepth(t *testing.T) {
	a := newAsm()
	a.export("run", 0, a.fn(a.sig([]byte{i32}, []byte{i32}), nil, ops(
		0x20, 0, 0x45, 0x04, i32, 0x41, 0, 0x05, 0x20, 0, 0x41, 1, 0x6b, 0x10, 0, 0x41, 1, 0x6a, 0x0b,
	)))
	h := newHost(t)
	m := h.instantiate(t, instrument(t, a.bytes()))
	got, err := h.call(m, "run", 1<<40, 5000)
	if err != nil || got[0] != 5000 {
		t.Errorf("5,000 deep: %v, %v", got, err)
	}
	if _, err := h.call(m, "run", 1<<40, 1_000_000); !errors.Is(err, errOverflow) {
		t.Errorf("1,000,000 deep: %v", err)
	}
}
