package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

func tailCommand() *cli.Command {
	return &cli.Command{
		Name:      "tail",
		Usage:     "print messages as they come, or what a rule makes of them",
		ArgsUsage: "CHANNEL…",
		Description: "A CHANNEL may be a glob such as 'prices.*'. Messages that break their channel's contract are shown on\n" +
			"standard error, with the reason.\n\n" +
			"With --stream it prints the entries of a stream, from now on or from an ID, and takes them from nobody: it is no\n" +
			"member of a group, and acknowledges nothing.\n\n" +
			"With --rule it prints what a rule of a running daemon makes of its messages: a sample, of as many in a second\n" +
			"as --rate says. The daemon is that of the config file's section server, or of --admin; its token is needed.\n\n" +
			"Example: filterd tail PRICE_DATA --where 'data.price > 100'\n" +
			"Example: filterd tail --stream trades --from 0 --output json\n" +
			"Example: filterd tail --rule whales --outcome kept,failed",
		Flags: append(adminFlags(), urlFlag(),
			&cli.BoolFlag{Name: "sharded", Usage: "CHANNELs are sharded ones (SSUBSCRIBE)"},
			&cli.StringFlag{Name: "stream", Usage: "print the entries of this `STREAM` instead of channels' messages"},
			&cli.StringFlag{Name: "from", Usage: "begin with the entry of this `ID`; 0 is the stream's first. Default: those that come"},
			&cli.StringFlag{Name: "rule", Aliases: []string{"r"}, Usage: "show what the rule of this `NAME` makes of messages"},
			&cli.StringFlag{Name: "outcome", Usage: "only these `OUTCOMES`: kept, not_kept, filtered, failed, invalid, with commas between"},
			&cli.IntFlag{Name: "rate", Usage: "at most `N` messages in a second, up to 1000", Value: engine.DefaultTapRate},
			&cli.StringFlag{Name: "where", Usage: "only messages for which `EXPR` is true"},
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "end after `N` messages"},
			profileFlag(),
			outputFlag(),
		),
		Action: tail,
	}
}

// isMissing reports whether a file does not exist.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func tail(c *cli.Context) error {
	if c.Int("count") < 0 {
		return usage("--count %d: want more than 0", c.Int("count"))
	}
	if c.IsSet("from") && !c.IsSet("stream") {
		return usage("--from: want --stream as well")
	}
	if c.IsSet("rule") {
		return tailRule(c)
	}
	for _, name := range []string{"outcome", "rate", "admin", "token-file", "ca"} {
		if c.IsSet(name) {
			return usage("--%s: want --rule as well", name)
		}
	}
	switch stream := c.IsSet("stream"); {
	case stream && c.Bool("sharded"):
		return usage("tail prints sharded channels, or a --stream: not both")
	case stream && c.NArg() > 0:
		return usage("tail prints channels, or a --stream: not both")
	case stream && c.String("stream") == "":
		return usage("--stream: which one?")
	case !stream && c.NArg() == 0:
		return usage("tail needs a channel, --stream or --rule\nRun 'filterd tail --help' for usage")
	}
	var where filterd.Filter
	if c.IsSet("where") {
		filter, err := compileFlag(c, c.String("where"))
		if err != nil {
			return err
		}
		where = filter
	}
	rdb, loaded, err := connectLoaded(c)
	if err != nil {
		return err
	}
	defer rdb.Close()
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	printer := &tailPrinter{c: c, left: c.Int("count"), stop: cancel}
	if loaded != nil {
		printer.registry = loaded.Registry
	}
	if where != nil {
		printer.where = where.Matcher()
	}
	logger := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if c.IsSet("stream") {
		return tailStream(ctx, c, rdb, loaded, printer, logger)
	}
	options := pubsub.SourceOptions{FailFast: true, Logger: logger}
	var source filterd.Source = pubsub.NewSource(rdb, options)
	to := subscriptions(c.Args().Slice())
	if c.Bool("sharded") {
		source, to = pubsub.NewShardedSource(rdb, options), filterd.Subscriptions{Sharded: c.Args().Slice()}
	}
	source.Subscribe(to)
	return redisError(source.Run(ctx, printer))
}

// tailStream prints the entries of a stream. The field that holds their messages
// is that of a rule on the stream, if there is one.
func tailStream(ctx context.Context, c *cli.Context, rdb redis.UniversalClient, loaded *config.Config, printer *tailPrinter, logger *slog.Logger) error {
	name := c.String("stream")
	tail, err := pubsub.NewStreamTail(rdb, pubsub.StreamTailOptions{Field: fieldOf(loaded, name), From: c.String("from"), Logger: logger})
	if err != nil {
		return usage("--from: %v", err)
	}
	return redisError(tail.Run(ctx, name, func(batch []*filterd.Message) { printer.Messages(ctx, batch) }))
}

// A tailPrinter prints messages in the order in which they come.
type tailPrinter struct {
	c        *cli.Context
	registry *filterd.Registry
	where    filterd.Matcher // nil keeps all
	left     int             // messages to print until stop; 0 at first is no limit
	stop     func()
}

// Messages implements [filterd.Handler].
func (p *tailPrinter) Messages(_ context.Context, batch []*filterd.Message) {
	for _, m := range batch {
		if p.left < 0 {
			return
		}
		var err error
		if m.Entry != nil {
			err = m.Entry.Fault
		} else {
			err = p.registry.Check(m)
		}
		keep := err == nil
		if keep && p.where != nil {
			keep, err = p.where.Match(m)
		}
		if err != nil {
			fmt.Fprintf(p.c.App.ErrWriter, "%s: %s: %s\n", oneLine(m.Channel), oneLine(err.Error()), oneLine(shorten(string(m.Payload), 200)))
		}
		if !keep {
			continue
		}
		p.print(m)
		if p.left--; p.left == 0 {
			p.left = -1
			p.stop()
		} else if p.left < 0 {
			p.left = 0
		}
	}
}

// Gap implements [filterd.Handler]. The source logs it.
func (p *tailPrinter) Gap(filterd.Gap) {}

func (p *tailPrinter) print(m *filterd.Message) {
	if !asJSON(p.c) {
		fmt.Fprintf(p.c.App.Writer, "%s %s\n", oneLine(m.Channel), oneLine(string(m.Payload)))
		return
	}
	_ = printJSON(p.c.App.Writer, newRecord(m))
}
