package wasmfilter_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// FuzzBatchMemory has a guest that writes what it likes over a batch, and then
// returns, traps, or grows its memory. Every message must get a result that
// fits what was written.
func FuzzBatchMemory(f *testing.F) {
	entry := func(verdict uint32) []byte {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, 1<<63|7), verdict)
	}
	f.Add([]byte{}, 3)
	f.Add([]byte("text"), 2)
	f.Add(append(entry(1), 0), 2)
	f.Add(append(append(entry(17), make([]byte, 16)...), 13), 5)
	f.Add(append(append(entry(0), entry(2)...), 11), 4)
	f.Add(append(append(entry(1), entry(1<<31)...), 15), 64)
	r := newRuntime(f, wasmfilter.RuntimeConfig{Workers: 1})
	code := readGuest(f, "scribble.wasm")
	f.Fuzz(func(t *testing.T, script []byte, n int) {
		if n < 2 || n > 100 || len(script) > 2000 {
			t.Skip()
		}
		m := load(t, r, wasmfilter.ModuleConfig{Code: code, Memory: 1 << 20})
		defer func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}()
		batch := make([]*filterd.Message, n)
		for k := range batch {
			batch[k] = &filterd.Message{Channel: "c", Payload: []byte("message")}
		}
		batch[0].Payload = script
		results := make([]filterd.StageResult, n)
		none := filterd.StageResult{Payload: []byte("none")}
		for k := range results {
			results[k] = none
		}
		m.Bind(nil).Run(context.Background(), batch, results)
		for k, result := range results {
			if string(result.Payload) == "none" {
				t.Fatalf("message %d has no result", k)
			}
			if result.Err != nil && (result.Keep || result.Payload != nil || result.Emitted != nil) {
				t.Errorf("message %d: more than an error: %+v", k, result)
			}
			if result.Payload != nil && len(result.Payload) != 3 {
				t.Errorf("message %d: %q", k, result.Payload)
			}
		}
	})
}

// FuzzLoad has any bytes for a module: it is refused, or it runs within its
// bounds.
func FuzzLoad(f *testing.F) {
	for _, guest := range []string{"minimal.wasm", "decide.wasm", "field.wasm", "scribble.wasm", "probe.wasm", "hostfunction.wasm"} {
		f.Add(readGuest(f, guest), []byte("2payload"))
	}
	f.Add(minimalText().bytes(), []byte{})
	r := newRuntime(f, wasmfilter.RuntimeConfig{Workers: 1})
	f.Fuzz(func(t *testing.T, code, payload []byte) {
		m, err := r.Load(context.Background(), wasmfilter.ModuleConfig{
			Name: "fuzz", Code: code, KV: "memory", HostFunctions: wanted,
			Memory: 4 << 20, Fuel: 100_000, StartFuel: 100_000, Publish: []string{"*"},
		})
		if err != nil {
			return
		}
		run(t, m, string(payload))
		run(t, m, string(payload), "1", string(payload))
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}
