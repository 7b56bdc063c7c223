package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
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
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list the rules, how each is found for a message, and where one fails on messages that lack an optional member"},
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
	var found []access
	if c.Bool("verbose") {
		if found, err = ruleAccess(loaded.Rules); err != nil {
			return err
		}
	}
	var hints []config.Problem
	if c.Bool("verbose") {
		hints = loaded.Hints
	}
	if asJSON(c) {
		return printJSON(c.App.Writer, struct {
			OK       bool             `json:"ok"`
			Rules    []string         `json:"rules"`
			Access   []access         `json:"access,omitempty"`
			Channels int              `json:"channels"`
			Tests    int              `json:"tests"`
			Warnings []config.Problem `json:"warnings"`
			Hints    []config.Problem `json:"hints,omitempty"`
		}{true, loaded.Table.Rules(), found, len(loaded.Registry.Contracts()), len(loaded.Tests), loaded.Warnings, hints})
	}
	fmt.Fprintf(c.App.Writer, "%s: ok: %s, %s, %s\n", oneLine(loaded.Path), count(len(loaded.Rules), "rule"),
		count(len(loaded.Registry.Contracts()), "declared channel"), count(len(loaded.Tests), "test"))
	linear := 0
	for i, a := range found {
		r := loaded.Rules[i]
		fmt.Fprintf(c.App.Writer, "  %s: from %s, %s, to %s\n    index: %s\n", oneLine(r.Name), oneLine(strings.Join(r.Sources(), ", ")), condition(r), oneLine(targets(r)), oneLine(a.String()))
		if a.Linear {
			linear++
		}
	}
	for _, hint := range hints {
		fmt.Fprintf(c.App.ErrWriter, "hint: %s\n", printable(hint.String()))
	}
	if linear > 0 {
		fmt.Fprintf(c.App.Writer, "evaluated for every message: %d of %s; what helps is a comparison with a constant first, joined by and\n",
			linear, count(len(found), "rule"))
	}
	return nil
}

// An access says how a rule is found among the others for a message.
type access struct {
	Rule   string `json:"rule"`
	Linear bool   `json:"linear"`
	By     string `json:"by"`
}

func (a access) String() string {
	if a.Linear {
		return "none, " + a.By
	}
	return a.By
}

// ruleAccess returns how each rule is found, whatever the channel.
func ruleAccess(rules []engine.Rule) ([]access, error) {
	found := make([]access, len(rules))
	filters := make(map[filterd.Kind][]filterd.Filter)
	indices := make(map[filterd.Kind][]int)
	for i, r := range rules {
		found[i] = access{r.Name, true, "evaluated for every message: it has no condition"}
		if r.When != nil {
			kind := r.When.Kind()
			filters[kind] = append(filters[kind], r.When)
			indices[kind] = append(indices[kind], i)
		}
	}
	for kind, of := range filters {
		set, err := kind.Compile(of)
		if err != nil {
			return nil, fmt.Errorf("compile %d %s filters: %w", len(of), kind.Name(), err)
		}
		for at, i := range indices[kind] {
			a := set.Access(at)
			found[i].Linear, found[i].By = a.Linear, a.By
		}
	}
	return found, nil
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
		texts = append(texts, targetText(to))
	}
	return strings.Join(texts, ", ")
}

func targetText(to engine.Target) string {
	switch {
	case to.Computed != nil:
		return fmt.Sprintf("${%v}", to.Computed)
	case to.Callback != "":
		return "callback " + to.Callback
	case to.Stream != "":
		return "stream " + to.Stream
	case to.Sharded != "":
		return "sharded " + to.Sharded
	case to.Webhook != "":
		return "webhook " + to.Webhook
	case to.Log != nil:
		return "log " + strings.ToLower(to.Log.String())
	default:
		return to.Channel
	}
}
