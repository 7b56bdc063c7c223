package wasmfilter_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// What a module says of itself, and what it is given.
func TestInfo(t *testing.T) {
	r := newRuntime(t, wasmfilter.RuntimeConfig{})
	for _, test := range []struct {
		name   string
		config wasmfilter.ModuleConfig
		want   wasmfilter.Info
	}{
		{"minimal", wasmfilter.ModuleConfig{Code: minimalText().bytes(), Memory: 1 << 20, Fuel: 5, StartFuel: 7}, wasmfilter.Info{
			ABI: 1, Functions: 3, MemoryMin: 65536, MemoryLimit: 1 << 20, Memory: 65536, Fuel: 5, StartFuelLimit: 7,
			Exports: []string{"filterd_abi_v1 () -> ()", "filterd_buffer (i32) -> i32", "filterd_process (i32) -> i32"},
		}},
		{"probe", wasmfilter.ModuleConfig{Code: readGuest(t, "probe.wasm"), KV: "memory", Config: []byte(`["data.a"]`)}, wasmfilter.Info{
			ABI: 1, Configure: true, Batch: true, KV: true, MemoryLimit: wasmfilter.DefaultMemory,
			Fuel: wasmfilter.DefaultFuel, StartFuelLimit: wasmfilter.DefaultStartFuel, Fields: []filterd.Path{"data.a"},
		}},
		{"go", wasmfilter.ModuleConfig{Code: goGuest(t)}, wasmfilter.Info{
			ABI: 1, WASI: true, MemoryLimit: wasmfilter.DefaultMemory,
			Fuel: wasmfilter.DefaultFuel, StartFuelLimit: wasmfilter.DefaultStartFuel,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.config.Name, test.want.Name = test.name, test.name
			got := *load(t, r, test.config).Info()
			if got.SHA256 == "" || got.Size != len(test.config.Code) || got.Metered <= got.Size {
				t.Errorf("%+v", got)
			}
			test.want.SHA256, test.want.Size, test.want.Metered, test.want.CompileTime, test.want.StartTime = got.SHA256, got.Size, got.Metered, got.CompileTime, got.StartTime
			if test.name != "minimal" { // what the toolchain makes of it
				test.want.Functions, test.want.Imports, test.want.Exports, test.want.Producers = got.Functions, got.Imports, got.Exports, got.Producers
				test.want.StartFuel, test.want.Memory, test.want.MemoryMin = got.StartFuel, got.Memory, got.MemoryMin
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Memory that grows shows in the statistics.
func TestStatsMemory(t *testing.T) {
	code := minimalText()
	code.funcs[2].body = []byte{0x41, 2, 0x40, 0, 0x1a, 0x41, 1} // memory.grow by 2 pages
	m := load(t, newRuntime(t, wasmfilter.RuntimeConfig{}), wasmfilter.ModuleConfig{Code: code.bytes()})
	for _, want := range []int64{1 << 16, 3 << 16} {
		if got := m.Stats().Memory; got != want {
			t.Errorf("%d bytes, want %d", got, want)
		}
		run(t, m, "1")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if got := m.Stats().Memory; got != 0 {
		t.Errorf("%d bytes when it is closed", got)
	}
}
