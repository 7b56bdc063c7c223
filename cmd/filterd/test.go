package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
)

func testCommand() *cli.Command {
	return &cli.Command{
		Name:  "test",
		Usage: "run the tests that stand beside the rules",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list the tests that pass as well"},
			outputFlag(),
		},
		Action: runTests,
	}
}

// A testResult is what became of one test.
type testResult struct {
	Test string `json:"test"`
	File string `json:"file"`
	Line int    `json:"line"`
	OK   bool   `json:"ok"`
	Want string `json:"want"`
	Got  string `json:"got"`
}

func runTests(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return err
	}
	processor := loaded.Table.NewProcessor()
	failed := 0
	for _, test := range loaded.Tests {
		r, err := runTest(processor, loaded.Registry, test)
		if err != nil {
			return err
		}
		if !r.OK {
			failed++
		}
		switch {
		case asJSON(c):
			_ = printJSON(c.App.Writer, r)
		case !r.OK:
			fmt.Fprintf(c.App.Writer, "FAIL %s (%s:%d)\n  in:   %s\n  want: %s\n  got:  %s\n", oneLine(r.Test), oneLine(r.File), r.Line,
				oneLine(shorten(string(test.In), 200)), oneLine(r.Want), oneLine(r.Got))
		case c.Bool("verbose"):
			fmt.Fprintf(c.App.Writer, "ok   %s (%s:%d): %s\n", oneLine(r.Test), oneLine(r.File), r.Line, oneLine(r.Got))
		}
	}
	if !asJSON(c) {
		if len(loaded.Tests) == 0 {
			fmt.Fprintf(c.App.Writer, "%s has no tests: write some beside its rules\n", oneLine(loaded.Path))
		} else {
			fmt.Fprintf(c.App.Writer, "%d passed, %d failed\n", len(loaded.Tests)-failed, failed)
		}
	}
	if failed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// runTest runs one test, and says what its rule did.
func runTest(p *engine.Processor, registry *filterd.Registry, test config.Test) (testResult, error) {
	r := testResult{Test: test.String(), File: test.File, Line: test.Line, Want: string(test.Outcome)}
	if test.Outcome == config.OutcomeDeliver {
		r.Want = deliver(test.Out)
	}
	result, err := p.Process(&filterd.Message{Channel: test.Channel, Payload: testPayload(registry, test)})
	if err != nil {
		return r, err
	}
	outcome, detail := config.OutcomeDrop, ""
	var channels []string
	if result.Invalid != nil {
		outcome, detail = config.OutcomeInvalid, result.Invalid.Error()
	}
	for _, o := range result.Outcomes {
		switch {
		case o.Rule != test.Rule:
		case o.Err != nil:
			outcome, detail = config.OutcomeError, o.Err.Error()
		default:
			outcome = config.OutcomeDeliver
		}
	}
	for _, output := range result.Outputs {
		if output.Rule == test.Rule && output.Channel != "" {
			channels = append(channels, output.Channel)
		}
	}
	r.OK = outcome == test.Outcome
	r.Got = string(outcome)
	if outcome == config.OutcomeDeliver {
		r.OK = r.OK && slices.Equal(slices.Sorted(slices.Values(channels)), slices.Sorted(slices.Values(test.Out)))
		r.Got = deliver(channels)
	}
	if detail != "" {
		r.Got += ": " + detail
	}
	return r, nil
}

// testPayload returns a test's message, with an envelope around the data where
// the contract wants one.
func testPayload(registry *filterd.Registry, test config.Test) []byte {
	if test.Raw || registry.Lookup(test.Channel).Envelope != filterd.EnvelopeCloudEvents {
		return test.In
	}
	event := filterd.Event{ID: "test", Source: "filterd/test", Type: test.Channel, Data: test.In}
	return event.AppendJSON(nil)
}

func deliver(channels []string) string {
	if len(channels) == 0 {
		return "kept, for no channel"
	}
	return strings.Join(channels, ", ")
}

func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
