package webhook

import "sync/atomic"

// Stats is what an endpoint has counted, those that it has replaced included.
type Stats struct {
	Attempts  uint64            // requests that were made
	Retries   uint64            // attempts that were not the first for their message, the breaker's refusals included
	Delivered uint64            // messages that were accepted
	Failed    map[Reason]uint64 // messages that were not, by the last attempt's reason
	InFlight  int               // requests under way, or waiting for a Retry-After
	Breaker   string            // "closed", "open" or "half-open"
	Disabled  bool              // by an answer of 410
}

// counters are an endpoint's live counters. Safe for concurrent use.
type counters struct {
	attempts, retries, delivered atomic.Uint64
	failed                       [len(Reasons)]atomic.Uint64
}

func (c *counters) fail(reason Reason) {
	for i, r := range Reasons {
		if r == reason {
			c.failed[i].Add(1)
		}
	}
}

// Stats returns what was counted so far.
func (e *Endpoint) Stats() Stats {
	s := Stats{
		Attempts:  e.counters.attempts.Load(),
		Retries:   e.counters.retries.Load(),
		Delivered: e.counters.delivered.Load(),
		Failed:    make(map[Reason]uint64),
		InFlight:  len(e.slots),
		Breaker:   e.link.breaker.State().String(),
		Disabled:  e.gone.Load(),
	}
	for i, reason := range Reasons {
		if n := e.counters.failed[i].Load(); n > 0 {
			s.Failed[reason] = n
		}
	}
	return s
}
