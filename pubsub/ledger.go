package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A SubscribeError says that Redis refused a subscription. The source listens
// to the others, and asks for this one again every 30 seconds and on every
// new connection. If it had been heard before, its gap lasts until then.
type SubscribeError struct {
	Channel string // the name or glob
	Err     error  // what Redis replied
}

func (e *SubscribeError) Error() string {
	return fmt.Sprintf("subscribe to %q: %v (grant it with ACL SETUSER)", e.Channel, e.Err)
}

// Unwrap returns what Redis replied.
func (e *SubscribeError) Unwrap() error { return e.Err }

// refusedRetry is how long a refused subscription rests.
const refusedRetry = 30 * time.Second

// A subscription is a name or a glob that is listened to.
type subscription struct {
	name    string
	glob    bool
	sharded bool // the name is that of a sharded channel
}

// begins and ends return the commands that begin and end a subscription.
func (s subscription) begins() string {
	switch {
	case s.sharded:
		return kindSsubscribe
	case s.glob:
		return kindPsubscribe
	}
	return kindSubscribe
}

func (s subscription) ends() string {
	switch {
	case s.sharded:
		return kindSunsubscribe
	case s.glob:
		return kindPunsubscribe
	}
	return kindUnsubscribe
}

func compareSubscriptions(a, b subscription) int {
	if a.glob != b.glob {
		if b.glob {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.name, b.name)
}

// The kinds of commands on a connection that listens.
const (
	kindSubscribe    = "subscribe"
	kindPsubscribe   = "psubscribe"
	kindUnsubscribe  = "unsubscribe"
	kindPunsubscribe = "punsubscribe"
	kindSsubscribe   = "ssubscribe"
	kindSunsubscribe = "sunsubscribe"
	kindPing         = "ping"
)

// A command was sent and not yet answered, or in part.
type command struct {
	kind string
	subs []subscription // those without an answer
	sent time.Time
}

// A state is how far a subscription is on the present connection.
type state struct {
	step    step
	refused time.Time // when, for stepRefused
}

type step int

const (
	stepAsked step = iota
	stepConfirmed
	stepRefused
)

// A ledger compares what a source should listen to with what its present
// connection was asked for and has confirmed. Redis answers commands in their
// order, so the oldest open command is the one that a reply belongs to; that
// is how an error, which names no channel, gets one.
type ledger struct {
	mu        sync.Mutex // guards what follows
	wanted    map[subscription]bool
	connected bool
	states    map[subscription]state // of the present connection
	alone     map[subscription]bool  // to be asked for by a command of their own
	changes   bool                   // wanted and states may differ
	refused   map[subscription]error // SubscribeErrors, until confirmed or not wanted
	open      []command              // oldest first
	pending   int                    // commands in open that are no pings
	outages   *outages
	part      bool                   // of a source with more ledgers, which says what outages are of
	moved     map[subscription]error // what another server has, as this one says; nobody asks here until told to
	leaving   map[subscription]bool  // nil until the end; what was heard then, and hasn't ended
	lastError error                  // why there is no connection
	changed   chan struct{}          // closed, and replaced, on every change
	tell      func()                 // told of every change, while mu is held; may be nil
}

func newLedger() *ledger {
	return &ledger{
		wanted:  make(map[subscription]bool),
		refused: make(map[subscription]error),
		outages: newOutages(),
		moved:   make(map[subscription]error),
		changed: make(chan struct{}),
	}
}

// notify wakes those who wait. The caller holds mu.
func (l *ledger) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
	if l.tell != nil {
		l.tell()
	}
}

// subscriptions returns channels and globs as subscriptions.
func subscriptions(names, globs []string) map[subscription]bool {
	wanted := make(map[subscription]bool, len(names)+len(globs))
	for _, name := range names {
		wanted[subscription{name: name}] = true
	}
	for _, glob := range globs {
		wanted[subscription{name: glob, glob: true}] = true
	}
	return wanted
}

// want replaces what should be listened to.
func (l *ledger) want(wanted map[subscription]bool) {
	if !l.part {
		l.outages.want(wanted)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted, l.changes = wanted, true
	maps.DeleteFunc(l.refused, func(sub subscription, _ error) bool { return !wanted[sub] })
	maps.DeleteFunc(l.moved, func(sub subscription, _ error) bool { return !wanted[sub] })
	maps.DeleteFunc(l.states, func(sub subscription, s state) bool { return s.step == stepRefused && !wanted[sub] })
	l.notify()
}

// reset forgets what an earlier run of the source left.
func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving, l.lastError = nil, nil
	if !l.part {
		l.outages.reset()
	}
	clear(l.refused)
}

// connect begins a connection, on which a PING has been sent.
func (l *ledger) connect(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected, l.changes = true, true
	l.states = make(map[subscription]state)
	l.alone = make(map[subscription]bool)
	l.open, l.pending = []command{{kind: kindPing, sent: now}}, 0
	clear(l.moved)
	l.notify()
}

// disconnect ends a connection, or the attempt at one, that was last known to
// live at a time.
func (l *ledger) disconnect(alive time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	heard := l.leaving
	if heard == nil {
		heard = l.heard()
	}
	l.outages.begin(heard, outage{from: alive, reason: err.Error()})
	l.connected, l.states, l.lastError = false, nil, err
	l.notify()
}

// heard returns the confirmed subscriptions. The caller holds mu.
func (l *ledger) heard() map[subscription]bool {
	heard := make(map[subscription]bool)
	for sub, s := range l.states {
		if s.step == stepConfirmed {
			heard[sub] = true
		}
	}
	return heard
}

// leave makes the next plan end all subscriptions.
func (l *ledger) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving, l.changes = l.heard(), true
}

// left reports whether Redis has confirmed the end of all subscriptions, so
// that nothing can come any more.
func (l *ledger) left() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaving != nil && !l.changes && l.pending == 0
}

// ping notes a PING that is about to be sent.
func (l *ledger) ping(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, command{kind: kindPing, sent: now})
}

// ask notes a SUBSCRIBE that is about to be sent, for what nobody else wants:
// it may be refused, and no gap tells of it.
func (l *ledger) ask(sub subscription, now time.Time) command {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := command{kind: sub.begins(), subs: []subscription{sub}, sent: now}
	l.open = append(l.open, c)
	l.pending++
	return c
}

// plan returns the commands that lead from what the connection was asked for
// to what is wanted. They are noted as sent.
func (l *ledger) plan(now time.Time) []command {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.changes && len(l.refused) == 0 {
		return nil
	}
	l.changes = false
	wanted := l.wanted
	if l.leaving != nil {
		wanted = nil
	}
	first := len(l.open)
	groups := make(map[string][]subscription) // by kind of command
	var alone []subscription
	for sub := range wanted {
		s, asked := l.states[sub]
		if asked && s.step == stepRefused && now.Sub(s.refused) >= refusedRetry {
			asked, l.alone[sub] = false, true
		}
		switch {
		case asked || l.moved[sub] != nil:
			continue
		case l.alone[sub] || sub.sharded: // a Cluster refuses those of two slots together
			alone = append(alone, sub)
		default:
			groups[sub.begins()] = append(groups[sub.begins()], sub)
		}
		l.states[sub] = state{step: stepAsked}
	}
	for sub, s := range l.states {
		if wanted[sub] {
			continue
		}
		delete(l.states, sub)
		switch {
		case s.step == stepRefused: // since the last want
		case sub.sharded:
			l.open = append(l.open, command{kind: kindSunsubscribe, subs: []subscription{sub}, sent: now})
		default:
			groups[sub.ends()] = append(groups[sub.ends()], sub)
		}
	}
	for _, kind := range []string{kindUnsubscribe, kindPunsubscribe, kindSubscribe, kindPsubscribe} {
		if subs := groups[kind]; subs != nil {
			slices.SortFunc(subs, compareSubscriptions)
			l.open = append(l.open, command{kind: kind, subs: subs, sent: now})
		}
	}
	slices.SortFunc(alone, compareSubscriptions)
	for _, sub := range alone {
		l.open = append(l.open, command{kind: sub.begins(), subs: []subscription{sub}, sent: now})
	}
	planned := slices.Clone(l.open[first:])
	l.pending += len(planned)
	return planned
}

// confirm takes the confirmation of a subscription or of its end. It reports
// whether that had been refused before.
//
// A server of a Cluster also ends subscriptions by itself, when their slot goes
// to another one. Alive is when it was last known to have it.
func (l *ledger) confirm(kind, name string, alive time.Time) (again bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) == 0 || l.open[0].kind != kind || l.open[0].subs[0].name != name {
		if kind == kindSunsubscribe {
			l.take(subscription{name: name, sharded: true}, alive, errMoved)
			return false, nil
		}
		return false, fmt.Errorf("unexpected reply: %s %q", kind, name)
	}
	head := &l.open[0]
	sub := head.subs[0]
	if head.subs = head.subs[1:]; len(head.subs) == 0 {
		l.pop()
	}
	if head.kind == kindSubscribe || head.kind == kindPsubscribe || head.kind == kindSsubscribe {
		// It may be unwanted again by now; its UNSUBSCRIBE is on its way.
		if _, asked := l.states[sub]; asked {
			l.states[sub] = state{step: stepConfirmed}
			_, again = l.refused[sub]
			delete(l.refused, sub)
		}
	} else {
		delete(l.leaving, sub)
	}
	l.notify()
	return again, nil
}

// errMoved is why a subscription was ended that was not to end.
var errMoved = errors.New("the channel's slot has moved to another server")

// take takes a subscription that another server has. The caller holds mu.
func (l *ledger) take(sub subscription, alive time.Time, why error) {
	s, asked := l.states[sub]
	if !asked {
		return // it has been ended anyhow
	}
	if s.step == stepConfirmed {
		l.outages.begin(map[subscription]bool{sub: true}, outage{from: alive, reason: why.Error()})
	}
	delete(l.states, sub)
	delete(l.leaving, sub)
	l.moved[sub] = why
	l.notify()
}

// askAgain asks here for what was said to be elsewhere.
func (l *ledger) askAgain(sub subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.moved, sub)
	l.changes = true
}

// place says what is known of a subscription: whether it is asked for or
// heard here, and whether another server has it.
func (l *ledger) place(sub subscription) (here, elsewhere bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, here = l.states[sub]
	return here && l.connected, l.moved[sub] != nil
}

// pong takes the answer to a PING and returns when that was sent.
func (l *ledger) pong() (sent time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) == 0 || l.open[0].kind != kindPing {
		return time.Time{}, errors.New("unexpected reply: PONG")
	}
	return l.pop().sent, nil
}

// refuse takes an error reply. It returns the subscription that this refuses
// for the first time, if it does, and the reply itself if the connection is of
// no use.
func (l *ledger) refuse(reply error, now time.Time) (*SubscribeError, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) == 0 {
		return nil, reply
	}
	head := l.open[0]
	elsewhere := isElsewhere(reply)
	switch {
	case elsewhere && head.kind == kindSsubscribe:
		l.pop()
		l.take(head.subs[0], now, reply) // from now: it was not heard
		return nil, nil
	case elsewhere && head.kind == kindSunsubscribe:
		l.pop() // the server has done so itself
		delete(l.leaving, head.subs[0])
		l.notify()
		return nil, nil
	case !redis.HasErrorPrefix(reply, "NOPERM"):
		return nil, reply
	}
	switch head.kind {
	case kindPing:
		l.pop() // an answer, too
		return nil, nil
	case kindSubscribe, kindPsubscribe, kindSsubscribe:
	default:
		return nil, reply
	}
	l.pop()
	defer l.notify()
	if len(head.subs) > 1 {
		// Redis refuses all for one. Asked for one by one, the others come.
		for _, sub := range head.subs {
			delete(l.states, sub)
			l.alone[sub] = true
		}
		l.changes = true
		return nil, nil
	}
	sub := head.subs[0]
	if _, asked := l.states[sub]; !asked {
		return nil, nil
	}
	l.states[sub] = state{step: stepRefused, refused: now}
	if _, known := l.refused[sub]; known {
		return nil, nil
	}
	refusal := &SubscribeError{Channel: sub.name, Err: reply}
	l.refused[sub] = refusal
	return refusal, nil
}

// pop removes the oldest open command. The caller holds mu.
func (l *ledger) pop() command {
	head := l.open[0]
	l.open = l.open[1:]
	if head.kind != kindPing {
		l.pending--
	}
	return head
}

// oldest returns the oldest open command.
func (l *ledger) oldest() (command, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) == 0 {
		return command{}, false
	}
	return l.open[0], true
}

// answered reports whether everything wanted has been confirmed or refused.
// The caller holds mu.
func (l *ledger) answered() bool {
	if !l.connected || l.pending > 0 || l.leaving != nil {
		return false
	}
	for sub := range l.wanted {
		if s, asked := l.states[sub]; !asked || s.step == stepAsked {
			return false
		}
	}
	return true
}

// restored reports whether everything wanted has been confirmed or refused,
// and which gaps that ends: those of the confirmed.
func (l *ledger) restored(now time.Time) (endings []ending, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.answered() {
		return nil, false
	}
	l.lastError = nil
	l.forget()
	return l.outages.endings(now, l.over()), true
}

// forget drops the outages of what nobody wants any more. The caller holds mu.
func (l *ledger) forget() {
	if l.outages.forget() {
		l.notify()
	}
}

// over returns the subscriptions that have an outage but are confirmed. The
// caller holds mu.
func (l *ledger) over() []subscription {
	return l.outages.of(func(sub subscription) bool {
		s, asked := l.states[sub]
		return asked && s.step == stepConfirmed
	})
}

// reported notes that a gap is on its way to the handler.
func (l *ledger) reported(e ending) {
	l.outages.reported(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notify()
}

// isElsewhere reports whether a server of a Cluster says that it has not the
// slot it was asked for, or that nobody has.
func isElsewhere(reply error) bool {
	for _, prefix := range []string{"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"} {
		if redis.HasErrorPrefix(reply, prefix) {
			return true
		}
	}
	return false
}

// refusals returns the errors of all refused subscriptions.
func (l *ledger) refusals() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusalsNow()
}

// refusalsNow is refusals for who holds mu.
func (l *ledger) refusalsNow() error {
	var errs []error
	for _, sub := range slices.SortedFunc(maps.Keys(l.refused), compareSubscriptions) {
		errs = append(errs, l.refused[sub])
	}
	return errors.Join(errs...)
}

// settled reports whether everything wanted is confirmed, or refused, and all gaps
// of what is confirmed are reported; and what was refused.
func (l *ledger) settled() (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.answered() || l.over() != nil {
		return false, nil
	}
	return true, l.refusalsNow()
}

// hears reports whether a subscription is confirmed.
func (l *ledger) hears(sub subscription) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, asked := l.states[sub]
	return asked && s.step == stepConfirmed
}

// differs reports whether something else is wanted by now.
func (l *ledger) differs(wanted map[subscription]bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !maps.Equal(l.wanted, wanted)
}

// wait waits until everything wanted is confirmed, or refused, and all gaps
// of what is confirmed are reported.
func (l *ledger) wait(ctx context.Context) error {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if settled, err := l.settled(); settled {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", l.missing(), ctx.Err())
		}
	}
}

// ready says what wait would wait for.
func (l *ledger) ready() error {
	if settled, err := l.settled(); settled {
		return err
	}
	return errors.New(l.missing())
}

// missing says what is not confirmed, and why.
func (l *ledger) missing() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 10
	var names []string
	for _, sub := range slices.SortedFunc(maps.Keys(l.wanted), compareSubscriptions) {
		if s, asked := l.states[sub]; !asked || s.step == stepAsked {
			names = append(names, fmt.Sprintf("%q", sub.name))
		}
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	text := "not connected"
	if l.leaving != nil {
		text = "being stopped"
	}
	if names != nil {
		text = "not subscribed to " + strings.Join(names, ", ")
	}
	if l.lastError != nil {
		text += " (" + l.lastError.Error() + ")"
	}
	return text
}
