package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/filterd/filterd/tracing"
)

const (
	// maxSpans bounds the spans that wait for the collector: some megabytes.
	maxSpans = 4096
	// tracesDrain is how long the end waits for the collector.
	tracesDrain = 2 * time.Second

	defaultCollector = "http://localhost:4318/v1/traces"
)

// A traceExport sends spans to a collector, in batches. Nobody waits for it: what
// it can't send is dropped and counted. The methods of a nil one do nothing.
type traceExport struct {
	*tracing.Tracer
	provider *sdktrace.TracerProvider
	logger   *slog.Logger
	limit    lograte.Limiter // limits the log lines about spans that are dropped
	failures lograte.Limiter // limits those about the rest
	end      sync.Once

	waiting       atomic.Int64 // ended, and neither sent nor dropped
	sent, dropped atomic.Uint64
}

// newTraces starts to send what the section traces asks for. What the section
// does not say the variables OTEL_… do. It connects to nothing before there is a
// span.
func newTraces(ctx context.Context, section *config.Traces, logger *slog.Logger) (*traceExport, error) {
	x := &traceExport{logger: logger}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // of the whole process
		if suppressed, ok := x.failures.Allow(); ok {
			logger.Warn("traces", "error", err, "suppressed", suppressed)
		}
	}))
	options := []otlptracehttp.Option{
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: 20 * time.Second}),
	}
	endpoint := section.Endpoint
	if endpoint == "" && os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		endpoint = defaultCollector
	}
	if endpoint != "" {
		options = append(options, otlptracehttp.WithEndpointURL(endpoint))
	}
	if len(section.Headers) > 0 {
		headers := make(map[string]string, len(section.Headers))
		for name, value := range section.Headers {
			headers[name] = value.Reveal()
		}
		options = append(options, otlptracehttp.WithHeaders(headers))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	service := []resource.Option{
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithAttributes(semconv.ServiceName("filterd"), semconv.ServiceVersion(version())), resource.WithFromEnv(),
	}
	if section.Service != "" {
		service = append(service, resource.WithAttributes(semconv.ServiceName(section.Service)))
	}
	described, err := resource.New(ctx, service...)
	if err != nil {
		logger.Warn("traces: a part of what describes this process is missing", "error", err)
	}
	x.provider = sdktrace.NewTracerProvider(
		sdktrace.WithResource(described),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())), // the tracer samples
		sdktrace.WithSpanProcessor(&boundedProcessor{
			sdktrace.NewBatchSpanProcessor(&countingExporter{exporter, x}, sdktrace.WithMaxQueueSize(maxSpans)), x}),
	)
	x.Tracer = tracing.New(x.provider, tracing.Options{Sample: section.Sample})
	logger.Info("traces", "collector", cmp.Or(endpoint, "as the environment says"), "sample", section.Sample)
	return x, nil
}

// close sends what waits, for a moment, and tells what became of all spans. Spans
// that end later are lost.
func (x *traceExport) close() {
	if x == nil {
		return
	}
	x.end.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), tracesDrain)
		defer cancel()
		err := x.provider.Shutdown(ctx)
		if waiting := x.waiting.Swap(0); waiting > 0 {
			x.drop(int(waiting), cmp.Or(err, errors.New("the end of the process")))
		}
		x.logger.Info("spans", "sent", x.sent.Load(), "dropped", x.dropped.Load())
	})
}

// drop counts spans that are lost.
func (x *traceExport) drop(spans int, err error) {
	x.dropped.Add(uint64(spans))
	if suppressed, ok := x.limit.Allow(); ok {
		x.logger.Warn("spans dropped: messages go on", "spans", spans, "error", err, "suppressed", suppressed)
	}
}

var errSpanQueue = errors.New("the queue is full: the collector does not keep up, or does not answer")

// A boundedProcessor lets no more spans wait than it may.
type boundedProcessor struct {
	sdktrace.SpanProcessor
	export *traceExport
}

// OnEnd implements [sdktrace.SpanProcessor].
func (p *boundedProcessor) OnEnd(s sdktrace.ReadOnlySpan) {
	if p.export.waiting.Add(1) > maxSpans {
		p.export.waiting.Add(-1)
		p.export.drop(1, errSpanQueue)
		return
	}
	p.SpanProcessor.OnEnd(s)
}

// A countingExporter counts what becomes of spans.
type countingExporter struct {
	sdktrace.SpanExporter
	export *traceExport
}

// rejected finds how many spans of a batch a collector did not accept.
var rejected = regexp.MustCompile(`\((\d+) spans rejected\)`)

// ExportSpans implements [sdktrace.SpanExporter]. There is nobody to return an
// error to.
func (c *countingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	lost := 0
	if err != nil {
		lost = len(spans)
		if found := rejected.FindStringSubmatch(err.Error()); found != nil {
			n, _ := strconv.Atoi(found[1]) // too large a number is all
			lost = min(n, lost)
		}
		c.export.drop(lost, err)
	}
	c.export.sent.Add(uint64(len(spans) - lost))
	c.export.waiting.Add(-int64(len(spans)))
	return nil
}
