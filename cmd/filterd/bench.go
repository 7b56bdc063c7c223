package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/internal/measure"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "measure the rules on this machine, with messages of their own, through a real Redis",
		Description: "It starts a Redis and a 'filterd run', publishes the messages in turn, and counts what comes out.\n" +
			"The messages are those of the tests beside the rules that deliver or drop, or the lines of --messages.\n\n" +
			"First it publishes as fast as Redis and filterd take it, which tells messages/s and CPU time. Latency\n" +
			"means nothing then: it is measured at a tenth of that load. It counts from when a message was due,\n" +
			"also where it was published late, to when what came of it was read. With --rate there is only that.\n\n" +
			"What the rules drop, or send to the log or to streams, is part of the work, but has no latency. Streams\n" +
			"are not read, and rules with webhooks are refused. The exit code is 1 if anything that should have come\n" +
			"out did not.\n\n" +
			"--baseline raw measures a relay of bare sockets in turn with it, which publishes the same messages\n" +
			"without looking at them: the distance from what is possible. --redis publishes into that Redis.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "messages", Usage: "publish the lines of this `FILE`, each a payload; - is standard input"},
			channelFlag("publish --messages to this `CHANNEL`; by default to the one that the rules read"),
			&cli.StringFlag{Name: "redis", Aliases: []string{"url"}, Usage: "use the Redis of this `URL`, and nobody else may listen there, instead of starting one"},
			&cli.Float64Flag{Name: "rate", Usage: "publish `N` messages per second instead of as many as possible"},
			&cli.DurationFlag{Name: "for", Value: 10 * time.Second, Usage: "how long to publish as fast as possible, or at --rate; half of it for latency"},
			&cli.Uint64Flag{Name: "count", Usage: "publish `N` messages instead, and a tenth of it for latency"},
			&cli.StringFlag{Name: "baseline", Usage: "also measure what does nothing but relay: `raw`"},
			outputFlag(),
		},
		Action: bench,
	}
}

// rawRelayCommand is the relay of --baseline raw. It is a command so that it is
// a process of its own.
func rawRelayCommand() *cli.Command {
	return &cli.Command{
		Name:   "raw-relay",
		Usage:  "relay messages by bare sockets, as --baseline raw of bench does; standard input says what",
		Hidden: true,
		Flags:  []cli.Flag{&cli.StringFlag{Name: "url", Usage: "the `URL` of Redis", EnvVars: []string{redisVariable}, Required: true}},
		Action: func(c *cli.Context) error {
			var plan measure.RawPlan
			if err := json.NewDecoder(c.App.Reader).Decode(&plan); err != nil {
				return usage("raw-relay: what is on standard input is no plan: %v", err)
			}
			return measure.RawRelay(c.Context, c.String("url"), plan)
		},
	}
}

// rounds is how often filterd and a baseline are measured in turn, so that what
// else the machine does meets both.
const rounds = 5

func bench(c *cli.Context) error {
	if err := checkBench(c); err != nil {
		return err
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return err
	}
	defer loaded.Close()
	for _, r := range loaded.Rules {
		if slices.ContainsFunc(r.To, func(to engine.Target) bool { return to.Webhook != "" }) {
			return usage("rule %s posts to a webhook, and so would bench, as often as it publishes: measure a file without it", oneLine(r.Name))
		}
	}
	samples, err := readSamples(c, loaded)
	if err != nil {
		return err
	}
	expected, err := expect(loaded, samples)
	if err != nil {
		return err
	}
	if len(expected.stateful) > 0 && !c.IsSet("rate") {
		return usage("give a --rate: what the module of rule %s makes of a message changes from one to the next, so nobody can tell how far filterd is behind, and its queue would overflow", oneLine(strings.Join(expected.stateful, ", ")))
	}
	url, name, closeBroker, err := benchRedis(c, loaded, expected)
	if err != nil {
		return err
	}
	defer closeBroker()
	b, err := newBenchRun(c, loaded, expected, url)
	if err != nil {
		return err
	}
	report := benchReport{Config: loaded.Path, Redis: name, Rules: len(loaded.Rules), Samples: len(samples), From: c.String("messages"), Losses: []string{}, Notes: expected.notes(loaded)}
	err = b.run(c, &report)
	b.bar.close()
	if err != nil {
		if c.Context.Err() != nil {
			return &exitError{code: exitFailed, err: errors.New("interrupted")}
		}
		return err
	}
	if asJSON(c) {
		err = printJSON(c.App.Writer, report)
	} else {
		err = report.print(c.App.Writer)
	}
	if err == nil && !report.OK {
		err = &exitError{code: exitFailed, err: errors.New(strings.Join(report.Losses, "; "))}
	}
	return err
}

func checkBench(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	rate := c.Float64("rate")
	switch {
	case c.IsSet("rate") && !(rate > 0 && rate <= 10e6):
		return usage("--rate %v: want more than 0 messages per second, and at most 10 million", rate)
	case c.Duration("for") <= 0:
		return usage("--for %v: want more than 0", c.Duration("for"))
	case c.IsSet("count") && c.Uint64("count") == 0:
		return usage("--count 0: want at least one message")
	case c.IsSet("baseline") && c.String("baseline") != "raw":
		return usage("--baseline %s: want raw", c.String("baseline"))
	case c.IsSet("channel") && c.String("messages") == "":
		return usage("--channel is for --messages: the tests beside the rules have theirs")
	}
	return nil
}

// benchRedis starts a Redis, or takes the one it is told to if nobody else
// listens there.
func benchRedis(c *cli.Context, loaded *config.Config, e *expectation) (url, name string, done func(), err error) {
	if c.String("redis") == "" {
		if brokerProgram() == "" {
			return "", "", nil, usage("bench needs a redis-server or valkey-server in PATH, or --redis URL: the broker within filterd is no measure of anything")
		}
		b, err := startBroker(c.Context)
		if err != nil {
			return "", "", nil, err
		}
		return b.URL, b.Name, b.Close, nil
	}
	options, err := redis.ParseURL(c.String("redis"))
	if err != nil {
		return "", "", nil, usage("--redis: want redis://HOST:PORT") // the error would show the password
	}
	rdb := redis.NewClient(options)
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(c.Context, 10*time.Second)
	defer cancel()
	info, err := rdb.Info(ctx, "server").Result()
	if err != nil {
		return "", "", nil, &exitError{code: exitUnreachable, err: fmt.Errorf("redis %s: %w", options.Addr, err)}
	}
	subscriptions := loaded.Table.Subscriptions()
	if len(subscriptions.Streams) > 0 {
		return "", "", nil, usage("--redis: bench would take entries of stream %s from %s: a Redis of its own has none", oneLine(subscriptions.Streams[0].Name), options.Addr)
	}
	names := subscriptions.Channels
	for channel := range e.channels {
		names = append(names, channel)
	}
	slices.Sort(names)
	subscribers, err := rdb.PubSubNumSub(ctx, names...).Result()
	if err != nil {
		return "", "", nil, err
	}
	for _, channel := range names {
		if n := subscribers[channel]; n > 0 {
			return "", "", nil, usage("%s has %s at %s, who would get the messages of bench: use a Redis where nobody listens", oneLine(channel), count(int(n), "subscriber"), options.Addr)
		}
	}
	patterns, err := rdb.PubSubNumPat(ctx).Result()
	if err != nil {
		return "", "", nil, err
	}
	if patterns > 0 {
		return "", "", nil, usage("%s at %s, whose clients could get the messages of bench: use a Redis where nobody listens", count(int(patterns), "pattern is subscribed"), options.Addr)
	}
	return c.String("redis"), serverName(info) + " at " + options.Addr, func() {}, nil
}

// A benchRun is all runs of one command.
type benchRun struct {
	url      string
	program  string // this one
	expected *expectation
	relays   []benchRelay // filterd first
	bar      *benchBar
	window   uint64
}

// A benchRelay is what is measured.
type benchRelay struct {
	name  string
	relay measure.Relay
	load  *measure.Load
}

// stageWindow is how many messages may be on their way where rules have
// modules, whose queues hold 1,024.
const stageWindow = 512

func newBenchRun(c *cli.Context, loaded *config.Config, e *expectation, url string) (*benchRun, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	load, err := measure.NewLoad(e.messages)
	if err != nil {
		return nil, err
	}
	subscriptions := loaded.Table.Subscriptions()
	b := &benchRun{url: url, program: program, expected: e, bar: newBenchBar(c)}
	env := []string{redisVariable + "=" + url}
	b.relays = []benchRelay{{"filterd", measure.Relay{
		Path: program, Args: []string{"run", "-c", loaded.Path, "--output", "json", "--log-memory", "--no-server"}, Env: env, Names: subscriptions.Channels, Globs: len(subscriptions.Globs),
	}, load}}
	if len(e.stages) > 0 {
		b.window = stageWindow
	}
	if c.String("baseline") == "" {
		return b, nil
	}
	const channel = "filterd-bench:raw"
	raw, plan, err := load.Raw(channel, "")
	if err != nil {
		return nil, err
	}
	stdin, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	b.relays = append(b.relays, benchRelay{"raw", measure.Relay{Path: program, Args: []string{"raw-relay"}, Env: env, Stdin: stdin, Names: []string{channel}}, raw})
	return b, nil
}

// run runs the phases, and fills in the report.
func (b *benchRun) run(c *cli.Context, report *benchReport) error {
	o := measure.Options{URL: b.url, Rate: c.Float64("rate"), For: c.Duration("for"), Count: c.Uint64("count")}
	if o.Count > 0 && !c.IsSet("for") {
		o.For = 0
	}
	b.bar.phases = 1
	if o.Rate == 0 && len(b.expected.channels) > 0 {
		b.bar.phases = 2
	}
	first, err := b.phase(c.Context, o, report)
	if err != nil {
		return err
	}
	if o.Rate > 0 {
		report.AtRate = first
	} else if report.Saturation = first; b.bar.phases > 1 {
		o.Rate = max(1, first.Relays["filterd"].Rate/10)
		o.For, o.Count = o.For/2, (o.Count+9)/10
		if report.AtRate, err = b.phase(c.Context, o, report); err != nil {
			return err
		}
	}
	report.OK = len(report.Losses) == 0
	return nil
}

// phase measures every relay, in turn if there are several.
func (b *benchRun) phase(ctx context.Context, o measure.Options, report *benchReport) (*benchPhase, error) {
	n := 1
	if len(b.relays) > 1 {
		n = rounds
		o.For /= rounds
		o.Count = (o.Count + rounds - 1) / rounds
	}
	phase := &benchPhase{Rounds: n, Rate: o.Rate, runs: make(map[string][]benchResult)}
	for round := range n {
		for i := range b.relays {
			r := b.relays[(round+i)%len(b.relays)] // each goes first in turn
			o := o
			if r.name == "filterd" {
				o.Window = b.window
			}
			of := 1 / float64(n*len(b.relays))
			done := float64(round*len(b.relays)+i) * of
			o.Progress = func(part float64) { b.bar.set(r.name, o.Rate, done+part*of) }
			o.Progress(0)
			said := new(measure.Report)
			r.relay.Log = said.Line
			result, err := measure.Run(ctx, r.relay, r.load, o)
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", r.name, err)
			}
			report.lose(r.name, o.Rate, result, said, b.expected)
			phase.runs[r.name] = append(phase.runs[r.name], benchResult{result, said})
		}
	}
	b.bar.phase++
	phase.sum(b.relays)
	return phase, nil
}
