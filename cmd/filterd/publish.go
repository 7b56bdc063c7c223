package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/pubsub"
)

func publishCommand() *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "publish messages that keep their channel's contract",
		ArgsUsage: "CHANNEL [JSON | -]",
		Description: "JSON is the data of one message; - reads one from each line of standard input. A CloudEvents event is\n" +
			"built around it, but for channels that the config file declares with envelope: raw or bytes. What breaks the\n" +
			"contract is not sent, and the exit code is 1.\n\n" +
			`Example: filterd publish PRICE_DATA '{"symbol": "BTC-USD", "price": 60000, "qty": 1}'`,
		Flags:  []cli.Flag{configFlag(), urlFlag(), outputFlag()},
		Action: publish,
	}
}

func urlFlag() cli.Flag {
	return &cli.StringFlag{Name: "url", Usage: "connect to this Redis `URL` instead of the config file's; without a config file, REDIS_URL says where"}
}

// connect connects as connectLoaded does, for who needs contracts only.
func connect(c *cli.Context) (redis.UniversalClient, *filterd.Registry, error) {
	rdb, loaded, err := connectLoaded(c)
	if err != nil || loaded == nil {
		return rdb, nil, err
	}
	return rdb, loaded.Registry, nil
}

// connectLoaded loads the config file if there is one, or one is asked for, and
// connects to its Redis, or to the one of --url. The config is closed, and nil
// if there is none.
func connectLoaded(c *cli.Context) (redis.UniversalClient, *config.Config, error) {
	var options pubsub.Options
	loaded, err := config.Load(c.String("config"))
	switch {
	case err == nil:
		defer loaded.Close()
		options = loaded.Redis
	case isMissing(err) && !c.IsSet("config"):
		loaded = nil
		options.URL = filterd.Secret(os.Getenv("REDIS_URL"))
	default:
		return nil, nil, configError(c, c.String("config"), err)
	}
	if c.IsSet("url") {
		options = pubsub.Options{URL: filterd.Secret(c.String("url"))}
	}
	rdb, err := pubsub.Connect(c.Context, options)
	if errors.Is(err, pubsub.ErrUnreachable) {
		return nil, nil, redisError(err)
	} else if err != nil {
		return nil, nil, &exitError{code: exitUsage, err: err}
	}
	return rdb, loaded, nil
}

func publish(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return usage("publish takes a channel and the data\nRun 'filterd publish --help' for usage")
	}
	channel, data := c.Args().Get(0), c.Args().Get(1)
	if filterd.IsGlob(channel) {
		return usage("%q is a pattern: publish to one channel", channel)
	}
	rdb, registry, err := connect(c)
	if err != nil {
		return err
	}
	defer rdb.Close()
	p := &publication{
		c:         c,
		channel:   channel,
		publisher: pubsub.NewPublisher(rdb, registry, pubsub.PublisherOptions{Source: "filterd/publish"}),
		bytes:     registry.Lookup(channel).Envelope == filterd.EnvelopeBytes,
	}
	if c.NArg() == 2 && data != "-" {
		return p.publish([]byte(data))
	}
	t := newTally(c)
	err = eachLine(c.Context, c.App.Reader, t, func(n int, line []byte) error {
		switch err := p.publish(bytes.Clone(line)); {
		case err == nil:
			t.Matched++
		case errors.Is(err, filterd.ErrInvalid) || errors.Is(err, errNotJSON):
			t.invalid(n, err)
		default:
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.finish()
}

type publication struct {
	c         *cli.Context
	channel   string
	publisher *pubsub.Publisher
	bytes     bool // the channel's envelope
}

var errNotJSON = errors.New("not JSON")

// publish publishes one message and prints how many received it.
func (p *publication) publish(text []byte) error {
	var data any = text
	if !p.bytes {
		if !json.Valid(text) {
			return fmt.Errorf("%s: the data is %w: quote it for the shell, as in '{\"price\": 1}'", p.channel, errNotJSON)
		}
		data = json.RawMessage(text)
	}
	receivers, err := p.publisher.Publish(p.c.Context, p.channel, data)
	if err != nil {
		return err
	}
	if asJSON(p.c) {
		return printJSON(p.c.App.Writer, struct {
			Channel   string `json:"channel"`
			Receivers int64  `json:"receivers"`
		}{p.channel, receivers})
	}
	_, err = fmt.Fprintf(p.c.App.Writer, "%s: %s\n", oneLine(p.channel), count(int(receivers), "receiver"))
	return err
}
