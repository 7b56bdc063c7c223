package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/muesli/cancelreader"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/filters/wasmfilter"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:  "explain",
		Usage: "say what a rule makes of a message, and why",
		Description: "Standard input is the payload of one message. What comes out: whether it keeps its channel's contract, how\n" +
			"the rule is found among many, the value of every part of its condition with * before what decided, what its\n" +
			"module did, and what goes where. Nothing is published. Without a message, only how the rule is found.\n\n" +
			"The exit code is 1 if the message breaks its contract or the rule fails on it.\n\n" +
			`Example: echo '{"symbol": "BTC-USD", "price": 60000, "qty": 1}' | filterd explain --rule whales`,
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "rule", Aliases: []string{"r"}, Usage: "the `NAME` of the rule; not needed if there is only one"},
			channelFlag("the `CHANNEL` that the message comes from; not needed if the rule takes messages of only one"),
			&cli.BoolFlag{Name: "data", Usage: "standard input is an event's data: put an event around it where the contract wants one"},
			outputFlag(),
		},
		Action: explain,
	}
}

// An explanation is what explain prints.
type explanation struct {
	access
	Message *explainedMessage `json:"message,omitempty"` // nil: there is none
}

// An explainedMessage is what a rule makes of a message.
type explainedMessage struct {
	Channel  string              `json:"channel"`
	Contract explainedContract   `json:"contract"`
	When     *explainedCondition `json:"when,omitempty"` // nil: there is none, or no rule sees the message
	Stage    *explainedStage     `json:"wasm,omitempty"` // nil: there is none, or it was not asked
	Outputs  []explainedOutput   `json:"outputs"`
	Lost     []string            `json:"lost,omitempty"`     // dead letters that break their channel's contract
	Error    string              `json:"error,omitempty"`    // what the rule failed on
	OnError  engine.OnError      `json:"on_error,omitempty"` // what the rule then does
}

// An explainedContract is a contract's verdict.
type explainedContract struct {
	Name  string `json:"name,omitempty"` // as declared; empty if the channel is not
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	// Refused says that no rule sees the message; it may break a schema that
	// is not, or not always, enforced.
	Refused bool `json:"refused"`

	bare bool // the payload is no event where there should be one
}

type explainedCondition struct {
	Kept  bool            `json:"kept"`
	Error string          `json:"error,omitempty"`
	Steps []explainedStep `json:"steps"`
}

// An explainedStep is an [exprfilter.Step].
type explainedStep struct {
	Depth     int    `json:"depth"`
	Source    string `json:"source"`
	Evaluated bool   `json:"evaluated"`
	Value     string `json:"value,omitempty"`
	Error     string `json:"error,omitempty"`
	Decided   bool   `json:"decided"`
}

type explainedOutput struct {
	delivery
	DeadLetter bool `json:"dead_letter,omitempty"`
}

func explain(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return err
	}
	defer loaded.Close()
	rule, err := explainedRule(c, loaded)
	if err != nil {
		return err
	}
	if c.IsSet("channel") && !takes(rule, c.String("channel")) {
		return usage("rule %s takes no messages of channel %q, but of %s", rule.Name, c.String("channel"), strings.Join(rule.Sources(), ", "))
	}
	found, err := ruleAccess([]engine.Rule{rule})
	if err != nil {
		return err
	}
	e := &explanation{access: found[0]}
	payload, err := readPayload(c)
	if err != nil {
		return err
	}
	if payload != nil {
		channel, err := explainedChannel(c, rule)
		if err != nil {
			return err
		}
		if c.Bool("data") {
			payload = withEvent(loaded.Registry, channel, payload)
		}
		m := &filterd.Message{Channel: channel, Payload: payload}
		comeFrom(rule, m)
		if e.Message, err = explainMessage(loaded.Registry, rule, m); err != nil {
			return err
		}
	}
	if asJSON(c) {
		err = printJSON(c.App.Writer, e)
	} else {
		_, err = io.WriteString(c.App.Writer, e.text())
	}
	if m := e.Message; err == nil && m != nil && (!m.Contract.OK || m.Error != "") {
		return &exitError{code: exitFailed}
	}
	return err
}

// explainedRule returns the rule that --rule names.
func explainedRule(c *cli.Context, loaded *config.Config) (engine.Rule, error) {
	name, names := c.String("rule"), loaded.Table.Rules()
	if !c.IsSet("rule") {
		if len(names) == 1 {
			return loaded.Rules[0], nil
		}
		shown := strings.Join(names[:min(len(names), 10)], ", ")
		if len(names) > 10 {
			shown += ", …"
		}
		return engine.Rule{}, usage("which of the %d rules? Choose one with --rule: %s", len(names), oneLine(shown))
	}
	i := slices.Index(names, name)
	if i < 0 {
		return engine.Rule{}, usage("%s has no rule %q%s", loaded.Path, name, didYouMean(name, names))
	}
	return loaded.Rules[i], nil
}

// offlineID is the ID of entries that come from no stream.
const offlineID = "0-1"

// comeFrom makes a message that of a stream, or a sharded channel, if that is what
// the rule takes by its name.
func comeFrom(r engine.Rule, m *filterd.Message) {
	switch {
	case takesChannel(r, m.Channel):
	case slices.Contains(r.Sharded, m.Channel):
		m.Sharded = true
	default:
		m.ID = offlineID
	}
}

// takes reports whether a rule takes messages of a channel or a stream.
func takes(r engine.Rule, name string) bool {
	return takesChannel(r, name) || slices.Contains(r.Sharded, name) || slices.ContainsFunc(r.Streams, func(s filterd.Stream) bool { return s.Name == name })
}

func takesChannel(r engine.Rule, channel string) bool {
	return channel != "" && slices.ContainsFunc(r.From, func(from string) bool { return filterd.CompileGlob(from).Match(channel) })
}

// explainedChannel returns the channel, or stream, that the message comes from.
func explainedChannel(c *cli.Context, r engine.Rule) (string, error) {
	if c.IsSet("channel") {
		return c.String("channel"), nil
	}
	names := slices.DeleteFunc(slices.Clone(r.From), filterd.IsGlob)
	for _, s := range r.Streams {
		names = append(names, s.Name)
	}
	names = append(names, r.Sharded...)
	switch len(names) {
	case 0:
		return "", usage("rule %s takes messages of any channel like %s: name one with --channel", r.Name, strings.Join(r.From, ", "))
	case 1:
		return names[0], nil
	}
	return "", usage("rule %s takes messages of %s: choose one with --channel", r.Name, strings.Join(names, ", "))
}

// readPayload reads a message from standard input; nil if there is none.
func readPayload(c *cli.Context) ([]byte, error) {
	input := c.App.Reader
	if file, ok := input.(*os.File); ok {
		if term.IsTerminal(file.Fd()) {
			return nil, nil
		}
		if r, err := cancelreader.NewReader(file); err == nil { // a plain file is none to wait for
			defer r.Close()
			defer context.AfterFunc(c.Context, func() { r.Cancel() })()
			input = r
		}
	}
	payload, err := io.ReadAll(io.LimitReader(input, maxLine+1))
	switch {
	case c.Context.Err() != nil:
		return nil, c.Context.Err()
	case err != nil:
		return nil, fmt.Errorf("read the message: %w", err)
	case len(payload) > maxLine:
		return nil, fmt.Errorf("the message is over the limit of %d bytes", maxLine)
	case len(payload) == 0:
		return nil, nil
	}
	return []byte(strings.TrimSuffix(strings.TrimSuffix(string(payload), "\n"), "\r")), nil
}

// withEvent puts an event around data if that is what the channel's contract
// wants.
func withEvent(registry *filterd.Registry, channel string, data []byte) []byte {
	if registry.Lookup(channel).Envelope != filterd.EnvelopeCloudEvents || !json.Valid(data) {
		return data // what is no JSON is told of by the contract
	}
	event := filterd.Event{ID: "explain", Source: "filterd/explain", Type: channel, Data: data}
	return event.AppendJSON(nil)
}

// explainMessage runs one rule on one message, in a table of its own.
func explainMessage(registry *filterd.Registry, r engine.Rule, m *filterd.Message) (*explainedMessage, error) {
	e := &explainedMessage{Channel: m.Channel, Outputs: []explainedOutput{}}
	whole := &filterd.Message{Channel: m.Channel, Payload: m.Payload}
	broken := registry.CheckWhole(whole)
	e.Contract = explainedContract{Name: registry.Lookup(m.Channel).Channel, OK: broken == nil, Error: errorText(broken)}
	var invalid *filterd.ValidationError
	e.Contract.bare = errors.As(broken, &invalid) && invalid.Reason == filterd.ReasonEnvelope

	var stage *watchedStage
	if module, ok := r.Stage.(*wasmfilter.Module); ok {
		stage = &watchedStage{Stage: module, rule: r.Name, module: module}
		r.Stage = stage
	}
	steady, err := withoutSamples(registry)
	if err != nil {
		return nil, err
	}
	table, err := engine.Compile(engine.Definition{Registry: steady, Rules: []engine.Rule{r}})
	if err != nil {
		return nil, err
	}
	result, err := table.NewProcessor().Process(m)
	if err != nil {
		return nil, err
	}
	e.Contract.Refused = result.Invalid != nil
	for _, outcome := range result.Outcomes {
		if outcome.Err != nil {
			e.Error, e.OnError = outcome.Err.Error(), cmp.Or(r.OnError, engine.OnErrorDrop)
		}
	}
	for _, output := range result.Outputs {
		e.Outputs = append(e.Outputs, explainedOutput{newDelivery(output), output.DeadLetter})
	}
	for _, lost := range result.Lost {
		e.Lost = append(e.Lost, lost.Error())
	}
	if stage != nil {
		e.Stage = stage.seen
	}
	if filter, ok := r.When.(*exprfilter.Filter); ok && result.Invalid == nil {
		if e.When, err = explainCondition(filter, whole); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// withoutSamples returns the registry without checks that only some of the
// messages meet.
func withoutSamples(registry *filterd.Registry) (*filterd.Registry, error) {
	var contracts []filterd.Contract
	for _, c := range registry.Contracts() {
		steady := *c
		if steady.Validate == filterd.ValidateSample {
			steady.Validate = filterd.ValidateOff
		}
		contracts = append(contracts, steady)
	}
	return filterd.NewRegistry(contracts...)
}

func explainCondition(filter *exprfilter.Filter, m *filterd.Message) (*explainedCondition, error) {
	explained, err := filter.Explain(m)
	if err != nil {
		return nil, err
	}
	e := &explainedCondition{Kept: explained.Kept, Error: errorText(explained.Err)}
	for _, s := range explained.Steps {
		e.Steps = append(e.Steps, explainedStep{s.Depth, s.Source, s.Evaluated, s.Value, errorText(s.Err), s.Decided})
	}
	return e, nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
