package pubsub

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/filterd/filterd"
)

// A pendingEntry is what Redis says of an entry that is delivered and not
// acknowledged.
type pendingEntry struct {
	id        string
	consumer  string
	delivered int64 // how often
}

// pending lists entries that are pending, from an ID on: those of a consumer, or
// of all if that is empty, that have been idle for a time.
func (r *streamReader) pending(ctx context.Context, start string, idle time.Duration, consumer string) ([]pendingEntry, error) {
	args := []any{"xpending", r.stream.Name, r.stream.Group}
	if idle > 0 {
		args = append(args, "idle", idle.Milliseconds())
	}
	args = append(args, start, "+", maxBatch)
	if consumer != "" {
		args = append(args, consumer)
	}
	reply, err := r.do(ctx, args...)
	if err != nil {
		return nil, err
	}
	return parsePending(reply)
}

// takeBack delivers again what is pending for this consumer, but for what is in
// hand: after a connection was made, what may have been read from the former
// one; else what was postponed, and what has failed.
//
// XREADGROUP could list this as well. But it counts each listing as a delivery,
// and says nothing of earlier ones.
func (r *streamReader) takeBack(ctx, handling context.Context, h filterd.Handler) error {
	r.quiet(handling)
	if err := r.acknowledge(ctx); err != nil { // what is done is pending, too
		return err
	}
	r.mu.Lock()
	r.round++
	known := len(r.again)+len(r.open) > 0
	r.mu.Unlock()
	if known && r.caught {
		if err := r.sameGroup(ctx); err != nil {
			return err
		}
	}
	all, err := r.eachPending(ctx, 0, r.source.options.Consumer, func(entries []pendingEntry) (bool, error) {
		return r.redeliver(ctx, handling, h, entries, 0)
	})
	if !all || err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, retry := range r.again {
		if retry.round < r.round { // it was not among them: another consumer has it
			delete(r.again, id)
		}
	}
	return nil
}

// claim takes over what other consumers have left behind.
func (r *streamReader) claim(ctx, handling context.Context, h filterd.Handler) error {
	_, err := r.eachPending(ctx, r.stream.ClaimIdle, "", func(entries []pendingEntry) (bool, error) {
		return r.redeliver(ctx, handling, h, entries, r.stream.ClaimIdle)
	})
	return err
}

// eachPending calls do with entries that are pending for the consumer and not
// in hand, or for other consumers if that is empty, until do fails or has
// enough, or ctx ends. It reports whether it came to the end of them.
func (r *streamReader) eachPending(ctx context.Context, idle time.Duration, consumer string, do func([]pendingEntry) (bool, error)) (bool, error) {
	for start := "-"; ctx.Err() == nil; {
		page, err := r.pending(ctx, start, idle, consumer)
		if err != nil || len(page) == 0 {
			return true, err
		}
		start = "(" + page[len(page)-1].id
		var entries []pendingEntry
		r.mu.Lock()
		held := r.inHand()
		for _, e := range page {
			if consumer != "" && !held[e.id] || consumer == "" && e.consumer != r.source.options.Consumer {
				entries = append(entries, e)
			}
		}
		r.mu.Unlock()
		if len(entries) > 0 {
			if more, err := do(entries); err != nil || !more {
				return false, err
			}
		}
		if len(page) < maxBatch {
			return true, nil
		}
	}
	return false, nil
}

// redeliver claims pending entries and delivers them again, and reports whether
// there is a point in going on. Those that were postponed are not counted as
// delivered: what they failed on was not theirs.
func (r *streamReader) redeliver(ctx, handling context.Context, h filterd.Handler, pending []pendingEntry, idle time.Duration) (bool, error) {
	for len(pending) > 0 {
		run, excused := r.sameRun(pending)
		args := []string{r.stream.Name, r.stream.Group, r.source.options.Consumer, strconv.FormatInt(idle.Milliseconds(), 10)}
		left := make(map[string]pendingEntry, len(run))
		for _, e := range run {
			args = append(args, e.id)
			left[e.id] = e
		}
		if excused {
			args = append(args, "RETRYCOUNT", strconv.FormatInt(run[0].delivered, 10))
		}
		pending = pending[len(run):]
		if err := r.conn.ask("XCLAIM", args...); err != nil {
			return false, err
		}
		for r.conn.asked() {
			part, err := r.conn.next(ctx)
			if err != nil {
				return false, err
			}
			r.size.add(part)
			if part.entries = r.reclaimed(part.entries, left, excused); r.behind(r.round) {
				r.postpone(part.entries)
				continue
			}
			r.redelivered.Add(uint64(r.deliver(handling, h.Messages, part.entries)))
			if err := r.acknowledge(handling); err != nil {
				return false, err
			}
		}
		for id := range left {
			if err := r.missed(ctx, h, id); err != nil {
				return false, err
			}
		}
		if r.behind(r.round) {
			return false, nil // the others would fare no better, and keep their order
		}
	}
	return true, nil
}

// sameRun returns the first of some entries that one command can claim, and
// whether they are excused.
func (r *streamReader) sameRun(pending []pendingEntry) (run []pendingEntry, excused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	excused = r.excused(pending[0])
	n := 1
	for n < min(len(pending), r.size.count) && excused == r.excused(pending[n]) && (!excused || pending[n].delivered == pending[0].delivered) {
		n++
	}
	return pending[:n], excused
}

// excused reports whether an entry was not delivered in vain: it was postponed,
// or never came here, as the connection broke. The caller holds mu.
func (r *streamReader) excused(e pendingEntry) bool {
	before, known := r.again[e.id]
	if !known {
		return r.caught && e.consumer == r.source.options.Consumer
	}
	return before.outcome == filterd.EntryPostponed
}

// reclaimed notes what Redis said of entries before they were claimed, and takes
// them from left.
func (r *streamReader) reclaimed(entries []streamEntry, left map[string]pendingEntry, excused bool) []streamEntry {
	whole := entries[:0]
	for _, e := range entries {
		if e.deleted() { // as Redis before 7 tells
			continue
		}
		was := left[e.id]
		delete(left, e.id)
		if was.consumer != r.source.options.Consumer {
			r.claimed.Add(1)
		}
		e.delivered, e.poison = was.delivered, !excused && was.delivered >= int64(r.stream.MaxDeliveries)
		whole = append(whole, e)
	}
	return whole
}

// missed looks why an entry that was pending could not be claimed: somebody else
// has it, or it was deleted, which is a loss.
func (r *streamReader) missed(ctx context.Context, h filterd.Handler, id string) error {
	reply, err := r.do(ctx, "xrange", r.stream.Name, id, id)
	if err != nil {
		return err
	}
	if found, ok := reply.([]any); !ok || len(found) > 0 {
		return nil
	}
	if _, err := r.do(ctx, "xack", r.stream.Name, r.stream.Group, id); err != nil {
		return err
	}
	r.trimmed.Add(1)
	now := time.Now()
	h.Gap(filterd.Gap{Channels: []string{r.stream.Name}, From: idTime(id, now), To: now, Reason: fmt.Sprintf("entry %s was deleted or trimmed while it was pending in group %s", id, r.stream.Group)})
	r.source.options.Logger.Error("an entry was deleted or trimmed while it was pending: it is lost", "stream", r.stream.Name, "group", r.stream.Group, "id", id)
	return nil
}
