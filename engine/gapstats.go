package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/filterd/filterd"
)

// maxGaps bounds the gaps that are remembered, and maxGapChannels the names
// that are remembered of each.
const (
	maxGaps        = 256
	maxGapChannels = 100
)

// GapStats counts the gaps of one subscription.
type GapStats struct {
	Gaps uint64
	Time time.Duration // of all together
}

// gapCounters counts gaps, and remembers the last of them. Safe for concurrent
// use.
type gapCounters struct {
	mu       sync.Mutex // guards what follows
	all      GapStats
	channels map[string]*GapStats // by names and globs that rules take messages from
	last     []filterd.Gap        // oldest first
}

func (g *GapStats) add(gap *filterd.Gap) {
	g.Gaps++
	g.Time += gap.Length()
}

func (c *gapCounters) add(gap filterd.Gap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.add(&gap)
	for _, channel := range gap.Channels {
		entry(&c.channels, channel).add(&gap)
	}
	c.keep(gap)
}

// remember remembers what was lost. It counts as no gap: it was lost in one.
func (c *gapCounters) remember(gap filterd.Gap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(gap)
}

// keep adds to the last gaps. The caller holds mu.
func (c *gapCounters) keep(gap filterd.Gap) {
	gap.Channels = slices.Clone(gap.Channels[:min(len(gap.Channels), maxGapChannels)])
	if len(c.last) == maxGaps {
		c.last = slices.Delete(c.last, 0, 1)
	}
	c.last = append(c.last, gap)
}

func (c *gapCounters) snapshot(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Gaps, s.GapTime = c.all.Gaps, c.all.Time
	s.ChannelGaps = make(map[string]GapStats, len(c.channels))
	for channel, g := range c.channels {
		s.ChannelGaps[channel] = *g
	}
}

// Gaps returns the last 256 gaps, the oldest first, each with its first 100
// channels; and among them what stamps show to be lost, where Lost is set.
func (e *Engine) Gaps() []filterd.Gap {
	e.counters.gaps.mu.Lock()
	defer e.counters.gaps.mu.Unlock()
	return slices.Clone(e.counters.gaps.last)
}
