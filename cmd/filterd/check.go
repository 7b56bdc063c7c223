package main

import (
	"fmt"
	"strings"
	"time"

	"context"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "compile a config file and everything it names, and run nothing",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list the rules"},
			&cli.BoolFlag{Name: "redis", Usage: "also connect to Redis; exit code 3 if it is unreachable"},
			outputFlag(),
		},
		Action: check,
	}
}

func check(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return err
	}
	defer loaded.Close()
	if c.Bool("redis") {
		ctx, cancel := context.WithTimeout(c.Context, 10*time.Second)
		defer cancel()
		rdb, err := pubsub.Connect(ctx, loaded.Redis)
		if err != nil {
			return redisError(err)
		}
		defer rdb.Close()
	}
	if asJSON(c) {
		return printJSON(c.App.Writer, struct {
			OK       bool             `json:"ok"`
			Rules    []string         `json:"rules"`
			Channels int              `json:"channels"`
			Tests    int              `json:"tests"`
			Warnings []config.Problem `json:"warnings"`
		}{true, loaded.Table.Rules(), len(loaded.Registry.Contracts()), len(loaded.Tests), loaded.Warnings})
	}
	fmt.Fprintf(c.App.Writer, "%s: ok: %s, %s, %s\n", oneLine(loaded.Path), count(len(loaded.Rules), "rule"),
		count(len(loaded.Registry.Contracts()), "declared channel"), count(len(loaded.Tests), "test"))
	if c.Bool("verbose") {
		for _, r := range loaded.Rules {
			fmt.Fprintf(c.App.Writer, "  %s: from %s, %s, to %s\n", oneLine(r.Name), oneLine(strings.Join(r.From, ", ")), condition(r), oneLine(targets(r)))
		}
	}
	return nil
}

func condition(r engine.Rule) string {
	if r.When == nil {
		return "all messages"
	}
	return "when " + oneLine(fmt.Sprint(r.When))
}

func targets(r engine.Rule) string {
	var texts []string
	for _, to := range r.To {
		switch {
		case to.Computed != nil:
			texts = append(texts, fmt.Sprintf("${%v}", to.Computed))
		case to.Callback != "":
			texts = append(texts, "callback "+to.Callback)
		case to.Log != nil:
			texts = append(texts, "log "+strings.ToLower(to.Log.String()))
		default:
			texts = append(texts, to.Channel)
		}
	}
	return strings.Join(texts, ", ")
}
