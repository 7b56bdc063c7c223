package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

func replayCommand() *cli.Command {
	return &cli.Command{
		Name:      "replay",
		Usage:     "run the rules over recorded messages without Redis, or publish them again",
		ArgsUsage: "[FILE…]",
		Description: "FILEs are recordings of 'filterd record', plain or compressed; without one, standard input is read. With\n" +
			"--channel or --stream each line is a payload; without it each line is a record\n" +
			`  {"channel": "PRICE_DATA", "payload": "…"}` + "\n" +
			"with stream instead of channel for an entry of a stream, and payload_base64 instead of payload where\n" +
			"that is no text. For every delivery, dead letters too, one\n" +
			`line {"rule", "to", "payload"} comes out; what rules send out is not fed back.` + "\n\n" +
			"With --diff, the rules of two files run side by side, and only what differs comes out. With --to no rule\n" +
			"runs: the messages are published, in their own time.\n\n" +
			"Lines that are no valid message, or that a rule fails on, go to standard error with their number; then\n" +
			"the exit code is 1. So do gaps, where the recording may lack messages.",
		Flags: []cli.Flag{
			configFlag(),
			channelFlag("take each line as a payload of this `CHANNEL`"),
			&cli.StringFlag{Name: "stream", Usage: "take each line as the message of an entry of this `STREAM`"},
			&cli.StringFlag{Name: "diff", Usage: "print only what the rules of this config `FILE` would change"},
			&cli.StringFlag{Name: "to", Usage: "publish the messages to the Redis of this `URL`"},
			&cli.BoolFlag{Name: "validate", Usage: "with --to: publish only what keeps the contracts of the config file"},
			&cli.StringFlag{Name: "speed", Usage: "`FACTOR` of the speed of the recording: 1, 2, 0.5, or max, for no pauses (default: 1 with --to, max without)"},
			&cli.Float64Flag{Name: "rate", Usage: "take `N` messages a second, whatever the recording's times are"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only count the lines that are invalid or fail"},
			outputFlag(),
		},
		Action: replay,
	}
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
	in, err := newReplayInput(c)
	if err != nil {
		return err
	}
	switch {
	case c.IsSet("to") && c.IsSet("diff"):
		return usage("--to and --diff: want one of them")
	case c.IsSet("to"):
		return replayTo(c, in)
	case c.Bool("validate"):
		return usage("--validate is for --to: the rules check messages in any case")
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return err
	}
	defer loaded.Close()
	if c.IsSet("diff") {
		return replayDiff(c, in, loaded)
	}
	processor := loaded.Table.NewProcessor()
	t, out := in.tally, in.out
	return in.run(c.Context, func(n int, m *filterd.Message) error {
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
}

// A replayInput is the messages that a replay takes, in their time.
type replayInput struct {
	reader          io.Reader // of standard input
	files           []string
	channel, stream string
	pace            pace
	tally           *tally
	out             *bufio.Writer
	// wait is called before a pause.
	wait func() error

	recording bool // the file at hand has a start, and no end yet
}

func newReplayInput(c *cli.Context) (*replayInput, error) {
	in := &replayInput{
		reader:  c.App.Reader,
		files:   c.Args().Slice(),
		channel: c.String("channel"),
		stream:  c.String("stream"),
		tally:   newTally(c),
		out:     bufio.NewWriterSize(c.App.Writer, 64<<10),
	}
	in.wait = in.out.Flush
	if c.IsSet("channel") && (in.channel == "" || filterd.IsGlob(in.channel)) {
		return nil, usage("--channel %q: want the name of a channel", in.channel)
	}
	if c.IsSet("stream") && (in.stream == "" || c.IsSet("channel")) {
		return nil, usage("--stream %q: want the name of a stream, and no --channel", in.stream)
	}
	speed := "max"
	if c.IsSet("to") {
		speed = "1"
	}
	var err error
	if in.pace.factor, err = parseSpeed(cmp.Or(c.String("speed"), speed)); err != nil {
		return nil, err
	}
	if in.pace.rate = c.Float64("rate"); c.IsSet("rate") && (!(in.pace.rate > 0) || c.IsSet("speed")) {
		return nil, usage("--rate %v: want more than 0, and no --speed", in.pace.rate)
	}
	for _, name := range in.files { // before anything is sent
		if _, err := os.Stat(name); err != nil {
			return nil, &exitError{code: exitUsage, err: err}
		}
	}
	return in, nil
}

// run calls do with each message, until ctx ends, and says what was counted.
// What do writes to out is flushed by the end.
func (in *replayInput) run(ctx context.Context, do func(n int, m *filterd.Message) error) error {
	err := in.each(ctx, do)
	if _, ok := errors.AsType[*versionError](err); ok {
		return &exitError{code: exitUsage, err: err}
	}
	if err = errors.Join(err, in.wait()); err != nil {
		_ = in.tally.finish() // err is what it failed on
		return err
	}
	return in.tally.finish()
}

func (in *replayInput) each(ctx context.Context, do func(n int, m *filterd.Message) error) error {
	if len(in.files) == 0 {
		return in.read(ctx, in.reader, do)
	}
	for _, name := range in.files {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		in.tally.file = name
		err = in.read(ctx, file, do)
		if err := errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// read reads one file.
func (in *replayInput) read(ctx context.Context, r io.Reader, do func(n int, m *filterd.Message) error) error {
	input, release := interruptible(ctx, r)
	defer release()
	text, stop, err := uncompressed(input)
	if err != nil {
		return err
	}
	defer stop()
	in.recording = false
	last := 0
	err = eachLine(ctx, text, in.tally, func(n int, line []byte) error {
		last = n
		m, err := in.message(n, line)
		switch _, fatal := errors.AsType[*versionError](err); {
		case fatal:
			return err
		case err != nil:
			in.tally.invalid(n, err)
			return nil
		case m == nil: // lines are messages
			in.tally.Lines--
			return nil
		}
		if err := in.pause(ctx, m); err != nil {
			return err
		}
		if ctx.Err() != nil { // its time has not come
			in.tally.Lines--
			return nil
		}
		return do(n, m)
	})
	if err == nil && in.recording && ctx.Err() == nil {
		in.tally.report(last, errors.New("the recording has no end: what came behind this line is lost"))
	}
	return err
}

// pause waits until it is a message's time, or ctx ends.
func (in *replayInput) pause(ctx context.Context, m *filterd.Message) error {
	delay := in.pace.delay(m.Received, time.Now())
	if delay <= 0 {
		return nil
	}
	if err := in.wait(); err != nil {
		return err
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// A pace says when it is a message's time. What comes late is not delayed, so
// that the whole takes no longer.
type pace struct {
	factor float64 // of the recording's speed; 0 is without pauses
	rate   float64 // messages a second instead; 0 is the recording's times

	began    time.Time // the replay, with the first message
	first    time.Time // when that was received
	messages int
}

// delay returns how long to wait for a message that was received at some time.
func (p *pace) delay(received, now time.Time) time.Duration {
	var since time.Duration // the first message
	switch {
	case p.rate > 0:
		since = time.Duration(float64(p.messages) / p.rate * float64(time.Second))
		p.messages++
	case p.factor == 0 || received.IsZero():
		return 0
	case p.first.IsZero():
		p.first = received
	default:
		since = time.Duration(float64(received.Sub(p.first)) / p.factor)
	}
	if p.began.IsZero() {
		p.began = now
	}
	return p.began.Add(since).Sub(now)
}

// parseSpeed returns the factor of a speed; 0 is max.
func parseSpeed(text string) (float64, error) {
	if text == "max" {
		return 0, nil
	}
	factor, err := strconv.ParseFloat(strings.TrimSuffix(text, "x"), 64)
	if err != nil || !(factor > 0) || math.IsInf(factor, 0) {
		return 0, usage("--speed %s: want a factor above 0, or max", text)
	}
	return factor, nil
}

// A versionError says that a recording can't be read.
type versionError struct{ version int }

func (e *versionError) Error() string {
	return fmt.Sprintf("the recording has version %d of the format, and this filterd reads %d: take the filterd that recorded it, or a newer one", e.version, recordingVersion)
}

// message makes a message of a line: a payload of the channel or the stream, or
// a record if both are empty. It is nil for a record of another kind. The
// message borrows the line.
func (in *replayInput) message(n int, line []byte) (*filterd.Message, error) {
	switch {
	case in.channel != "":
		return &filterd.Message{Channel: in.channel, Payload: line}, nil
	case in.stream != "":
		return &filterd.Message{Channel: in.stream, ID: offlineID, Payload: line}, nil
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf(`not a record {"channel", "payload"}: %w (--channel takes lines as payloads)`, err)
	}
	switch r.Kind {
	case recordMessage:
		return r.message()
	case recordStart:
		if r.Version != recordingVersion {
			return nil, &versionError{r.Version}
		}
		in.recording = true
	case recordEnd:
		in.recording = false
	case recordGap:
		in.tally.report(n, fmt.Errorf("gap of %v: messages of %s may be missing: %s", r.To.Sub(r.From), strings.Join(shown(r.Channels), ", "), r.Reason))
	default:
		return nil, fmt.Errorf("a record of kind %q: want %s", r.Kind, strings.Join([]string{recordStart, recordGap, recordEnd}, ", ")+", or none for a message")
	}
	return nil, nil
}

// add counts what the rules made of a line, and reports what is wrong with it.
func (t *tally) add(n int, result engine.Result) {
	t.count(result)
	if result.Invalid != nil {
		t.report(n, result.Invalid)
	}
	for _, outcome := range result.Outcomes {
		if outcome.Err != nil {
			t.report(n, fmt.Errorf("rule %s: %w", outcome.Rule, outcome.Err))
		}
	}
	for _, err := range result.Lost {
		t.report(n, err)
	}
}

// count counts what the rules made of a line: it matched if a rule kept it.
func (t *tally) count(result engine.Result) {
	if result.Invalid != nil {
		t.Invalid++
	}
	if slices.ContainsFunc(result.Outcomes, func(o engine.Outcome) bool { return o.Matched }) {
		t.Matched++
	}
	if slices.ContainsFunc(result.Outcomes, func(o engine.Outcome) bool { return o.Err != nil }) {
		t.Errors++
	}
}

func newDelivery(output engine.Output) delivery {
	d := delivery{Rule: output.Rule, To: destination(output), Shadow: output.Shadow}
	d.Payload, d.PayloadBase64 = textOrBase64(output.Payload)
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
