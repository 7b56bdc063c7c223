package metering_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd/internal/metering"
)

// TestGrowthIsBounded grows memory and tables as far as they go: maximums are
// lowered or added.
func TestGrowthIsBounded(t *testing.T) {
	grow := func(most int) []byte {
		return module(func(a *asm) {
			f := a.sig(nil, []byte{i32})
			a.memory(1, most)
			a.table(1, most)
			loop := func(one []byte, size []byte) []byte {
				return cat(byte(0x03), byte(void), one, i32c(-1), byte(0x47), byte(0x0d), 0, byte(0x0b), size)
			}
			a.export("memory", 0, a.fn(f, nil, loop(cat(i32c(1), ops(0x40, 0)), ops(0x3f, 0))))
			a.export("table", 0, a.fn(f, nil, loop(cat(ops(0xd0, funcref), i32c(1), bulk(15, 0)), bulk(16, 0))))
			a.export("all", 0, a.fn(f, nil, cat(i32c(-1), ops(0x40, 0))))
		})
	}
	for _, c := range []struct{ declared, memory, table int }{{-1, 20, 50}, {65_536, 20, 50}, {7, 7, 7}} {
		out, err := metering.Instrument(grow(c.declared), metering.Limits{MemoryPages: 20, TableEntries: 50})
		if err != nil {
			t.Fatal(err)
		}
		h := newHost(t)
		m := h.instantiate(t, out.Binary)
		for name, want := range map[string]int{"memory": c.memory, "table": c.table, "all": -1} {
			got, err := h.call(m, name, 1<<40)
			if err != nil || int(int32(got[0])) != want {
				t.Errorf("declared %d: %s grew to %v, %v; want %d", c.declared, name, got, err, want)
			}
		}
	}
}

// TestTablesShareTheLimit declares two tables that could grow without end.
func TestTablesShareTheLimit(t *testing.T) {
	binary := module(func(a *asm) {
		f := a.sig([]byte{i32}, []byte{i32})
		a.table(10, -1)
		a.table(20, -1)
		a.export("a", 0, a.fn(f, nil, cat(ops(0xd0, funcref, 0x20, 0), bulk(15, 0))))
		a.export("b", 0, a.fn(f, nil, cat(ops(0xd0, funcref, 0x20, 0), bulk(15, 1))))
	})
	out, err := metering.Instrument(binary, metering.Limits{TableEntries: 100})
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	m := h.instantiate(t, out.Binary)
	for _, c := range []struct {
		name     string
		by, want int
	}{{"a", 36, -1}, {"a", 35, 10}, {"b", 36, -1}, {"b", 35, 20}} {
		got, err := h.call(m, c.name, 1<<40, uint64(c.by))
		if err != nil || int(int32(got[0])) != c.want {
			t.Errorf("%s by %d: %v, %v; want %d", c.name, c.by, got, err, c.want)
		}
	}
}

// TestCompileBombs are small modules that keep a compiler busy: each is
// refused at once, or compiled soon.
func TestCompileBombs(t *testing.T) {
	nested := func(op, n int, inner []byte) []byte {
		return cat(repeat(ops(op, void), n), inner, repeat([]byte{0x0b}, n))
	}
	set := func(n int) []byte {
		var b []byte
		for i := range n {
			b = append(b, cat(byte(0x20), (i+1)%n, byte(0x21), i)...)
		}
		return b
	}
	locals := func(n int) []byte { return cat(1, n, byte(i32)) }
	wide := repeat([]byte{i32}, 1000)
	for _, c := range []struct {
		name   string
		binary []byte
		want   string // part of the refusal; "" for none
	}{
		{"nested blocks", module(func(a *asm) { a.run(nil, nested(0x02, 999, nil)) }), ""},
		{"nested loops", module(func(a *asm) { a.run(nil, nested(0x03, 999, nil)) }), ""},
		{"loops x locals", module(func(a *asm) { a.run(locals(1000), cat(nested(0x03, 999, set(1000)), set(1000))) }), "complexity"},
		{"merges x locals", module(func(a *asm) {
			a.run(locals(1000), cat(set(1000), repeat(ops(0x02, void, 0x20, 0, 0x0d, 0, 0x0b), 1000), set(1000)))
		}), "complexity"},
		{"branches x locals", module(func(a *asm) {
			a.run(locals(50), cat(ops(0x02, void), repeat(ops(0x20, 0, 0x0d, 0), 50_000), byte(0x0b), set(50)))
		}), "complexity"},
		{"ifs x locals", module(func(a *asm) {
			a.run(locals(50), cat(repeat(ops(0x20, 0, 0x04, void, 0x0b), 50_000), set(50)))
		}), "complexity"},
		{"many basic blocks", module(func(a *asm) { a.run(locals(1), repeat(ops(0x20, 0, 0x04, void, 0x0b), 20_000)) }), "complexity"},
		{"fewer basic blocks", module(func(a *asm) { a.run(locals(1), repeat(ops(0x20, 0, 0x04, void, 0x0b), 5_000)) }), ""},
		{"calls x mutable globals", module(func(a *asm) {
			for range 1000 {
				a.global(i32, true, i32c(0))
			}
			a.run(nil, repeat(call(0), 5000))
		}), "complexity"},
		{"calls x parameters", module(func(a *asm) {
			a.fn(a.sig(wide, nil), nil, nil)
			a.run(nil, repeat(cat(repeat(i32c(0), 1000), call(0)), 600))
		}), "complexity"},
		{"blocks x parameters", module(func(a *asm) {
			s := a.sig(wide, wide)
			a.run(nil, cat(repeat(i32c(0), 1000), repeat(cat(byte(0x02), s, byte(0x0b)), 500), repeat([]byte{0x1a}, 1000)))
		}), "complexity"},
		{"many large functions", module(func(a *asm) {
			a.run(locals(100), repeat(ops(0x02, void, 0x20, 0, 0x0d, 0, 0x0b), 1000))
			for range 60 {
				a.fn(0, locals(100), cat(set(100), repeat(ops(0x02, void, 0x20, 0, 0x0d, 0, 0x0b), 1000)))
			}
		}), "together"},
		{"a wide br_table", module(func(a *asm) {
			a.run(nil, cat(ops(0x02, void), i32c(1), byte(0x0e), 20_000, repeat([]byte{0}, 20_001), byte(0x0b)))
		}), "complexity"},
		{"a long function", module(func(a *asm) { a.run(locals(20), repeat(set(20), 13_000)) }), ""},
		{"a longer function", module(func(a *asm) { a.run(locals(20), repeat(set(20), 30_000)) }), "bytes, at most"},
		{"many functions", module(func(a *asm) {
			a.run(nil, nil)
			for range 100_000 {
				a.fn(0, nil, nil)
			}
		}), "functions, at most"},
		{"many locals", module(func(a *asm) {
			a.run(locals(50_000), nil)
			for range 40 {
				a.fn(0, locals(50_000), nil)
			}
		}), "locals together"},
		{"many wide types", module(func(a *asm) {
			for range 201 {
				a.sig(wide, nil)
			}
		}), "parameters and results in all types"},
		{"many elements", module(func(a *asm) {
			a.run(nil, nil)
			a.elems = append(a.elems, cat(byte(1), byte(0), 500_000, make([]byte, 500_000)))
		}), "elements, at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			out, err := metering.Instrument(c.binary, metering.Limits{})
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
			if c.want != "" {
				var refusal *metering.Error
				if !errors.As(err, &refusal) || refusal.Reason != metering.TooLarge || !strings.Contains(refusal.Text, c.want) {
					t.Errorf("got %v, want a text with %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			h := newHost(t)
			start = time.Now()
			if !h.valid(out.Binary) {
				t.Error("invalid")
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("compiled in %v", took)
			}
		})
	}
}

// TestAnnouncedCounts checks that numbers of items, which a module may claim at
// will, reserve nothing.
func TestAnnouncedCounts(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for id := range byte(13) {
		for _, n := range []int{1 << 20, 1 << 28, 1<<32 - 1} {
			if _, err := metering.Instrument(section(id, n), metering.Limits{}); id != 0 && err == nil && id != 12 {
				t.Errorf("section %d with %d items was taken", id, n)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes allocated", grown)
	}
}
