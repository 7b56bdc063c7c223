package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	collect "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/filterd/filterd"
)

// An otlpServer is a collector: it takes spans as OTLP over HTTP has them.
type otlpServer struct {
	*httptest.Server
	mu      sync.Mutex
	status  int // to answer with; 0 is 200
	asked   int // requests
	header  http.Header
	service map[string]string // attributes of the process
	spans   map[string]*otlp.Span
}

func newOTLPServer(t *testing.T) *otlpServer {
	s := &otlpServer{spans: map[string]*otlp.Span{}, service: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				t.Error(err)
				return
			}
		}
		text, _ := io.ReadAll(body)
		var export collect.ExportTraceServiceRequest
		if err := proto.Unmarshal(text, &export); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		s.header = r.Header
		if s.status != 0 {
			w.WriteHeader(s.status)
			return
		}
		for _, resource := range export.ResourceSpans {
			for _, a := range resource.Resource.Attributes {
				s.service[a.Key] = a.Value.GetStringValue()
			}
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					s.spans[span.Name] = span
				}
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// span returns the last span of a name; nil if there is none.
func (s *otlpServer) span(name string) *otlp.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spans[name]
}

// attributesOf returns the attributes of a span that are text.
func attributesOf(s *otlp.Span) map[string]string {
	attributes := map[string]string{}
	for _, a := range s.Attributes {
		attributes[a.Key] = a.Value.GetStringValue()
	}
	return attributes
}

func (s *otlpServer) count() (asked, spans int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, len(s.spans)
}

// newTracedDaemon starts a daemon that sends its spans at once.
func newTracedDaemon(t *testing.T, section, rules string) (d *daemon, url string) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	return newAdminDaemon(t, "traces: "+section+"\n"+rules)
}

const (
	testTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	testParent = "00-" + testTrace + "-00f067aa0ba902b7-01"
)

// tracedEvent returns an event with a traceparent.
func tracedEvent(traceparent string) string {
	return `{"specversion":"1.0","id":"7","source":"bot","type":"trade","traceparent":"` + traceparent + `","tracestate":"a=1","data":{"n":2}}`
}

// A message's way is in the collector's spans: they are below the publisher's,
// the event and the webhook go on from them, and latencies name their trace.
func TestTraces(t *testing.T) {
	hooked := make(chan http.Header, 1)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hooked <- r.Header }))
	defer hook.Close()
	server := newOTLPServer(t)
	t.Setenv("OTLP_TOKEN", "Bearer hunter2")
	d, url := newTracedDaemon(t, `{endpoint: "`+server.URL+`", headers: {authorization: "${OTLP_TOKEN}"}, service: bots, traceparent: replace}`, `
webhooks: {ops: {url: "`+hook.URL+`", allow: 127.0.0.0/8}}
rules:
  r: {from: "in*", when: data.n > 1, set: {m: data.n}, to: [v1, {webhook: ops}]}
  next: {from: v1, when: data.m == 2, to: v2}
  bad: {from: "in*", when: data.n.x > 1, to: v3}
  entries: {from: {stream: trades, group: bots}, to: {stream: kept}}
`)
	d.must(d.rdb.Publish(t.Context(), "in", tracedEvent(testParent)).Err())
	got := map[string]string{}
	for range 2 {
		m, err := d.got.ReceiveMessage(t.Context())
		d.must(err)
		got[m.Channel] = m.Payload
	}
	headers := <-hooked
	entry, err := d.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: "trades", Values: []string{"event", tracedEvent(testParent)}}).Result()
	d.must(err)
	names := []string{"process in*", "publish v1", "post ops", "process v1", "publish v2", "process trades", "xadd kept"}
	waitUntil(t, "the collector has all spans", func() bool { _, n := server.count(); return n == len(names) })
	parent := func(name string) string { return fmt.Sprintf("%x", server.span(name).ParentSpanId) }
	id := func(name string) string { return fmt.Sprintf("%x", server.span(name).SpanId) }
	for child, want := range map[string]string{
		"process in*": "00f067aa0ba902b7",
		"publish v1":  id("process in*"),
		"post ops":    id("process in*"),
		"process v1":  id("publish v1"),
		"publish v2":  id("process v1"),

		"process trades": "00f067aa0ba902b7",
		"xadd kept":      id("process trades"),
	} {
		if got := parent(child); got != want {
			t.Errorf("%s is below %s, want %s", child, got, want)
		}
		if s := server.span(child); fmt.Sprintf("%x", s.TraceId) != testTrace || s.EndTimeUnixNano < s.StartTimeUnixNano || s.TraceState != "a=1" {
			t.Errorf("%s: %v", child, s)
		}
	}
	for channel, attributes := range map[string]string{
		"v1": `"data":{"n":2,"m":2},"filterdhops":1}`,
		"v2": `"data":{"n":2,"m":2},"filterdhops":1}`,
	} {
		want := strings.TrimSuffix(tracedEvent("00-"+testTrace+"-"+id("publish "+channel)+"-01"), `"data":{"n":2}}`) + attributes
		if got[channel] != want {
			t.Errorf("%s: got %s\nwant %s", channel, got[channel], want)
		}
	}
	if kept := d.rdb.XRange(t.Context(), "kept", "-", "+").Val(); len(kept) != 1 || kept[0].Values["event"] != tracedEvent("00-"+testTrace+"-"+id("xadd kept")+"-01") {
		t.Errorf("%v", kept)
	}
	if headers.Get("Traceparent") != "00-"+testTrace+"-"+id("post ops")+"-01" || headers.Get("Tracestate") != "a=1" {
		t.Errorf("the webhook is told %v", headers)
	}
	process := server.span("process in*")
	if process.Kind != otlp.Span_SPAN_KIND_CONSUMER || server.span("publish v1").Kind != otlp.Span_SPAN_KIND_PRODUCER || server.span("post ops").Kind != otlp.Span_SPAN_KIND_CLIENT {
		t.Error("spans are of the wrong kind")
	}
	if process.Status.Code != otlp.Status_STATUS_CODE_ERROR || !strings.HasPrefix(process.Status.Message, "rule bad: when: ") || len(process.Events) != 2 {
		t.Errorf("%v", process)
	}
	attributes := attributesOf(process)
	for key, want := range map[string]string{
		"messaging.system": "redis", "messaging.destination.name": "in", "messaging.destination.template": "in*", "messaging.operation.type": "process",
		"messaging.message.id": "7", "cloudevents.event_id": "7", "cloudevents.event_source": "bot", "cloudevents.event_type": "trade",
	} {
		if attributes[key] != want {
			t.Errorf("%s is %q", key, attributes[key])
		}
	}
	if attributes := attributesOf(server.span("process trades")); attributes["messaging.message.id"] != entry || attributes["messaging.consumer.group.name"] != "bots" || attributes["cloudevents.event_id"] != "7" {
		t.Errorf("%v", attributes)
	}
	server.mu.Lock()
	if server.service["service.name"] != "bots" || server.service["service.version"] == "" || server.service["deployment.environment"] != "test" || server.header.Get("Authorization") != "Bearer hunter2" {
		t.Errorf("%v %v", server.service, server.header)
	}
	server.mu.Unlock()

	exemplar := func(rule, span string) bool {
		status, text := request{url: url + "/metrics", header: map[string]string{"Accept": "application/openmetrics-text; version=1.0.0"}}.get(t)
		if status != 200 || !strings.Contains(text, "filterd_spans_dropped_total 0") {
			t.Fatalf("%d %s", status, text)
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, `filterd_rule_latency_seconds_bucket{rule="`+rule+`"`) && strings.Contains(line, `trace_id="`+testTrace+`"`) && strings.Contains(line, `span_id="`+id(span)+`"`) {
				return true
			}
		}
		return false
	}
	waitUntil(t, "latencies have exemplars", func() bool { // two in one bucket are one
		return exemplar("next", "publish v2") && (exemplar("r", "publish v1") || exemplar("r", "post ops"))
	})
	if strings.Contains(d.log.String(), "hunter2") {
		t.Errorf("the log shows a secret\n%s", d.log)
	}
}

// What is not sampled, or no trace, is not recorded, and goes on as it came; nor
// does what is recorded change, unless it is told to. The end sends what waits.
func TestTracesKeep(t *testing.T) {
	server := newOTLPServer(t)
	t.Cleanup(func() { // after the daemon's end
		at, ok := filterd.ParseTraceparent(testParent)
		if asked, n := server.count(); asked != 1 || n != 2 || !ok || string(server.span("process in").ParentSpanId) != string(at.SpanID[:]) {
			t.Errorf("%d requests with %d spans", asked, n)
		}
	})
	d, _ := newAdminDaemon(t, `traces: {endpoint: "`+server.URL+`"}`+"\nrules: {r: {from: in, to: v1}}\n")
	for _, traceparent := range []string{testParent[:len(testParent)-2] + "00", "garbage", strings.ToUpper(testParent), "00-" + strings.Repeat("0", 32) + testParent[35:], testParent} {
		d.must(d.rdb.Publish(t.Context(), "in", tracedEvent(traceparent)).Err())
		if m, err := d.got.ReceiveMessage(t.Context()); err != nil || m.Payload != tracedEvent(traceparent) {
			t.Errorf("%v %v", m, err)
		}
	}
}

// Without the section nothing is recorded, whatever the environment says.
func TestTracesAreOff(t *testing.T) {
	server := newOTLPServer(t)
	t.Cleanup(func() { // after the daemon's end
		if asked, _ := server.count(); asked > 0 {
			t.Errorf("the collector was asked %d times", asked)
		}
	})
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	d, url := newAdminDaemon(t, "rules: {r: {from: in, to: v1}}\n")
	d.must(d.rdb.Publish(t.Context(), "in", tracedEvent(testParent)).Err())
	if m, err := d.got.ReceiveMessage(t.Context()); err != nil || m.Payload != tracedEvent(testParent) {
		t.Errorf("%v %v", m, err)
	}
	if _, text := (request{url: url + "/metrics"}).get(t); strings.Contains(text, "filterd_spans") {
		t.Error("there are metrics of spans")
	}
}

// A collector that does not answer, or refuses, holds nobody up: what it does not
// take is counted. When it is there again, so are the spans.
func TestTracesWithoutCollector(t *testing.T) {
	server := newOTLPServer(t)
	server.status = http.StatusBadRequest
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	d, url := newTracedDaemon(t, `{sample: 1}`, "rules: {r: {from: in, to: v1}}\n")
	metrics := func() map[string]float64 { return scrape(t, request{url: url + "/metrics"}) }
	publish := func(n int) {
		t.Helper()
		for i := range n {
			payload := fmt.Sprint(i)
			d.must(d.rdb.Publish(t.Context(), "in", payload).Err())
			if m, err := d.got.ReceiveMessage(t.Context()); err != nil || m.Payload != payload {
				t.Fatal(m, err)
			}
		}
	}
	publish(10)
	waitUntil(t, "the spans are dropped", func() bool { return metrics()["filterd_spans_dropped_total"] == 20 })
	if lines := d.log.lines("spans dropped: messages go on"); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["error"]), "400 Bad Request") {
		t.Errorf("%v", lines)
	}
	server.mu.Lock()
	server.status = 0
	server.mu.Unlock()
	publish(1)
	waitUntil(t, "the spans are sent", func() bool {
		got := metrics()
		return got["filterd_spans_sent_total"] == 2 && got["filterd_spans_dropped_total"] == 20
	})
	server.Close()
	publish(10)
	waitUntil(t, "the spans are dropped", func() bool { return metrics()["filterd_spans_dropped_total"] == 40 })
	if s := server.span("process in"); len(s.ParentSpanId) > 0 {
		t.Errorf("%v has a parent", s)
	}
}

// A collector that takes requests and never answers holds up neither messages nor
// the end, and no more spans wait for it than may.
func TestTracesHang(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	const messages = maxSpans // two spans for each
	var d *daemon
	t.Run("daemon", func(t *testing.T) {
		t.Cleanup(func() { // after the daemon's end
			lines := d.log.lines("spans")
			if len(lines) != 1 || lines[0]["sent"] != 0.0 || lines[0]["dropped"] != 2.0*messages {
				t.Errorf("%v", lines)
			}
		})
		var url string
		d, url = newTracedDaemon(t, `{endpoint: "`+server.URL+`", sample: 1}`, "rules: {r: {from: in, to: v1}}\n")
		pipe := d.rdb.Pipeline()
		for i := range messages {
			pipe.Publish(t.Context(), "in", i)
		}
		_, err := pipe.Exec(t.Context())
		d.must(err)
		waitUntil(t, "messages go on, and spans are dropped", func() bool {
			got := scrape(t, request{url: url + "/metrics"})
			return got[`filterd_rule_deliveries_total{rule="r"}`] == messages && got["filterd_spans_dropped_total"] == 2*messages-maxSpans
		})
	})
}
