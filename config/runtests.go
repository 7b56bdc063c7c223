package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// A TestResult is what became of one [Test].
type TestResult struct {
	Test Test
	OK   bool
	// Want and Got say what was expected and what happened, in words.
	Want, Got string
}

// RunTests runs the tests that stand beside the rules, in the order of the
// file and without Redis: callbacks are not called, nothing is published, and
// modules run apart from those that an engine may have, with an empty KV in
// memory. The error is not about a test: rules can't be compiled.
func (c *Config) RunTests() (_ []TestResult, err error) {
	if len(c.Tests) == 0 {
		return nil, nil
	}
	table, done, err := c.tableForTests()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	processor := table.NewProcessor()
	results := make([]TestResult, len(c.Tests))
	for i, test := range c.Tests {
		m := &filterd.Message{Channel: test.Channel, Sharded: test.Sharded, Payload: test.Payload(c.Registry)}
		if test.Stream {
			m.ID = testID
		}
		result, err := processor.Process(m)
		if err != nil {
			return nil, err
		}
		results[i] = test.judge(result)
	}
	return results, nil
}

// testID is the ID of the entries that tests are.
const testID = "0-1"

// tableForTests returns a table of the rules that have tests, with modules of
// its own, which done closes. Without modules it is the config's.
func (c *Config) tableForTests() (_ *engine.Table, done func() error, err error) {
	if len(c.stages) == 0 {
		return c.Table, func() error { return nil }, nil
	}
	tested := make(map[string]bool)
	for _, t := range c.Tests {
		tested[t.Rule] = true
	}
	apart := make(map[filterd.Stage]*wasmfilter.Module)
	done = func() error {
		var errs []error
		for _, m := range apart {
			errs = append(errs, m.Close())
		}
		return errors.Join(errs...)
	}
	definition := c.definition
	definition.Rules = nil
	for _, r := range c.Rules {
		if module, ok := r.Stage.(*wasmfilter.Module); ok && tested[r.Name] {
			if apart[module] == nil {
				if apart[module], err = module.Apart(); err != nil {
					delete(apart, module)
					return nil, nil, errors.Join(err, done())
				}
			}
			r.Stage = apart[module]
		}
		if tested[r.Name] {
			definition.Rules = append(definition.Rules, r)
		}
	}
	table, err := engine.Compile(definition)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return table, done, nil
}

// Payload returns the test's message, with an envelope around the data where
// the contract of the registry wants one. It may be the test's own: don't
// change it.
func (t Test) Payload(registry *filterd.Registry) []byte {
	if t.Raw || registry.Lookup(t.Channel).Envelope != filterd.EnvelopeCloudEvents {
		return t.In
	}
	event := filterd.Event{ID: "test", Source: "filterd/test", Type: t.Channel, Data: t.In}
	return event.AppendJSON(nil)
}

// judge holds what happened against what was expected.
func (t Test) judge(result engine.Result) TestResult {
	outcome, detail := OutcomeDrop, ""
	if result.Invalid != nil {
		outcome, detail = OutcomeInvalid, ": "+result.Invalid.Error()
	}
	for _, o := range result.Outcomes {
		switch {
		case o.Rule != t.Rule:
		case o.Err != nil:
			outcome, detail = OutcomeError, ": "+o.Err.Error()
		case !o.Dropped || slices.ContainsFunc(result.Outputs, func(output engine.Output) bool { return output.Rule == t.Rule }):
			outcome = OutcomeDeliver
		}
	}
	var channels []string
	for _, output := range result.Outputs {
		if output.Rule == t.Rule && output.Channel != "" {
			channels = append(channels, output.Channel)
		}
	}
	r := TestResult{Test: t, OK: outcome == t.Outcome, Want: string(t.Outcome), Got: string(outcome) + detail}
	if t.Outcome == OutcomeDeliver {
		r.Want = delivery(t.Out)
	}
	if outcome == OutcomeDeliver {
		r.Got = delivery(channels)
		r.OK = r.OK && slices.Equal(slices.Sorted(slices.Values(channels)), slices.Sorted(slices.Values(t.Out)))
	}
	return r
}

func delivery(channels []string) string {
	if len(channels) == 0 {
		return "kept, for no channel"
	}
	return strings.Join(channels, ", ")
}
