package filterd

import (
	"context"
	"fmt"
	"time"
)

// A Filter decides whether a message is kept. It is compiled, immutable and
// safe for concurrent use.
type Filter interface {
	// Kind returns the kind that compiles this filter together with others.
	Kind() Kind
	// Matcher returns a new matcher: the filter's state for one goroutine.
	Matcher() Matcher
}

// A Matcher is a filter's state for one goroutine at a time.
type Matcher interface {
	// Match reports whether m is kept. An error is a third outcome, neither
	// kept nor not. It borrows m until it returns.
	Match(m *Message) (bool, error)
}

// A Kind is a sort of filters: expressions, WebAssembly modules, functions.
// Kinds are compared with ==.
type Kind interface {
	// Name names the kind in errors and statistics.
	Name() string
	// Compile compiles filters of this kind, and of no other, into a set.
	// The set numbers its rules in the order of the filters.
	Compile(filters []Filter) (Set, error)
}

// A Set is many filters of one kind, compiled together. It is immutable and
// safe for concurrent use.
type Set interface {
	// Paths names what the set reads of a message. The caller must not
	// modify it.
	Paths() []Path
	// Groups lists rules that fail together, in ascending order: a verdict
	// may name a group instead of each of its rules. The caller must not
	// modify it.
	Groups() [][]int
	// Access says how a rule is found for a message.
	Access(rule int) Access
	// Evaluations says how often rules were evaluated, by all matchers. Safe
	// for concurrent use.
	Evaluations() Evaluations
	// Bind returns a new matcher that finds Paths()[i] in slot slots[i] of
	// the messages' projection.
	Bind(slots []int) SetMatcher
}

// An Access says how a set finds a rule for a message.
type Access struct {
	// Linear says that the rule is evaluated for every message, or nearly:
	// what it costs is its own.
	Linear bool
	// By is what the rule is found by, or why it is linear.
	By string
}

// Evaluations counts how often rules were evaluated, for a message each, and by
// what. Rules that are found, or ruled out, by what they share with others are
// not evaluated.
type Evaluations struct {
	Compiled uint64 // by functions compiled for the rule: the usual way
	Pruned   uint64 // by the expression library, on the fields that the rule reads
	Whole    uint64 // by the expression library, on the whole message
}

// Add returns the sum of e and o.
func (e Evaluations) Add(o Evaluations) Evaluations {
	return Evaluations{e.Compiled + o.Compiled, e.Pruned + o.Pruned, e.Whole + o.Whole}
}

// Sub returns what was counted between o and e.
func (e Evaluations) Sub(o Evaluations) Evaluations {
	return Evaluations{e.Compiled - o.Compiled, e.Pruned - o.Pruned, e.Whole - o.Whole}
}

// A SetMatcher is a set's state for one goroutine at a time.
type SetMatcher interface {
	// Match says which rules of the set keep which messages of the batch, by
	// appending to verdicts: in the order of the batch, then of the rules.
	// It borrows the messages until it returns.
	// The verdicts that name groups come last of a message's verdicts.
	Match(batch []*Message, verdicts []Verdict) []Verdict
	// Failure returns the error of a rule on a message, on which a verdict
	// says that the rule's group fails.
	Failure(m *Message, rule int) error
}

// A Verdict says that a rule of a set keeps a message of a batch, or failed
// on it; or that all rules of a group did. What isn't kept has no verdict.
type Verdict struct {
	Message int // index into the batch
	Rule    int // index into the set's rules
	// Group, if it is not 0, says that the rules of Groups()[Group-1] failed.
	Group int
	Err   error // of a rule; nil: the message is kept
}

// A Value is a compiled expression that yields any JSON value. It is
// immutable and safe for concurrent use.
type Value interface {
	// Paths names what the expression reads, as [Set].Paths does.
	Paths() []Path
	// Bind returns a new evaluator, as [Set].Bind does.
	Bind(slots []int) Evaluator
}

// An Evaluator is a value's state for one goroutine at a time.
type Evaluator interface {
	// Evaluate computes the value for m, which it borrows.
	Evaluate(m *Message) (any, error)
}

// A Stage is a step of a rule that may do more than keep or drop a message: it
// may replace the payload, and send messages of its own. It is compiled,
// immutable and safe for concurrent use. If it is an [io.Closer], the engine
// closes it when its table is retired and the last message has left it.
type Stage interface {
	// Paths names what the stage reads by [Fields].Lookup, as [Set].Paths
	// does.
	Paths() []Path
	// Bind returns a new runner, as [Set].Bind does.
	Bind(slots []int) StageRunner
}

// A StageRunner is a stage's state for one goroutine at a time.
type StageRunner interface {
	// Run treats a batch of messages of one channel, which it borrows, and
	// writes results[i] for batch[i]. The results' memory is the caller's.
	Run(ctx context.Context, batch []*Message, results []StageResult)
}

// A StageResult is what a stage made of one message.
type StageResult struct {
	Keep    bool
	Payload []byte     // replaces the message's payload; nil leaves it as it is
	Emitted []Delivery // messages of its own, in order; sent if Err is nil, kept or not
	Err     error      // a third outcome: then the rest is void
}

// FilterFunc makes a filter of a function, which must be safe for concurrent
// use. It must not keep the message.
type FilterFunc func(m *Message) (bool, error)

// Kind implements [Filter].
func (f FilterFunc) Kind() Kind { return funcKind{} }

// Matcher implements [Filter].
func (f FilterFunc) Matcher() Matcher { return f }

// Match implements [Matcher].
func (f FilterFunc) Match(m *Message) (bool, error) { return f(m) }

// All is the filter that keeps every message.
var All Filter = FilterFunc(func(*Message) (bool, error) { return true, nil })

// funcKind asks one function after the other.
type funcKind struct{}

func (funcKind) Name() string { return "func" }

func (funcKind) Compile(filters []Filter) (Set, error) {
	set := make(funcSet, len(filters))
	for i, f := range filters {
		function, ok := f.(FilterFunc)
		if !ok {
			return nil, fmt.Errorf("filter %d is a %T, not a FilterFunc", i, f)
		}
		set[i] = function
	}
	return set, nil
}

type funcSet []FilterFunc

func (funcSet) Paths() []Path            { return nil }
func (funcSet) Groups() [][]int          { return nil }
func (funcSet) Evaluations() Evaluations { return Evaluations{} }
func (s funcSet) Bind([]int) SetMatcher  { return s }

func (funcSet) Access(int) Access {
	return Access{Linear: true, By: "a Go function, called for every message"}
}

func (s funcSet) Failure(m *Message, rule int) error {
	_, err := s[rule](m)
	return err
}

func (s funcSet) Match(batch []*Message, verdicts []Verdict) []Verdict {
	for i, m := range batch {
		for rule, f := range s {
			if keep, err := f(m); keep || err != nil {
				verdicts = append(verdicts, Verdict{Message: i, Rule: rule, Err: err})
			}
		}
	}
	return verdicts
}

// A Source delivers messages: a Redis connection with its subscriptions, or a
// member of consumer groups.
type Source interface {
	// Subscribe replaces what the source takes messages from. What was there
	// before and stays is not interrupted. It may be called before and while
	// Run runs.
	Subscribe(Subscriptions)
	// Run hands messages to h until ctx ends or the source can't go on. It
	// calls h from one goroutine, and returns after that call has.
	Run(ctx context.Context, h Handler) error
}

// A Handler takes what a source delivers. It is called by one goroutine of the
// source at a time.
type Handler interface {
	// Messages takes a batch, in the order of arrival. The handler may keep
	// neither the slice nor the messages, but it may Hold their entries.
	Messages(ctx context.Context, batch []*Message)
	// Gap reports a span in which messages may have been missed.
	Gap(Gap)
}

// A Forker is a Handler that a source can have several of: one for each
// goroutine that it reads on.
type Forker interface {
	Handler
	// Fork returns a handler that may be called while h is.
	Fork() Handler
}

// A Beginner is a Handler that can take the next batch before it is done with the
// last one.
type Beginner interface {
	Handler
	// Begin is Messages, but may leave unfinished what needs the messages no
	// more, such as to wait for the outcomes of what it has published. The
	// source calls End before it waits for something to come, and when it ends.
	Begin(ctx context.Context, batch []*Message)
	// End finishes what Begin has left.
	End()
}

// A Lease elects one of several processes with the same rules: the one that
// sends what becomes of the messages of channels. It is safe for concurrent use,
// and quick: it is asked twice for each batch.
type Lease interface {
	// Held reports whether this process has the lease now, and the fence of the
	// last time that it had: a number that becomes larger each time any process
	// takes the lease; 0 if this one never had it.
	Held() (fence uint64, held bool)
}

// A Gap is a span in which pub/sub messages may have been missed, or were
// received and never handled because a drain ran out of time.
type Gap struct {
	Channels []string  // the names and globs that were not listened to, or not handled
	From     time.Time // when the connection was last known to live, or the oldest such message came
	To       time.Time // when the subscriptions were confirmed again, or the source ended
	Reason   string    // what broke the connection, or ended the drain
	Sharded  bool      // the channels are sharded ones

	// Of messages that stamps show to be missing: who published them, how many
	// they are, exactly, and their channel in Channels. From is when the last
	// message before them came. It is no span without a connection, though it
	// was most likely in one.
	Producer string
	Lost     uint64
}

// Length returns how long the gap lasted.
func (g Gap) Length() time.Duration { return g.To.Sub(g.From) }

// A Sink is where messages go: a Redis connection that publishes.
type Sink interface {
	// Deliver delivers a batch in order and writes the outcome of each
	// delivery into it. It borrows the batch. Safe for concurrent use.
	Deliver(ctx context.Context, batch []Delivery)
}

// A Starter is a Sink that can be given the next batch before the outcomes of the
// last one are known.
type Starter interface {
	Sink
	// Start is Deliver, but returns when the deliveries are on their way, those
	// for channels in order with those of others. The payloads are borrowed until
	// then. The outcomes are in the batch after Finish, which must be called once;
	// nil says that they are there.
	Start(ctx context.Context, batch []Delivery) Started
}

// Started is what [Starter] has left.
type Started interface {
	// Finish waits for the outcomes.
	Finish()
}

// SinkFunc makes a sink of a function.
type SinkFunc func(ctx context.Context, batch []Delivery)

// Deliver implements [Sink].
func (f SinkFunc) Deliver(ctx context.Context, batch []Delivery) { f(ctx, batch) }

// A Delivery is one payload on its way to one channel or stream.
type Delivery struct {
	Channel string
	Payload []byte
	// Stream says that Channel is a stream.
	Stream bool
	// Sharded says that Channel is a sharded channel.
	Sharded bool
	// MaxLen is about how many entries the stream keeps; 0 keeps all.
	MaxLen int64
	// Entry, if not nil, is the entry that the payload was made of, of which
	// all that becomes is in the batch, one behind the other. Where it can, a
	// sink writes that only if the entry is still pending, and acknowledges
	// it in the same step: then it calls the entry's Acknowledge. If the entry
	// is not pending any more it does so, too, and Err is [ErrTaken]. If a
	// target refuses some of it, the others get theirs all the same, and the
	// entry isn't acknowledged.
	Entry *Entry

	// Receivers is how many subscribers received it; set by the sink.
	Receivers int64
	// Err is why it was not, or may not have been, delivered, and names the
	// channel; set by the sink. If it matches [ErrRefused] that is for good: the
	// rule has failed. After any other error the entry that the payload was made
	// of is delivered again, until it succeeds.
	Err error
}
