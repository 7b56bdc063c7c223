package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/pubsub"
	"github.com/filterd/filterd/webhook"
)

// TestMetricsFileIsGenerated holds docs/metrics.md against the metrics.
func TestMetricsFileIsGenerated(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Metrics\n\nWhat `/metrics` of the admin server and of the probe serves, for Prometheus. This file is generated: see `cmd/filterd/metrics.go`.\n\n" +
		"Counters count since the daemon has started; a reload resets nothing. Labels are names that the config file declares, and words from short\n" +
		"lists: nothing that a message says becomes one. Of a rule there are always its matches and errors; its other series are there once they have\n" +
		"something to tell, so that ten thousand rules are not two hundred thousand series. They are read when Prometheus asks, and cost messages\n" +
		"nothing; latencies take one look at the clock for each batch that is published.\n\n" +
		"[prometheus-alerts.yaml](../deploy/prometheus-alerts.yaml) has alerts, and says how to scrape; [grafana-dashboard.json](../deploy/grafana-dashboard.json) is a dashboard.\n" +
		"Beside these there are `go_*` and `process_*`, of Prometheus' client library.\n\n" +
		"| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range allMetrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.Join(m.labels, ", "), m.help)
	}
	bounds := slices.Sorted(maps.Keys(latencyBuckets(&engine.Latency{})))
	fmt.Fprintf(&b, "\nThe buckets of latencies go from %s to %s seconds, each four times the one before.\n",
		strconv.FormatFloat(bounds[0], 'g', -1, 64), strconv.FormatFloat(bounds[len(bounds)-1], 'f', 1, 64))
	golden(t, "../../docs/metrics.md", []byte(b.String()))
}

// A series is a line of a scrape: its name with labels, and its value.
func scrape(t testing.TB, r request) map[string]float64 {
	t.Helper()
	status, text := r.get(t)
	if status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	series := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		series[line[:at]] = value
	}
	return series
}

// family returns the metric that a series is of.
func family(series string) string {
	name, _, _ := strings.Cut(series, "{")
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base := strings.TrimSuffix(name, suffix); base == metricLatency.name {
			return base
		}
	}
	return name
}

// A daemon's metrics say what it did, and are all documented.
func TestMetrics(t *testing.T) {
	d, url := newAdminDaemon(t, `
channels: {in: {schema: {required: [n]}, dead_letter: dead}}
rules:
  r: {from: in, when: data.n > 1, to: v1}
  idle: {from: "other.*", to: v2}
`)
	for _, payload := range []string{`{"n": 2}`, `{"n": 3}`, `{"n": 1}`, `{"n": "x"}`, `{}`, `{`} {
		d.must(d.rdb.Publish(t.Context(), "in", payload).Err())
	}
	d.must(d.rdb.Publish(t.Context(), "other.a name out of a message", `1`).Err())
	want := map[string]float64{
		`filterd_ready`:                         1,
		`filterd_generation`:                    1,
		`filterd_rules`:                         2,
		`filterd_reloads_total{outcome="done"}`: 0,
		`filterd_messages_total{channel="in",outcome="valid"}`:      4,
		`filterd_messages_total{channel="in",outcome="schema"}`:     1,
		`filterd_messages_total{channel="in",outcome="malformed"}`:  1,
		`filterd_messages_total{channel="other.*",outcome="valid"}`: 1,
		`filterd_rule_matches_total{rule="r"}`:                      2,
		`filterd_rule_errors_total{rule="r"}`:                       1,
		`filterd_rule_deliveries_total{rule="r"}`:                   2,
		`filterd_rule_latency_seconds_count{rule="r"}`:              2,
		`filterd_rule_latency_seconds_bucket{rule="r",le="+Inf"}`:   2,
		`filterd_rule_matches_total{rule="idle"}`:                   1,
		`filterd_dead_letters_total{outcome="published"}`:           2,
		`filterd_gaps_total`:                                        0,
	}
	var got map[string]float64
	waitUntil(t, "everything is counted", func() bool {
		got = scrape(t, request{url: url + "/metrics"})
		return got[`filterd_rule_matches_total{rule="idle"}`] == 1 && got[`filterd_rule_deliveries_total{rule="r"}`] == 2 &&
			got[`filterd_dead_letters_total{outcome="published"}`] == 2
	})
	for series, value := range want {
		if n, ok := got[series]; !ok || n != value {
			t.Errorf("%s is %v, %v; want %v", series, n, ok, value)
		}
	}
	if n := got[`filterd_rule_latency_seconds_sum{rule="r"}`]; n <= 0 || n > patience.Seconds() {
		t.Errorf("two messages took %v s", n)
	}
	documented := map[string]bool{}
	for _, m := range allMetrics() {
		documented[m.name] = true
	}
	runtime := false
	for series := range got {
		name := family(series)
		own := strings.HasPrefix(name, "filterd_")
		runtime = runtime || strings.HasPrefix(name, "go_")
		if own && !documented[name] || !own && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("docs/metrics.md has no %s", series)
		}
		if strings.Contains(series, "out of a message") {
			t.Errorf("%s has a label out of a message", series)
		}
		if series == `filterd_rule_deliveries_total{rule="idle"}` && got[series] == 0 {
			t.Errorf("%s tells nothing", series)
		}
	}
	if !runtime {
		t.Error("there is nothing of Go's runtime")
	}
	d.must(d.rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
	waitUntil(t, "the gap is counted", func() bool {
		got = scrape(t, request{url: d.serving("server.probe") + "/metrics"})
		return got[`filterd_channel_gaps_total{channel="in"}`] == 1 && got[`filterd_gaps_total`] == 1 && got[`filterd_channel_gap_seconds_total{channel="other.*"}`] > 0
	})
}

// What was valid is never told to be less than before.
func TestValidMessagesNeverBecomeLess(t *testing.T) {
	c := &metricsCollector{valid: map[string]uint64{}}
	for _, step := range []struct{ received, invalid, want uint64 }{{10, 0, 10}, {10, 1, 10}, {11, 1, 10}, {12, 1, 11}, {0, 5, 11}} {
		if got := c.countValid("c", step.received, step.invalid); got != step.want {
			t.Errorf("%d received, %d invalid: %d, want %d", step.received, step.invalid, got, step.want)
		}
	}
}

// manyRules makes an engine with so many rules, each of which, if busy, has
// delivered a message.
func manyRules(b testing.TB, n int, busy bool) *engine.Engine {
	b.Helper()
	rules := make([]engine.Rule, n)
	for i := range rules {
		rules[i] = engine.Rule{
			Name: fmt.Sprintf("rule-%d", i), From: []string{"in"}, When: exprfilter.MustCompile(fmt.Sprintf("data.n == %d", i)),
			To: []engine.Target{{Channel: "out"}},
		}
	}
	table, err := engine.Compile(engine.Definition{Rules: rules})
	if err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(engine.Config{Table: table, Logger: slog.New(slog.DiscardHandler), Sink: filterd.SinkFunc(func(context.Context, []filterd.Delivery) {})})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	if !busy {
		return e
	}
	for i := range n {
		m := &filterd.Message{Channel: "in", Payload: fmt.Appendf(nil, `{"n":%d}`, i), Received: time.Now()}
		if err := e.Process(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	return e
}

// BenchmarkScrape is a scrape of ten thousand rules, with what it sends.
func BenchmarkScrape(b *testing.B) {
	for name, busy := range map[string]bool{"idle": false, "busy": true} {
		b.Run(name, func(b *testing.B) {
			e := manyRules(b, 10_000, busy)
			metrics := newMetrics(&metricsCollector{
				stats: e.Stats, modules: func() []*wasmfilter.Module { return nil }, webhooks: func() map[string]*webhook.Endpoint { return nil }, streams: pubsub.NewStreamSource(nil, pubsub.StreamOptions{}), rules: func() int { return 10_000 }, ready: func() error { return nil }, exemplars: e.Exemplars,
			})
			b.ReportAllocs()
			size := math.NaN()
			for b.Loop() {
				w := httptest.NewRecorder()
				metrics.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
				size = float64(w.Body.Len())
			}
			b.ReportMetric(size/1e6, "MB")
		})
	}
}
