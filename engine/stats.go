package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
)

// Stats is what an engine has counted since it was made. A reload resets
// nothing: rules are counted by name.
type Stats struct {
	// Generation is the number of the table: 1, and 1 more for each reload.
	Generation uint64
	// Reloads counts the tables that came after the first; RefusedReloads
	// counts those that were refused, and LastRefusal is the last of them:
	// nil if there was none.
	Reloads        uint64
	RefusedReloads uint64
	LastRefusal    *Refusal
	// Linear is how many rules of the table are evaluated for every message
	// of some channel.
	Linear int
	// Evaluations counts how often conditions were evaluated.
	Evaluations filterd.Evaluations
	// Channels counts by the channel's declaration, or by the From entry
	// through which an undeclared channel's messages come.
	Channels map[string]ChannelStats
	Rules    map[string]RuleStats
	// DeadLetters counts the dead letters that were published;
	// DeadLettersLost those that could not be.
	DeadLetters     uint64
	DeadLettersLost uint64
	// Unrouted counts messages that no rule's From matches.
	Unrouted uint64
	// Refused counts messages that came when the engine was halted or closed.
	Refused uint64
	// Taken counts what was not written because another consumer had taken
	// the entry that it was made of.
	Taken uint64
	// Gaps counts the spans in which messages may have been missed, and
	// GapTime is their total length. ChannelGaps has both by the names and
	// globs that rules take messages from, where there were any: one gap may
	// be that of many.
	Gaps        uint64
	GapTime     time.Duration
	ChannelGaps map[string]GapStats
}

// A Refusal says why and when a reload was refused. The rules are those of
// before.
type Refusal struct {
	Time time.Time
	Err  error
}

// ChannelStats counts the messages of one channel or glob. A message that
// arrives through several subscriptions counts once.
type ChannelStats struct {
	Received uint64
	Invalid  map[filterd.Reason]uint64
	Standby  uint64 // messages, none of those received, that were left to the process that has the lease: see [Config.Lease]
	Lost     uint64 // messages that never came, as the stamps of others show: see [filterd.Contract].Stamped
}

// RuleStats counts what one rule did. Matched messages either failed or were
// sent, once for each target.
type RuleStats struct {
	Matched     uint64  // messages that the condition kept
	Filtered    uint64  // of those, messages that the Stage dropped
	Errors      uint64  // messages that the rule failed on, in whatever stage
	Delivered   uint64  // messages published, logged, or taken by a callback without an error
	NoReceivers uint64  // of those published, how many nobody was subscribed to
	Undelivered uint64  // publishes that failed, callbacks that failed or panicked
	Panics      uint64  // of those undelivered, callbacks that panicked
	Dropped     uint64  // messages that gave way in a full queue, or at the end of a drain
	Conflated   uint64  // messages that a newer one with the same key took the place of
	Withheld    uint64  // messages that were not published since the lease had ended: see [Config.Lease]
	Stuck       uint64  // calls of a callback that took more than 10 s, or still do
	Shadowed    uint64  // messages that a rule with Shadow would have sent, once for each target
	Gaps        uint64  // gaps that a rule with OnGap was told of; their events count as delivered, or not, as messages do
	Queued      int     // messages that wait for a callback, the log or the Stage, or are in its hands
	Latency     Latency // of what was delivered, where it is known when it was received
}

// counters holds an engine's live counters. Safe for concurrent use.
type counters struct {
	deadLetters, deadLettersLost, unrouted, refused, taken atomic.Uint64
	gaps                                                   gapCounters
	refusedReloads                                         atomic.Uint64
	lastRefusal                                            atomic.Pointer[Refusal]
	lost                                                   lograte.Limiter // limits the log lines about lost dead letters
	heartbeats                                             lograte.Limiter // limits those about invalid ones

	mu       sync.Mutex // guards the maps, not what they hold
	channels map[string]*channelCounters
	rules    map[string]*ruleCounters

	failing sync.RWMutex // guards groups; taken before mu
	groups  map[*failureGroup]*atomic.Uint64
}

// maxGroups bounds the groups that are counted apart from their rules.
const maxGroups = 1024

// fail counts a message that the quiet rules of a group failed on: once, and
// not for each rule. Groups come and go with programs; when there are many,
// what they count goes to their rules.
func (c *counters) fail(g *failureGroup) {
	c.failing.RLock()
	n := c.groups[g]
	if n != nil {
		n.Add(1)
	}
	c.failing.RUnlock()
	if n != nil {
		return
	}
	c.failing.Lock()
	defer c.failing.Unlock()
	if len(c.groups) >= maxGroups {
		c.dissolve()
	}
	entry(&c.groups, g).Add(1)
}

// forgetGroups lets go of the programs whose groups have been counted.
func (c *counters) forgetGroups() {
	c.failing.Lock()
	defer c.failing.Unlock()
	c.dissolve()
}

// dissolve gives the rules what their groups have counted.
func (c *counters) dissolve() {
	for group, n := range c.groups {
		for _, r := range group.quiet {
			c.rule(r.Name).errors.Add(n.Load())
		}
	}
	clear(c.groups)
}

type channelCounters struct {
	received atomic.Uint64
	standby  atomic.Uint64
	lost     atomic.Int64
	invalid  [len(filterd.Reasons)]atomic.Uint64
	failures lograte.Limiter
	losses   lograte.Limiter // limits the log lines about lost messages
}

type ruleCounters struct {
	matched, filtered, errors, delivered, noReceivers, undelivered, panics, stuck, dropped, conflated, withheld, shadowed, gaps atomic.Uint64

	latency  latencyCounters
	failures lograte.Limiter
}

// channel returns the counters of a label. There are as many as the table has
// declarations and From entries.
func (c *counters) channel(label string) *channelCounters {
	c.mu.Lock()
	defer c.mu.Unlock()
	return entry(&c.channels, label)
}

func (c *counters) rule(name string) *ruleCounters {
	c.mu.Lock()
	defer c.mu.Unlock()
	return entry(&c.rules, name)
}

func entry[K comparable, V any](m *map[K]*V, key K) *V {
	if *m == nil {
		*m = make(map[K]*V)
	}
	v := (*m)[key]
	if v == nil {
		v = new(V)
		(*m)[key] = v
	}
	return v
}

func (c *channelCounters) count(reason filterd.Reason) {
	for i, r := range filterd.Reasons {
		if r == reason {
			c.invalid[i].Add(1)
		}
	}
}

func (c *counters) snapshot() Stats {
	s := Stats{
		Channels:        make(map[string]ChannelStats),
		Rules:           make(map[string]RuleStats),
		DeadLetters:     c.deadLetters.Load(),
		DeadLettersLost: c.deadLettersLost.Load(),
		Unrouted:        c.unrouted.Load(),
		Refused:         c.refused.Load(),
		Taken:           c.taken.Load(),
		RefusedReloads:  c.refusedReloads.Load(),
		LastRefusal:     c.lastRefusal.Load(),
	}
	c.gaps.snapshot(&s)
	c.failing.RLock()
	defer c.failing.RUnlock()
	inGroups := make(map[string]uint64)
	for group, n := range c.groups {
		for _, r := range group.quiet {
			inGroups[r.Name] += n.Load()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for label, channel := range c.channels {
		stats := ChannelStats{Received: channel.received.Load(), Standby: channel.standby.Load(), Invalid: make(map[filterd.Reason]uint64), Lost: uint64(max(0, channel.lost.Load()))}
		for i, reason := range filterd.Reasons {
			if n := channel.invalid[i].Load(); n > 0 {
				stats.Invalid[reason] = n
			}
		}
		s.Channels[label] = stats
	}
	for name, r := range c.rules {
		s.Rules[name] = RuleStats{
			Matched:     r.matched.Load(),
			Filtered:    r.filtered.Load(),
			Errors:      r.errors.Load() + inGroups[name],
			Delivered:   r.delivered.Load(),
			NoReceivers: r.noReceivers.Load(),
			Undelivered: r.undelivered.Load(),
			Panics:      r.panics.Load(),
			Withheld:    r.withheld.Load(),
			Stuck:       r.stuck.Load(),
			Dropped:     r.dropped.Load(),
			Conflated:   r.conflated.Load(),
			Shadowed:    r.shadowed.Load(),
			Gaps:        r.gaps.Load(),
			Latency:     r.latency.snapshot(),
		}
	}
	return s
}
