package main

import (
	"context"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// An explainedStage is what a rule's module made of a message.
type explainedStage struct {
	Module        string           `json:"module"`
	Verdict       string           `json:"verdict"` // drop, pass, replace or error
	Error         string           `json:"error,omitempty"`
	Payload       *string          `json:"payload,omitempty"` // that replaces the message's
	PayloadBase64 []byte           `json:"payload_base64,omitempty"`
	Emitted       []delivery       `json:"emitted,omitempty"`
	Fields        []explainedField `json:"fields"`
	Fuel          uint64           `json:"fuel"`
}

// An explainedField is a field that a module declares.
type explainedField struct {
	Path  filterd.Path `json:"path"`
	Value string       `json:"value"` // JSON; empty if the message has none
}

// A watchedStage is a rule's module that tells what it made of the last
// message: asked again, it may make something else of it.
type watchedStage struct {
	filterd.Stage
	rule   string
	module *wasmfilter.Module
	seen   *explainedStage // nil: it was not asked
}

// Bind implements [filterd.Stage].
func (s *watchedStage) Bind(slots []int) filterd.StageRunner {
	return &watchedRunner{StageRunner: s.Stage.Bind(slots), stage: s, slots: slots}
}

type watchedRunner struct {
	filterd.StageRunner
	stage *watchedStage
	slots []int
}

// Run implements [filterd.StageRunner].
func (r *watchedRunner) Run(ctx context.Context, batch []*filterd.Message, results []filterd.StageResult) {
	module := r.stage.module
	before := module.Stats().Fuel
	r.StageRunner.Run(ctx, batch, results)
	for i, m := range batch {
		seen := newExplainedStage(r.stage.rule, results[i])
		seen.Module, seen.Fuel = module.Info().Name, module.Stats().Fuel-before
		for at, path := range module.Paths() {
			seen.Fields = append(seen.Fields, explainedField{path, fieldText(m.Lookup(r.slots[at]))})
		}
		r.stage.seen = seen
	}
}

func newExplainedStage(rule string, result filterd.StageResult) *explainedStage {
	e := &explainedStage{Verdict: "drop", Fields: []explainedField{}}
	switch {
	case result.Err != nil:
		e.Verdict, e.Error = "error", result.Err.Error()
		return e
	case result.Keep && result.Payload != nil:
		replaced := newDelivery(engine.Output{Payload: result.Payload})
		e.Verdict, e.Payload, e.PayloadBase64 = "replace", replaced.Payload, replaced.PayloadBase64
	case result.Keep:
		e.Verdict = "pass"
	}
	for _, emitted := range result.Emitted {
		e.Emitted = append(e.Emitted, newDelivery(engine.Output{Rule: rule, Channel: emitted.Channel, Payload: emitted.Payload}))
	}
	return e
}

// fieldText returns a field's value as JSON.
func fieldText(f filterd.Field) string {
	if f.Plain {
		return string(filterd.AppendString(nil, string(f.Text)))
	}
	return string(f.Text)
}
