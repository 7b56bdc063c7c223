package wasmfilter_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// trade is a message as the baselines have it: a CloudEvents trade of 324
// bytes.
var trade = append([]byte(`{"specversion":"1.0","id":"01J9ZQ5Q6X3V8M2T7B4C1D0E9F","source":"/exchanges/example","type":"trade.v1","subject":"BTC-USD","time":"2026-11-23T12:00:00.123456789Z","datacontenttype":"application/json","data":{"symbol":"BTC-USD","price":67321.5,"qty":0.25,"side":"buy","trade_id":918273645,"maker":false`), bytes.Repeat([]byte{' '}, 22)...)

func init() { trade = append(trade[:322], '}', '}') }

func BenchmarkCall(b *testing.B) {
	ctx := context.Background()
	guests := []struct {
		name string
		code []byte
	}{
		{"empty", readGuest(b, "minimal.wasm")},
		{"c", readGuest(b, "decide.wasm")},
		{"go", goGuest(b)},
	}
	for _, guest := range guests {
		b.Run(guest.name+"/single", func(b *testing.B) { benchmarkRun(b, guest.code, 1) })
		if guest.name == "c" {
			b.Run(guest.name+"/batch", func(b *testing.B) { benchmarkRun(b, guest.code, 64) })
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
			stack[0] = uint64(len(trade))
			if err := m.ExportedFunction("filterd_buffer").CallWithStack(ctx, stack[:]); err != nil {
				b.Fatal(err)
			}
			at := uint32(stack[0])
			process := m.ExportedFunction("filterd_process")
			b.ReportAllocs()
			for b.Loop() {
				m.Memory().Write(at, trade)
				stack[0] = uint64(len(trade))
				if err := process.CallWithStack(ctx, stack[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkRun(b *testing.B, code []byte, n int) {
	ctx := context.Background()
	m := load(b, newRuntime(b, wasmfilter.RuntimeConfig{}), wasmfilter.ModuleConfig{Code: code})
	runner := m.Bind(nil)
	batch := make([]*filterd.Message, n)
	for k := range batch {
		batch[k] = &filterd.Message{Channel: "trades", Payload: trade}
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
