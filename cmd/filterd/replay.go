package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

func replayCommand() *cli.Command {
	return &cli.Command{
		Name:  "replay",
		Usage: "run the rules over messages from standard input, without Redis",
		Description: "With --channel each line is a payload; without it each line is a record\n" +
			`  {"channel": "PRICE_DATA", "payload": "…"}` + "\n" +
			"with payload_base64 instead of payload where that is no text. For every delivery, dead letters too, one\n" +
			`line {"rule", "to", "payload"} comes out; what rules send out is not fed back.` + "\n\n" +
			"Lines that are no valid message, or that a rule fails on, go to standard error with their number; then\n" +
			"the exit code is 1.",
		Flags: []cli.Flag{
			configFlag(),
			channelFlag("take each line as a payload of this `CHANNEL`"),
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only count the lines that are invalid or fail"},
			outputFlag(),
		},
		Action: replay,
	}
}

// A record is a recorded message.
type record struct {
	Channel       string    `json:"channel"`
	Payload       *string   `json:"payload"`
	PayloadBase64 []byte    `json:"payload_base64"`
	Received      time.Time `json:"received"`
}

// A delivery is what replay prints.
type delivery struct {
	Rule          string  `json:"rule"`
	To            string  `json:"to"`
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
}

func replay(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.IsSet("channel") && (c.String("channel") == "" || filterd.IsGlob(c.String("channel"))) {
		return usage("--channel %q: want the name of a channel", c.String("channel"))
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return err
	}
	defer loaded.Close()
	processor := loaded.Table.NewProcessor()
	out := bufio.NewWriterSize(c.App.Writer, 64<<10)
	defer out.Flush()
	t := newTally(c)
	err = eachLine(c.Context, c.App.Reader, t, func(n int, line []byte) error {
		m, err := readMessage(c.String("channel"), line)
		if err != nil {
			t.invalid(n, err)
			return nil
		}
		result, err := processor.Process(m)
		if err != nil {
			return err
		}
		t.add(n, result)
		for _, output := range result.Outputs {
			if err := printJSON(out, newDelivery(output)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	return t.finish()
}

// add counts what the rules made of a line: it matched if a rule kept it.
func (t *tally) add(n int, result engine.Result) {
	if result.Invalid != nil {
		t.invalid(n, result.Invalid)
	}
	matched, failed := false, false
	for _, outcome := range result.Outcomes {
		matched = matched || outcome.Matched
		if outcome.Err != nil {
			failed = true
			t.report(n, fmt.Errorf("rule %s: %w", outcome.Rule, outcome.Err))
		}
	}
	if matched {
		t.Matched++
	}
	if failed {
		t.Errors++
	}
	for _, err := range result.Lost {
		t.report(n, err)
	}
}

// readMessage makes a message of a line: a payload of the channel, or a record
// if channel is empty. The message borrows the line.
func readMessage(channel string, line []byte) (*filterd.Message, error) {
	if channel != "" {
		return &filterd.Message{Channel: channel, Payload: line}, nil
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf(`not a record {"channel", "payload"}: %w (--channel takes lines as payloads)`, err)
	}
	switch {
	case r.Channel == "":
		return nil, errors.New("the record has no channel (--channel takes lines as payloads)")
	case r.Payload != nil:
		return &filterd.Message{Channel: r.Channel, Payload: []byte(*r.Payload), Received: r.Received}, nil
	case r.PayloadBase64 != nil:
		return &filterd.Message{Channel: r.Channel, Payload: r.PayloadBase64, Received: r.Received}, nil
	}
	return nil, errors.New("the record has no payload")
}

func newDelivery(output engine.Output) delivery {
	d := delivery{Rule: output.Rule, To: destination(output)}
	if utf8.Valid(output.Payload) {
		text := string(output.Payload)
		d.Payload = &text
	} else {
		d.PayloadBase64 = output.Payload
	}
	return d
}

// destination names where an output goes: a channel, "callback:NAME" or
// "log:LEVEL".
func destination(output engine.Output) string {
	switch {
	case output.Callback != "":
		return "callback:" + output.Callback
	case output.Log != nil:
		return "log:" + strings.ToLower(output.Log.String())
	}
	return output.Channel
}
