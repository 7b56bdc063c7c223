package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

// A demoObserver is a subscriber to every channel. It tells by the channel what
// a message is: what a bot or the user published, what a rule has sent to one
// of its targets, or a dead letter.
type demoObserver struct {
	*pubsub.Subscriber
	known *demoOrigins
	emit  func(demoEvent)

	rules       []engine.Rule
	inputs      []string // channels that rules take messages from
	deadLetters []string
}

func newDemoObserver(rdb redis.UniversalClient, rules *config.Config, known *demoOrigins, logger *slog.Logger, emit func(demoEvent)) (*demoObserver, error) {
	o := &demoObserver{known: known, emit: emit, rules: rules.Rules}
	for _, rule := range rules.Rules {
		o.inputs = append(o.inputs, rule.From...)
		for _, from := range rule.From {
			o.deadLetters = append(o.deadLetters, rules.Registry.Lookup(from).DeadLetter)
		}
		if rule.DeadLetter != "" {
			o.deadLetters = append(o.deadLetters, rule.DeadLetter)
		}
	}
	// It wants to see what is broken, too.
	anything, err := filterd.NewRegistry(filterd.Contract{Channel: "*", Envelope: filterd.EnvelopeBytes})
	if err != nil {
		return nil, err
	}
	o.Subscriber = pubsub.NewSubscriber(rdb, anything, pubsub.SubscriberOptions{Logger: logger, DrainTimeout: demoDrain})
	// One subscription is one connection and one queue: a message comes
	// before what became of it.
	return o, o.Handle("*", nil, o.observe)
}

func (o *demoObserver) observe(_ context.Context, m *filterd.Message) error {
	switch {
	case slices.Contains(o.inputs, m.Channel):
		if o.known.arrived(m.Payload) {
			o.emit(demoEvent{Event: demoPublished, Channel: m.Channel, Yours: true}.with(m.Payload))
		}
	case slices.Contains(o.deadLetters, m.Channel):
		o.deadLetter(m)
	default:
		o.result(m)
	}
	return nil
}

// result tells which rule has sent a message.
func (o *demoObserver) result(m *filterd.Message) {
	for _, rule := range o.rules {
		if sendsTo(rule, m.Channel) {
			o.emit(demoEvent{Event: demoMatched, Rule: rule.Name, To: m.Channel, Yours: o.known.yours(m.Payload)}.with(m.Payload))
			return
		}
	}
	o.emit(demoEvent{Event: demoPublished, Channel: m.Channel, Yours: true, Reason: "no rule takes messages of this channel"}.with(m.Payload))
}

// sendsTo reports whether a rule may have sent what came on a channel. In the
// demo at most one may.
func sendsTo(rule engine.Rule, channel string) bool {
	for _, to := range rule.To {
		if to.Channel == channel {
			return true
		}
	}
	return slices.ContainsFunc(rule.Allow, func(glob string) bool { return filterd.CompileGlob(glob).Match(channel) })
}

func (o *demoObserver) deadLetter(m *filterd.Message) {
	event, err := filterd.DecodeEvent(m.Payload)
	var letter engine.DeadLetter
	if err != nil || event.Type != engine.DeadLetterType || json.Unmarshal(event.Data, &letter) != nil {
		o.emit(demoEvent{Event: demoPublished, Channel: m.Channel, Yours: true, Reason: "no dead letter"}.with(m.Payload))
		return
	}
	payload := letter.PayloadBase64
	if letter.Payload != nil {
		payload = []byte(*letter.Payload)
	}
	e := demoEvent{
		Event:   demoRejected,
		Rule:    letter.Rule,
		Channel: letter.Channel,
		Reason:  strings.TrimPrefix(letter.Reason, letter.Channel+": "),
		Pointer: letter.Pointer,
		Yours:   letter.Truncated || o.known.wasYours(payload), // bots are never so long
	}
	if letter.Rule != "" {
		e.Event = demoFailed
	}
	o.emit(e.with(payload))
}

// A demoLog is the log that the engine writes to. What rules send there
// becomes events, and so does what else matters.
type demoLog struct {
	known *demoOrigins
	emit  func(demoEvent)
}

// Enabled implements [slog.Handler].
func (l *demoLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// WithAttrs implements [slog.Handler]. Nobody in the demo uses it.
func (l *demoLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements [slog.Handler]. Nobody in the demo uses it.
func (l *demoLog) WithGroup(string) slog.Handler { return l }

// Handle implements [slog.Handler].
func (l *demoLog) Handle(_ context.Context, r slog.Record) error {
	attrs := make(map[string]string)
	var texts []string
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.String()
		texts = append(texts, a.String())
		return true
	})
	e := demoEvent{Time: r.Time, Rule: attrs["rule"], Channel: attrs["channel"]}
	switch {
	case r.Message == "message":
		e.Event, e.To = demoLogged, "log "+strings.ToLower(r.Level.String())
		e.Yours = l.known.yours([]byte(attrs["payload"]))
		e = e.with([]byte(attrs["payload"]))
	case r.Message == "invalid message", attrs["on_error"] == string(engine.OnErrorDeadLetter):
		return nil // its dead letter tells of it
	case r.Message == "rule failed":
		e.Event, e.Reason = demoFailed, attrs["error"]
	case r.Level >= slog.LevelWarn:
		e = demoEvent{Time: r.Time, Event: demoNote, Reason: fmt.Sprint(r.Message, ": ", strings.Join(texts, " "))}
	default:
		return nil
	}
	l.emit(e)
	return nil
}

// demoSource begins the source attribute of the bots' events.
const demoSource = "/demo/"

// demoMemory is how many messages demoOrigins remembers of each sort.
const demoMemory = 4096

// demoOrigins tells the user's messages from the bots'. The bots' events have
// a source of their own, and each id once: a second one was copied by the user.
// Safe for concurrent use.
type demoOrigins struct {
	seed maphash.Seed

	mu       sync.Mutex     // guards what follows
	expected map[string]int // payloads that bots publish past the publisher
	ids      recent         // of bots' events
	copied   recent         // ids of bots' events that somebody sent again
	payloads recent         // that are the user's
}

func newDemoOrigins() *demoOrigins {
	return &demoOrigins{seed: maphash.MakeSeed(), expected: make(map[string]int)}
}

// expect announces a payload that a bot is about to publish past the publisher.
func (o *demoOrigins) expect(payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expected[string(payload)]++
}

// unexpect takes back what was not published after all.
func (o *demoOrigins) unexpect(payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.met(payload)
}

// met reports whether a payload was expected. The caller holds mu.
func (o *demoOrigins) met(payload []byte) bool {
	n := o.expected[string(payload)]
	if n <= 1 {
		delete(o.expected, string(payload))
	} else {
		o.expected[string(payload)] = n - 1
	}
	return n > 0
}

// arrived takes note of a message as it was published, and reports whether it
// is the user's.
func (o *demoOrigins) arrived(payload []byte) (yours bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.met(payload) {
		return false
	}
	id, ok := o.botsEvent(payload)
	switch {
	case ok && o.ids.add(id):
		return false
	case ok:
		o.copied.add(id)
	}
	o.payloads.add(maphash.Bytes(o.seed, payload))
	return true
}

// yours reports whether what a rule has sent comes from a message of the
// user's. All bots' messages that rules can keep are events.
func (o *demoOrigins) yours(payload []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	id, ok := o.botsEvent(payload)
	return !ok || o.copied.has(id)
}

// wasYours reports whether a payload is, byte for byte, one of the user's.
func (o *demoOrigins) wasYours(payload []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.payloads.has(maphash.Bytes(o.seed, payload))
}

// botsEvent returns a hash of the event's id if the event says that it is from
// a bot.
func (o *demoOrigins) botsEvent(payload []byte) (id uint64, ok bool) {
	event, err := filterd.DecodeEvent(payload)
	if err != nil || !strings.HasPrefix(event.Source, demoSource) {
		return 0, false
	}
	return maphash.String(o.seed, event.Source+"\n"+event.ID), true
}

// recent is a set that forgets its oldest members beyond demoMemory.
type recent struct {
	members map[uint64]bool
	order   []uint64
	next    int // in order, once that is full
}

// add reports whether the member is new.
func (r *recent) add(member uint64) bool {
	if r.members[member] {
		return false
	}
	if r.members == nil {
		r.members = make(map[uint64]bool)
	}
	if len(r.order) < demoMemory {
		r.order = append(r.order, member)
	} else {
		delete(r.members, r.order[r.next])
		r.order[r.next] = member
		r.next = (r.next + 1) % demoMemory
	}
	r.members[member] = true
	return true
}

func (r *recent) has(member uint64) bool { return r.members[member] }
