package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	// Differences are where the payloads are not the expected ones, if the
	// message went where it should.
	Differences []Difference
}

// maxReported is how many differences are listed of one test.
const maxReported = 20

// Report says in lines for people what a test is about, what was expected and
// what happened, and where payloads differ.
func (r TestResult) Report() []string {
	lines := []string{"in:   " + shorten(string(r.Test.In)), "want: " + r.Want, "got:  " + r.Got}
	several := slices.ContainsFunc(r.Differences, func(d Difference) bool { return d.Target != r.Differences[0].Target })
	for i, d := range r.Differences {
		if i == maxReported {
			lines = append(lines, fmt.Sprintf("  and %d more", len(r.Differences)-i))
			break
		}
		d.Want, d.Got = shorten(d.Want), shorten(d.Got)
		line := "  " + d.String()
		if several {
			line = "  " + d.Target + ": " + d.String()
		}
		lines = append(lines, line)
	}
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return lines
}

// shorten cuts a text that is too long to be read.
func shorten(text string) string {
	const limit = 200
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
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
				err = c.run(plain, tests[:n], new(time.Time), &results)
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
	var now time.Time
	apart, err := module.Apart(func() time.Time { return now })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, apart.Close()) }()
	r.Stage = apart
	processor, err := c.only([]engine.Rule{r})
	if err != nil {
		return err
	}
	return c.run(processor, tests, &now, results)
}

// run runs tests in turn, and tells now what time each has.
func (c *Config) run(processor *engine.Processor, tests []Test, now *time.Time, results *[]TestResult) error {
	for _, test := range tests {
		*now = test.Now
		m := &filterd.Message{Channel: test.Channel, Sharded: test.Sharded, Payload: test.Payload(c.Registry), Received: test.Now}
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
	if t.Raw || t.Event == nil && registry.Lookup(t.Channel).Envelope != filterd.EnvelopeCloudEvents {
		return t.In
	}
	event := *around(&t)
	if t.Event != nil {
		event = *t.Event
	}
	event.Data = t.In
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
	r := TestResult{Test: t, OK: outcome == t.Outcome, Want: string(t.Outcome), Got: string(outcome) + detail}
	if t.Outcome == OutcomeDeliver {
		var channels []string
		for _, d := range t.Out {
			channels = append(channels, d.Channel)
		}
		r.Want = delivery(channels)
	}
	if outcome == OutcomeDeliver {
		r.judgeOutputs(result.Outputs)
	}
	return r
}

// judgeOutputs holds what a rule sends against what was expected.
func (r *TestResult) judgeOutputs(outputs []engine.Output) {
	expected := slices.Clone(r.Test.Out)
	var channels []string
	compared := make(map[*Content][][]byte) // and equal, or told already
	for _, output := range outputs {
		if output.Rule != r.Test.Rule {
			continue
		}
		want := r.Test.Sent
		if output.Channel != "" {
			channels = append(channels, output.Channel)
			i := slices.IndexFunc(expected, func(d Delivery) bool { return d.Channel == output.Channel })
			if i < 0 {
				r.OK = false
				continue
			}
			if expected[i].Payload != nil {
				want = expected[i].Payload
			}
			expected = slices.Delete(expected, i, i+1)
		}
		told := slices.ContainsFunc(compared[want], func(payload []byte) bool { return bytes.Equal(payload, output.Payload) })
		if want != nil && !told {
			r.Differences = append(r.Differences, want.difference(targetOf(output), output.Payload)...)
			compared[want] = append(compared[want], output.Payload)
		}
	}
	r.OK = r.OK && len(expected) == 0
	r.Got = delivery(channels)
	if !r.OK {
		r.Differences = nil // of what, is not sure
	} else if len(r.Differences) > 0 {
		r.OK = false
		r.Got += ", with another payload"
	}
}

// targetOf names where an output goes.
func targetOf(output engine.Output) string {
	switch {
	case output.Channel != "":
		return output.Channel
	case output.Webhook != "":
		return "webhook " + output.Webhook
	case output.Callback != "":
		return "callback " + output.Callback
	}
	return "log"
}

func delivery(channels []string) string {
	if len(channels) == 0 {
		return "kept, for no channel"
	}
	return strings.Join(channels, ", ")
}
