package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/filterd/filterd"
)

// A Processor applies a table to one message after the other, and says what
// should be sent where. It sends nothing itself: an [Engine] does, and so do
// dry runs over recorded messages. It belongs to one goroutine.
type Processor struct {
	table *Table
	bound map[*program]*boundProgram
	last  *boundProgram // that was used last; mostly it is the next one, too
	rules int           // in the bound programs
	// owned says that the processor is a worker's, which runs a rule's Stage
	// elsewhere, and counts what is in failing. If not, a Stage is run here, and
	// every rule that fails has an outcome.
	owned bool
	fence func() uint64 // of the lease, for dead letters; nil: there is none

	batch    [1]*filterd.Message
	valid    []*filterd.Message // of the batch at hand
	index    []int              // of the valid messages in the batch
	verdicts []filterd.Verdict
	merged   []filterd.Verdict
	failing  []failing
	results  []Result
	outputs  []Output
	outcomes []Outcome
	toStages []toStage
	staged   []filterd.StageResult
	set      splicer
}

// A Result is what a table makes of one message. It is valid until the
// processor's next call.
type Result struct {
	// Invalid is how the message breaks its contract; nil if it doesn't.
	// Then no rule sees it.
	Invalid error
	// Outcomes has an entry for every rule that kept the message or failed
	// on it, in the table's order.
	Outcomes []Outcome
	// Outputs is everything to be sent, in order.
	Outputs []Output
	// Lost says why a dead letter is not among the outputs: it breaks the
	// contract of the channel that it should go to.
	Lost []error

	toStages []toStage
}

// toStage says that a message goes to a rule's Stage.
type toStage struct {
	bound *boundProgram
	at    int // the rule's place there
}

// An Outcome is what one rule made of a message.
type Outcome struct {
	Rule    string
	Matched bool  // the condition kept the message
	Dropped bool  // the rule's Stage did not
	Err     error // what failed; a Matched rule may fail in a later stage

	number int
}

// An Output is one message on its way to one target: a channel, a stream, a
// callback, a webhook or the log.
type Output struct {
	// Rule names the rule; empty for the dead letter of a contract.
	Rule    string
	Channel string // or stream
	// Stream says that Channel is a stream, which keeps about MaxLen entries,
	// or all if that is 0.
	Stream   bool
	Sharded  bool // Channel is a sharded one
	MaxLen   int64
	Callback string
	Webhook  string
	Log      *slog.Level
	// Payload is the message as the rule's stages left it, or a dead letter.
	Payload []byte
	// DeadLetter says that the payload is a dead letter.
	DeadLetter bool
	// Shadow says that the rule only pretends: nothing is to be sent.
	Shadow bool

	key     string // to conflate by
	rule    *rule
	message *filterd.Message // as it came in
	slow    *slowTarget      // nil if the target is not slow
	bound   *boundProgram    // of the rule; nil unless the message came to its condition
	at      int              // the rule's place there
	span    Span             // nil unless it is recorded
}

// failing is a group that failed on a message.
type failing struct {
	set     *ruleSet
	group   *failureGroup
	message *filterd.Message
	matcher filterd.SetMatcher
}

// boundProgram is a program with one goroutine's matchers.
type boundProgram struct {
	*program
	matchers []filterd.SetMatcher  // by sets
	values   [][]filterd.Evaluator // by rules: those of set, then of to; nil until they are used
	runners  []filterd.StageRunner // by rules; nil where there is no stage
	keys     []filterd.Evaluator   // by rules; nil where there is no key

	cost time.Duration // of a message, as it was of late; 0 if nobody has measured it
}

// NewProcessor returns a new processor of the table.
func (t *Table) NewProcessor() *Processor {
	return &Processor{table: t, bound: make(map[*program]*boundProgram)}
}

// Process applies the table to m, which it borrows, as the only copy of the
// message: a rule runs once, however many of its From entries match. The error
// is not about the message: the channel's rules can't be compiled.
func (p *Processor) Process(m *filterd.Message) (Result, error) {
	route, err := p.table.route(m, true)
	if err != nil {
		return Result{}, err
	}
	if route.label == "" {
		return Result{}, nil // no rule takes messages of this channel
	}
	p.batch[0] = m
	p.process(route, p.batch[:])
	return p.results[0], nil
}

// process applies the rules of a route to a batch of its messages, and leaves
// p.results by the batch.
func (p *Processor) process(route *route, batch []*filterd.Message) {
	b := p.bind(route.program)
	p.begin(len(batch))
	p.valid, p.index = p.valid[:0], p.index[:0]
	for i, m := range batch {
		if m.Entry != nil && m.Entry.Fault != nil {
			p.results[i].Invalid = m.Entry.Fault
			continue
		}
		m.Bind(b.projection) // first, so that one pass over the payload does
		if err := p.table.registry.Check(m); err != nil {
			p.results[i].Invalid = err
			continue
		}
		p.valid = append(p.valid, m)
		p.index = append(p.index, i)
	}
	verdicts := p.match(b, p.valid)
	for i := range batch {
		mark, result := p.mark(), &p.results[i]
		if m := batch[i]; m.Entry != nil && m.Entry.Fault != nil {
			p.rejectEntry(b, result, m)
		} else if result.Invalid != nil && route.primary {
			p.reject(result, m)
		}
		for len(verdicts) > 0 && p.index[verdicts[0].Message] == i {
			v := verdicts[0]
			verdicts = verdicts[1:]
			p.apply(b, v.Rule, batch[i], result, v.Err)
		}
		result.take(p, mark)
	}
}

// begin forgets the last batch and makes room for the results of the next.
func (p *Processor) begin(messages int) {
	p.results = slices.Grow(p.results[:0], messages)[:messages]
	p.outputs, p.outcomes, p.toStages = p.outputs[:0], p.outcomes[:0], p.toStages[:0]
	clear(p.results)
}

// A mark is how much a processor had added before a message.
type mark struct{ outcomes, outputs, toStages int }

func (p *Processor) mark() mark { return mark{len(p.outcomes), len(p.outputs), len(p.toStages)} }

// take makes what p has added since then the result of one message.
func (r *Result) take(p *Processor, since mark) {
	r.Outcomes = p.outcomes[since.outcomes:len(p.outcomes):len(p.outcomes)]
	r.Outputs = p.outputs[since.outputs:len(p.outputs):len(p.outputs)]
	r.toStages = p.toStages[since.toStages:len(p.toStages):len(p.toStages)]
}

// maxBound bounds the rules of all programs that a processor is bound to.
const maxBound = 1 << 21

func (p *Processor) bind(program *program) *boundProgram {
	if p.last != nil && p.last.program == program {
		return p.last
	}
	if b := p.bound[program]; b != nil {
		p.last = b
		return b
	}
	b := &boundProgram{
		program: program,
		values:  make([][]filterd.Evaluator, len(program.rules)),
		runners: make([]filterd.StageRunner, len(program.rules)),
		keys:    make([]filterd.Evaluator, len(program.rules)),
	}
	for _, s := range program.sets {
		b.matchers = append(b.matchers, s.set.Bind(program.projection.Slots(s.set.Paths())))
	}
	for i, r := range program.rules {
		if r.Stage != nil {
			b.runners[i] = r.Stage.Bind(program.projection.Slots(r.Stage.Paths()))
		}
		if r.Key != nil {
			b.keys[i] = r.Key.Bind(program.projection.Slots(r.Key.Paths()))
		}
	}
	if len(p.bound) >= p.table.maxPrograms || p.rules > maxBound {
		clear(p.bound)
		p.rules = 0
	}
	p.bound[program], p.last = b, b
	p.rules += len(program.rules)
	return b
}

// valuesOf returns a rule's evaluators. Most rules of many match no message for
// long, if ever.
func (b *boundProgram) valuesOf(at int) []filterd.Evaluator {
	if b.values[at] == nil {
		for _, v := range b.rules[at].values() {
			b.values[at] = append(b.values[at], v.Bind(b.projection.Slots(v.Paths())))
		}
	}
	return b.values[at]
}

// match returns the verdicts of the whole program, with rules numbered as in
// the program, in the order of the messages, then of the rules.
func (p *Processor) match(b *boundProgram, batch []*filterd.Message) []filterd.Verdict {
	p.merged, p.failing = p.merged[:0], p.failing[:0]
	sorted := len(b.matchers) == 0 || len(b.matchers) == 1 && len(b.always) == 0
	for i := range batch {
		for _, rule := range b.always {
			p.merged = append(p.merged, filterd.Verdict{Message: i, Rule: rule})
		}
	}
	for i, matcher := range b.matchers {
		p.verdicts = matcher.Match(batch, p.verdicts[:0])
		for _, v := range p.verdicts {
			if v.Group > 0 {
				p.fail(&b.sets[i], matcher, batch[v.Message], v)
				sorted = false
				continue
			}
			v.Rule = b.sets[i].rules[v.Rule]
			p.merged = append(p.merged, v)
		}
	}
	if !sorted {
		slices.SortFunc(p.merged, func(a, b filterd.Verdict) int {
			if a.Message != b.Message {
				return a.Message - b.Message
			}
			return a.Rule - b.Rule
		})
	}
	return p.merged
}

// fail takes the verdict that a group of a set fails.
func (p *Processor) fail(s *ruleSet, matcher filterd.SetMatcher, m *filterd.Message, v filterd.Verdict) {
	group := &s.groups[v.Group-1]
	each := group.all
	if p.owned {
		each = group.loud
		if len(group.quiet) > 0 {
			p.failing = append(p.failing, failing{s, group, m, matcher})
		}
	}
	for _, i := range each {
		p.merged = append(p.merged, filterd.Verdict{Message: v.Message, Rule: s.rules[i], Err: matcher.Failure(m, i)})
	}
}

// apply goes on with a message that a rule's condition kept, or failed on.
func (p *Processor) apply(b *boundProgram, at int, m *filterd.Message, result *Result, failure error) {
	r := b.rules[at]
	outcome := Outcome{Rule: r.Name, Matched: failure == nil, number: r.number}
	switch {
	case failure != nil:
		failure = p.settle(b, at, m, result, nil, fmt.Errorf("when: %w", failure))
	case r.Stage == nil:
		failure = p.settle(b, at, m, result, nil, nil)
	case p.owned:
		p.toStages = append(p.toStages, toStage{b, at})
	default:
		p.batch[0] = m
		staged := &p.runStage(b, at, p.batch[:])[0]
		outcome.Dropped = dropped(staged)
		failure = p.settle(b, at, m, result, staged, nil)
	}
	outcome.Err = failure
	p.outcomes = append(p.outcomes, outcome)
}

// runStage runs a rule's Stage on a batch.
func (p *Processor) runStage(b *boundProgram, at int, batch []*filterd.Message) []filterd.StageResult {
	p.staged = slices.Grow(p.staged[:0], len(batch))[:len(batch)]
	clear(p.staged)
	b.runners[at].Run(context.Background(), batch, p.staged)
	return p.staged
}

// finishStage does what is left to do with a batch that a rule's Stage has
// treated, and leaves p.results by the batch. They say nothing of the rule's
// condition, which was asked elsewhere.
func (p *Processor) finishStage(b *boundProgram, at int, batch []*filterd.Message) {
	staged := p.runStage(b, at, batch)
	p.begin(len(batch))
	for i, m := range batch {
		mark := p.mark()
		err := p.settle(b, at, m, &p.results[i], &staged[i], nil)
		p.outcomes = append(p.outcomes, Outcome{Rule: b.rules[at].Name, Dropped: dropped(&staged[i]), Err: err, number: b.rules[at].number})
		p.results[i].take(p, mark)
	}
}

// dropped reports whether a Stage dropped a message.
func dropped(r *filterd.StageResult) bool { return r.Err == nil && !r.Keep }
