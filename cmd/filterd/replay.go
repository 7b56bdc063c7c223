package main

import (
	"bufio"
	"cmp"
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
		Description: "With --channel or --stream each line is a payload; without it each line is a record\n" +
			`  {"channel": "PRICE_DATA", "payload": "…"}` + "\n" +
			"with stream instead of channel for an entry of a stream, and payload_base64 instead of payload where\n" +
			"that is no text. For every delivery, dead letters too, one\n" +
			`line {"rule", "to", "payload"} comes out; what rules send out is not fed back.` + "\n\n" +
			"Lines that are no valid message, or that a rule fails on, go to standard error with their number; then\n" +
			"the exit code is 1.",
		Flags: []cli.Flag{
			configFlag(),
			channelFlag("take each line as a payload of this `CHANNEL`"),
			&cli.StringFlag{Name: "stream", Usage: "take each line as the message of an entry of this `STREAM`"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only count the lines that are invalid or fail"},
			outputFlag(),
		},
		Action: replay,
	}
}

// A record is a recorded message.
type record struct {
	Channel       string    `json:"channel"`
	Stream        string    `json:"stream"` // instead of channel
	Sharded       string    `json:"sharded"`
	ID            string    `json:"id"` // of the stream's entry
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
	Shadow        bool    `json:"shadow,omitempty"` // it would be one
}

func replay(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.IsSet("channel") && (c.String("channel") == "" || filterd.IsGlob(c.String("channel"))) {
		return usage("--channel %q: want the name of a channel", c.String("channel"))
	}
	if c.IsSet("stream") && (c.String("stream") == "" || c.IsSet("channel")) {
		return usage("--stream %q: want the name of a stream, and no --channel", c.String("stream"))
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
		m, err := readMessage(c.String("channel"), c.String("stream"), line)
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
			if output.Shadow {
				continue
			}
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

// readMessage makes a message of a line: a payload of the channel or the stream,
// or a record if both are empty. The message borrows the line.
func readMessage(channel, stream string, line []byte) (*filterd.Message, error) {
	switch {
	case channel != "":
		return &filterd.Message{Channel: channel, Payload: line}, nil
	case stream != "":
		return &filterd.Message{Channel: stream, ID: offlineID, Payload: line}, nil
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf(`not a record {"channel", "payload"}: %w (--channel takes lines as payloads)`, err)
	}
	m := &filterd.Message{Channel: r.Channel, Payload: r.PayloadBase64, Received: r.Received}
	if r.Sharded != "" {
		m.Channel, m.Sharded = r.Sharded, true
	}
	if r.Stream != "" {
		m.Channel, m.ID = r.Stream, cmp.Or(r.ID, offlineID)
	}
	if r.Payload != nil {
		m.Payload = []byte(*r.Payload)
	}
	switch {
	case m.Channel == "":
		return nil, errors.New("the record has no channel (--channel takes lines as payloads)")
	case m.Payload == nil:
		return nil, errors.New("the record has no payload")
	}
	return m, nil
}

func newDelivery(output engine.Output) delivery {
	d := delivery{Rule: output.Rule, To: destination(output), Shadow: output.Shadow}
	if utf8.Valid(output.Payload) {
		text := string(output.Payload)
		d.Payload = &text
	} else {
		d.PayloadBase64 = output.Payload
	}
	return d
}

// destination names where an output goes: a channel, "stream:NAME",
// "sharded:NAME", "webhook:NAME", "callback:NAME" or "log:LEVEL".
func destination(output engine.Output) string {
	switch {
	case output.Callback != "":
		return "callback:" + output.Callback
	case output.Webhook != "":
		return "webhook:" + output.Webhook
	case output.Log != nil:
		return "log:" + strings.ToLower(output.Log.String())
	case output.Stream:
		return "stream:" + output.Channel
	case output.Sharded:
		return "sharded:" + output.Channel
	}
	return output.Channel
}
