package tracing_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/tracing"
)

// A program records with the provider that it has in any case.
func ExampleNew() {
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	table, err := engine.Compile(engine.Definition{Rules: []engine.Rule{{Name: "all", From: []string{"in"}, To: []engine.Target{{Channel: "out"}}}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := engine.New(engine.Config{
		Table:  table,
		Sink:   filterd.SinkFunc(func(context.Context, []filterd.Delivery) {}),
		Tracer: tracing.New(provider, tracing.Options{}),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = e.Close() }()
	event := `{"specversion":"1.0","id":"1","source":"bot","type":"t","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`
	if err := e.Process(context.Background(), &filterd.Message{Channel: "in", Payload: []byte(event)}); err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range spans.GetSpans() {
		fmt.Println(s.Name, s.SpanContext.TraceID())
	}
	// Output:
	// process in 4bf92f3577b34da6a3ce929d0e0e4736
	// publish out 4bf92f3577b34da6a3ce929d0e0e4736
}
