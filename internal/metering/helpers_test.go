package metering_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/filterd/filterd/internal/metering"
)

// The outcomes of a bounded call.
var (
	errFuel     = errors.New("out of fuel")
	errOverflow = errors.New("stack overflow")
)

const (
	slice       = 100_000
	memoryLimit = 1024 // pages
)

// A host runs instrumented modules the way filterd does: fuel comes in slices.
type host struct {
	runtime wazero.Runtime
	budget  int64 // fuel that is left to grant
	refuels int
	granted int64
	stop    context.Context // ends a call when it is done; nil for never
}

func newHost(t testing.TB) *host {
	t.Helper()
	ctx := context.Background()
	config := wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2).WithMemoryLimitPages(memoryLimit)
	h := &host{runtime: wazero.NewRuntimeWithConfig(ctx, config)}
	t.Cleanup(func() { _ = h.runtime.Close(ctx) })
	refuel := func(_ context.Context, stack []uint64) {
		h.refuels++
		if h.stop != nil && h.stop.Err() != nil {
			panic(errFuel)
		}
		fuel := int64(stack[0])
		for fuel < 0 {
			if h.budget <= 0 {
				panic(errFuel)
			}
			grant := min(h.budget, max(slice, -fuel))
			h.budget -= grant
			h.granted += grant
			fuel += grant
		}
		stack[0] = uint64(fuel)
	}
	overflow := func(context.Context, []uint64) { panic(errOverflow) }
	_, err := h.runtime.NewHostModuleBuilder(metering.ImportModule).
		NewFunctionBuilder().WithGoFunction(api.GoFunc(refuel), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export(metering.ImportRefuel).
		NewFunctionBuilder().WithGoFunction(api.GoFunc(overflow), nil, nil).Export(metering.ImportOverflow).
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wasi_snapshot_preview1.MustInstantiate(ctx, h.runtime)
	return h
}

// instantiate instantiates a module without running anything.
func (h *host) instantiate(t testing.TB, binary []byte) api.Module {
	t.Helper()
	m, err := h.runtime.InstantiateWithConfig(context.Background(), binary, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatalf("instantiate: %v", err)
	}
	return m
}

// call calls an exported function with a budget.
func (h *host) call(m api.Module, name string, budget int64, args ...uint64) ([]uint64, error) {
	h.budget, h.refuels, h.granted = budget, 0, 0
	if fuel, ok := m.ExportedGlobal(metering.ExportFuel).(api.MutableGlobal); ok {
		fuel.Set(0)
	}
	f := m.ExportedFunction(name)
	if f == nil {
		return nil, fmt.Errorf("no function %q", name)
	}
	return f.Call(context.Background(), args...)
}

// used is the fuel that the last call used.
func (h *host) used(m api.Module) int64 {
	return h.granted - int64(m.ExportedGlobal(metering.ExportFuel).Get())
}

func instrument(t testing.TB, binary []byte) []byte {
	t.Helper()
	m, err := metering.Instrument(binary, metering.Limits{})
	if err != nil {
		t.Fatalf("instrument: %v", err)
	}
	return m.Binary
}

// An asm assembles a module, section by section.
type asm struct {
	types, imports, funcs, tables, mems, globals, exports, elems, codes, datas [][]byte
	start                                                                      int // -1 none
	dataCount                                                                  bool
	custom                                                                     []byte
}

func newAsm() *asm { return &asm{start: -1} }

const (
	i32, i64, f32, f64, v128, funcref, externref = 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f
	void                                         = 0x40
)

func uleb(v uint64) []byte {
	var b []byte
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func sleb(v int64) []byte {
	var b []byte
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

// cat joins bytes, byte slices and numbers (as unsigned LEB).
func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case byte:
			b = append(b, p)
		case int:
			b = append(b, uleb(uint64(p))...)
		case []byte:
			b = append(b, p...)
		case string:
			b = append(append(b, uleb(uint64(len(p)))...), p...)
		default:
			panic(fmt.Sprintf("cat of %T", p))
		}
	}
	return b
}

// ops is cat for code, where small numbers are bytes as they are.
func ops(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case []byte:
			b = append(b, p...)
		default:
			panic(fmt.Sprintf("ops of %T", p))
		}
	}
	return b
}

func i32c(v int32) []byte { return append([]byte{0x41}, sleb(int64(v))...) }
func i64c(v int64) []byte { return append([]byte{0x42}, sleb(v)...) }
func call(f int) []byte   { return cat(byte(0x10), f) }

// sig adds a function type.
func (a *asm) sig(params, results []byte) int {
	a.types = append(a.types, cat(byte(0x60), len(params), params, len(results), results))
	return len(a.types) - 1
}

func (a *asm) importFunc(module, name string, t int) int {
	a.imports = append(a.imports, cat(module, name, byte(0), t))
	return len(a.imports) - 1
}

// fn adds a function; code without its end. Imports must be there before.
func (a *asm) fn(t int, locals []byte, code []byte) int {
	if locals == nil {
		locals = []byte{0}
	}
	a.funcs = append(a.funcs, uleb(uint64(t)))
	a.codes = append(a.codes, cat(locals, code, byte(0x0b)))
	return len(a.imports) + len(a.funcs) - 1
}

func (a *asm) memory(lo, hi int) {
	if hi < 0 {
		a.mems = append(a.mems, cat(byte(0), lo))
	} else {
		a.mems = append(a.mems, cat(byte(1), lo, hi))
	}
}

func (a *asm) table(lo, hi int) {
	if hi < 0 {
		a.tables = append(a.tables, cat(byte(funcref), byte(0), lo))
	} else {
		a.tables = append(a.tables, cat(byte(funcref), byte(1), lo, hi))
	}
}

func (a *asm) global(t byte, mutable bool, init []byte) int {
	flag := byte(0)
	if mutable {
		flag = 1
	}
	a.globals = append(a.globals, cat(t, flag, init, byte(0x0b)))
	return len(a.globals) - 1
}

func (a *asm) export(name string, kind byte, i int) {
	a.exports = append(a.exports, cat(name, kind, i))
}

// bytes assembles the module.
func (a *asm) bytes() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, items [][]byte) {
		if len(items) == 0 {
			return
		}
		content := uleb(uint64(len(items)))
		for _, item := range items {
			if id == 10 {
				content = append(content, uleb(uint64(len(item)))...)
			}
			content = append(content, item...)
		}
		b = cat(b, id, len(content), content)
	}
	section(1, a.types)
	section(2, a.imports)
	section(3, a.funcs)
	section(4, a.tables)
	section(5, a.mems)
	section(6, a.globals)
	section(7, a.exports)
	if a.start >= 0 {
		s := uleb(uint64(a.start))
		b = cat(b, byte(8), len(s), s)
	}
	section(9, a.elems)
	if a.dataCount {
		n := uleb(uint64(len(a.datas)))
		b = cat(b, byte(12), len(n), n)
	}
	section(10, a.codes)
	section(11, a.datas)
	return append(b, a.custom...)
}

// custom returns a custom section.
func custom(name string, content []byte) []byte {
	c := cat(name, content)
	return cat(byte(0), len(c), c)
}
