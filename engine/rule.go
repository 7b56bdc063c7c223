package engine

import (
	"context"
	"log/slog"
	"slices"

	"github.com/filterd/filterd"
)

// The bounds of every rule.
const (
	// MaxOutputs is the most that one rule may send out for one message.
	MaxOutputs = 32
	// MaxHops is how often filterd may rewrite one event, or pass it on by
	// a rule with LoopAllowed.
	MaxHops = 8
)

// A Rule takes messages of some channels and sends those that it keeps to some
// targets. It goes in this order: When, Stage, Set, To. A Rule must not be
// modified once it was given to [Compile].
type Rule struct {
	// Name names the rule in errors, statistics and dead letters. Required,
	// and unique within a table.
	Name string
	// From lists channels, and globs of channels. Required, unless there are
	// Streams, or Sharded channels.
	From []string
	// Streams are the streams that the rule takes messages from. An entry is
	// acknowledged when the rule's targets have it, or OnError has dealt
	// with it.
	Streams []filterd.Stream
	// Sharded are the sharded channels that the rule takes messages from. They
	// are others than the channels of the same names.
	Sharded []string
	// When decides which messages are kept. Nil keeps all.
	When filterd.Filter
	// Stage, if not nil, treats the messages that When keeps: a WebAssembly
	// module. It runs on goroutines of its rule, since it may take its time;
	// Set and To then run there as well.
	Stage filterd.Stage
	// Key yields what the order of messages goes by where a rule has a
	// Stage, or a webhook as its target, and what OverflowConflate goes by:
	// messages of one channel and key are treated in order. Default: all
	// messages of a channel are.
	Key filterd.Value
	// Set adds or replaces members of the message's data. The rest of the
	// payload keeps its bytes.
	Set []Member
	// To lists where kept messages go, at most MaxOutputs. Required.
	To []Target
	// Allow lists the channels, and globs of channels, that a computed
	// target may yield. Required where To has one.
	Allow []string
	// OnError says what happens to a message that the rule fails on.
	// Default OnErrorDrop.
	OnError OnError
	// DeadLetter is the channel for OnErrorDeadLetter. Required there.
	DeadLetter string
	// DeadLetterStream says that DeadLetter is a stream.
	DeadLetterStream bool
	// DeadLetterMaxLen is about how many entries that stream keeps: when there
	// are more, the oldest are gone. Default 0: all.
	DeadLetterMaxLen int64
	// Overflow says what gives way when a queue is full: that of a slow target,
	// or of Stage. Default OverflowDropOldest, or OverflowBlock where all
	// messages come from Streams. A stream's message never gives way for good:
	// it waits for room, and if another one takes its place it is delivered
	// again.
	Overflow Overflow
	// OnGap asks for an event of type GapType for every gap of what the rule
	// takes messages from: see [GapEvent]. It goes to the rule's targets, but
	// for computed ones, as it is: When, Stage and Set are for messages.
	OnGap bool
	// Shadow runs the rule without sending anything: it is evaluated, fails,
	// and is counted as any other, and a [Tap] shows what it would send. Its
	// Stage runs, and keeps what it keeps; OnErrorHalt halts nothing.
	Shadow bool
	// LoopAllowed turns an error about a cycle through this rule into a
	// warning. The rule then takes events only, and counts their hops.
	LoopAllowed bool
}

// Sources names what the rule takes messages from: channels and globs, then
// streams as "stream NAME" and sharded channels as "sharded NAME".
func (r *Rule) Sources() []string {
	sources := slices.Clone(r.From)
	for _, p := range r.places() {
		sources = append(sources, p.String())
	}
	return sources
}

// places returns the streams and the sharded channels.
func (r *Rule) places() []place {
	var places []place
	for _, s := range r.Streams {
		places = append(places, place{name: s.Name, stream: true})
	}
	for _, name := range r.Sharded {
		places = append(places, place{name: name, sharded: true})
	}
	return places
}

// A Member is one member that a rule sets in data: the value of Value, or the
// constant JSON text of Constant.
type Member struct {
	Name     string // of the member; a dot in it is a dot
	Value    filterd.Value
	Constant []byte // used if Value is nil; valid, compact JSON
}

// A Target is one place a rule's messages go to. Exactly one field is set, but
// for MaxLen.
type Target struct {
	Channel  string        // the name of a channel
	Stream   string        // the name of a stream
	Sharded  string        // the name of a sharded channel
	MaxLen   int64         // about how many entries Stream keeps; 0 keeps all
	Computed filterd.Value // yields the name of a channel; see Rule.Allow
	Callback string        // the name of a callback given to Compile
	Webhook  string        // the name of a webhook given to Compile
	Log      *slog.Level   // the log, at this level
}

// A Callback is a Go function that a rule calls with what it keeps. It owns the
// message, as it is after the rule's stages. It runs on a goroutine of its rule
// and target; other rules don't wait for it. An error or a panic is counted
// against the rule.
type Callback func(ctx context.Context, m *filterd.Message) error

// A Webhook posts what rules keep to another server. It is safe for concurrent
// use.
type Webhook interface {
	// Post hands over a message, which it owns, as it is after the rule's
	// stages. It tries until there is no use in it any more; ctx ends when the
	// engine is closed. Its error is counted against the rule.
	Post(ctx context.Context, rule string, m *filterd.Message) error
	// Concurrency is how many goroutines of one rule call Post, at least 1.
	Concurrency() int
}

// OnError says what happens to a message that a rule fails on, be it that a
// target did not take it.
type OnError string

// What can happen to a message that a rule fails on. It is counted in every
// case.
const (
	OnErrorDrop       OnError = "drop"        // the rule drops it
	OnErrorPass       OnError = "pass"        // it goes to the rule's targets as it came in; those that did not take it are not asked again
	OnErrorDeadLetter OnError = "dead_letter" // it goes to the rule's dead letter channel
	OnErrorHalt       OnError = "halt"        // the engine stops
)

// Overflow says which message gives way when a slow target's queue is full.
type Overflow string

// Overflow policies. Every message that gives way is counted.
const (
	OverflowDropOldest Overflow = "drop_oldest"
	OverflowDropNewest Overflow = "drop_newest"
	// OverflowConflate keeps the newest message of each channel and Key: it
	// takes the place of the one that waits. When the queue is full all the
	// same, the oldest gives way.
	OverflowConflate Overflow = "conflate"
	// OverflowBlock makes the source wait. Only for rules that take no
	// messages of channels: Redis would cut the subscription.
	OverflowBlock Overflow = "block"
)

// streamKey names a subscription to a stream. A stream and a channel may have
// the same name.
type streamKey struct{ name, group string }

func keyOf(s filterd.Stream) streamKey { return streamKey{s.Name, s.Group} }
