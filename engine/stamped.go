package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/stamps"
)

// followStamps looks for messages that are missing before those of a batch,
// which were checked.
func (w *worker) followStamps(route *route, batch []*filterd.Message) {
	for _, m := range batch {
		if producer, sequence, ok := m.Stamp(); ok && m.ID == "" && !m.Sharded {
			if loss := w.engine.stamps.Take(w.number, m.Channel, producer, sequence, m.Received); loss.Lost != 0 {
				w.lose(route.label, m.Channel, string(producer), loss, m.Received)
			}
		}
	}
}

// heartbeats looks for messages that are missing although nothing came after
// them.
func (w *worker) heartbeats(batch []*filterd.Message) {
	for _, m := range batch {
		h, err := stamps.ParseHeartbeat(m.Payload)
		if err != nil {
			w.engine.log(&w.engine.counters.heartbeats, slog.LevelWarn, "invalid heartbeat", "channel", m.Channel, "error", err)
			continue
		}
		for channel, sequence := range h.Sequences {
			loss := w.engine.stamps.Reached(channel, h.Producer, sequence, m.Received)
			if loss.Lost == 0 || !w.table.followsStamps(channel) {
				continue
			}
			if route, err := w.table.route(&filterd.Message{Channel: channel}, true); err == nil {
				w.lose(route.label, channel, h.Producer, loss, m.Received)
			}
		}
	}
}

// lose counts and reports messages of a channel that are missing, or takes back
// what was only late.
func (w *worker) lose(label, channel, producer string, loss stamps.Loss, now time.Time) {
	counters := w.engine.counters.channel(label)
	counters.lost.Add(loss.Lost)
	if loss.Lost < 0 {
		return
	}
	gap := filterd.Gap{
		Channels: []string{channel}, From: loss.Since, To: now, Reason: "messages of a producer are missing",
		Producer: producer, Lost: uint64(loss.Lost),
	}
	w.engine.counters.gaps.remember(gap)
	w.engine.log(&counters.losses, slog.LevelWarn, "messages lost", "lost", gap.Lost, "channel", channel, "producer", producer, "since", gap.From)
	w.tellOfGap(&gap, func(r *rule) []string {
		if slices.Contains(r.names, channel) || slices.ContainsFunc(r.globs, func(g *filterd.Glob) bool { return g.Match(channel) }) {
			return gap.Channels
		}
		return nil
	})
}

// followsStamps reports whether rules take messages of a channel that is
// stamped.
func (t *Table) followsStamps(channel string) bool {
	return t.stamped && t.registry.Lookup(channel).Stamped &&
		(len(t.byName[channel]) > 0 || slices.ContainsFunc(t.globs, func(g *filterd.Glob) bool { return g.Match(channel) }))
}

// stampedTarget says why a rule can't send to a stamped channel.
func stampedTarget(channel string) error {
	return fmt.Errorf("channel %s is stamped: messages keep the stamps that they came with, and what the rule drops would count as lost there", channel)
}
