package exprfilter_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

// Whatever the source, compiling ends with a filter or a positioned error; and
// whatever compiles in the default profile does work, and takes memory, in
// proportion to the message.
func FuzzCompile(f *testing.F) {
	for _, source := range []string{
		`data.symbol == "BTC-USD" && data.price * data.qty > 10000`,
		`any(data.items, .name contains "x") or len(filter(data.items, # != data.big)) > 2`,
		`let a = data.big + data.big; let b = map(data.items, upper(string(#))); a == b[0]`,
		`reduce(data.items, {"a": #, "b": 1}) == data.big[1:] ?? toJSON(groupBy(data.items, #))`,
		`sortBy(data.items, #)[0] matches "^x+$" ? sum(data.items, float(#) + 1) > 1..5 : channel in ["a"]`,
		`fromJSON(toJSON(data)).big | trim() | lower() == toBase64(data.big)`,
		`concat(data.items, data.items, [data.big]) | flatten() | reverse() | first() == keys(event)`,
	} {
		f.Add(source)
	}
	payload := []byte(`{"items":["` + strings.Repeat(`x","`, 20_000) + `"],"big":"` + strings.Repeat("y", 100_000) + `","symbol":"BTC-USD","price":1,"qty":2}`)
	f.Fuzz(func(t *testing.T, source string) {
		_, _ = exprfilter.Compile(source, exprfilter.Full())
		value, err := exprfilter.CompileValue(source)
		if err != nil {
			var positioned *filterd.SourceError
			if !errors.As(err, &positioned) || positioned.Offset < 0 || positioned.Length < 0 || positioned.Offset+positioned.Length > len(source) {
				t.Fatalf("%q: %#v", source, err)
			}
			_ = err.Error()
			return
		}
		m := &filterd.Message{Channel: "c", Payload: payload}
		projection := filterd.NewProjection(value.Paths())
		m.Bind(projection)
		if _, err := m.Data(); err != nil {
			t.Fatal(err)
		}
		evaluator := value.Bind(projection.Slots(value.Paths()))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		_, _ = evaluator.Evaluate(m)
		elapsed := time.Since(start)
		runtime.ReadMemStats(&after)
		// The source may hold thousands of operations, each in proportion.
		most := uint64(len(payload)) * uint64(200+10*len(source))
		if grown := after.TotalAlloc - before.TotalAlloc; grown > most || elapsed > 20*time.Second {
			t.Fatalf("%q: %d bytes in %v for a message of %d", source, grown, elapsed, len(payload))
		}
	})
}
