package engine

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/projection"
)

// settle appends all outputs of a rule for one message, or on an error none
// but what OnError asks for. It returns what the rule failed on: failure, if
// that is not nil, or what a later stage did.
func (p *Processor) settle(b *boundProgram, at int, m *filterd.Message, result *Result, staged *filterd.StageResult, failure error) error {
	r := b.rules[at]
	mark := len(p.outputs)
	if failure == nil {
		failure = p.stages(b, at, m, staged, true)
	}
	if failure == nil {
		p.pretend(r, mark)
		return nil
	}
	p.outputs = p.outputs[:mark]
	switch r.OnError {
	case OnErrorPass:
		if err := p.stages(b, at, m, nil, false); err != nil {
			p.outputs = p.outputs[:mark]
			failure = fmt.Errorf("%w; passing it on: %w", failure, err)
		}
	case OnErrorDeadLetter:
		lost := len(result.Lost)
		p.deadLetter(result, m, r.deadLetter(), failure)
		if r.Shadow { // then nothing was to get there
			result.Lost = result.Lost[:lost]
		}
	}
	p.pretend(r, mark)
	return failure
}

// pretend marks the outputs from mark on as those of a rule that sends nothing.
func (p *Processor) pretend(r *rule, mark int) {
	if r.Shadow {
		for i := range p.outputs[mark:] {
			p.outputs[mark+i].Shadow = true
		}
	}
}

// stages goes on behind the rule's Stage: with set, if asked to, and to.
func (p *Processor) stages(b *boundProgram, at int, m *filterd.Message, staged *filterd.StageResult, set bool) error {
	r := b.rules[at]
	values := b.valuesOf(at)
	computed := 0 // index of the next target's value
	for _, member := range r.Set {
		if member.Value != nil {
			computed++
		}
	}
	mark := len(p.outputs)
	out := m
	if staged != nil {
		if staged.Err != nil {
			return staged.Err
		}
		for _, emitted := range staged.Emitted {
			p.outputs = append(p.outputs, Output{Rule: r.Name, Channel: emitted.Channel, Payload: emitted.Payload, rule: r, message: m})
		}
		if !staged.Keep {
			return nil
		}
		if staged.Payload != nil {
			out = m.With(staged.Payload)
		}
	}
	if set = set && len(r.Set) > 0; set || out != m || r.LoopAllowed {
		payload, err := p.rewrite(r, values[:computed], m, out, set)
		if err != nil {
			return err
		}
		out = m.With(payload)
	}
	key, err := b.conflationKey(at, m)
	if err != nil {
		return err
	}
	for i := range r.To {
		output := Output{Rule: r.Name, Payload: out.Payload, rule: r, message: m, key: key, slow: r.slow[i], bound: b, at: at}
		if to := &r.To[i]; to.Computed != nil {
			channel, err := yield(r, values[computed], out)
			computed++
			if err == nil && p.table.registry.Lookup(channel).Stamped {
				err = stampedTarget(channel)
			}
			if err != nil {
				return fmt.Errorf("to: %w", err)
			}
			output.Channel = channel
		} else {
			to.aim(&output)
		}
		if output.Channel != "" {
			if err := p.table.checkTarget(output.Channel, out); err != nil {
				return fmt.Errorf("to: %w", err)
			}
		}
		p.outputs = append(p.outputs, output)
	}
	if n := len(p.outputs) - mark; n > MaxOutputs {
		return fmt.Errorf("to: %d outputs are over the limit of %d", n, MaxOutputs)
	}
	return nil
}

// conflationKey returns what a rule's messages are conflated by, if they are.
func (b *boundProgram) conflationKey(at int, m *filterd.Message) (string, error) {
	if b.rules[at].Overflow != OverflowConflate {
		return "", nil
	}
	if b.keys[at] == nil {
		return m.Channel, nil
	}
	value, err := b.keys[at].Evaluate(m)
	if err != nil {
		return "", fmt.Errorf("key: %w", err)
	}
	return fmt.Sprintf("%s\x00%#v", m.Channel, value), nil // 1 is not "1"
}

// aim makes the target that of an output, unless it is computed.
func (to *Target) aim(o *Output) {
	if o.Channel, o.Callback, o.Webhook, o.Log = to.Channel, to.Callback, to.Webhook, to.Log; to.Stream != "" {
		o.Channel, o.Stream, o.MaxLen = to.Stream, true, to.MaxLen
	} else if to.Sharded != "" {
		o.Channel, o.Sharded = to.Sharded, true
	}
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
func (t *Table) checkTarget(channel string, m *filterd.Message) error {
	contract := t.registry.Lookup(channel)
	if contract.Channel == "" || m.Checked(contract) {
		return nil
	}
	return t.registry.CheckWhole(&filterd.Message{Channel: channel, Payload: m.Payload, Received: m.Received})
}

// reject appends the dead letter of a message that broke its contract, if
// that asks for one.
func (p *Processor) reject(result *Result, m *filterd.Message) {
	if c := p.table.registry.Lookup(m.Channel); c.DeadLetter != "" {
		p.deadLetter(result, m, Output{Channel: c.DeadLetter, Stream: c.DeadLetterStream, MaxLen: c.DeadLetterMaxLen}, result.Invalid)
	}
}

// rejectEntry appends the dead letters of a stream's entry that is not to be
// treated: that of its contract, or else those of the rules that take it.
func (p *Processor) rejectEntry(b *boundProgram, result *Result, m *filterd.Message) {
	if p.table.registry.Lookup(m.Channel).DeadLetter != "" {
		p.reject(result, m)
		return
	}
	for _, r := range b.rules {
		if r.DeadLetter != "" {
			p.deadLetter(result, m, r.deadLetter(), result.Invalid)
		}
	}
}

// deadLetter returns the output that the rule's dead letters are, but for their
// payload.
func (r *rule) deadLetter() Output {
	return Output{Rule: r.Name, Channel: r.DeadLetter, Stream: r.DeadLetterStream, MaxLen: r.DeadLetterMaxLen, rule: r}
}

// deadLetter appends the dead letter of a message. One that breaks the contract
// of its channel is lost.
func (p *Processor) deadLetter(result *Result, m *filterd.Message, output Output, failure error) {
	fence := uint64(0)
	if p.fence != nil {
		fence = p.fence()
	}
	if err := p.table.writeDeadLetter(&output, m, failure, fence); err != nil {
		result.Lost = append(result.Lost, err)
		return
	}
	p.outputs = append(p.outputs, output)
}

// writeDeadLetter makes an output the dead letter of a message. The error is
// that this breaks the contract of its channel.
func (t *Table) writeDeadLetter(output *Output, m *filterd.Message, failure error, fence uint64) error {
	output.Payload = deadLetter(m, output.Rule, failure, fence)
	output.DeadLetter = true
	output.message = m
	if err := t.checkTarget(output.Channel, &filterd.Message{Channel: output.Channel, Payload: output.Payload}); err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	return nil
}

// hopsAttribute is the event extension that counts how often filterd has
// rewritten an event.
const hopsAttribute = "filterdhops"

// rewrite returns the payload of out after the rule's set stage, if asked for,
// with its hops counted where it is an event: one more than those of m, as
// which it came in.
func (p *Processor) rewrite(r *rule, values []filterd.Evaluator, m, out *filterd.Message, set bool) ([]byte, error) {
	event := out.IsEvent()
	if r.LoopAllowed && !event {
		return nil, fmt.Errorf("loop: a rule with loop: allowed takes events only")
	}
	p.set.reset(out.Payload)
	if event {
		hops, err := countHops(m)
		if err != nil {
			return nil, fmt.Errorf("loop: %w", err)
		}
		p.set.member(hopsAttribute, hopsTexts[hops+1])
	}
	at := 0
	if set {
		if err := out.Err(); err != nil {
			return nil, fmt.Errorf("set: %w", err)
		}
		if event {
			var err error
			if at, err = p.set.data(); err != nil {
				return nil, fmt.Errorf("set: %w", err)
			}
		}
		if err := p.setMembers(r, values, out); err != nil {
			return nil, fmt.Errorf("set: %w", err)
		}
	}
	payload, err := p.set.finish(at)
	if err != nil {
		return nil, fmt.Errorf("set: %w", err)
	}
	return payload, nil
}

// setMembers evaluates all members that the rule sets before any is changed.
func (p *Processor) setMembers(r *rule, values []filterd.Evaluator, m *filterd.Message) error {
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
				return fmt.Errorf("%s: %w", member.Name, err)
			}
		}
		p.set.dataMember(member.Name, text)
	}
	return nil
}

// hopsTexts are what it can be.
var hopsTexts = func() (texts [MaxHops + 1][]byte) {
	for i := range texts {
		texts[i] = strconv.AppendInt(nil, int64(i), 10)
	}
	return texts
}()

// countHops returns how often filterd has rewritten a message so far.
func countHops(m *filterd.Message) (int, error) {
	if !m.IsEvent() {
		return 0, m.Err()
	}
	var found projection.Value
	for member := range projection.Members(m.Payload, 0) {
		if member.Is(m.Payload, hopsAttribute) {
			found = member.Value
		}
	}
	if found.Kind == projection.Missing || found.Kind == projection.Null {
		return 0, nil
	}
	var value any
	_ = json.Unmarshal(found.Of(m.Payload), &value) // a part of a valid document
	hops, ok := value.(float64)
	if !ok || hops != math.Trunc(hops) || hops < 0 {
		return 0, fmt.Errorf("attribute %s is %v, not a count", hopsAttribute, value)
	}
	if hops >= MaxHops {
		return 0, fmt.Errorf("the event has passed through filterd %.0f times: the limit is %d", hops, MaxHops)
	}
	return int(hops), nil
}
