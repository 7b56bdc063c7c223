package metering_test

import (
	"context"
	varint "encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/filterd/filterd/internal/metering"
)

// fuzzLimits keep what a single input can cost small.
var fuzzLimits = metering.Limits{MemoryPages: 16, TotalLocals: 10_000, Complexity: 1_000_000, TableEntries: 1000}

// check instruments arbitrary bytes. The result must be as valid as they are,
// and whatever it exports must end within its budget.
func check(t *testing.T, h *host, binary []byte) {
	t.Helper()
	_, _ = metering.Inspect(binary, fuzzLimits)
	out, err := metering.Instrument(binary, fuzzLimits)
	if err != nil {
		var refusal *metering.Error
		if !errors.As(err, &refusal) || refusal.Text == "" || refusal.Offset < 0 || refusal.Offset > len(binary) {
			t.Fatalf("error %#v for %d bytes", err, len(binary))
		}
		return
	}
	ctx := context.Background()
	compiled, err := h.compile(out.Binary)
	if valid := h.valid(withoutNames(binary)); valid != (err == nil) {
		t.Fatalf("valid: %v; instrumented: %v", valid, err)
	}
	if err != nil {
		return
	}
	defer func() { _ = compiled.Close(ctx) }()
	m, err := h.runtime.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return
	}
	defer func() { _ = m.Close(ctx) }()
	for name, f := range m.ExportedFunctionDefinitions() {
		const budget = 300_000
		start := time.Now()
		_, err := h.call(m, name, budget, arguments(f, 3)...)
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("%s took %v", name, took)
		}
		if errors.Is(err, errFuel) && h.budget > 0 {
			t.Fatalf("%s: out of fuel with %d left to grant", name, h.budget)
		}
	}
}

// withoutNames leaves out custom sections: what is wrong within them is for
// wazero an error, for the format not.
func withoutNames(binary []byte) []byte {
	const header = 8
	if len(binary) < header {
		return binary
	}
	out := append([]byte(nil), binary[:header]...)
	for rest := binary[header:]; len(rest) > 0; {
		size, n := varint.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return binary
		}
		end := 1 + n + int(size)
		if rest[0] != 0 {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out
}

// seeds are modules of every kind there is in these tests.
func seeds() [][]byte {
	all := [][]byte{loopModule(), fibModule(), bytesModule(), everything()}
	for _, modules := range []map[string][]byte{hostile(), recursions()} {
		for _, name := range slices.Sorted(maps.Keys(modules)) {
			if binary := modules[name]; len(binary) < 4096 {
				all = append(all, binary)
			}
		}
	}
	for seed := range uint64(20) {
		all = append(all, generate(seed))
	}
	return all
}

func FuzzInstrument(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	h := newHost(f)
	f.Fuzz(func(t *testing.T, binary []byte) { check(t, h, binary) })
}

// FuzzMutated changes a few bytes of generated modules, so that most of the
// module stays valid.
func FuzzMutated(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed, seed*17)
	}
	h := newHost(f)
	f.Fuzz(func(t *testing.T, module, mutation uint64) {
		check(t, h, mutate(generate(module), mutation))
	})
}

// mutate changes one to three bytes behind the header.
func mutate(binary []byte, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 11))
	out := append([]byte(nil), binary...)
	for range 1 + r.IntN(3) {
		at := 8 + r.IntN(len(out)-8)
		switch r.IntN(4) {
		case 0:
			out[at] ^= 1 << r.IntN(8)
		case 1:
			out[at] = byte(r.IntN(256))
		case 2:
			out[at]++
		case 3:
			out[at] = out[8+r.IntN(len(out)-8)]
		}
	}
	return out
}

func TestMutations(t *testing.T) {
	mutations := 3000
	if testing.Short() {
		mutations = 300
	}
	h := newHost(t)
	all := seeds()
	for i := range mutations {
		binary := mutate(all[i%len(all)], uint64(i))
		check(t, h, binary)
		// What is refused as malformed is nothing that wazero would take.
		_, err := metering.Instrument(binary, metering.Limits{})
		var refusal *metering.Error
		if errors.As(err, &refusal) && refusal.Reason == metering.Malformed && !lax(refusal.Text) && h.valid(withoutNames(binary)) {
			t.Errorf("mutation %d of module %d: %v, but wazero takes it", i, i%len(all), err)
		}
		if t.Failed() {
			t.Fatalf("mutation %d of module %d", i, i%len(all))
		}
	}
}

// TestTruncations cuts a module at every byte.
func TestTruncations(t *testing.T) {
	binary := everything()
	if _, err := metering.Instrument(binary, metering.Limits{}); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	for n := range binary {
		_, err := metering.Instrument(binary[:n], metering.Limits{})
		valid := h.valid(binary[:n])
		if (err == nil) != valid {
			t.Errorf("the first %d bytes: %v, wazero takes it: %v", n, err, valid)
		}
		_, _ = metering.Inspect(binary[:n], metering.Limits{})
	}
}

// everything is a module with one of each section.
func everything() []byte {
	a := newAsm()
	u := a.unit()
	one := a.sig([]byte{i32}, []byte{i32, i64})
	a.importFunc("wasi_snapshot_preview1", "sched_yield", a.sig(nil, []byte{i32}))
	a.memory(1, 3)
	a.table(2, 5)
	a.global(i32, true, i32c(7))
	a.global(funcref, false, []byte{0xd2, 2})
	a.start = a.fn(u, ops(2, 1, i32, 3, i64), cat(call(0), ops(0x24, 0), i32c(0), i32c(0), i32c(3), bulk(8, 0, 0), bulk(9, 0)))
	a.export("one", 0, a.fn(one, nil, cat(
		ops(0x20, 0, 0x04, void), call(1), ops(0x0b), i32c(300), ops(0x0e, 1, 0, 0)[:0], ops(0x28, 2), 200, i64c(-5), byte(0x0f),
	)))
	a.export("memory", 2, 0)
	a.export("table", 1, 0)
	a.export("global", 3, 1)
	a.elems = append(a.elems,
		cat(byte(0), i32c(0), byte(0x0b), 2, byte(1), byte(2)),
		cat(byte(5), byte(funcref), 2, ops(0xd2, 1, 0x0b, 0xd0, funcref, 0x0b)))
	a.dataCount = true
	a.datas = append(a.datas, cat(byte(1), "abc"), cat(byte(0), i32c(9), byte(0x0b), "def"), cat(byte(2), byte(0), i32c(20), byte(0x0b), "ghi"))
	a.custom = cat(custom("name", cat(byte(0), 5, "test", byte(1), 8, 2, 0, "a", 2, "b")), custom("producers", cat(1, "language", 1, "none", "1")))
	return a.bytes()
}
