package wasmfilter_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// wanted is a host function of a program's own: it says whether a message is.
var wanted = []wasmfilter.HostFunction{{
	Name: "wanted", Params: []wasmfilter.ValueType{wasmfilter.I32, wasmfilter.I32}, Results: []wasmfilter.ValueType{wasmfilter.I32},
	Call: func(_ context.Context, guest wasmfilter.Guest, stack []uint64) error {
		payload, err := guest.Bytes(uint32(stack[0]), uint32(stack[1]))
		stack[0] = 0
		if bytes.Contains(payload, []byte("BTC")) {
			stack[0] = 1
		}
		return err
	},
}}

// A module becomes a stage of any number of rules.
func ExampleRuntime_Load() {
	ctx := context.Background()
	runtime, err := wasmfilter.NewRuntime(ctx, wasmfilter.RuntimeConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = runtime.Close(ctx) }()
	code, err := os.ReadFile("testdata/hostfunction.wasm")
	if err != nil {
		log.Fatal(err)
	}
	module, err := runtime.Load(ctx, wasmfilter.ModuleConfig{Name: "wanted", Code: code, HostFunctions: wanted})
	if err != nil {
		log.Fatal(err)
	}

	// An engine does this with a rule's Stage.
	batch := []*filterd.Message{{Channel: "trades", Payload: []byte(`"BTC-USD"`)}, {Channel: "trades", Payload: []byte(`"ETH-USD"`)}}
	results := make([]filterd.StageResult, len(batch))
	module.Bind(nil).Run(ctx, batch, results)
	for i, m := range batch {
		fmt.Println(string(m.Payload), results[i].Keep, results[i].Err)
	}
	// Output:
	// "BTC-USD" true <nil>
	// "ETH-USD" false <nil>
}
