package wasmfilter_test

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// trade is a message as the baselines have it: a CloudEvents trade of 324
// bytes.
var trade = []byte(`{"specversion":"1.0","id":"01J9ZQ5Q6X3V8M2T7B4C1D0E9F","source":"/exchanges/example","type":"trade.v1","subject":"BTC-USD","time":"2026-11-23T12:00:00.123456789Z","datacontenttype":"application/json","data":{"symbol":"BTC-USD","price":67321.5,"qty":0.25,"side":"buy","trade_id":918273645,"maker":false` + strings.Repeat(" ", 21) + `}}`)

func BenchmarkCall(b *testing.B) {
	ctx := context.Background()
	guests := []struct {
		name    string
		code    []byte
		payload []byte
	}{
		{"empty", readGuest(b, "minimal.wasm"), trade},
		{"c", readGuest(b, "decide.wasm"), trade},
		{"go", goGuest(b), trade},
		{"go-scan", goGuest(b), append([]byte(" "), trade...)}, // looks at all of it
	}
	for _, guest := range guests {
		b.Run(guest.name+"/single", func(b *testing.B) { benchmarkRun(b, guest.code, guest.payload, 1) })
		if guest.name == "c" {
			b.Run(guest.name+"/batch", func(b *testing.B) { benchmarkRun(b, guest.code, guest.payload, 64) })
		}
		b.Run(guest.name+"/bare", func(b *testing.B) {
			r := wazero.NewRuntime(ctx)
			defer func() { _ = r.Close(ctx) }()
			bare(b, ctx, r)
			m, err := r.InstantiateWithConfig(ctx, guest.code, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
			if err != nil {
				b.Fatal(err)
			}
			var stack [1]uint64
			stack[0] = uint64(len(guest.payload))
			if err := m.ExportedFunction("filterd_buffer").CallWithStack(ctx, stack[:]); err != nil {
				b.Fatal(err)
			}
			at := uint32(stack[0])
			process := m.ExportedFunction("filterd_process")
			b.ReportAllocs()
			for b.Loop() {
				m.Memory().Write(at, guest.payload)
				stack[0] = uint64(len(guest.payload))
				if err := process.CallWithStack(ctx, stack[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkRun(b *testing.B, code, payload []byte, n int) {
	ctx := context.Background()
	m := load(b, newRuntime(b, wasmfilter.RuntimeConfig{}), wasmfilter.ModuleConfig{Code: code})
	runner := m.Bind(nil)
	batch := make([]*filterd.Message, n)
	for k := range batch {
		batch[k] = &filterd.Message{Channel: "trades", Payload: payload}
	}
	results := make([]filterd.StageResult, n)
	b.ReportAllocs()
	for k := 0; b.Loop(); k++ {
		runner.Run(ctx, batch, results)
		if results[0].Err != nil || !results[n-1].Keep {
			b.Fatal(results)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/msg")
}

// BenchmarkStart is the second start of a guest in Go, with what the first one
// left in the cache.
func BenchmarkStart(b *testing.B) {
	ctx := context.Background()
	code := goGuest(b)
	b.Run("filterd", func(b *testing.B) {
		dir := filepath.Join(b.TempDir(), "cache")
		load(b, newRuntime(b, wasmfilter.RuntimeConfig{CacheDir: dir}), wasmfilter.ModuleConfig{Code: code})
		for b.Loop() {
			r := newRuntime(b, wasmfilter.RuntimeConfig{CacheDir: dir})
			load(b, r, wasmfilter.ModuleConfig{Code: code})
			if err := r.Close(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		dir := b.TempDir()
		start := func() {
			cache, err := wazero.NewCompilationCacheWithDir(dir)
			if err != nil {
				b.Fatal(err)
			}
			r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache))
			wasi_snapshot_preview1.MustInstantiate(ctx, r)
			if _, err := r.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig().WithStartFunctions("_initialize")); err != nil {
				b.Fatal(err)
			}
			if err := r.Close(ctx); err != nil {
				b.Fatal(err)
			}
			if err := cache.Close(ctx); err != nil {
				b.Fatal(err)
			}
		}
		start()
		for b.Loop() {
			start()
		}
	})
}

// BenchmarkFields is a guest that decides on one field that it declares, by
// asking the host for it and in batches by itself: what it takes beside the
// reading of the message, and together with that.
func BenchmarkFields(b *testing.B) {
	for _, n := range []int{1, 64} {
		for _, reading := range []bool{false, true} {
			name := strconv.Itoa(n) + "/call"
			if reading {
				name += "-and-projection"
			}
			b.Run(name, func(b *testing.B) {
				m := load(b, newRuntime(b, wasmfilter.RuntimeConfig{}), wasmfilter.ModuleConfig{Code: readGuest(b, "field.wasm")})
				p := filterd.NewProjection(m.Paths())
				runner := m.Bind(p.Slots(m.Paths()))
				batch := make([]*filterd.Message, n)
				for k := range batch {
					batch[k] = &filterd.Message{Channel: "trades", Payload: trade}
					batch[k].Bind(p)
				}
				results := make([]filterd.StageResult, n)
				b.ReportAllocs()
				for b.Loop() {
					for k := range batch {
						if reading {
							batch[k].Reset(trade)
						}
					}
					runner.Run(context.Background(), batch, results)
				}
				if !results[n-1].Keep {
					b.Fatal(results[n-1].Err)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/msg")
			})
		}
	}
}
