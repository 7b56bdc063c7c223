package metering_test

import (
	"bytes"
	"context"
	"errors"
	"sort"
	"testing"
	"time"

	"github.com/filterd/filterd/internal/metering"
)

// unit adds the type () -> ().
func (a *asm) unit() int { return a.sig(nil, nil) }

// run adds an exported function "run" of type () -> ().
func (a *asm) run(locals, code []byte) int {
	f := a.fn(a.unit(), locals, code)
	a.export("run", 0, f)
	return f
}

// repeat repeats code.
func repeat(code []byte, n int) []byte { return bytes.Repeat(code, n) }

// endless wraps code in a loop without an end.
func endless(code []byte) []byte {
	return cat(byte(0x03), byte(void), code, byte(0x0c), byte(0), byte(0x0b))
}

// bulk is an instruction behind the prefix 0xfc.
func bulk(n int, immediates ...int) []byte { return append([]byte{0xfc, byte(n)}, ops2(immediates)...) }

func ops2(numbers []int) []byte {
	var b []byte
	for _, n := range numbers {
		b = append(b, uleb(uint64(n))...)
	}
	return b
}

// hostile are modules whose function "run" does not come to an end by itself,
// or not within reason.
func hostile() map[string][]byte {
	modules := make(map[string][]byte)
	add := func(name string, build func(a *asm)) {
		a := newAsm()
		build(a)
		modules[name] = a.bytes()
	}
	add("empty loop", func(a *asm) { a.run(nil, endless(nil)) })
	add("loop by br_if", func(a *asm) { a.run(nil, ops(0x03, void, 0x41, 1, 0x0d, 0, 0x0b)) })
	add("loop by br_table", func(a *asm) { a.run(nil, ops(0x03, void, 0x41, 7, 0x0e, 2, 0, 0, 0, 0x0b)) })
	add("loop of nops", func(a *asm) { a.run(nil, endless(repeat([]byte{1}, 100_000))) })
	add("nested loops", func(a *asm) { a.run(nil, endless(endless(endless(nil)))) })
	add("loop with a huge body", func(a *asm) {
		a.run(ops(1, 1, i32), endless(repeat(ops(0x20, 0, 0x41, 3, 0x6c, 0x41, 1, 0x6a, 0x21, 0), 40_000)))
	})
	add("loop with a huge body that is mostly skipped", func(a *asm) {
		a.run(ops(1, 1, i32), endless(repeat(ops(0x20, 0, 0x04, void, 0x20, 0, 0x41, 1, 0x6a, 0x21, 0, 0x0b), 4_000)))
	})
	add("loop of divisions", func(a *asm) {
		a.run(ops(1, 1, i64), endless(repeat(ops(i64c(1<<62), 0x20, 0, i64c(3), 0x84, 0x80, 0x21, 0), 1000)))
	})
	add("loop with values on the stack", func(a *asm) {
		t := a.sig([]byte{i32, i64}, []byte{i32, i64})
		a.run(nil, cat(i32c(1), i64c(2), byte(0x03), t, byte(0x0c), byte(0), byte(0x0b), byte(0x1a), byte(0x1a)))
	})
	add("doubling calls", func(a *asm) { // 2^40 calls, no loop
		t := a.unit()
		a.fn(t, nil, []byte{1})
		for i := range 40 {
			a.fn(t, nil, cat(call(i), call(i)))
		}
		a.export("run", 0, 40)
	})
	add("doubling calls with parameters", func(a *asm) {
		t := a.sig([]byte{i64}, []byte{i64})
		a.fn(t, nil, ops(0x20, 0))
		for i := range 60 {
			a.fn(t, nil, cat(ops(0x20, 0), call(i), call(i)))
		}
		a.run(nil, cat(i64c(1), call(60), byte(0x1a)))
	})
	add("doubling indirect calls", func(a *asm) {
		t := a.unit()
		a.table(41, 41)
		a.fn(t, nil, nil)
		functions := cat(byte(0), i32c(0), byte(0x0b), 41, byte(0))
		for i := range 40 {
			one := cat(i32c(int32(i)), byte(0x11), t, byte(0))
			a.fn(t, nil, cat(one, one))
			functions = append(functions, byte(i+1))
		}
		a.elems = append(a.elems, functions)
		a.export("run", 0, 40)
	})
	for name, op := range map[string][]byte{"memory.copy": bulk(10, 0, 0), "memory.fill": bulk(11, 0)} {
		add("loop of "+name, func(a *asm) {
			a.memory(256, 256)
			a.run(nil, endless(cat(i32c(0), i32c(1), i32c(16<<20-1), op)))
		})
	}
	add("loop of memory.init", func(a *asm) {
		a.memory(16, 16)
		a.dataCount = true
		a.datas = append(a.datas, cat(byte(1), 1<<20, make([]byte, 1<<20)))
		a.run(nil, endless(cat(i32c(0), i32c(0), i32c(1<<20), bulk(8, 0, 0))))
	})
	add("loop of table.fill", func(a *asm) {
		a.table(100_000, -1)
		a.run(nil, endless(cat(i32c(0), ops(0xd0, funcref), i32c(100_000), bulk(17, 0))))
	})
	add("loop of table.copy", func(a *asm) {
		a.table(100_000, -1)
		a.run(nil, endless(cat(i32c(0), i32c(1), i32c(99_999), bulk(14, 0, 0))))
	})
	add("loop of table.init", func(a *asm) {
		a.table(1000, -1)
		a.elems = append(a.elems, cat(byte(1), byte(0), 1000, make([]byte, 1000)))
		a.run(nil, endless(cat(i32c(0), i32c(0), i32c(1000), bulk(12, 0, 0))))
	})
	add("loop of memory.grow", func(a *asm) {
		a.memory(0, -1)
		a.run(nil, endless(cat(i32c(1), ops(0x40, 0, 0x1a))))
	})
	add("loop of memory.grow by nothing", func(a *asm) {
		a.memory(256, -1)
		a.run(nil, endless(cat(i32c(0), ops(0x40, 0, 0x1a))))
	})
	add("loop of table.grow", func(a *asm) {
		a.table(0, -1)
		a.run(nil, endless(cat(ops(0xd0, funcref), i32c(1), bulk(15, 0), byte(0x1a))))
	})
	add("loop in a function that is called by a loop", func(a *asm) {
		a.fn(a.unit(), nil, ops(0x03, void, 0x41, 0, 0x0d, 0, 0x0b))
		a.export("run", 0, a.fn(0, nil, endless(call(0))))
	})
	return modules
}

// TestHostileRunsOutOfFuel runs each hostile module with a budget, and checks
// that it ends, by fuel, and soon.
func TestHostileRunsOutOfFuel(t *testing.T) {
	for name, binary := range hostile() {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.instantiate(t, instrument(t, binary))
			const budget = 10_000_000
			start := time.Now()
			_, err := h.call(m, "run", budget)
			if !errors.Is(err, errFuel) {
				t.Fatalf("got %v", err)
			}
			// A unit is well below a nanosecond; the rest is for busy machines.
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v for %d units", took, budget)
			}
			if h.granted != budget {
				t.Errorf("granted %d of %d", h.granted, budget)
			}
		})
	}
}

// TestEndlessStart checks that a start function waits for the host, and runs
// metered then.
func TestEndlessStart(t *testing.T) {
	a := newAsm()
	a.start = a.fn(a.unit(), nil, endless(nil))
	out, err := metering.Instrument(a.bytes(), metering.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !out.HasStart {
		t.Error("HasStart is not set")
	}
	h := newHost(t)
	m := h.instantiate(t, out.Binary) // does not run it
	if _, err := h.call(m, metering.ExportStart, 1_000_000); !errors.Is(err, errFuel) {
		t.Errorf("got %v", err)
	}
	if h.refuels < 10 {
		t.Errorf("only %d slices", h.refuels)
	}
}

// TestImportedStart checks a start function that is an import.
func TestImportedStart(t *testing.T) {
	a := newAsm()
	a.start = a.importFunc("wasi_snapshot_preview1", "sched_yield", a.sig(nil, []byte{i32}))
	if _, err := metering.Instrument(a.bytes(), metering.Limits{}); err == nil {
		t.Error("a start function with a result was taken")
	}
	a = newAsm()
	a.start = a.importFunc("host", "f", a.unit())
	out, err := metering.Instrument(a.bytes(), metering.Limits{})
	if err != nil || !out.HasStart {
		t.Errorf("%v, %v", out, err)
	}
}

// TestFuelIsExact counts by hand.
func TestFuelIsExact(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want int64
	}{
		{"empty", nil, 4},
		{"straight", ops(0x41, 1, 0x41, 2, 0x6a, 0x1a), 4 + 3},
		{"division", ops(0x41, 1, 0x41, 2, 0x6d, 0x1a), 4 + 2 + 8},
		{"loop of 10", ops(
			0x41, 10, 0x21, 0, 0x03, void, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b,
		), 4 + 2 + 10*(1+5)},
		{"a block left early", ops(
			0x02, void, 0x41, 1, 0x0d, 0, repeat(ops(0x41, 1, 0x1a), 100), 0x0b, 0x41, 1, 0x1a,
		), 4 + 2 + 1},
		{"a way not taken", ops(
			0x41, 0, 0x04, void, repeat(ops(0x41, 1, 0x1a), 100), 0x05, repeat(ops(0x41, 1, 0x1a), 50), 0x0b, 0x41, 1, 0x1a,
		), 4 + 2 + 50 + 1},
		{"bulk", cat(i32c(0), i32c(0), i32c(800), bulk(11, 0)), 4 + 3 + 16 + 100},
		{"growth", cat(i32c(2), ops(0x40, 0, 0x1a)), 4 + 1 + 200 + 2*4096},
	} {
		a := newAsm()
		a.memory(1, -1)
		a.run(ops(1, 1, i32), c.code)
		h := newHost(t)
		m := h.instantiate(t, instrument(t, a.bytes()))
		if _, err := h.call(m, "run", 1<<40); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := h.used(m); got != c.want {
			t.Errorf("%s: used %d, want %d", c.name, got, c.want)
		}
	}
}

// TestOverrunIsBounded returns through as many functions as the stack takes,
// each of which has as much left to do as it can without passing a check.
func TestOverrunIsBounded(t *testing.T) {
	for _, pieces := range []int{0, 10, 100, 1000, 5000} {
		a := newAsm()
		tail := repeat(ops(0x20, 0, 0x04, void, 0x20, 0, 0x20, 0, 0x20, 0, 0x6a, 0x6a, 0x1a, 0x0b), pieces)
		a.export("run", 0, a.fn(a.sig([]byte{i32}, nil), nil, cat(
			ops(0x20, 0, 0x04, void, 0x20, 0, 0x41, 1, 0x6b), call(0), byte(0x0b), tail,
		)))
		h := newHost(t)
		m := h.instantiate(t, instrument(t, a.bytes()))
		depth := uint64(1) // the deepest that there is
		for _, err := h.call(m, "run", 1<<40, depth); err == nil; _, err = h.call(m, "run", 1<<40, depth) {
			depth += depth/50 + 1
		}
		depth -= depth/50 + 1
		m = h.instantiate(t, instrument(t, a.bytes()))
		if _, err := h.call(m, "run", 1<<40, depth); err != nil {
			t.Fatal(err)
		}
		used := h.used(m)
		// The least budget that lets it return.
		least := sort.Search(int(used), func(budget int) bool {
			m := h.instantiate(t, instrument(t, a.bytes()))
			defer func() { _ = m.Close(context.Background()) }()
			_, err := h.call(m, "run", int64(budget), depth)
			return err == nil
		})
		over := used - int64(least)
		t.Logf("%d deep: %d units, %d of them over the budget", depth, used, over)
		if over > 3_000_000 {
			t.Errorf("%d units over the budget", over)
		}
	}
}
