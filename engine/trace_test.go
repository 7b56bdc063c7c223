package engine_test

import (
	"strings"
	"testing"

	"github.com/filterd/filterd/engine"
)

// An event keeps the trace that it came with, byte for byte, whether it is
// republished as it is or set changes its data.
func TestTraceparentIsKept(t *testing.T) {
	const trace = `"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=1,b=\u0032"`
	payload := `{"specversion":"1.0","id":"1","source":"s","type":"t", ` + trace + `,"data":{"n":2}}`
	plain := engine.Rule{Name: "plain", From: []string{"in"}, To: to("plain")}
	changed := engine.Rule{Name: "changed", From: []string{"in"}, Set: []engine.Member{{Name: "m", Value: value(t, `data.n + 1`)}}, To: to("changed")}
	result, err := table(t, plain, changed).NewProcessor().Process(message("in", payload))
	if err != nil || len(result.Outputs) != 2 {
		t.Fatalf("%d outputs, %v", len(result.Outputs), err)
	}
	for _, o := range result.Outputs {
		if !strings.Contains(string(o.Payload), trace) {
			t.Errorf("%s: the trace is lost in %s", o.Rule, o.Payload)
		}
	}
	if got := string(result.Outputs[0].Payload); got != payload {
		t.Errorf("%s is republished as %s", payload, got)
	}
	if got := string(result.Outputs[1].Payload); !strings.Contains(got, `"m":3`) {
		t.Errorf("nothing is set in %s", got)
	}
}
