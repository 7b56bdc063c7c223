package engine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
)

// The bounds of taps.
const (
	// DefaultTapRate is the default of [TapOptions].
	DefaultTapRate = 100
	// MaxTaps is the most taps that an engine has at a time.
	MaxTaps = 16
	// MaxTapped is how much of a payload a tap keeps, in bytes.
	MaxTapped = 16 << 10

	tapQueue = 64 // what waits to be read
)

// A TapOutcome is what became of a message at a rule.
type TapOutcome string

// What can become of a message at a rule.
const (
	TapKept     TapOutcome = "kept"     // the rule sent it, or what it made of it
	TapNotKept  TapOutcome = "not_kept" // the condition did not keep it
	TapFiltered TapOutcome = "filtered" // the condition kept it, the Stage did not
	TapFailed   TapOutcome = "failed"   // the rule failed on it
	TapInvalid  TapOutcome = "invalid"  // it broke its contract: the rule never saw it
)

// TapOutcomes lists every TapOutcome.
var TapOutcomes = [...]TapOutcome{TapKept, TapNotKept, TapFiltered, TapFailed, TapInvalid}

// TapOptions says what a tap shows. A zero field is its default.
type TapOptions struct {
	// Rule is the rule's name. Required.
	Rule string
	// Outcomes are those to show. Default: all.
	Outcomes []TapOutcome
	// Rate is the most messages to show in a second: the first ones of each.
	// Default DefaultTapRate.
	Rate int
}

// A Tap shows what one rule makes of the messages that come, as a sample:
// messages that come faster than they may be shown, or than they are read, are
// counted and left out. Nobody waits for a tap. It follows its rule by name
// through reloads. Its methods are safe for concurrent use.
type Tap struct {
	engine  *Engine
	options TapOptions
	seen    chan Tapped
	skipped atomic.Uint64
	target  atomic.Pointer[tapTarget]

	mu     sync.Mutex // guards what follows
	second time.Time  // when the current second began
	shown  int        // in it
}

// A tapTarget is a tap's rule in a table.
type tapTarget struct {
	table *Table
	rule  *rule // nil: the table has none of that name
}

// Tapped is what a rule made of one message. It shares no memory with the
// engine.
type Tapped struct {
	Outcome  TapOutcome
	Channel  string
	Received time.Time
	// Payload is the message as it came in, its first MaxTapped bytes; Bytes
	// is how many it has.
	Payload []byte
	Bytes   int
	// Err is what the rule failed on, or how the message breaks its contract.
	Err error
	// Outputs is what was sent, dead letters included.
	Outputs []TappedOutput
}

// A TappedOutput is what a rule sent to one target. Exactly one of Channel,
// Callback, Webhook and Log is set.
type TappedOutput struct {
	Channel    string
	Stream     bool // Channel is a stream
	Sharded    bool // Channel is a sharded one
	Callback   string
	Webhook    string
	Log        string // the level
	Payload    []byte // its first MaxTapped bytes
	Bytes      int
	DeadLetter bool
}

// ErrTooManyTaps says that the engine has [MaxTaps] taps already.
var ErrTooManyTaps = fmt.Errorf("there are %d taps already", MaxTaps)

// ErrNoRule says that the table has no rule of that name.
var ErrNoRule = errors.New("there is no such rule")

// Tap starts to show what a rule makes of messages. The caller must Close the
// tap. While there is none, taps cost nothing but a look at a pointer for each
// batch. The error is ErrNoRule or ErrTooManyTaps.
func (e *Engine) Tap(options TapOptions) (*Tap, error) {
	options.Rate = cmp.Or(max(options.Rate, 0), DefaultTapRate)
	t := &Tap{engine: e, options: options, seen: make(chan Tapped, tapQueue)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.rule(e.current.Load().table) == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoRule, options.Rule)
	}
	var taps []*Tap
	if now := e.taps.Load(); now != nil {
		taps = slices.Clone(*now)
	}
	if len(taps) >= MaxTaps {
		return nil, ErrTooManyTaps
	}
	taps = append(taps, t)
	e.taps.Store(&taps)
	return t, nil
}

// Close ends the tap. What was seen may still be read.
func (t *Tap) Close() {
	t.engine.mu.Lock()
	defer t.engine.mu.Unlock()
	now := t.engine.taps.Load()
	if now == nil {
		return
	}
	taps := slices.DeleteFunc(slices.Clone(*now), func(other *Tap) bool { return other == t })
	if len(taps) == 0 {
		t.engine.taps.Store(nil)
		return
	}
	t.engine.taps.Store(&taps)
}

// Seen returns what the tap shows. The channel is never closed.
func (t *Tap) Seen() <-chan Tapped { return t.seen }

// Skipped returns how many messages were left out so far.
func (t *Tap) Skipped() uint64 { return t.skipped.Load() }

// rule finds the tap's rule in a table.
func (t *Tap) rule(table *Table) *rule {
	if target := t.target.Load(); target != nil && target.table == table {
		return target.rule
	}
	target := &tapTarget{table: table}
	if i := slices.IndexFunc(table.rules, func(r *rule) bool { return r.Name == t.options.Rule }); i >= 0 {
		target.rule = table.rules[i]
	}
	t.target.Store(target)
	return target.rule
}

// shows reports whether something is to be shown, or is to be counted as left
// out.
func (t *Tap) shows(outcome TapOutcome) bool {
	if len(t.options.Outcomes) > 0 && !slices.Contains(t.options.Outcomes, outcome) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.second) >= time.Second {
		t.second, t.shown = now, 0
	}
	if t.shown >= t.options.Rate || len(t.seen) == cap(t.seen) {
		t.skipped.Add(1)
		return false
	}
	t.shown++
	return true
}

func (t *Tap) show(tapped Tapped) {
	select {
	case t.seen <- tapped:
	default:
		t.skipped.Add(1)
	}
}

// tapBatch shows the taps what the rules' conditions made of a batch; and what
// came after them, but for what a Stage will do.
func (w *worker) tapBatch(taps []*Tap, program *program, part part) {
	for _, t := range taps {
		r := t.rule(w.table)
		if r == nil {
			continue
		}
		if _, ok := slices.BinarySearchFunc(program.rules, r.number, func(r *rule, number int) int { return r.number - number }); !ok {
			continue
		}
		for i, m := range part.batch {
			result := &part.processor.results[i]
			outcome, failed := part.processor.tapOutcome(r, m, result)
			if (outcome != TapKept || r.Stage == nil) && t.shows(outcome) {
				t.show(newTapped(outcome, m, failed(), r, result))
			}
		}
	}
}

// tapStage shows the taps what a rule's Stage made of a batch, and what came
// after it.
func (w *worker) tapStage(taps []*Tap, r *rule, batch []*filterd.Message) {
	for _, t := range taps {
		if t.rule(w.table) != r {
			continue
		}
		for i, m := range batch {
			result := &w.processor.results[i]
			outcome := &result.Outcomes[0]
			became := TapKept
			switch {
			case outcome.Err != nil:
				became = TapFailed
			case outcome.Dropped:
				became = TapFiltered
			}
			if t.shows(became) {
				t.show(newTapped(became, m, outcome.Err, r, result))
			}
		}
	}
}

// tapOutcome says what a rule made of a message, which is one of those that the
// processor has just treated. The error, which may be dear, is made for who
// asks.
func (p *Processor) tapOutcome(r *rule, m *filterd.Message, result *Result) (outcome TapOutcome, failed func() error) {
	is := func(err error) func() error { return func() error { return err } }
	if result.Invalid != nil {
		return TapInvalid, is(result.Invalid)
	}
	at, ok := slices.BinarySearchFunc(result.Outcomes, r.number, func(o Outcome, number int) int { return o.number - number })
	switch {
	case ok && result.Outcomes[at].Err != nil:
		return TapFailed, is(result.Outcomes[at].Err)
	case ok:
		return TapKept, is(nil)
	}
	for i := range p.failing {
		f := &p.failing[i]
		if f.message != m {
			continue
		}
		if _, ok := slices.BinarySearchFunc(f.group.quiet, r.number, func(r *rule, number int) int { return r.number - number }); ok {
			return TapFailed, func() error {
				return fmt.Errorf("when: %w", f.matcher.Failure(m, slices.Index(f.set.members, r)))
			}
		}
	}
	return TapNotKept, is(nil)
}

func newTapped(outcome TapOutcome, m *filterd.Message, err error, r *rule, result *Result) Tapped {
	t := Tapped{
		Outcome: outcome, Channel: m.Channel, Received: m.Received,
		Payload: tappedPart(m.Payload), Bytes: len(m.Payload), Err: err,
	}
	var last []byte // targets share what they are sent
	for i := range result.Outputs {
		o := &result.Outputs[i]
		if o.rule != r {
			continue
		}
		output := TappedOutput{Channel: o.Channel, Stream: o.Stream, Sharded: o.Sharded, Callback: o.Callback, Webhook: o.Webhook, Bytes: len(o.Payload), DeadLetter: o.DeadLetter}
		if o.Log != nil {
			output.Log = o.Log.String()
		}
		switch before := len(t.Outputs) - 1; {
		case before >= 0 && sameMemory(o.Payload, last):
			output.Payload = t.Outputs[before].Payload
		case sameMemory(o.Payload, m.Payload):
			output.Payload = t.Payload
		default:
			output.Payload = tappedPart(o.Payload)
		}
		last = o.Payload
		t.Outputs = append(t.Outputs, output)
	}
	return t
}

// tappedPart returns a copy of what a tap keeps of a payload.
func tappedPart(payload []byte) []byte {
	return bytes.Clone(payload[:min(len(payload), MaxTapped)])
}

func sameMemory(a, b []byte) bool { return len(a) == len(b) && len(a) > 0 && &a[0] == &b[0] }
