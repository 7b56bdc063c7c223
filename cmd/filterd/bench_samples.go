package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/internal/measure"
)

// maxSamples bounds the messages that are published in turn, in bytes.
const maxSamples = 64 << 20

// readSamples returns what is to be published: the messages of the tests beside
// the rules, or of --messages. Tests of what is invalid or fails are left out:
// that costs much more, and is rarer by day than in tests. So are entries of
// streams.
func readSamples(c *cli.Context, loaded *config.Config) ([]*filterd.Message, error) {
	file := c.String("messages")
	if file == "" {
		var samples []*filterd.Message
		for _, t := range loaded.Tests {
			if t.Outcome == config.OutcomeInvalid || t.Outcome == config.OutcomeError || t.Stream {
				continue
			}
			samples = append(samples, &filterd.Message{Channel: t.Channel, Payload: t.Payload(loaded.Registry)})
		}
		if len(samples) == 0 {
			return nil, usage("%s has no tests of channels' messages that are delivered or dropped, which could be published: write some beside its rules, or give --messages FILE", oneLine(loaded.Path))
		}
		return samples, nil
	}
	channel, err := samplesChannel(c, loaded)
	if err != nil {
		return nil, err
	}
	from := c.App.Reader
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, &exitError{code: exitUsage, err: err}
		}
		defer opened.Close()
		from = opened
	}
	input, stop := interruptible(c.Context, from)
	defer stop()
	var samples []*filterd.Message
	lines, size := newLineReader(input, maxLine), 0
	for {
		line, err := lines.next()
		switch {
		case err == io.EOF && len(samples) == 0:
			return nil, usage("%s holds no message", oneLine(file))
		case err == io.EOF:
			return samples, nil
		case err != nil:
			return nil, &exitError{code: exitUsage, err: fmt.Errorf("read line %d of %s: %w", lines.n, oneLine(file), err)}
		}
		if size += len(line); size > maxSamples {
			return nil, usage("%s is over the limit of %s: a part of it will do, it is published again and again", oneLine(file), bytesText(maxSamples))
		}
		samples = append(samples, (&filterd.Message{Channel: channel, Payload: line}).Clone())
	}
}

// samplesChannel returns where --messages are published.
func samplesChannel(c *cli.Context, loaded *config.Config) (string, error) {
	subscriptions := loaded.Table.Subscriptions()
	names, globs := subscriptions.Channels, subscriptions.Globs
	channel := c.String("channel")
	switch {
	case channel == "" && len(names) == 1 && len(globs) == 0:
		return names[0], nil
	case channel == "":
		return "", usage("--messages needs --channel: the rules read %s", oneLine(strings.Join(slices.Concat(names, globs), ", ")))
	case filterd.IsGlob(channel):
		return "", usage("--channel %q: want the name of a channel", channel)
	case !slices.Contains(names, channel) && !slices.ContainsFunc(globs, func(g string) bool { return filterd.CompileGlob(g).Match(channel) }):
		return "", usage("--channel %s: no rule reads that%s", oneLine(channel), didYouMean(channel, names))
	}
	return channel, nil
}

// An expectation is what is to come out of the samples, as a dry run of the
// rules says.
type expectation struct {
	messages []measure.Message
	channels map[string]bool // that something comes out to
	stages   map[string]bool // rules with a module
	stateful []string        // of those, rules that make another thing of a message the second time
	others   map[string]bool // rules that also send to what is no channel
}

// expect runs the rules over the samples, twice: what is another thing the
// second time can't be foreseen.
func expect(loaded *config.Config, samples []*filterd.Message) (*expectation, error) {
	e := &expectation{channels: make(map[string]bool), stages: make(map[string]bool), others: make(map[string]bool)}
	for _, r := range loaded.Rules {
		if r.Stage != nil {
			e.stages[r.Name] = true
		}
	}
	processor := loaded.Table.NewProcessor()
	passes := make([][]foreseen, 2)
	for pass := range passes {
		for _, m := range samples {
			f, err := e.foresee(processor, m, maxChain)
			if err != nil {
				return nil, err
			}
			passes[pass] = append(passes[pass], f)
		}
	}
	for i, m := range samples {
		first, second := passes[0][i], passes[1][i]
		message := measure.Message{Channel: m.Channel, Payload: m.Payload, Matched: first.matched || second.matched}
		same := slices.EqualFunc(first.outputs, second.outputs, func(a, b foreseenOutput) bool { return a.Channel == b.Channel })
		for at, o := range second.outputs {
			e.channels[o.Channel] = true
			o.Vague = !same
			if !same || o.deadLetter || string(o.Payload) != string(first.outputs[at].Payload) {
				o.Payload = nil // it tells the time, for instance
			}
			message.Outputs = append(message.Outputs, o.Output)
		}
		if !same {
			for _, o := range first.outputs {
				e.channels[o.Channel] = true
				if !slices.ContainsFunc(message.Outputs, func(other measure.Output) bool { return other.Channel == o.Channel }) {
					message.Outputs = append(message.Outputs, measure.Output{Channel: o.Channel, Vague: true})
				}
			}
			for _, o := range slices.Concat(first.outputs, second.outputs) {
				if e.stages[o.rule] && !slices.Contains(e.stateful, o.rule) {
					e.stateful = append(e.stateful, o.rule)
				}
			}
		}
		e.messages = append(e.messages, message)
	}
	return e, nil
}

// maxChain is how many rules a message passes one after the other at most, from
// channel to channel: filterd stops at that, too.
const maxChain = engine.MaxHops + 1

// foreseen is what is to come of one message.
type foreseen struct {
	matched bool
	outputs []foreseenOutput
}

type foreseenOutput struct {
	measure.Output
	rule       string
	deadLetter bool
}

// foresee runs the rules over a message, and over what they send to channels
// that rules read.
func (e *expectation) foresee(processor *engine.Processor, m *filterd.Message, depth int) (foreseen, error) {
	var f foreseen
	if depth == 0 {
		return f, nil
	}
	result, err := processor.Process(m.Clone())
	if err != nil {
		return f, err
	}
	for _, o := range result.Outcomes {
		f.matched = f.matched || o.Matched
	}
	for _, o := range result.Outputs {
		if o.Shadow {
			continue
		}
		if o.Channel == "" || o.Stream {
			e.others[o.Rule] = true
			continue
		}
		f.outputs = append(f.outputs, foreseenOutput{measure.Output{Channel: o.Channel, Payload: slices.Clone(o.Payload)}, o.Rule, o.DeadLetter})
	}
	for _, o := range f.outputs {
		next, err := e.foresee(processor, &filterd.Message{Channel: o.Channel, Payload: o.Payload}, depth-1)
		if err != nil {
			return f, err
		}
		f.outputs = append(f.outputs, next.outputs...)
	}
	return f, nil
}

// notes says what the figures leave out.
func (e *expectation) notes(loaded *config.Config) []string {
	notes := []string{}
	if len(e.channels) == 0 {
		notes = append(notes, "nothing of these messages goes to a channel, so there is no latency, and that all arrived is known by filterd's own count only")
	}
	for _, r := range loaded.Rules {
		if e.others[r.Name] {
			notes = append(notes, fmt.Sprintf("rule %s also sends to the log or to streams: that is part of the work, but is not counted here", oneLine(r.Name)))
		}
	}
	if len(loaded.Table.Subscriptions().Streams) > 0 {
		notes = append(notes, "streams are not read: only what comes from channels is measured")
	}
	if len(e.stages) > 0 && len(e.stateful) == 0 {
		notes = append(notes, fmt.Sprintf("rules with modules have queues: as fast as possible means %d messages on their way", stageWindow))
	}
	if len(e.stateful) > 0 {
		notes = append(notes, fmt.Sprintf("what comes of rule %s can't be foreseen: losses are those that filterd counts", oneLine(strings.Join(e.stateful, ", "))))
	}
	return notes
}
