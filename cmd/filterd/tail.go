package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
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
			"With --rule it prints what a rule of a running daemon makes of its messages: a sample, of as many in a second\n" +
			"as --rate says. The daemon is that of the config file's section server, or of --admin; its token is needed.\n\n" +
			"Example: filterd tail PRICE_DATA --where 'data.price > 100'\n" +
			"Example: filterd tail --rule whales --outcome kept,failed",
		Flags: append(adminFlags(), urlFlag(),
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
	if c.IsSet("rule") {
		return tailRule(c)
	}
	for _, name := range []string{"outcome", "rate", "admin", "token-file", "ca"} {
		if c.IsSet(name) {
			return usage("--%s: want --rule as well", name)
		}
	}
	if c.NArg() == 0 {
		return usage("tail needs a channel, or --rule\nRun 'filterd tail --help' for usage")
	}
	var where filterd.Filter
	if c.IsSet("where") {
		filter, err := compileFlag(c, c.String("where"))
		if err != nil {
			return err
		}
		where = filter
	}
	rdb, registry, err := connect(c)
	if err != nil {
		return err
	}
	defer rdb.Close()
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	source := pubsub.NewSource(rdb, pubsub.SourceOptions{
		FailFast: true,
		Logger:   slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	source.Subscribe(subscriptions(c.Args().Slice()))
	printer := &tailPrinter{c: c, registry: registry, left: c.Int("count"), stop: cancel}
	if where != nil {
		printer.where = where.Matcher()
	}
	return redisError(source.Run(ctx, printer))
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
		err := p.registry.Check(m)
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
