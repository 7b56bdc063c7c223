package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/ledger"
)

func ledgerCommand() *cli.Command {
	return &cli.Command{
		Name:      "ledger",
		Usage:     "publish numbered messages, and account for each of them where rules send them to",
		ArgsUsage: "FROM TO",
		Description: "FROM and TO are channels, or streams as stream:NAME. Rules of a running filterd must send what comes\n" +
			"from FROM to TO: give their conditions what they ask for with --data. Break what you like meanwhile.\n" +
			"At the end it says what was lost, there twice, or out of order; then the exit code is 1.\n\n" +
			`Example: filterd ledger stream:trades stream:whales --data '{"symbol": "BTC-USD", "price": 60000, "qty": 1}'`,
		Flags: []cli.Flag{
			configFlag(), urlFlag(),
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Value: 10_000, Usage: "publish so many `MESSAGES`"},
			&cli.IntFlag{Name: "rate", Value: 1000, Usage: "so many in a second"},
			&cli.IntFlag{Name: "keys", Value: 16, Usage: "of so many keys, each with an order of its own"},
			&cli.StringFlag{Name: "data", Value: "{}", Usage: "the messages' data, a JSON `OBJECT`; the number is added as the member ledger"},
			&cli.DurationFlag{Name: "wait", Value: 30 * time.Second, Usage: "give up what has not come out for so long after the last message did"},
			outputFlag(),
		},
		Action: runLedger,
	}
}

func runLedger(c *cli.Context) error {
	if c.NArg() != 2 {
		return usage("ledger takes where messages come from, and where they go to\nRun 'filterd ledger --help' for usage")
	}
	for _, place := range c.Args().Slice() {
		if name := strings.TrimPrefix(place, "stream:"); name == "" || name == place && filterd.IsGlob(name) {
			return usage("%q: want a channel, or a stream as stream:NAME", place)
		}
	}
	if c.Int("count") < 1 || c.Int("rate") < 1 || c.Int("keys") < 1 || c.Duration("wait") <= 0 {
		return usage("--count, --rate, --keys and --wait: want more than 0")
	}
	run := filterd.NewID(time.Now())
	account, err := ledger.New(run, c.Int("keys"), []byte(c.String("data")))
	if err != nil {
		return usage("--data: %v", err)
	}
	rdb, _, err := connect(c)
	if err != nil {
		return err
	}
	defer rdb.Close()
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	collect, err := collector(ctx, rdb, c.Args().Get(1), account)
	if err != nil {
		return redisError(err)
	}
	collected := make(chan struct{})
	go func() { // ends with ctx
		defer close(collected)
		collect()
	}()
	publishNumbered(ctx, rdb, c.Args().Get(0), c.Int("count"), c.Int("rate"), account)
	left, since := account.Left(), time.Now()
	for left > 0 && time.Since(since) < c.Duration("wait") && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		if now := account.Left(); now != left {
			left, since = now, time.Now()
		}
	}
	time.Sleep(min(time.Second, c.Duration("wait"))) // for what is there twice
	cancel()
	<-collected
	return reportLedger(c, account.Report())
}

// publishNumbered publishes numbered messages, each once.
func publishNumbered(ctx context.Context, rdb redis.UniversalClient, to string, count, rate int, account *ledger.Ledger) {
	stream, isStream := strings.CutPrefix(to, "stream:")
	const most = 50
	for begin, i := time.Now(), 0; i < count && ctx.Err() == nil; i += most {
		if due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate)); time.Until(due) > 0 {
			time.Sleep(time.Until(due))
		}
		pipeline := rdb.Pipeline()
		marks := make([]ledger.Mark, min(most, count-i))
		commands := make([]sentOnce, len(marks))
		for j := range marks {
			var payload []byte
			payload, marks[j] = account.Next()
			if isStream {
				commands[j] = sentOnce{redis.NewCmd(ctx, "xadd", stream, "*", filterd.DefaultField, payload)}
			} else {
				commands[j] = sentOnce{redis.NewCmd(ctx, "publish", to, payload)}
			}
			commands[j].SetFirstKeyPos(1)
			_ = pipeline.Process(ctx, commands[j]) // only queues
		}
		_, _ = pipeline.Exec(ctx) // every command has its own error
		for j, command := range commands {
			var refused redis.Error
			switch err := command.Err(); {
			case errors.As(err, &refused):
				account.Refuse(marks[j])
			case err != nil:
				account.Doubt(marks[j])
			case command.Val() == nil: // the login was refused
				account.Refuse(marks[j])
			}
		}
	}
}

// sentOnce is a command that go-redis does not send twice.
type sentOnce struct{ *redis.Cmd }

// NoRetry implements [redis.Cmder].
func (sentOnce) NoRetry() bool { return true }

// collector returns what takes note, until ctx ends, of what comes out from now
// on.
func collector(ctx context.Context, rdb redis.UniversalClient, from string, account *ledger.Ledger) (func(), error) {
	stream, isStream := strings.CutPrefix(from, "stream:")
	if !isStream {
		subscription := rdb.Subscribe(ctx, from)
		if _, err := subscription.Receive(ctx); err != nil {
			return nil, err
		}
		return func() {
			messages := subscription.Channel(redis.WithChannelSize(1 << 16))
			defer subscription.Close()
			for {
				select {
				case m := <-messages:
					account.Receive([]byte(m.Payload))
				case <-ctx.Done():
					return
				}
			}
		}, nil
	}
	last := "0"
	entries, err := rdb.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		last = entries[0].ID
	}
	return func() {
		for ctx.Err() == nil {
			entries, err := rdb.XRangeN(ctx, stream, "("+last, "+", 1000).Result()
			for _, e := range entries {
				payload, _ := e.Values[filterd.DefaultField].(string) // nothing is foreign
				account.Receive([]byte(payload))
				last = e.ID
			}
			if err != nil || len(entries) == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}, nil
}

func reportLedger(c *cli.Context, r ledger.Report) error {
	var err error
	if asJSON(c) {
		err = printJSON(c.App.Writer, r)
	} else {
		_, err = fmt.Fprintf(c.App.Writer, "published %d, unsure %d, received %d\nlost %d, duplicated %d, reordered %d, foreign %d\n",
			r.Published, r.Unsure, r.Received, r.Lost, r.Duplicated, r.Reordered, r.Foreign)
		for _, m := range r.Missing {
			_, err = fmt.Fprintf(c.App.Writer, "lost: number %d of key %d\n", m.N, m.Key)
		}
	}
	if err == nil && !r.Clean() {
		return &exitError{code: exitFailed}
	}
	return err
}
