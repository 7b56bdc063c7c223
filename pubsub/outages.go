package pubsub

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/filterd/filterd"
)

// An outage is a subscription's gap that is not over.
type outage struct {
	from   time.Time
	reason string
}

// Outages are those of a source. They outlast connections, and a subscription
// that begins on one connection may go on with another one's.
type outages struct {
	mu     sync.Mutex // guards what follows; taken after a ledger's
	wanted map[subscription]bool
	open   map[subscription]outage // not yet reported
}

func newOutages() *outages { return &outages{open: make(map[subscription]outage)} }

// want says what the source should listen to: of the rest there are no outages.
func (o *outages) want(wanted map[subscription]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted = wanted
}

// reset forgets all outages.
func (o *outages) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.open)
}

// begin begins outages, but for those that have begun.
func (o *outages) begin(subs map[subscription]bool, of outage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for sub := range subs {
		if _, open := o.open[sub]; !open {
			o.open[sub] = of
		}
	}
}

// forget drops the outages of what nobody wants any more, and reports whether
// there were some.
func (o *outages) forget() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := len(o.open)
	maps.DeleteFunc(o.open, func(sub subscription, _ outage) bool { return !o.wanted[sub] })
	return len(o.open) < before
}

// of returns those subscriptions for which the function returns true and that
// have an outage.
func (o *outages) of(which func(subscription) bool) []subscription {
	o.mu.Lock()
	defer o.mu.Unlock()
	var subs []subscription
	for sub := range o.open {
		if which(sub) {
			subs = append(subs, sub)
		}
	}
	return subs
}

// An ending is a gap that is over, of these subscriptions.
type ending struct {
	gap  *filterd.Gap
	subs []subscription
}

// endings returns the gaps of these subscriptions' outages: one for all that
// have the same.
func (o *outages) endings(now time.Time, subs []subscription) []ending {
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.SortFunc(subs, compareSubscriptions)
	var endings []ending
	index := make(map[outage]int)
	for _, sub := range subs {
		of := o.open[sub]
		i, known := index[of]
		if !known {
			i = len(endings)
			index[of] = i
			endings = append(endings, ending{gap: &filterd.Gap{From: of.from, To: now, Reason: of.reason, Sharded: sub.sharded}})
		}
		e := &endings[i]
		e.gap.Channels = append(e.gap.Channels, sub.name)
		e.subs = append(e.subs, sub)
	}
	for i := range endings {
		// What comes there is for the others.
		if gap := endings[i].gap; len(gap.Channels) > 1 {
			gap.Channels = slices.DeleteFunc(gap.Channels, func(name string) bool { return name == filterd.StampsChannel })
		}
	}
	slices.SortStableFunc(endings, func(a, b ending) int { return a.gap.From.Compare(b.gap.From) })
	return endings
}

// reported ends outages that are on their way to the handler.
func (o *outages) reported(e ending) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, sub := range e.subs {
		delete(o.open, sub)
	}
}

// lose makes outages of messages that were received and are not handled.
func (o *outages) lose(lost losses) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for sub := range lost.subs {
		from := lost.from
		if of, open := o.open[sub]; open && of.from.Before(from) {
			from = of.from
		}
		o.open[sub] = outage{from: from, reason: fmt.Sprintf("the drain timed out with %d messages unhandled", lost.messages)}
	}
}

// finish returns the gaps that are open at the end.
func (o *outages) finish(now time.Time) []ending {
	o.forget()
	endings := o.endings(now, o.of(func(subscription) bool { return true }))
	o.reset()
	return endings
}
