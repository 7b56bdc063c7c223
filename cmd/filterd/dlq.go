package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

func dlqCommand() *cli.Command {
	rule := &cli.StringFlag{Name: "rule", Usage: "only letters of this `RULE`; '-' is of none, but of a contract"}
	flags := []cli.Flag{configFlag(), urlFlag(), outputFlag()}
	return &cli.Command{
		Name:  "dlq",
		Usage: "look into a stream of dead letters, and send them on their way again",
		Subcommands: []*cli.Command{{
			Name:      "list",
			Usage:     "list dead letters, oldest first",
			ArgsUsage: "[STREAM]",
			Description: "Without STREAM it is the one that the config file names under dead_letter.\n" +
				"A letter that is replayed already is marked with *.",
			Flags:  append(slices.Clone(flags), rule, &cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "the first `N` letters only"}),
			Action: dlqList,
		}, {
			Name:      "show",
			Usage:     "show dead letters with their payload, and where in a rule or a schema they failed",
			ArgsUsage: "[STREAM] ID…",
			Flags:     slices.Clone(flags),
			Action:    dlqShow,
		}, {
			Name:      "replay",
			Usage:     "publish the messages of dead letters to where they came from, and delete the letters",
			ArgsUsage: "[STREAM] [ID…]",
			Description: "A message goes to its own channel or stream, if it satisfies the contract now: all rules there see it,\n" +
				"not only the one that failed. Each letter is replayed once at most, also when it is kept, or when the\n" +
				"end comes in between. What nobody is subscribed to stays where it is, but for channels in a Cluster, whose\n" +
				"subscribers nobody can count.\n\n" +
				"Example: filterd dlq replay --rule whales --dry-run",
			Flags: append(slices.Clone(flags), rule,
				&cli.BoolFlag{Name: "all", Usage: "all letters"},
				&cli.BoolFlag{Name: "keep", Usage: "leave the letters in the stream, marked as replayed"},
				&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"}),
			Action: dlqReplay,
		}},
	}
}

// letterPage is how many letters are read at once.
const letterPage = 200

var letterID = regexp.MustCompile(`^\d+-\d+$`)

// A dlq is a stream of dead letters, opened for one command.
type dlq struct {
	*pubsub.Letters
	c        *cli.Context
	stream   string
	ids      []string       // of the command line
	loaded   *config.Config // nil: there is no config file
	registry *filterd.Registry
}

func openDLQ(c *cli.Context) (*dlq, func(), error) {
	d := &dlq{c: c, ids: c.Args().Slice()}
	if len(d.ids) > 0 && !letterID.MatchString(d.ids[0]) {
		d.stream, d.ids = d.ids[0], d.ids[1:]
	}
	for _, id := range d.ids {
		if !letterID.MatchString(id) {
			return nil, nil, usage("%q is no letter's ID: want such as 1700000000000-0, as 'filterd dlq list' shows them", id)
		}
	}
	rdb, loaded, err := connectLoaded(c)
	if err != nil {
		return nil, nil, err
	}
	if d.loaded = loaded; loaded != nil {
		d.registry = loaded.Registry
	}
	if d.stream == "" {
		known := deadLetterStreams(loaded)
		if len(known) != 1 {
			_ = rdb.Close()
			if len(known) > 1 {
				return nil, nil, usage("name the stream: it is one of %s", oneLine(strings.Join(known, ", ")))
			}
			return nil, nil, usage("name the stream: no dead_letter of the config file is one")
		}
		d.stream = known[0]
	}
	d.Letters = pubsub.NewLetters(rdb, d.stream)
	return d, func() { _ = d.Close(); _ = rdb.Close() }, nil
}

// deadLetterStreams returns the streams that dead letters go to.
func deadLetterStreams(loaded *config.Config) []string {
	if loaded == nil {
		return nil
	}
	var streams []string
	for _, r := range loaded.Rules {
		if r.DeadLetterStream {
			streams = append(streams, r.DeadLetter)
		}
	}
	for _, contract := range loaded.Registry.Contracts() {
		if contract.DeadLetterStream {
			streams = append(streams, contract.DeadLetter)
		}
	}
	slices.Sort(streams)
	return slices.Compact(streams)
}

// A letter is a dead letter, and the entry that it stands in.
type letter struct {
	pubsub.Letter
	engine.DeadLetter
	err error // the entry is no dead letter
}

func readLetter(from pubsub.Letter) letter {
	l := letter{Letter: from}
	m := &filterd.Message{Payload: from.Payload}
	event, err := m.Event()
	switch {
	case from.Payload == nil:
		l.err = fmt.Errorf("no dead letter: the entry has no field %s", filterd.DefaultField)
	case err != nil:
		l.err = fmt.Errorf("no dead letter: %w", err)
	case event.Type != engine.DeadLetterType:
		l.err = fmt.Errorf("no dead letter: an event of type %s", event.Type)
	default:
		if err := json.Unmarshal(event.Data, &l.DeadLetter); err != nil {
			l.err = fmt.Errorf("no dead letter: %w", err)
		}
	}
	return l
}

// payload returns the message as it came in; nil if it is not whole.
func (l *letter) payload() []byte {
	switch {
	case l.Truncated:
		return nil
	case l.DeadLetter.Payload != nil:
		return []byte(*l.DeadLetter.Payload)
	}
	return l.PayloadBase64
}

// each calls do with the letters that the command line asks for, up to the one
// that is the last now: replaying may add more.
func (d *dlq) each(ctx context.Context, do func(l letter) error) error {
	if len(d.ids) > 0 {
		for _, id := range d.ids {
			found, err := d.Read(ctx, id, id, 1)
			if err != nil {
				return err
			}
			l := letter{Letter: pubsub.Letter{ID: id}, err: pubsub.ErrNoLetter}
			if len(found) > 0 {
				l = readLetter(found[0])
			}
			if err := do(l); err != nil {
				return err
			}
		}
		return nil
	}
	last, err := d.Last(ctx)
	if err != nil || last == "" {
		return err
	}
	rule, filtered := d.c.String("rule"), d.c.IsSet("rule")
	if rule == "-" {
		rule = ""
	}
	for from := "-"; ; {
		page, err := d.Read(ctx, from, last, letterPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, entry := range page {
			l := readLetter(entry)
			if filtered && (l.err != nil || l.Rule != rule) {
				continue
			}
			if err := do(l); err != nil {
				return err
			}
		}
		from = "(" + page[len(page)-1].ID
	}
}

// errEnough ends the reading of letters.
var errEnough = errors.New("enough")

func dlqList(c *cli.Context) error {
	d, done, err := openDLQ(c)
	if err != nil {
		return err
	}
	defer done()
	if len(d.ids) > 0 {
		return usage("list takes no ID: see 'filterd dlq show'")
	}
	n := 0
	err = d.each(c.Context, func(l letter) error {
		n++
		if asJSON(c) {
			err = d.printJSON(l)
		} else {
			mark := " "
			if l.Replayed {
				mark = "*"
			}
			if l.err != nil {
				_, err = fmt.Fprintf(c.App.Writer, "%s%s  %s\n", mark, l.Letter.ID, oneLine(l.err.Error()))
			} else {
				_, err = fmt.Fprintf(c.App.Writer, "%s%s  %s  %s  %s  %s\n", mark, l.Letter.ID, l.Time.Format(time.RFC3339),
					oneLine(l.Channel), oneLine(l.of()), oneLine(shorten(l.Reason, 200)))
			}
		}
		if err == nil && n == c.Int("count") {
			err = errEnough
		}
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return redisError(err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s\n", count(n, "letter"))
	return nil
}

// of says what the letter is of: a rule, or a contract.
func (l *letter) of() string {
	if l.Rule == "" {
		return "contract"
	}
	return "rule " + l.Rule
}

func (d *dlq) printJSON(l letter) error {
	line := struct {
		Entry    string             `json:"entry"`
		Replayed bool               `json:"replayed"`
		Letter   *engine.DeadLetter `json:"letter,omitempty"`
		Error    string             `json:"error,omitempty"`
	}{Entry: l.Letter.ID, Replayed: l.Replayed}
	if l.err != nil {
		line.Error = l.err.Error()
	} else {
		line.Letter = &l.DeadLetter
	}
	return printJSON(d.c.App.Writer, line)
}

func dlqShow(c *cli.Context) error {
	d, done, err := openDLQ(c)
	if err != nil {
		return err
	}
	defer done()
	if len(d.ids) == 0 {
		return usage("show needs the ID of a letter: see 'filterd dlq list'")
	}
	missing := 0
	err = d.each(c.Context, func(l letter) error {
		if l.err != nil {
			missing++
		}
		if asJSON(c) {
			return d.printJSON(l)
		}
		return d.show(l)
	})
	if err != nil {
		return redisError(err)
	}
	if missing > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// show prints a letter in lines.
func (d *dlq) show(l letter) error {
	var b strings.Builder
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-9s %s\n", name, value)
		}
	}
	row("entry", l.Letter.ID)
	if l.err != nil {
		row("error", oneLine(l.err.Error()))
	} else {
		row("time", l.Time.Format(time.RFC3339Nano))
		switch {
		case l.DeadLetter.ID != "":
			row("stream", oneLine(l.Channel)+" "+oneLine(l.DeadLetter.ID))
		case l.Sharded:
			row("sharded", oneLine(l.Channel))
		default:
			row("channel", oneLine(l.Channel))
		}
		row("rule", oneLine(l.Rule))
		row("reason", oneLine(l.Reason))
		for i, line := range d.position(&l.DeadLetter) {
			row([]string{"at", " "}[min(i, 1)], line)
		}
		row("pointer", oneLine(l.Pointer))
	}
	if l.Replayed {
		row("replayed", "yes")
	}
	if l.err == nil {
		text := string(l.PayloadBase64)
		if l.DeadLetter.Payload != nil {
			text = *l.DeadLetter.Payload
		}
		if l.Truncated {
			row("truncated", "the payload was too large: this is its beginning")
		}
		row("payload", printable(text))
	}
	_, err := fmt.Fprintln(d.c.App.Writer, b.String())
	return err
}

// faultyExpression finds, in the reason of a letter, which expression failed,
// and where in it.
var faultyExpression = regexp.MustCompile(`^(when|key|set: [^:]+): (\d+):(\d+): `)

// position shows where a rule's expression failed, if it still is the config
// file's.
func (d *dlq) position(l *engine.DeadLetter) []string {
	found := faultyExpression.FindStringSubmatch(l.Reason)
	if found == nil || d.loaded == nil {
		return nil
	}
	at := slices.IndexFunc(d.loaded.Rules, func(r engine.Rule) bool { return r.Name == l.Rule })
	if at < 0 {
		return nil
	}
	var source string
	switch r, member := d.loaded.Rules[at], strings.TrimPrefix(found[1], "set: "); found[1] {
	case "when":
		source = fmt.Sprint(r.When)
	case "key":
		source = fmt.Sprint(r.Key)
	default:
		for _, m := range r.Set {
			if m.Name == member {
				source = fmt.Sprint(m.Value)
			}
		}
	}
	var line, column int
	fmt.Sscan(found[2], &line)
	fmt.Sscan(found[3], &column)
	lines := strings.Split(source, "\n")
	if line < 1 || line > len(lines) || column < 1 || column > utf8.RuneCountInString(lines[line-1])+1 {
		return nil // the rule is another one now
	}
	return []string{oneLine(lines[line-1]), strings.Repeat(" ", column-1) + "^"}
}

func dlqReplay(c *cli.Context) error {
	d, done, err := openDLQ(c)
	if err != nil {
		return err
	}
	defer done()
	asked := 0
	for _, way := range []bool{len(d.ids) > 0, c.IsSet("rule"), c.Bool("all")} {
		if way {
			asked++
		}
	}
	if asked != 1 {
		return usage("replay takes IDs, --rule or --all, and one of them\nRun 'filterd dlq replay --help' for usage")
	}
	t := &replays{d: d}
	err = d.each(c.Context, func(l letter) error {
		if err := c.Context.Err(); err != nil {
			return err
		}
		return t.one(c.Context, l)
	})
	verb := "replayed"
	if c.Bool("dry-run") {
		verb = "would_replay"
	}
	fmt.Fprintf(c.App.ErrWriter, "letters=%d %s=%d already=%d failed=%d\n", t.seen, verb, t.replayed, t.already, t.failed)
	if err != nil {
		return redisError(err)
	}
	if t.failed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// replays replays letters, and counts what came of it.
type replays struct {
	d                               *dlq
	seen, replayed, already, failed int
}

// one replays a letter. The error is one that ends it all.
func (t *replays) one(ctx context.Context, l letter) error {
	t.seen++
	delivery, err := t.d.delivery(&l)
	switch {
	case err != nil:
	case l.Replayed:
		err = pubsub.ErrReplayed
	case !t.d.c.Bool("dry-run"):
		err = t.d.Replay(ctx, l.Letter.ID, delivery, fieldOf(t.d.loaded, l.Channel), t.d.c.Bool("keep"))
	}
	switch {
	case errors.Is(err, pubsub.ErrReplayed):
		t.already++
	case err != nil:
		t.failed++
	default:
		t.replayed++
	}
	to := l.Channel
	switch {
	case l.DeadLetter.ID != "":
		to = "stream " + to
	case l.Sharded:
		to = "sharded " + to
	}
	if asJSON(t.d.c) {
		line := struct {
			Entry  string `json:"entry"`
			To     string `json:"to,omitempty"`
			Rule   string `json:"rule,omitempty"`
			DryRun bool   `json:"dry_run,omitempty"`
			Error  string `json:"error,omitempty"`
		}{Entry: l.Letter.ID, To: to, Rule: l.Rule, DryRun: t.d.c.Bool("dry-run")}
		if err != nil {
			line.Error = err.Error()
		}
		return printJSON(t.d.c.App.Writer, line)
	}
	if err != nil {
		_, err = fmt.Fprintf(t.d.c.App.ErrWriter, "%s: not replayed: %s\n", l.Letter.ID, oneLine(err.Error()))
	} else {
		_, err = fmt.Fprintf(t.d.c.App.Writer, "%s → %s\n", l.Letter.ID, oneLine(to))
	}
	return err
}

// delivery returns what a letter's message was before it failed. The error says
// why it can't be sent again.
func (d *dlq) delivery(l *letter) (filterd.Delivery, error) {
	payload := l.payload()
	switch {
	case l.err != nil:
		return filterd.Delivery{}, l.err
	case l.Truncated:
		return filterd.Delivery{}, errors.New("only the beginning of the message is there")
	case l.Channel == "":
		return filterd.Delivery{}, errors.New("the letter does not say where the message came from")
	}
	if err := d.registry.CheckWhole(&filterd.Message{Channel: l.Channel, ID: l.DeadLetter.ID, Payload: payload}); err != nil {
		return filterd.Delivery{}, fmt.Errorf("it breaks its contract still: %w", err)
	}
	return filterd.Delivery{Channel: l.Channel, Stream: l.DeadLetter.ID != "", Sharded: l.Sharded, Payload: payload}, nil
}

// fieldOf returns the field in which rules look for messages of a stream.
func fieldOf(loaded *config.Config, stream string) string {
	if loaded != nil {
		for _, r := range loaded.Rules {
			for _, s := range r.Streams {
				if s.Name == stream {
					return s.Field
				}
			}
		}
	}
	return filterd.DefaultField
}
