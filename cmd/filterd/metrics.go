package main

import (
	"encoding/hex"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/pubsub"
	"github.com/filterd/filterd/webhook"
)

// A metric describes the series of one name. Labels are names that the config
// file declares, and words from short lists: never anything out of a message.
type metric struct {
	name, help string
	kind       string // counter, gauge or histogram
	labels     []string
}

// The metrics of filterd, by subject, in the order of docs/metrics.md. A test
// holds that file against them.
var (
	metricBuild = metric{"filterd_build_info", "Always 1; the labels say which filterd this is.", "gauge", []string{"version", "goversion"}}
	metricReady = metric{"filterd_ready", "1 if /readyz answers 200, else 0.", "gauge", nil}

	metricGeneration  = metric{"filterd_generation", "The number of the rules at work: 1 at the start, and 1 more for each reload.", "gauge", nil}
	metricReloads     = metric{"filterd_reloads_total", "Reloads that were tried, by outcome: done or refused.", "counter", []string{"outcome"}}
	metricRules       = metric{"filterd_rules", "Rules at work.", "gauge", nil}
	metricLinear      = metric{"filterd_rules_linear", "Rules that are evaluated for every message of some channel, since nothing finds them.", "gauge", nil}
	metricEvaluations = metric{"filterd_evaluations_total", "Conditions that were evaluated, by what: compiled functions, or the expression library on the fields that the rule reads (pruned) or on the whole message.", "counter", []string{"by"}}

	metricLeader = metric{"filterd_ha_leader", "1 if this daemon leads its group, 0 if it stands by. Only where the config file has the section ha.", "gauge", []string{"group"}}
	metricFence  = metric{"filterd_ha_fence", "The number of this daemon's last time as the leader: larger for whoever takes over.", "gauge", []string{"group"}}
	metricTakes  = metric{"filterd_ha_takes_total", "How often this daemon has become the leader.", "counter", []string{"group"}}

	metricMessages    = metric{"filterd_messages_total", "Messages received, by channel and outcome: valid, standby (left to the leader, see the section ha), or how they broke their contract (size, malformed, envelope, schema). A channel is one that the config file declares, or else a name or glob of a rule's from.", "counter", []string{"channel", "outcome"}}
	metricLost        = metric{"filterd_messages_lost", "Messages that never came, as the stamps of others show; less when they come after all.", "gauge", []string{"channel"}}
	metricUnrouted    = metric{"filterd_messages_unrouted_total", "Messages that no rule takes any more: they came between two generations.", "counter", nil}
	metricRefused     = metric{"filterd_messages_refused_total", "Messages that came when filterd had halted or was closed.", "counter", nil}
	metricTaken       = metric{"filterd_messages_taken_total", "Messages that were not written because another consumer had taken the stream's entry.", "counter", nil}
	metricDeadLetters = metric{"filterd_dead_letters_total", "Dead letters, by outcome: published, or lost.", "counter", []string{"outcome"}}

	metricMatches     = metric{"filterd_rule_matches_total", "Messages that the rule's condition kept.", "counter", []string{"rule"}}
	metricFiltered    = metric{"filterd_rule_filtered_total", "Messages that the rule's condition kept, and its module did not.", "counter", []string{"rule"}}
	metricErrors      = metric{"filterd_rule_errors_total", "Messages that the rule failed on.", "counter", []string{"rule"}}
	metricDeliveries  = metric{"filterd_rule_deliveries_total", "Messages that were published, logged, or taken by a webhook or callback, once for each target.", "counter", []string{"rule"}}
	metricNoReceivers = metric{"filterd_rule_no_receivers_total", "Messages that were published while nobody was subscribed; on a Cluster, to the server that took them.", "counter", []string{"rule"}}
	metricDrops       = metric{"filterd_rule_drops_total", "Messages that were lost on their way to a target, by reason: queue_full (they gave way in a full queue, or at the end), conflated (a newer one with the same key took their place), withheld (this daemon was the leader no more), or undelivered (publishing, a webhook or a callback failed).", "counter", []string{"rule", "reason"}}
	metricShadowed    = metric{"filterd_rule_shadowed_total", "Messages that a rule with shadow would have sent, once for each target.", "counter", []string{"rule"}}
	metricPanics      = metric{"filterd_rule_panics_total", "Callbacks that panicked.", "counter", []string{"rule"}}
	metricStuck       = metric{"filterd_rule_stuck_total", "Callbacks that took more than 10 s.", "counter", []string{"rule"}}
	metricQueued      = metric{"filterd_rule_queued", "Messages that wait for the rule's module, callback or log, or are in its hands.", "gauge", []string{"rule"}}
	metricRuleGaps    = metric{"filterd_rule_gaps_total", "Gaps that a rule with on_gap was told of.", "counter", []string{"rule"}}
	metricLatency     = metric{"filterd_rule_latency_seconds", "Time from when a message was received until it was published, logged, or taken by a webhook or callback.", "histogram", []string{"rule"}}

	metricGaps    = metric{"filterd_gaps_total", "Spans in which messages may have been missed.", "counter", nil}
	metricGapTime = metric{"filterd_gap_seconds_total", "The length of these spans together.", "counter", nil}

	metricChannelGaps    = metric{"filterd_channel_gaps_total", "Gaps by what was not listened to: a name or glob of a rule's from. One gap may be that of many.", "counter", []string{"channel"}}
	metricChannelGapTime = metric{"filterd_channel_gap_seconds_total", "The length of these gaps together.", "counter", []string{"channel"}}

	metricStreamEntries = metric{"filterd_stream_entries_total", "Entries of streams by outcome: read (new ones), acknowledged (dealt with), redelivered (delivered before), claimed (of these, those that another consumer had left behind), malformed (they hold no message), poison (delivered in vain too often), trimmed (deleted while they were pending: lost).", "counter", []string{"stream", "group", "outcome"}}
	metricStreamHeld    = metric{"filterd_stream_held", "Entries of streams that were read, and are not dealt with yet.", "gauge", []string{"stream", "group"}}
	metricStreamReady   = metric{"filterd_stream_ready", "1 if the stream can be read, else 0. Of streams that rules take.", "gauge", []string{"stream", "group"}}
	metricStreamPending = metric{"filterd_stream_pending", "Entries that were delivered to some consumer of the group, this one or another, and are not acknowledged. Redis is asked for it every 3 s at most.", "gauge", []string{"stream", "group"}}
	metricStreamLag     = metric{"filterd_stream_lag", "Entries that were not delivered to any consumer of the group yet. Not there where Redis can't tell, as after entries were deleted.", "gauge", []string{"stream", "group"}}

	metricSpansSent    = metric{"filterd_spans_sent_total", "Spans that the collector has accepted. Only where the config file has the section traces.", "counter", nil}
	metricSpansDropped = metric{"filterd_spans_dropped_total", "Spans that are lost: too many waited for the collector, or it did not take them. Messages do not wait for spans.", "counter", nil}

	metricWebhookAttempts = metric{"filterd_webhook_attempts_total", "Requests to the webhook.", "counter", []string{"webhook"}}
	metricWebhookRetries  = metric{"filterd_webhook_retries_total", "Attempts that were not the first for their message; what the breaker refused is one, too.", "counter", []string{"webhook"}}
	metricWebhookAccepted = metric{"filterd_webhook_deliveries_total", "Messages that the webhook has accepted.", "counter", []string{"webhook"}}
	metricWebhookFailures = metric{"filterd_webhook_failures_total", "Messages that the webhook has not accepted, by what the last attempt failed on: connect, timeout, server (5xx), busy (408, 425, 429), breaker (not tried), refused (other answers), redirect, blocked (an address that is not allowed), gone (410).", "counter", []string{"webhook", "reason"}}
	metricWebhookInFlight = metric{"filterd_webhook_requests", "Requests to the webhook that are under way, or wait for its Retry-After.", "gauge", []string{"webhook"}}
	metricWebhookBreaker  = metric{"filterd_webhook_breaker_open", "1 while the webhook's breaker is not closed: then one attempt in 10 s is made.", "gauge", []string{"webhook"}}
	metricWebhookDisabled = metric{"filterd_webhook_disabled", "1 once the webhook has answered 410, until the next reload.", "gauge", []string{"webhook"}}

	metricWasmCalls     = metric{"filterd_wasm_calls_total", "Calls of the module; a batch of messages is one.", "counter", []string{"module"}}
	metricWasmMessages  = metric{"filterd_wasm_messages_total", "Messages that the module was asked about.", "counter", []string{"module"}}
	metricWasmErrors    = metric{"filterd_wasm_errors_total", "Errors that the module reported.", "counter", []string{"module"}}
	metricWasmFaults    = metric{"filterd_wasm_faults_total", "Calls that ended the module's instance, by kind of fault.", "counter", []string{"module", "kind"}}
	metricWasmRefused   = metric{"filterd_wasm_refused_total", "Messages that came while the module's breaker was open.", "counter", []string{"module"}}
	metricWasmFuel      = metric{"filterd_wasm_fuel_total", "Instructions that the module has executed.", "counter", []string{"module"}}
	metricWasmStarted   = metric{"filterd_wasm_instances_started_total", "Instances of the module that were started.", "counter", []string{"module"}}
	metricWasmInstances = metric{"filterd_wasm_instances", "Instances of the module that there are.", "gauge", []string{"module"}}
	metricWasmMemory    = metric{"filterd_wasm_memory_bytes", "Memory of the instances that are not in use.", "gauge", []string{"module"}}
	metricWasmBreaker   = metric{"filterd_wasm_breaker_open", "1 while the module's breaker is not closed: then its rule fails at once.", "gauge", []string{"module"}}
	metricWasmKVKeys    = metric{"filterd_wasm_kv_keys", "Keys of the module's store in memory.", "gauge", []string{"module"}}
	metricWasmKVBytes   = metric{"filterd_wasm_kv_bytes", "Bytes of the module's store in memory.", "gauge", []string{"module"}}
)

// allMetrics returns every metric in the order of docs/metrics.md.
func allMetrics() []metric {
	return []metric{
		metricBuild, metricReady,
		metricGeneration, metricReloads, metricRules, metricLinear, metricEvaluations,
		metricLeader, metricFence, metricTakes,
		metricMessages, metricLost, metricUnrouted, metricRefused, metricTaken, metricDeadLetters,
		metricMatches, metricFiltered, metricErrors, metricDeliveries, metricNoReceivers, metricDrops, metricShadowed, metricPanics, metricStuck,
		metricQueued, metricRuleGaps, metricLatency,
		metricGaps, metricGapTime, metricChannelGaps, metricChannelGapTime,
		metricStreamEntries, metricStreamHeld, metricStreamReady, metricStreamPending, metricStreamLag,
		metricSpansSent, metricSpansDropped,
		metricWebhookAttempts, metricWebhookRetries, metricWebhookAccepted, metricWebhookFailures, metricWebhookInFlight,
		metricWebhookBreaker, metricWebhookDisabled,
		metricWasmCalls, metricWasmMessages, metricWasmErrors, metricWasmFaults, metricWasmRefused, metricWasmFuel, metricWasmStarted,
		metricWasmInstances, metricWasmMemory, metricWasmBreaker, metricWasmKVKeys, metricWasmKVBytes,
	}
}

// A metricsCollector reads what the engine has counted when it is asked: metrics
// cost the way of a message nothing. A rule's counter that is 0 has no series,
// but for its matches and errors; of ten thousand rules most have nothing else
// to tell.
type metricsCollector struct {
	stats    func() engine.Stats
	modules  func() []*wasmfilter.Module
	webhooks func() map[string]*webhook.Endpoint
	streams  *pubsub.StreamSource
	rules    func() int
	ready    func() error
	lease    *pubsub.Lease // nil: there is none
	traces   *traceExport  // nil: nothing is recorded

	exemplars func(rule string) []engine.Exemplar

	descs map[string]*prometheus.Desc // by metric name

	mu    sync.Mutex        // guards valid
	valid map[string]uint64 // by channel, as last told
}

// newMetrics returns the handler of /metrics.
func newMetrics(c *metricsCollector) http.Handler {
	c.valid = make(map[string]uint64)
	c.descs = make(map[string]*prometheus.Desc)
	for _, m := range allMetrics() {
		c.descs[m.name] = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 2, Timeout: 20 * time.Second})
}

// Describe implements [prometheus.Collector].
func (c *metricsCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range allMetrics() {
		descs <- c.descs[m.name]
	}
}

// Collect implements [prometheus.Collector].
func (c *metricsCollector) Collect(out chan<- prometheus.Metric) {
	to := series{c, out}
	s := c.stats()
	to.add(metricBuild, 1, version(), runtime.Version())
	to.add(metricReady, truth(c.ready() == nil))
	if c.lease != nil {
		s := c.lease.Stats()
		to.add(metricLeader, truth(s.Leads), s.Group)
		to.add(metricFence, s.Fence, s.Group)
		to.add(metricTakes, s.Taken, s.Group)
	}
	to.add(metricGeneration, s.Generation)
	to.add(metricReloads, s.Reloads, "done")
	to.add(metricReloads, s.RefusedReloads, "refused")
	to.add(metricRules, uint64(c.rules()))
	to.add(metricLinear, uint64(s.Linear))
	to.add(metricEvaluations, s.Evaluations.Compiled, "compiled")
	to.add(metricEvaluations, s.Evaluations.Pruned, "pruned")
	to.add(metricEvaluations, s.Evaluations.Whole, "whole")
	for name, channel := range s.Channels {
		invalid := uint64(0)
		for _, reason := range filterd.Reasons {
			n := channel.Invalid[reason]
			invalid += n
			to.add(metricMessages, n, name, string(reason))
		}
		to.some(metricMessages, channel.Standby, name, "standby")
		to.some(metricLost, channel.Lost, name)
		to.add(metricMessages, c.countValid(name, channel.Received, invalid), name, "valid")
	}
	to.add(metricUnrouted, s.Unrouted)
	to.add(metricRefused, s.Refused)
	to.add(metricTaken, s.Taken)
	to.add(metricDeadLetters, s.DeadLetters, "published")
	to.add(metricDeadLetters, s.DeadLettersLost, "lost")
	for name, r := range s.Rules {
		to.rule(name, &r)
	}
	to.add(metricGaps, s.Gaps)
	to.float(metricGapTime, s.GapTime.Seconds())
	for name, gaps := range s.ChannelGaps {
		to.add(metricChannelGaps, gaps.Gaps, name)
		to.float(metricChannelGapTime, gaps.Time.Seconds(), name)
	}
	for _, s := range c.streams.Stats() {
		to.stream(&s)
	}
	for _, s := range c.streams.Backlog() {
		to.backlog(&s)
	}
	if c.traces != nil {
		to.add(metricSpansSent, c.traces.sent.Load())
		to.add(metricSpansDropped, c.traces.dropped.Load())
	}
	for name, endpoint := range c.webhooks() {
		to.webhook(name, endpoint.Stats())
	}
	for _, m := range c.modules() {
		to.module(m)
	}
}

// countValid returns how many messages of a channel were valid, which never
// becomes less: what was received and what was invalid is not counted in one
// moment.
func (c *metricsCollector) countValid(channel string, received, invalid uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if received > invalid {
		c.valid[channel] = max(c.valid[channel], received-invalid)
	}
	return c.valid[channel]
}

// series is where a collection goes to.
type series struct {
	*metricsCollector
	out chan<- prometheus.Metric
}

func (to series) add(m metric, value uint64, labels ...string) {
	to.float(m, float64(value), labels...)
}

func (to series) float(m metric, value float64, labels ...string) {
	kind := prometheus.CounterValue
	if m.kind == "gauge" {
		kind = prometheus.GaugeValue
	}
	to.out <- prometheus.MustNewConstMetric(to.descs[m.name], kind, value, labels...)
}

// some adds a series that tells something.
func (to series) some(m metric, value uint64, labels ...string) {
	if value > 0 {
		to.add(m, value, labels...)
	}
}

func (to series) rule(name string, r *engine.RuleStats) {
	to.add(metricMatches, r.Matched, name)
	to.add(metricErrors, r.Errors, name)
	to.some(metricFiltered, r.Filtered, name)
	to.some(metricDeliveries, r.Delivered, name)
	to.some(metricNoReceivers, r.NoReceivers, name)
	to.some(metricDrops, r.Dropped, name, "queue_full")
	to.some(metricDrops, r.Conflated, name, "conflated")
	to.some(metricDrops, r.Withheld, name, "withheld")
	to.some(metricDrops, r.Undelivered, name, "undelivered")
	to.some(metricShadowed, r.Shadowed, name)
	to.some(metricPanics, r.Panics, name)
	to.some(metricStuck, r.Stuck, name)
	to.some(metricQueued, uint64(r.Queued), name)
	to.some(metricRuleGaps, r.Gaps, name)
	if n := r.Latency.Count(); n > 0 {
		histogram := prometheus.MustNewConstHistogram(to.descs[metricLatency.name], n, r.Latency.Sum.Seconds(), latencyBuckets(&r.Latency), name)
		to.out <- withExemplars(histogram, to.exemplars(name))
	}
}

// withExemplars gives buckets a message of theirs, and its trace. Prometheus reads
// them where it asks for OpenMetrics.
func withExemplars(histogram prometheus.Metric, exemplars []engine.Exemplar) prometheus.Metric {
	var of []prometheus.Exemplar
	for _, x := range exemplars {
		of = append(of, prometheus.Exemplar{
			Value: x.Took.Seconds(), Timestamp: x.Time,
			Labels: prometheus.Labels{"trace_id": hex.EncodeToString(x.TraceID[:]), "span_id": hex.EncodeToString(x.SpanID[:])},
		})
	}
	if len(of) == 0 {
		return histogram
	}
	return prometheus.MustNewMetricWithExemplars(histogram, of...)
}

// latencyBuckets adds up buckets as Prometheus wants them: every other bound, so
// that each is four times the one before.
func latencyBuckets(l *engine.Latency) map[float64]uint64 {
	buckets := make(map[float64]uint64, engine.LatencyBuckets/2)
	var sum uint64
	for i, n := range l.Buckets[:engine.LatencyBuckets-1] {
		sum += n
		if i%2 == 0 {
			buckets[engine.LatencyBound(i).Seconds()] = sum
		}
	}
	return buckets
}

func (to series) stream(s *pubsub.StreamStats) {
	for _, entries := range []struct {
		outcome string
		n       uint64
	}{
		{"read", s.Read}, {"acknowledged", s.Acknowledged}, {"redelivered", s.Redelivered}, {"claimed", s.Claimed}, {"malformed", s.Malformed}, {"poison", s.Poison}, {"trimmed", s.Trimmed},
	} {
		to.add(metricStreamEntries, entries.n, s.Stream, s.Group, entries.outcome)
	}
	to.add(metricStreamHeld, uint64(s.Held), s.Stream, s.Group)
	if s.Wanted {
		to.add(metricStreamReady, truth(s.Err == nil), s.Stream, s.Group)
	}
}

func (to series) backlog(s *pubsub.StreamBacklog) {
	if s.Err != nil {
		return
	}
	to.add(metricStreamPending, uint64(s.Pending), s.Stream, s.Group)
	if s.Lag >= 0 {
		to.add(metricStreamLag, uint64(s.Lag), s.Stream, s.Group)
	}
}

func (to series) webhook(name string, s webhook.Stats) {
	to.add(metricWebhookAttempts, s.Attempts, name)
	to.add(metricWebhookRetries, s.Retries, name)
	to.add(metricWebhookAccepted, s.Delivered, name)
	for _, reason := range webhook.Reasons {
		to.add(metricWebhookFailures, s.Failed[reason], name, string(reason))
	}
	to.add(metricWebhookInFlight, uint64(s.InFlight), name)
	to.add(metricWebhookBreaker, truth(s.Breaker != "closed"), name)
	to.add(metricWebhookDisabled, truth(s.Disabled), name)
}

func (to series) module(m *wasmfilter.Module) {
	name, s := m.Info().Name, m.Stats()
	to.add(metricWasmCalls, s.Calls, name)
	to.add(metricWasmMessages, s.Messages, name)
	to.add(metricWasmErrors, s.Errors, name)
	for _, kind := range wasmfilter.FaultKinds {
		to.add(metricWasmFaults, s.Faults[kind], name, string(kind))
	}
	to.add(metricWasmRefused, s.Refused, name)
	to.add(metricWasmFuel, s.Fuel, name)
	to.add(metricWasmStarted, s.Started, name)
	to.add(metricWasmInstances, uint64(s.Instances), name)
	to.add(metricWasmMemory, uint64(s.Memory), name)
	to.add(metricWasmBreaker, truth(s.Breaker != wasmfilter.BreakerClosed), name)
	to.add(metricWasmKVKeys, uint64(s.KVKeys), name)
	to.add(metricWasmKVBytes, uint64(s.KVBytes), name)
}

func truth(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}
