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
// modules run apart from those that an engine may have. A rule's module begins
// with an empty KV in memory, and keeps it from one test of the rule to the next.
// The error is not about a test: rules can't be compiled.
func (c *Config) RunTests() ([]TestResult, error) {
	if len(c.Tests) == 0 {
		return nil, nil
	}
	rules := make(map[string]engine.Rule, len(c.Rules))
	for _, r := range c.Rules {
		rules[r.Name] = r
	}
	var results []TestResult
	var plain *engine.Processor // of all rules without a module: they are compiled together
	for tests := c.Tests; len(tests) > 0; {
		name := tests[0].Rule
		n := slices.IndexFunc(tests, func(t Test) bool { return t.Rule != name })
		if n < 0 {
			n = len(tests)
		}
		var err error
		if module, ok := rules[name].Stage.(*wasmfilter.Module); ok {
			err = c.runStaged(rules[name], module, tests[:n], &results)
		} else {
			if plain == nil {
				plain, err = c.plain()
			}
			if err == nil {
				err = c.run(plain, tests[:n], &results)
			}
		}
		if err != nil {
			return nil, err
		}
		tests = tests[n:]
	}
	return results, nil
}

// plain returns a processor of the rules without a module.
func (c *Config) plain() (*engine.Processor, error) {
	if len(c.stages) == 0 {
		return c.Table.NewProcessor(), nil
	}
	return c.only(slices.DeleteFunc(slices.Clone(c.Rules), func(r engine.Rule) bool { return r.Stage != nil }))
}

// only returns a processor of some of the rules.
func (c *Config) only(rules []engine.Rule) (*engine.Processor, error) {
	definition := c.definition
	definition.Rules = rules
	table, err := engine.Compile(definition)
	if err != nil {
		return nil, err
	}
	return table.NewProcessor(), nil
}

// runStaged runs the tests of a rule with a module.
func (c *Config) runStaged(r engine.Rule, module *wasmfilter.Module, tests []Test, results *[]TestResult) (err error) {
	apart, err := module.Apart()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, apart.Close()) }()
	r.Stage = apart
	processor, err := c.only([]engine.Rule{r})
	if err != nil {
		return err
	}
	return c.run(processor, tests, results)
}

// run runs tests in turn.
func (c *Config) run(processor *engine.Processor, tests []Test, results *[]TestResult) error {
	for _, test := range tests {
		m := &filterd.Message{Channel: test.Channel, Sharded: test.Sharded, Payload: test.Payload(c.Registry)}
		if test.Stream {
			m.ID = testID
		}
		result, err := processor.Process(m)
		if err != nil {
			return err
		}
		*results = append(*results, test.judge(result))
	}
	return nil
}

// testID is the ID of the entries that tests are.
const testID = "0-1"

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
