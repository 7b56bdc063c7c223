package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/filterd/filterd"
)

// ErrStandby is returned by [Engine.Process] for a channel's message that is
// left to the process that has the lease.
var ErrStandby = errors.New("another process has the lease: the message is left to it")

// errLeaseEnded is why something was not published.
var errLeaseEnded = errors.New("the lease had ended")

// leads reports whether what becomes of channels' messages is this process' to
// send.
func (e *Engine) leads() bool {
	if e.config.Lease == nil {
		return true
	}
	_, held := e.config.Lease.Held()
	return held
}

// fence returns the fence of the lease's last reign; 0 if there was none.
func (e *Engine) fence() uint64 {
	if e.config.Lease == nil {
		return 0
	}
	fence, _ := e.config.Lease.Held()
	return fence
}

// newID returns an ID for an event of filterd's own. It begins with the fence of
// the lease under which it was made, if there is one.
func newID(now time.Time, fence uint64) string {
	id := filterd.NewID(now)
	if fence > 0 {
		id = fmt.Sprintf("%d-%s", fence, id)
	}
	return id
}

// standBy counts messages of a channel that are left to the process that has the
// lease. What is missing among them is followed all the same, so that it is not
// taken for a loss once this process has the lease.
func (w *worker) standBy(route *route, batch []*filterd.Message) {
	if channel := w.last.channel; channel != nil {
		channel.standby.Add(uint64(len(batch)))
	}
	if !w.table.stamped || !route.primary {
		return
	}
	b := w.processor.bind(route.program)
	for _, m := range batch {
		m.Bind(b.projection)
		_ = w.table.registry.Check(m) // which is counted where the lease is
	}
	w.followStamps(route, batch)
}

// withhold takes what is not to be sent any more out of the deliveries, since the
// lease has ended while the batch was treated. What streams' entries became of
// stays.
func (w *worker) withhold() {
	if w.engine.leads() {
		return
	}
	w.retain(func(output *Output) bool {
		if output.message.ID != "" {
			return true
		}
		if output.span != nil {
			output.span.End(errLeaseEnded)
		}
		if output.DeadLetter {
			w.engine.loseDeadLetter(output.message, errLeaseEnded)
		} else {
			w.rules[output.rule.number].withheld.Add(1)
		}
		return false
	})
}

// MissedAll reports a gap of everything that rules take messages of channels from,
// such as the one in which nobody had the lease. Its channels are not looked at.
// Gaps of the sources that were not over when it began are part of it: there was
// nobody to tell the rules.
func (e *Engine) MissedAll(gap filterd.Gap) {
	e.counters.gaps.mu.Lock()
	for _, g := range e.counters.gaps.last {
		if g.Lost == 0 && g.To.After(gap.From) && g.From.Before(gap.From) {
			gap.From = g.From
		}
	}
	e.counters.gaps.mu.Unlock()
	all := e.current.Load().table.Subscriptions()
	h := &handler{engine: e}
	for _, part := range [...]struct {
		channels []string
		sharded  bool
	}{{append(all.Channels, all.Globs...), false}, {all.Sharded, true}} {
		if gap.Channels, gap.Sharded = part.channels, part.sharded; len(gap.Channels) > 0 {
			h.Gap(gap)
		}
	}
}
