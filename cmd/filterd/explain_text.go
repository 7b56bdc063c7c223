package main

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// The bounds of what explain prints for people.
const (
	maxSourceWidth = 60   // columns of a part of an expression
	maxIndent      = 20   // steps
	maxPayloadText = 1000 // bytes
)

// A report is text with a label before each line, or before the first of
// several.
type report struct{ strings.Builder }

func (r *report) line(label, format string, args ...any) {
	fmt.Fprintf(r, "%-8s  %s\n", label, oneLine(fmt.Sprintf(format, args...)))
}

// text returns the explanation for people.
func (e *explanation) text() string {
	var r report
	r.line("rule", "%s", e.Rule)
	if m := e.Message; m != nil {
		m.Contract.report(&r, m.Channel)
	}
	r.line("index", "%s", e.access)
	if m := e.Message; m != nil {
		m.report(&r)
	} else {
		r.line("message", "none: give one on standard input")
	}
	return r.String()
}

func (e *explainedMessage) report(r *report) {
	switch {
	case e.Contract.Refused:
		r.line("when", "no rule sees the message")
	case e.When == nil:
		r.line("when", "no condition: every message is kept")
	default:
		e.When.report(r)
	}
	if e.Stage != nil {
		e.Stage.report(r)
	}
	if e.Error != "" {
		r.line("error", "%s", e.Error)
		r.line("", "on_error: %s", e.OnError)
	}
	label := "out"
	for _, output := range e.Outputs {
		kind := ""
		if output.DeadLetter {
			kind = " (a dead letter)"
		}
		if output.Shadow {
			kind += " (not sent: the rule is a shadow)"
		}
		r.line(label, "%s%s: %s", output.To, kind, output.delivery)
		label = ""
	}
	if len(e.Outputs) == 0 {
		r.line(label, "nothing")
	}
	for _, lost := range e.Lost {
		r.line("lost", "%s", lost)
	}
}

func (c explainedContract) report(r *report, channel string) {
	switch {
	case !c.OK && !c.Refused:
		r.line("contract", "broken: %s", c.Error)
		r.line("", "rules see the message, since validate is not enforce")
	case !c.OK:
		r.line("contract", "broken: %s", c.Error)
		if c.bare {
			r.line("", "if this is an event's data only, --data puts an event around it")
		}
	case c.Name == "":
		r.line("contract", "kept: none is declared for %s", channel)
	case c.Name != channel:
		r.line("contract", "kept: %s, that of %s", c.Name, channel)
	default:
		r.line("contract", "kept: %s", c.Name)
	}
}

// report writes the condition as a table of its parts.
func (e *explainedCondition) report(r *report) {
	if e.Error != "" {
		r.line("when", "fails: %s", e.Error)
	} else {
		r.line("when", "%t", e.Kept)
	}
	width := 0
	sources := make([]string, len(e.Steps))
	for i, s := range e.Steps {
		sources[i] = strings.Repeat("  ", min(s.Depth, maxIndent)) + ansi.Truncate(oneLine(s.Source), maxSourceWidth, "…")
		width = max(width, ansi.StringWidth(sources[i]))
	}
	for i, s := range e.Steps {
		mark := " "
		if s.Decided {
			mark = "*"
		}
		r.line("", "%s %s%s  %s", mark, sources[i], strings.Repeat(" ", width-ansi.StringWidth(sources[i])), s.outcome(e.Error))
	}
}

// outcome returns what became of a step. Why the whole failed was said before.
func (s explainedStep) outcome(whole string) string {
	switch {
	case !s.Evaluated:
		return "not evaluated"
	case s.Error != "" && s.Error == whole:
		return "fails"
	case s.Error != "":
		return "fails: " + s.Error
	}
	return s.Value
}

func (e *explainedStage) report(r *report) {
	replaced := delivery{Payload: e.Payload, PayloadBase64: e.PayloadBase64}
	switch e.Verdict {
	case "error":
		r.line("wasm", "%s fails: %s", e.Module, e.Error)
	case "replace":
		r.line("wasm", "%s replaces the payload: %s", e.Module, replaced)
	case "pass":
		r.line("wasm", "%s passes the message", e.Module)
	default:
		r.line("wasm", "%s drops the message", e.Module)
	}
	for _, emitted := range e.Emitted {
		r.line("", "emits to %s: %s", emitted.To, emitted)
	}
	for _, f := range e.Fields {
		value := "missing"
		if f.Value != "" {
			value = shorten(f.Value, maxPayloadText)
		}
		r.line("", "field %s: %s", f.Path, value)
	}
	r.line("", "fuel %s", grouped(int64(e.Fuel)))
}

// String returns the payload, or as much of it as a line takes.
func (d delivery) String() string {
	if d.Payload == nil {
		return "base64 " + shorten(base64.StdEncoding.EncodeToString(d.PayloadBase64), maxPayloadText)
	}
	return shorten(*d.Payload, maxPayloadText)
}
