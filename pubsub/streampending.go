package pubsub

import (
	"context"
	"fmt"
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

// takeBack delivers again what is pending for this consumer, but for what is
// held: after a connection was made, what may have been read from the former
// one; else what was postponed, and what has failed.
//
// XREADGROUP could list this as well. But it counts each listing as a delivery,
// and says nothing of earlier ones.
func (r *streamReader) takeBack(ctx, handling context.Context, h filterd.Handler) error {
	r.quiet()
	if err := r.acknowledge(ctx); err != nil { // what is done is pending, too
		return err
	}
	r.mu.Lock()
	again := r.again
	r.again = make(map[string]filterd.EntryOutcome)
	r.mu.Unlock()
	err := r.eachPending(ctx, 0, r.source.options.Consumer, func(entries []pendingEntry) error {
		return r.redeliver(ctx, handling, h, entries, 0, again)
	})
	if err != nil {
		r.mu.Lock()
		for id, outcome := range again { // of some of them, no harm is done by asking again
			if _, known := r.again[id]; !known {
				r.again[id] = outcome
			}
		}
		r.mu.Unlock()
	}
	return err
}

// claim takes over what other consumers have left behind.
func (r *streamReader) claim(ctx, handling context.Context, h filterd.Handler) error {
	return r.eachPending(ctx, r.stream.ClaimIdle, "", func(entries []pendingEntry) error {
		return r.redeliver(ctx, handling, h, entries, r.stream.ClaimIdle, nil)
	})
}

// eachPending calls do with entries that are pending for the consumer and not
// held, or for other consumers if that is empty, until do fails or ctx ends.
func (r *streamReader) eachPending(ctx context.Context, idle time.Duration, consumer string, do func([]pendingEntry) error) error {
	for start := "-"; ctx.Err() == nil; {
		page, err := r.pending(ctx, start, idle, consumer)
		if err != nil || len(page) == 0 {
			return err
		}
		start = "(" + page[len(page)-1].id
		var entries []pendingEntry
		r.mu.Lock()
		for _, e := range page {
			if consumer != "" && r.held[e.id] == nil || consumer == "" && e.consumer != r.source.options.Consumer {
				entries = append(entries, e)
			}
		}
		r.mu.Unlock()
		if len(entries) > 0 {
			if err := do(entries); err != nil {
				return err
			}
		}
		if len(page) < maxBatch {
			return nil
		}
	}
	return nil
}

// redeliver claims pending entries and delivers them again. Those that were
// postponed are not counted as delivered: what they failed on was not theirs.
func (r *streamReader) redeliver(ctx, handling context.Context, h filterd.Handler, pending []pendingEntry, idle time.Duration, again map[string]filterd.EntryOutcome) error {
	for len(pending) > 0 {
		first := pending[0]
		excused := again[first.id] == filterd.EntryPostponed
		n := 1
		for n < len(pending) && excused == (again[pending[n].id] == filterd.EntryPostponed) && (!excused || pending[n].delivered == first.delivered) {
			n++
		}
		args := []any{"xclaim", r.stream.Name, r.stream.Group, r.source.options.Consumer, idle.Milliseconds()}
		byID := make(map[string]pendingEntry, n)
		for _, e := range pending[:n] {
			args = append(args, e.id)
			byID[e.id] = e
		}
		if excused {
			args = append(args, "retrycount", first.delivered)
		}
		pending = pending[n:]
		reply, err := r.do(ctx, args...)
		if err != nil {
			return err
		}
		entries, err := parseEntries(reply)
		if err != nil {
			return err
		}
		whole := entries[:0]
		for _, e := range entries {
			was := byID[e.id]
			if e.fields == nil { // as Redis before 7 tells of what was deleted
				continue
			}
			delete(byID, e.id)
			if was.consumer != r.source.options.Consumer {
				r.claimed.Add(1)
			}
			e.delivered, e.poison = was.delivered, !excused && was.delivered >= int64(r.stream.MaxDeliveries)
			whole = append(whole, e)
		}
		for id := range byID {
			if err := r.missed(ctx, h, id); err != nil {
				return err
			}
		}
		if len(whole) == 0 {
			continue
		}
		r.redelivered.Add(uint64(len(whole)))
		r.deliver(handling, h, whole)
		if err := r.acknowledge(handling); err != nil {
			return err
		}
		if postponed, _ := r.toRetry(); postponed {
			return nil // the others would fare no better, and keep their order
		}
	}
	return nil
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

// refresh keeps what the handler has from getting idle, unless another consumer
// has it by now.
func (r *streamReader) refresh(ctx context.Context) error {
	r.mu.Lock()
	held := make(map[string]bool, len(r.held)+len(r.batch))
	for id := range r.held {
		held[id] = true
	}
	for i := range r.batch {
		if e := &r.batch[i]; e.Held() {
			held[e.ID] = true
		}
	}
	r.mu.Unlock()
	if len(held) == 0 {
		return nil
	}
	for start := "-"; ctx.Err() == nil; {
		page, err := r.pending(ctx, start, 0, r.source.options.Consumer)
		if err != nil || len(page) == 0 {
			return err
		}
		start = "(" + page[len(page)-1].id
		args := []any{"xclaim", r.stream.Name, r.stream.Group, r.source.options.Consumer, 0}
		before := len(args)
		for _, e := range page {
			if held[e.id] {
				args = append(args, e.id)
			}
		}
		if len(args) > before {
			if _, err := r.do(ctx, append(args, "justid")...); err != nil {
				return err
			}
		}
	}
	return nil
}
