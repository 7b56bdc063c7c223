package engine

import (
	"fmt"
	"log/slog"
	"math"
	"slices"

	"github.com/filterd/filterd"
)

// A Processor applies a table to one message after the other, and says what
// should be sent where. It sends nothing itself: an [Engine] does, and so do
// dry runs over recorded messages. It belongs to one goroutine.
type Processor struct {
	table *Table
	bound map[*program]*boundProgram

	batch    [1]*filterd.Message
	valid    []*filterd.Message // of the batch at hand
	index    []int              // of the valid messages in the batch
	verdicts []filterd.Verdict
	merged   []filterd.Verdict
	results  []Result
	outputs  []Output
	outcomes []Outcome
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
}

// An Outcome is what one rule made of a message.
type Outcome struct {
	Rule    string
	Matched bool  // the condition kept the message
	Err     error // what failed; a Matched rule may fail in a later stage

	number int
}

// An Output is one message on its way to one target: a channel, a callback or
// the log.
type Output struct {
	// Rule names the rule; empty for the dead letter of a contract.
	Rule     string
	Channel  string
	Callback string
	Log      *slog.Level
	// Payload is the message as the rule's stages left it, or a dead letter.
	Payload []byte
	// DeadLetter says that the payload is a dead letter.
	DeadLetter bool

	rule    *rule
	message *filterd.Message // as it came in
}

// boundProgram is a program with one goroutine's matchers.
type boundProgram struct {
	*program
	matchers []filterd.SetMatcher  // by sets
	values   [][]filterd.Evaluator // by rules: those of set, then of to
}

// NewProcessor returns a new processor of the table.
func (t *Table) NewProcessor() *Processor {
	return &Processor{table: t, bound: make(map[*program]*boundProgram)}
}

// Process applies the table to m, which it borrows, as the only copy of the
// message: a rule runs once, however many of its From entries match. The error
// is not about the message: the channel's rules can't be compiled.
func (p *Processor) Process(m *filterd.Message) (Result, error) {
	route, err := p.table.route(m.Channel, m.Pattern, true)
	if err != nil {
		return Result{}, err
	}
	p.batch[0] = m
	p.process(route, p.batch[:])
	return p.results[0], nil
}

// process applies the rules of a route to a batch of its messages, and leaves
// p.results by the batch.
func (p *Processor) process(route *route, batch []*filterd.Message) {
	b := p.bind(route.program)
	p.results = slices.Grow(p.results[:0], len(batch))[:len(batch)]
	p.outputs, p.outcomes = p.outputs[:0], p.outcomes[:0]
	clear(p.results)
	p.valid, p.index = p.valid[:0], p.index[:0]
	for i, m := range batch {
		if err := p.table.registry.Check(m); err != nil {
			p.results[i].Invalid = err
			continue
		}
		m.Bind(b.projection)
		p.valid = append(p.valid, m)
		p.index = append(p.index, i)
	}
	verdicts := p.match(b, p.valid)
	for i := range batch {
		outcomes, outputs := len(p.outcomes), len(p.outputs)
		result := &p.results[i]
		if result.Invalid != nil {
			if route.primary {
				p.reject(result, batch[i])
			}
		}
		for len(verdicts) > 0 && p.index[verdicts[0].Message] == i {
			v := verdicts[0]
			verdicts = verdicts[1:]
			p.apply(b, v.Rule, batch[i], result, v.Err)
		}
		result.Outcomes = p.outcomes[outcomes:len(p.outcomes):len(p.outcomes)]
		result.Outputs = p.outputs[outputs:len(p.outputs):len(p.outputs)]
	}
}

func (p *Processor) bind(program *program) *boundProgram {
	if b := p.bound[program]; b != nil {
		return b
	}
	b := &boundProgram{program: program, values: make([][]filterd.Evaluator, len(program.rules))}
	for _, s := range program.sets {
		b.matchers = append(b.matchers, s.set.Bind(program.projection.Slots(s.set.Paths())))
	}
	for i, r := range program.rules {
		for _, v := range r.values() {
			b.values[i] = append(b.values[i], v.Bind(program.projection.Slots(v.Paths())))
		}
	}
	if len(p.bound) >= p.table.maxPrograms {
		clear(p.bound)
	}
	p.bound[program] = b
	return b
}

// match returns the verdicts of the whole program, with rules numbered as in
// the program, in the order of the messages, then of the rules.
func (p *Processor) match(b *boundProgram, batch []*filterd.Message) []filterd.Verdict {
	p.merged = p.merged[:0]
	for i := range batch {
		for _, rule := range b.always {
			p.merged = append(p.merged, filterd.Verdict{Message: i, Rule: rule})
		}
	}
	for i, matcher := range b.matchers {
		p.verdicts = matcher.Match(batch, p.verdicts[:0])
		for _, v := range p.verdicts {
			v.Rule = b.sets[i].rules[v.Rule]
			p.merged = append(p.merged, v)
		}
	}
	if len(b.matchers) > 1 || len(b.matchers) == 1 && len(b.always) > 0 {
		slices.SortFunc(p.merged, func(a, b filterd.Verdict) int {
			if a.Message != b.Message {
				return a.Message - b.Message
			}
			return a.Rule - b.Rule
		})
	}
	return p.merged
}

// apply runs the stages behind the condition of one rule.
func (p *Processor) apply(b *boundProgram, at int, m *filterd.Message, result *Result, failure error) {
	r := b.rules[at]
	outcome := Outcome{Rule: r.Name, Matched: failure == nil, number: r.number}
	mark := len(p.outputs)
	if failure != nil {
		failure = fmt.Errorf("when: %w", failure)
	} else {
		failure = p.stages(b, at, m, true)
	}
	if failure != nil {
		p.outputs = p.outputs[:mark] // all of the rule's outputs, or none
		outcome.Err = failure
		switch r.OnError {
		case OnErrorPass:
			if err := p.stages(b, at, m, false); err != nil {
				p.outputs = p.outputs[:mark]
				outcome.Err = fmt.Errorf("%w; passing it on: %w", failure, err)
			}
		case OnErrorDeadLetter:
			p.deadLetter(result, m, Output{Rule: r.Name, Channel: r.DeadLetter, rule: r}, failure)
		}
	}
	p.outcomes = append(p.outcomes, outcome)
}

// stages runs set, if asked to, and to.
func (p *Processor) stages(b *boundProgram, at int, m *filterd.Message, set bool) error {
	r := b.rules[at]
	values := b.values[at]
	computed := 0 // index of the next target's value
	for _, member := range r.Set {
		if member.Value != nil {
			computed++
		}
	}
	out := m
	if rewrite := set && len(r.Set) > 0; rewrite || r.LoopAllowed {
		payload, err := p.rewrite(r, values[:computed], m, rewrite)
		if err != nil {
			return err
		}
		changed := *m
		out = &changed
		out.Reset(payload)
	}
	for i := range r.To {
		output := Output{Rule: r.Name, Payload: out.Payload, rule: r, message: m}
		switch to := &r.To[i]; {
		case to.Computed != nil:
			channel, err := yield(r, values[computed], out)
			computed++
			if err != nil {
				return fmt.Errorf("to: %w", err)
			}
			output.Channel = channel
		case to.Callback != "":
			output.Callback = to.Callback
		case to.Log != nil:
			output.Log = to.Log
		default:
			output.Channel = to.Channel
		}
		if output.Channel != "" {
			if err := p.checkTarget(output.Channel, out); err != nil {
				return fmt.Errorf("to: %w", err)
			}
		}
		p.outputs = append(p.outputs, output)
	}
	return nil
}

// yield computes a target and holds it against what the rule allows.
func yield(r *rule, target filterd.Evaluator, m *filterd.Message) (string, error) {
	value, err := target.Evaluate(m)
	if err != nil {
		return "", err
	}
	channel, ok := value.(string)
	switch {
	case !ok:
		return "", fmt.Errorf("the target is %T, not the name of a channel", value)
	case channel == "":
		return "", fmt.Errorf("the target is an empty string")
	case !slices.ContainsFunc(r.allow, func(g *filterd.Glob) bool { return g.Match(channel) }):
		return "", fmt.Errorf("the target %q is not in the rule's allow list", channel)
	}
	return channel, nil
}

// checkTarget checks a payload against the contract of the channel it goes to.
// A channel without a contract takes anything; and what came in under the same
// contract, unchanged, has been checked.
func (p *Processor) checkTarget(channel string, m *filterd.Message) error {
	contract := p.table.registry.Lookup(channel)
	if contract.Channel == "" || m.Checked(contract) {
		return nil
	}
	return p.table.registry.CheckWhole(&filterd.Message{Channel: channel, Payload: m.Payload, Received: m.Received})
}

// reject appends the dead letter of a message that broke its contract, if
// that asks for one.
func (p *Processor) reject(result *Result, m *filterd.Message) {
	if channel := p.table.registry.Lookup(m.Channel).DeadLetter; channel != "" {
		p.deadLetter(result, m, Output{Channel: channel}, result.Invalid)
	}
}

// deadLetter appends the dead letter of a message. One that breaks the contract
// of its channel is lost.
func (p *Processor) deadLetter(result *Result, m *filterd.Message, output Output, failure error) {
	output.Payload = deadLetter(m, output.Rule, failure)
	output.DeadLetter = true
	output.message = m
	if err := p.checkTarget(output.Channel, &filterd.Message{Channel: output.Channel, Payload: output.Payload}); err != nil {
		result.Lost = append(result.Lost, fmt.Errorf("dead letter: %w", err))
		return
	}
	p.outputs = append(p.outputs, output)
}

// hopsAttribute is the event extension that counts how often filterd has
// rewritten an event.
const hopsAttribute = "filterdhops"

// rewrite returns the payload after the rule's set stage, if asked for, with
// its hops counted where it is an event.
func (p *Processor) rewrite(r *rule, values []filterd.Evaluator, m *filterd.Message, set bool) ([]byte, error) {
	event := m.IsEvent()
	if r.LoopAllowed && !event {
		return nil, fmt.Errorf("loop: a rule with loop: allowed takes events only")
	}
	p.set.reset(m.Payload)
	if event {
		attributes, err := m.Attributes()
		if err != nil {
			return nil, err
		}
		hops, ok := attributes[hopsAttribute].(float64)
		if _, present := attributes[hopsAttribute]; present && (!ok || hops != math.Trunc(hops) || hops < 0) {
			return nil, fmt.Errorf("loop: attribute %s is %v, not a count", hopsAttribute, attributes[hopsAttribute])
		}
		if hops >= MaxHops {
			return nil, fmt.Errorf("loop: the event has passed through filterd %.0f times: the limit is %d", hops, MaxHops)
		}
		p.set.member(hopsAttribute, fmt.Appendf(nil, "%d", int(hops)+1))
	}
	if !set {
		return p.set.finish(0)
	}
	at := 0
	if event {
		var err error
		if at, err = p.set.data(); err != nil {
			return nil, fmt.Errorf("set: %w", err)
		}
	}
	next := 0
	for _, member := range r.Set {
		text := member.Constant
		if member.Value != nil {
			value, err := values[next].Evaluate(m)
			next++
			if err == nil {
				text, err = p.set.encode(value)
			}
			if err != nil {
				return nil, fmt.Errorf("set: %s: %w", member.Name, err)
			}
		}
		p.set.dataMember(member.Name, text)
	}
	payload, err := p.set.finish(at)
	if err != nil {
		return nil, fmt.Errorf("set: %w", err)
	}
	return payload, nil
}
