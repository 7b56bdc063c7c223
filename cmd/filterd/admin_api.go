package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/pubsub"
	"github.com/filterd/filterd/webhook"
)

// What the admin server answers with. The file openapi.json is made of these
// types; a test holds it against the server. Times are of RFC 3339, spans are
// in seconds, and counters count since the daemon started.

// adminError is the body of every answer that is no success.
type adminError struct {
	Error string `json:"error" jsonschema_description:"What is wrong, and what to do about it."`
	// Problems is what is wrong with the config file.
	Problems []config.Problem `json:"problems,omitempty" jsonschema_description:"What is wrong with the config file, where that is the reason."`
}

// adminReadiness says whether the daemon does its work.
type adminReadiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons" jsonschema_description:"Why it is not ready."`
}

// adminStatus is the state of the daemon.
type adminStatus struct {
	adminReadiness
	Version         string           `json:"version"`
	Config          string           `json:"config" jsonschema_description:"The config file."`
	Started         time.Time        `json:"started"`
	Uptime          float64          `json:"uptime"`
	Generation      uint64           `json:"generation" jsonschema_description:"1 at the start, and 1 more for each reload."`
	Reloads         uint64           `json:"reloads"`
	RefusedReloads  uint64           `json:"refused_reloads"`
	LastRefusal     *adminRefusal    `json:"last_refusal,omitempty" jsonschema_description:"The last reload that was refused."`
	Rules           int              `json:"rules"`
	Linear          int              `json:"linear" jsonschema_description:"Rules that are evaluated for every message of some channel."`
	Evaluations     adminEvaluations `json:"evaluations"`
	Channels        []adminChannel   `json:"channels"`
	Streams         []adminStream    `json:"streams"`
	Modules         []adminModule    `json:"modules"`
	Webhooks        []adminWebhook   `json:"webhooks"`
	DeadLetters     uint64           `json:"dead_letters"`
	DeadLettersLost uint64           `json:"dead_letters_lost"`
	Unrouted        uint64           `json:"unrouted" jsonschema_description:"Messages that no rule took any more: they came between two generations."`
	Refused         uint64           `json:"refused" jsonschema_description:"Messages that came when filterd had halted or was closed."`
	Taken           uint64           `json:"taken" jsonschema_description:"What was not written because another consumer had taken the stream's entry."`
	Gaps            uint64           `json:"gaps"`
	GapTime         float64          `json:"gap_time"`
	HA              *adminHA         `json:"ha,omitempty" jsonschema_description:"Whether this daemon leads, where the config file has the section ha."`
	Taps            uint64           `json:"taps" jsonschema_description:"Taps that were opened."`
}

// adminHA says which of several daemons with the same rules sends.
type adminHA struct {
	Group  string  `json:"group"`
	Role   string  `json:"role" jsonschema:"enum=leader,enum=standby" jsonschema_description:"A standby leaves the messages of channels to the leader."`
	Leader string  `json:"leader,omitempty" jsonschema_description:"The host and process that leads, as far as this daemon knows."`
	Fence  uint64  `json:"fence" jsonschema_description:"The number of this daemon's last time as the leader: it is larger for whoever takes over. 0: it never was."`
	Taken  uint64  `json:"taken" jsonschema_description:"How often this daemon has become the leader."`
	Lease  float64 `json:"lease"`
}

// adminRefusal is a reload that was refused.
type adminRefusal struct {
	Time     time.Time        `json:"time"`
	Error    string           `json:"error"`
	Problems []config.Problem `json:"problems,omitempty" jsonschema_description:"What is wrong with the config file, where that is the reason."`
}

// adminEvaluations counts conditions that were evaluated, by what.
type adminEvaluations struct {
	Compiled uint64 `json:"compiled"`
	Pruned   uint64 `json:"pruned"`
	Whole    uint64 `json:"whole"`
}

// adminChannel counts the messages of a channel.
type adminChannel struct {
	Channel  string                    `json:"channel" jsonschema_description:"As the config file declares it, or else as a rule's from names it."`
	Received uint64                    `json:"received"`
	Invalid  map[filterd.Reason]uint64 `json:"invalid" jsonschema_description:"By how they broke their contract."`
	Standby  uint64                    `json:"standby" jsonschema_description:"Messages, none of those received, that were left to the leader."`
	Lost     uint64                    `json:"lost" jsonschema_description:"Messages that never came, as the stamps of others show."`
}

// adminStream says how a stream is read in a consumer group.
type adminStream struct {
	Stream       string `json:"stream"`
	Group        string `json:"group"`
	Consumer     string `json:"consumer" jsonschema_description:"This daemon in the group."`
	Wanted       bool   `json:"wanted" jsonschema_description:"Rules take it. If not, they did before a reload."`
	Error        string `json:"error,omitempty" jsonschema_description:"Why it can't be read."`
	Read         uint64 `json:"read"`
	Acknowledged uint64 `json:"acknowledged" jsonschema_description:"What is dealt with."`
	Redelivered  uint64 `json:"redelivered"`
	Claimed      uint64 `json:"claimed" jsonschema_description:"Of those redelivered, what another consumer had left behind."`
	Malformed    uint64 `json:"malformed"`
	Poison       uint64 `json:"poison" jsonschema_description:"What was delivered in vain too often."`
	Trimmed      uint64 `json:"trimmed" jsonschema_description:"What was deleted while it was pending: lost."`
	Held         int    `json:"held" jsonschema_description:"What was read, and is not dealt with yet."`
	Pending      *int64 `json:"pending,omitempty" jsonschema_description:"What some consumer of the group has, and is not acknowledged; up to 3 s old. Missing where Redis does not say it."`
	Lag          *int64 `json:"lag,omitempty" jsonschema_description:"What no consumer of the group has got yet; up to 3 s old. Missing where Redis can't tell, as after entries were deleted."`
	BacklogError string `json:"backlog_error,omitempty" jsonschema_description:"Why Redis does not say pending and lag."`
}

// adminModule counts what a WebAssembly module did.
type adminModule struct {
	Module    string                          `json:"module"`
	Calls     uint64                          `json:"calls"`
	Messages  uint64                          `json:"messages"`
	Errors    uint64                          `json:"errors"`
	Refused   uint64                          `json:"refused"`
	Fuel      uint64                          `json:"fuel"`
	Faults    map[wasmfilter.FaultKind]uint64 `json:"faults"`
	Instances int                             `json:"instances"`
	Breaker   wasmfilter.BreakerState         `json:"breaker"`
}

// adminWebhook counts what was posted to a webhook.
type adminWebhook struct {
	Webhook   string                    `json:"webhook"`
	Attempts  uint64                    `json:"attempts"`
	Retries   uint64                    `json:"retries"`
	Delivered uint64                    `json:"delivered"`
	Failed    map[webhook.Reason]uint64 `json:"failed" jsonschema_description:"Messages that were not accepted, by what the last attempt failed on."`
	InFlight  int                       `json:"in_flight"`
	Breaker   string                    `json:"breaker" jsonschema:"enum=closed,enum=open,enum=half-open"`
	Disabled  bool                      `json:"disabled" jsonschema_description:"It has answered 410; a reload switches it on again."`
}

// adminRules is every rule, in the order of the file.
type adminRules struct {
	Generation uint64      `json:"generation"`
	Time       time.Time   `json:"time"`
	Rules      []adminRule `json:"rules"`
}

// adminRule is a rule with its counters.
type adminRule struct {
	Name        string       `json:"name"`
	From        []string     `json:"from"`
	When        string       `json:"when,omitempty"`
	Wasm        string       `json:"wasm,omitempty"`
	To          []string     `json:"to"`
	Index       adminIndex   `json:"index" jsonschema_description:"How the rule is found for a message."`
	Matched     uint64       `json:"matched"`
	Filtered    uint64       `json:"filtered" jsonschema_description:"Of those matched, what the module dropped."`
	Errors      uint64       `json:"errors"`
	Delivered   uint64       `json:"delivered"`
	NoReceivers uint64       `json:"no_receivers"`
	Undelivered uint64       `json:"undelivered"`
	Panics      uint64       `json:"panics"`
	Stuck       uint64       `json:"stuck"`
	Dropped     uint64       `json:"dropped" jsonschema_description:"What gave way in a full queue, or at the end."`
	Shadowed    uint64       `json:"shadowed" jsonschema_description:"What a rule with shadow would have sent, once for each target."`
	Withheld    uint64       `json:"withheld" jsonschema_description:"What was not published since this daemon was the leader no more."`
	Conflated   uint64       `json:"conflated" jsonschema_description:"What a newer message with the same key took the place of."`
	Queued      int          `json:"queued"`
	Gaps        uint64       `json:"gaps" jsonschema_description:"Gaps of what the rule takes messages from."`
	Rates       adminRates   `json:"rates"`
	Latency     adminLatency `json:"latency"`
}

// adminIndex is how a rule is found for a message.
type adminIndex struct {
	Linear bool   `json:"linear" jsonschema_description:"It is evaluated for every message."`
	By     string `json:"by" jsonschema_description:"What the rule is found by, or why it is not."`
}

// adminRates are messages in a second, over the last 5 to 10 seconds.
type adminRates struct {
	Matched   float64 `json:"matched"`
	Errors    float64 `json:"errors"`
	Delivered float64 `json:"delivered"`
}

// adminLatency is how long messages took from when they were received until
// they were delivered.
type adminLatency struct {
	Count   uint64   `json:"count"`
	Sum     float64  `json:"sum"`
	P50     float64  `json:"p50" jsonschema_description:"Of all since the start."`
	P99     float64  `json:"p99" jsonschema_description:"Of all since the start."`
	Buckets []uint64 `json:"buckets,omitempty" jsonschema_description:"Counts by time: the first up to 16.384 µs, each of the next up to twice as much, the last without a bound."`
}

// adminGaps is what may have been lost.
type adminGaps struct {
	Gaps     uint64            `json:"gaps"`
	Time     float64           `json:"time"`
	Channels []adminChannelGap `json:"channels" jsonschema_description:"By what was not listened to: one gap may be that of many."`
	Last     []adminGap        `json:"last" jsonschema_description:"The last 256, the oldest first."`
}

type adminChannelGap struct {
	Channel string  `json:"channel"`
	Gaps    uint64  `json:"gaps"`
	Time    float64 `json:"time"`
}

type adminGap struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Length   float64   `json:"length"`
	Reason   string    `json:"reason"`
	Lost     uint64    `json:"lost,omitempty" jsonschema_description:"How many messages of the producer are missing, exactly, where stamps tell."`
	Producer string    `json:"producer,omitempty"`
	Channels []string  `json:"channels" jsonschema_description:"The first 100."`
}

// adminReloaded is what a reload has changed.
type adminReloaded struct {
	Generation uint64   `json:"generation"`
	Rules      int      `json:"rules"`
	Added      []string `json:"added"`
	Changed    []string `json:"changed"`
	Removed    []string `json:"removed"`
	Files      []string `json:"files" jsonschema_description:"That are new or changed."`
}

// adminTapped is a line of a tap: what a rule made of a message, or, where
// outcome is missing, a sign of life.
type adminTapped struct {
	Outcome       engine.TapOutcome `json:"outcome,omitempty" jsonschema:"enum=kept,enum=not_kept,enum=filtered,enum=failed,enum=invalid"`
	Channel       string            `json:"channel,omitempty"`
	Received      *time.Time        `json:"received,omitempty"`
	Payload       *string           `json:"payload,omitempty" jsonschema_description:"The message as it came in; its first 16 KiB."`
	PayloadBase64 []byte            `json:"payload_base64,omitempty" jsonschema_description:"Instead of payload, if that is no UTF-8."`
	Bytes         int               `json:"bytes,omitempty" jsonschema_description:"How many the whole payload has."`
	Error         string            `json:"error,omitempty"`
	Outputs       []adminOutput     `json:"outputs,omitempty"`
	Skipped       uint64            `json:"skipped" jsonschema_description:"How many messages the tap has left out so far."`
}

type adminOutput struct {
	To            string  `json:"to" jsonschema_description:"A channel, stream:NAME, webhook:NAME, callback:NAME or log:LEVEL."`
	Payload       *string `json:"payload,omitempty" jsonschema_description:"Its first 16 KiB."`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
	Bytes         int     `json:"bytes"`
	DeadLetter    bool    `json:"dead_letter,omitempty"`
}

// adminExplain is a message to explain: a payload, or the data of one.
type adminExplain struct {
	Channel       string          `json:"channel,omitempty" jsonschema_description:"Where the message comes from. Not needed if the rule takes messages of only one channel."`
	Payload       *string         `json:"payload,omitempty"`
	PayloadBase64 []byte          `json:"payload_base64,omitempty" jsonschema_description:"Instead of payload, if that is no UTF-8."`
	Data          json.RawMessage `json:"data,omitempty" jsonschema_description:"Instead of payload: gets an event around it where the contract wants one."`
}

// payloadText returns a payload as text if it is.
func payloadText(payload []byte) (text *string, base64 []byte) {
	if s := string(payload); utf8.ValidString(s) {
		return &s, nil
	}
	return nil, payload
}

// tappedText is payloadText of the beginning of a payload, which may have been
// cut within a character.
func tappedText(part []byte, whole int) (*string, []byte) {
	if len(part) < whole {
		for i := len(part) - 1; i >= max(0, len(part)-utf8.UTFMax); i-- {
			if utf8.RuneStart(part[i]) {
				if !utf8.FullRune(part[i:]) {
					part = part[:i]
				}
				break
			}
		}
	}
	return payloadText(part)
}

func newAdminTapped(t engine.Tapped, skipped uint64) adminTapped {
	line := adminTapped{Outcome: t.Outcome, Channel: t.Channel, Bytes: t.Bytes, Error: errorText(t.Err), Skipped: skipped}
	if !t.Received.IsZero() {
		line.Received = &t.Received
	}
	line.Payload, line.PayloadBase64 = tappedText(t.Payload, t.Bytes)
	for _, o := range t.Outputs {
		output := adminOutput{To: o.Channel, Bytes: o.Bytes, DeadLetter: o.DeadLetter}
		switch {
		case o.Callback != "":
			output.To = "callback:" + o.Callback
		case o.Webhook != "":
			output.To = "webhook:" + o.Webhook
		case o.Log != "":
			output.To = "log:" + strings.ToLower(o.Log)
		case o.Stream:
			output.To = "stream:" + o.Channel
		case o.Sharded:
			output.To = "sharded:" + o.Channel
		}
		output.Payload, output.PayloadBase64 = tappedText(o.Payload, o.Bytes)
		line.Outputs = append(line.Outputs, output)
	}
	return line
}

func newAdminRefusal(r *engine.Refusal) *adminRefusal {
	if r == nil {
		return nil
	}
	text, problems := refusalText(r.Err)
	return &adminRefusal{Time: r.Time, Error: text, Problems: problems}
}

// refusalText says why a reload was refused.
func refusalText(err error) (string, []config.Problem) {
	var refused *config.Error
	if !errors.As(err, &refused) {
		return err.Error(), nil
	}
	return fmt.Sprintf("%s: the rules stay as they are", count(len(refused.Problems), "problem")), refused.Problems
}

func newAdminChannels(s *engine.Stats) []adminChannel {
	channels := []adminChannel{}
	for name, c := range s.Channels {
		channels = append(channels, adminChannel{name, c.Received, c.Invalid, c.Standby, c.Lost})
	}
	slices.SortFunc(channels, func(a, b adminChannel) int { return strings.Compare(a.Channel, b.Channel) })
	return channels
}

func newAdminStreams(source *pubsub.StreamSource) []adminStream {
	streams, backlog := []adminStream{}, source.Backlog()
	for _, s := range source.Stats() {
		stream := adminStream{
			Stream: s.Stream, Group: s.Group, Consumer: s.Consumer, Wanted: s.Wanted, Error: errorText(s.Err),
			Read: s.Read, Acknowledged: s.Acknowledged, Redelivered: s.Redelivered, Claimed: s.Claimed,
			Malformed: s.Malformed, Poison: s.Poison, Trimmed: s.Trimmed, Held: s.Held,
		}
		i := slices.IndexFunc(backlog, func(b pubsub.StreamBacklog) bool { return b.Stream == s.Stream && b.Group == s.Group })
		if i >= 0 {
			b := &backlog[i]
			if stream.BacklogError = errorText(b.Err); b.Err == nil {
				stream.Pending = &b.Pending
			}
			if b.Lag >= 0 {
				stream.Lag = &b.Lag
			}
		}
		streams = append(streams, stream)
	}
	return streams
}

func newAdminGaps(s *engine.Stats, last []filterd.Gap) adminGaps {
	g := adminGaps{Gaps: s.Gaps, Time: s.GapTime.Seconds(), Channels: []adminChannelGap{}, Last: []adminGap{}}
	for name, of := range s.ChannelGaps {
		g.Channels = append(g.Channels, adminChannelGap{name, of.Gaps, of.Time.Seconds()})
	}
	slices.SortFunc(g.Channels, func(a, b adminChannelGap) int { return strings.Compare(a.Channel, b.Channel) })
	for _, gap := range last {
		g.Last = append(g.Last, adminGap{gap.From, gap.To, gap.Length().Seconds(), gap.Reason, gap.Lost, gap.Producer, gap.Channels})
	}
	return g
}

func newAdminLatency(l *engine.Latency) adminLatency {
	a := adminLatency{Count: l.Count(), Sum: l.Sum.Seconds(), P50: l.Quantile(0.5).Seconds(), P99: l.Quantile(0.99).Seconds()}
	if a.Count > 0 {
		a.Buckets = l.Buckets[:]
	}
	return a
}

func newAdminModule(m *wasmfilter.Module) adminModule {
	s := m.Stats()
	if s.Faults == nil {
		s.Faults = map[wasmfilter.FaultKind]uint64{}
	}
	return adminModule{m.Info().Name, s.Calls, s.Messages, s.Errors, s.Refused, s.Fuel, s.Faults, s.Instances, s.Breaker}
}

func newAdminWebhooks(endpoints map[string]*webhook.Endpoint) []adminWebhook {
	webhooks := []adminWebhook{}
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		s := endpoints[name].Stats()
		webhooks = append(webhooks, adminWebhook{name, s.Attempts, s.Retries, s.Delivered, s.Failed, s.InFlight, s.Breaker, s.Disabled})
	}
	return webhooks
}

func newAdminHA(lease *pubsub.Lease) *adminHA {
	if lease == nil {
		return nil
	}
	s := lease.Stats()
	ha := &adminHA{Group: s.Group, Role: "standby", Leader: s.Leader, Fence: s.Fence, Taken: s.Taken, Lease: s.Lease.Seconds()}
	if s.Leads {
		ha.Role = "leader"
	}
	return ha
}

func newAdminRule(r engine.Rule, found access, all *engine.Stats) adminRule {
	s := all.Rules[r.Name]
	a := adminRule{
		Name: r.Name, From: r.Sources(), To: []string{},
		Matched: s.Matched, Filtered: s.Filtered, Errors: s.Errors, Delivered: s.Delivered, NoReceivers: s.NoReceivers,
		Undelivered: s.Undelivered, Panics: s.Panics, Stuck: s.Stuck, Dropped: s.Dropped, Withheld: s.Withheld, Conflated: s.Conflated, Shadowed: s.Shadowed, Queued: s.Queued,
		Latency: newAdminLatency(&s.Latency),
	}
	if r.When != nil {
		a.When = fmt.Sprint(r.When)
	}
	if module, ok := r.Stage.(*wasmfilter.Module); ok {
		a.Wasm = module.Info().Name
	}
	for _, to := range r.To {
		a.To = append(a.To, targetText(to))
	}
	a.Index = adminIndex{found.Linear, found.By}
	for _, from := range r.From {
		a.Gaps += all.ChannelGaps[from].Gaps
	}
	return a
}
