package exprfilter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
)

// An Explanation says what an expression makes of one message, and why.
type Explanation struct {
	Kept bool
	Err  error // a [*filterd.SourceError]; a third outcome, beside kept and not
	// Steps are the expression's parts as they were written, each before those
	// that it consists of.
	Steps []Step
}

// A Step is one part of an expression: a condition, a value, a declaration.
// Constants, and what predicates do with their elements, are not among them.
type Step struct {
	Depth  int    // how many steps it is within
	Source string // as it was written, on one line
	// Evaluated is false where the parts before decide without it.
	Evaluated bool
	// Value is compact JSON, or as like it as possible where the value has no
	// JSON. It ends in … after 200 bytes. Empty if Err is set, or Evaluated is
	// not.
	Value string
	Err   error // a [*filterd.SourceError], positioned in the whole expression
	// Decided says that the outcome is what it is because of this step: of a
	// false and the operand that was false, of a true one all of them, for or
	// the other way round; of an error the step that failed. What only passes
	// on the decision of its operands is not marked itself.
	Decided bool
}

// maxStepValue bounds a [Step]'s Value, in bytes.
const maxStepValue = 200

// Explain evaluates every part of the expression by itself, by encoding/json
// and plain expr: the outcome is that of a [filterd.Matcher]. It borrows m.
// The error is not the expression's: the message can't be decoded.
func (f *Filter) Explain(m *filterd.Message) (*Explanation, error) {
	env, err := environmentOf(m)
	if err != nil {
		return nil, err
	}
	o, root, err := newOutline(f.program.source)
	if err != nil {
		return nil, err
	}
	e := &Explanation{}
	env = f.program.withClock(env, m) // which its parts see as well
	switch kept, err := vm.Run(f.program.vm, env); {
	case err != nil:
		e.Err = f.program.failed(err)
	default:
		e.Kept = kept == true
	}
	x := &explainer{outline: o, env: env, program: f.program}
	x.evaluate(root, e.Err)
	root.decide()
	e.list(root, 0)
	return e, nil
}

// list appends a part, and all of which it consists.
func (e *Explanation) list(p *part, depth int) {
	if p.listed {
		step := Step{Depth: depth, Source: p.text, Evaluated: p.evaluated, Err: p.err, Decided: p.decided}
		if p.evaluated && p.err == nil {
			step.Value = valueText(p.value)
		}
		e.Steps = append(e.Steps, step)
		depth++
	}
	for _, operand := range p.operands {
		e.list(operand, depth)
	}
}

// valueText writes a value for people to read.
func valueText(value any) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	text := ""
	if err := encoder.Encode(value); err == nil {
		text = strings.TrimSuffix(b.String(), "\n")
	} else if reflect.ValueOf(value).Kind() == reflect.Func { // a method that is called
		text = "a function"
	} else { // NaN, or a map whose keys are no strings
		text = fmt.Sprint(value)
	}
	if len(text) <= maxStepValue {
		return text
	}
	return strings.ToValidUTF8(text[:maxStepValue], "") + "…"
}

// An explainer evaluates the parts of an expression on one message.
type explainer struct {
	outline *outline
	env     map[string]any
	program *program // the whole
}

// run evaluates a part by itself. The whole is what it is a part of failed on:
// if the part fails likewise, it is that failure. expr positions some just
// behind what fails, where by itself there is nothing.
func (x *explainer) run(p *part, whole error) {
	p.evaluated = true
	program, _, err := compileWithClock(x.outline.alone(p))
	if err == nil {
		p.value, err = vm.Run(program, x.env)
	}
	if err != nil {
		fault := x.program.failed(err)
		p.err = fault
		var same *filterd.SourceError
		if errors.As(whole, &same) && same.Message == fault.Message {
			p.err = whole
		}
	}
}

// evaluate evaluates a part, and those of its operands that expr would. An
// operand may fail where the whole does not: expr's optimizer removes what
// makes no difference.
func (x *explainer) evaluate(p *part, whole error) {
	x.run(p, whole)
	for i, operand := range p.operands {
		x.evaluate(operand, p.err)
		failed := operand.err != nil
		switch {
		case failed && (p.err != nil || p.kind == partChoose):
			return
		case failed:
		case p.kind == partAnd && operand.value != true, p.kind == partOr && operand.value != false:
			return
		case p.kind == partCoalesce && operand.value != nil:
			return
		case p.kind == partChoose && i == 0:
			switch operand.value {
			case true:
				x.evaluate(p.operands[1], p.err)
			case false:
				x.evaluate(p.operands[2], p.err)
			}
			return
		case p.kind == partMember && i == 0 && (!operand.evaluated || p.optional && operand.value == nil):
			p.evaluated = p.chain // what follows in the chain is skipped, and the chain is nil
			return
		}
	}
}

// decide marks the parts because of which p has its value, or fails.
func (p *part) decide() {
	if p.err != nil {
		p.decideError()
		return
	}
	last := -1 // of the operands that were evaluated
	for i, operand := range p.operands {
		if operand.evaluated {
			last = i
		}
	}
	switch p.kind {
	case partAnd, partOr:
		stop := func(operand *part) bool {
			return operand.evaluated && operand.err == nil && operand.value != (p.kind == partAnd)
		}
		i := slices.IndexFunc(p.operands, stop)
		if i >= 0 && (p.kind == partAnd || p.operands[i].value != nil) {
			p.operands[i].decide()
			return
		}
		for _, operand := range p.operands {
			if operand.evaluated && operand.err == nil {
				operand.decide()
			}
		}
	case partChoose:
		p.operands[0].decide()
		if last > 0 {
			p.operands[last].decide()
		}
	case partNot, partPass:
		p.operands[last].decide()
	case partCoalesce:
		if operand := p.operands[last]; operand.listed {
			operand.decide()
		} else {
			p.decided = true
		}
	default:
		p.decided = true
	}
}

// decideError marks the part that failed.
func (p *part) decideError() {
	for _, operand := range p.operands {
		if operand.err != nil {
			operand.decide()
			return
		}
	}
	switch p.kind {
	case partAnd, partOr, partNot, partChoose: // what is no bool fails there
		for _, operand := range p.operands {
			if _, isBool := operand.value.(bool); operand.evaluated && !isBool {
				operand.decided = true
				return
			}
		}
	}
	p.decided = true
}
