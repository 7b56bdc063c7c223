package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
		Usage:     "publish messages that keep their channel's contract, or append them to a stream",
		ArgsUsage: "CHANNEL [JSON | TEXT | -], or --stream NAME [JSON | TEXT | -]",
		Description: "JSON is the data of one message; - reads one from each line of standard input. A CloudEvents event is\n" +
			"built around it, but for channels that the config file declares with envelope: raw or bytes. What breaks the\n" +
			"contract is not sent, and the exit code is 1.\n\n" +
			"With --stream the message becomes an entry, in the field that the config file's rules read of that stream, or\n" +
			"event. Lines that come together go out together. An error that is no answer of Redis means that the entry may\n" +
			"be there: nothing is sent twice.\n\n" +
			"With --raw the payload is the text itself, byte for byte, as any client of Redis may send it. It is sent\n" +
			"whatever the contract says; what that would refuse is told on standard error.\n\n" +
			`Example: filterd publish PRICE_DATA '{"symbol": "BTC-USD", "price": 60000, "qty": 1}'` + "\n" +
			`Example: filterd publish --raw PRICE_DATA 'no JSON'`,
		Flags: []cli.Flag{configFlag(), urlFlag(), outputFlag(),
			&cli.BoolFlag{Name: "raw", Usage: "send the text as it is: no event is built, and no contract holds it up"},
			&cli.BoolFlag{Name: "sharded", Usage: "CHANNEL is a sharded one (SPUBLISH)"},
			&cli.StringFlag{Name: "stream", Usage: "append to the stream `NAME`"},
			&cli.Int64Flag{Name: "maxlen", Usage: "with --stream, keep about `N` entries in it; all by default"}},
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
	args := c.Args().Slice()
	stream, maxLen := c.String("stream"), c.Int64("maxlen")
	switch {
	case c.IsSet("stream") && stream == "":
		return usage("want the name of a stream, not an empty one")
	case c.IsSet("stream") && len(args) > 1:
		return usage("publish --stream takes the data, and no channel\nRun 'filterd publish --help' for usage")
	case c.Bool("sharded") && stream != "":
		return usage("--sharded is a channel's: take out --stream")
	case c.IsSet("maxlen") && stream == "":
		return usage("--maxlen is a stream's: give --stream")
	case c.IsSet("maxlen") && maxLen < 1:
		return usage("--maxlen %d: want 1 or more", maxLen)
	case stream != "":
		args = append([]string{stream}, args...)
	case len(args) < 1 || len(args) > 2:
		return usage("publish takes a channel and the data\nRun 'filterd publish --help' for usage")
	case filterd.IsGlob(args[0]):
		return usage("%q is a pattern: publish to one channel", args[0])
	}
	rdb, loaded, err := connectLoaded(c)
	if err != nil {
		return err
	}
	defer rdb.Close()
	var registry *filterd.Registry
	if loaded != nil {
		registry = loaded.Registry
	}
	p := &publication{
		c:         c,
		channel:   args[0],
		publisher: pubsub.NewPublisher(rdb, registry, pubsub.PublisherOptions{Source: "filterd/publish"}),
		bytes:     registry.Lookup(args[0]).Envelope == filterd.EnvelopeBytes,
		tally:     newTally(c),
	}
	if c.Bool("raw") {
		if err := p.takeRaw(rdb, registry); err != nil {
			return err
		}
	}
	var to sender = channelSender{p}
	if stream != "" {
		to = &streamSender{publication: p, entry: pubsub.Appending{Stream: stream, Field: fieldOf(loaded, stream), MaxLen: maxLen}}
	}
	if len(args) == 2 && args[1] != "-" {
		data, err := p.data([]byte(args[1]))
		if err != nil {
			return err
		}
		return to.one(data)
	}
	return p.lines(to)
}

// A publication is what publish is asked to do, for a channel or stream.
type publication struct {
	c         *cli.Context
	channel   string // or stream
	publisher *pubsub.Publisher
	bytes     bool // its envelope, or what --raw makes of it
	tally     *tally
	told      *filterd.Registry // with --raw, the contracts that are told of, and no more; else nil
}

// takeRaw makes the texts the payloads, and has the contracts told only.
func (p *publication) takeRaw(rdb redis.UniversalClient, contracts *filterd.Registry) error {
	const largest = 512 << 20 // of a value in Redis
	anything, err := filterd.NewRegistry(filterd.Contract{Channel: "*", Envelope: filterd.EnvelopeBytes, MaxSize: largest})
	if err != nil {
		return err
	}
	p.publisher = pubsub.NewPublisher(rdb, anything, pubsub.PublisherOptions{})
	p.bytes, p.told = true, contracts
	return nil
}

// A sender sends messages to the channel or stream, and prints what came of it.
type sender interface {
	// one sends the only message.
	one(data any) error
	// line sends the message of a line: now, or with flush.
	line(n int, data any) error
	flush() error
}

var errNotJSON = errors.New("not JSON")

// data returns the data of a message as it was given.
func (p *publication) data(text []byte) (any, error) {
	if p.told != nil {
		if err := p.told.Check(&filterd.Message{Channel: p.channel, Payload: text}); err != nil {
			fmt.Fprintf(p.c.App.ErrWriter, "sent, although %s\n", oneLine(err.Error()))
		}
	}
	switch {
	case p.bytes:
		return text, nil
	case !json.Valid(text):
		return nil, fmt.Errorf("%s: the data is %w: quote it for the shell, as in '{\"price\": 1}', or send it as it is by --raw", p.channel, errNotJSON)
	}
	return json.RawMessage(text), nil
}

// lines sends the lines of standard input. What waits is flushed before more of
// it is waited for, and at the end.
func (p *publication) lines(to sender) error {
	input, stop := interruptible(p.c.Context, p.c.App.Reader)
	defer stop()
	idle := &idleReader{reader: input, idle: to.flush}
	err := eachLine(p.c.Context, idle, p.tally, func(n int, line []byte) error {
		data, err := p.data(bytes.Clone(line))
		if err == nil {
			return to.line(n, data)
		}
		if failure := to.flush(); failure != nil { // what is wrong with those before comes first
			return failure
		}
		p.tally.invalid(n, err)
		return nil
	})
	if err = cmp.Or(idle.err, err); err == nil {
		err = to.flush()
	}
	if err != nil {
		return err
	}
	return p.tally.finish()
}

// print prints a line of text, or an object where that is asked for.
func (p *publication) print(object any, text string) error {
	if asJSON(p.c) {
		return printJSON(p.c.App.Writer, object)
	}
	_, err := fmt.Fprintf(p.c.App.Writer, "%s: %s\n", oneLine(p.channel), text)
	return err
}

// An idleReader calls idle before it waits for input. If that fails, the input
// ends.
type idleReader struct {
	reader io.Reader
	idle   func() error
	err    error // of idle
}

// Read implements [io.Reader].
func (r *idleReader) Read(p []byte) (int, error) {
	if r.err = r.idle(); r.err != nil {
		return 0, io.EOF
	}
	return r.reader.Read(p)
}

// A channelSender publishes each message by itself.
type channelSender struct{ *publication }

func (s channelSender) one(data any) error {
	publish := s.publisher.Publish
	if s.c.Bool("sharded") {
		publish = s.publisher.PublishSharded
	}
	receivers, err := publish(s.c.Context, s.channel, data)
	if err != nil {
		return err
	}
	return s.print(struct {
		Channel   string `json:"channel"`
		Receivers int64  `json:"receivers"`
	}{s.channel, receivers}, count(int(receivers), "receiver"))
}

func (s channelSender) line(n int, data any) error {
	switch err := s.one(data); {
	case err == nil:
		s.tally.Matched++
	case errors.Is(err, filterd.ErrInvalid):
		s.tally.invalid(n, err)
	default:
		return err
	}
	return nil
}

func (channelSender) flush() error { return nil }

// The bounds of what is appended at once: messages, and the bytes of their data.
const (
	maxAppended      = 256
	maxAppendedBytes = 1 << 20
)

// A streamSender appends messages that come together in one go.
type streamSender struct {
	*publication
	entry pubsub.Appending // but for its data
	batch []pubsub.Appending
	at    []int // the lines of batch
	size  int   // the bytes of its data
}

func (s *streamSender) one(data any) error {
	s.add(0, data)
	result := s.publisher.AppendBatch(s.c.Context, s.batch)[0]
	if result.Err != nil {
		return result.Err
	}
	return s.printID(result.ID)
}

func (s *streamSender) printID(id string) error {
	return s.print(struct {
		Stream string `json:"stream"`
		ID     string `json:"id"`
	}{s.channel, id}, id)
}

func (s *streamSender) add(n int, data any) {
	entry := s.entry
	entry.Data = data
	s.batch, s.at = append(s.batch, entry), append(s.at, n)
	switch data := data.(type) {
	case []byte:
		s.size += len(data)
	case json.RawMessage:
		s.size += len(data)
	}
}

func (s *streamSender) line(n int, data any) error {
	if s.add(n, data); len(s.batch) < maxAppended && s.size < maxAppendedBytes {
		return nil
	}
	return s.flush()
}

// flush appends what was read, also where the end has come meanwhile.
func (s *streamSender) flush() error {
	var failure error
	for i, result := range s.publisher.AppendBatch(context.WithoutCancel(s.c.Context), s.batch) {
		switch err := result.Err; {
		case err == nil:
			s.tally.Matched++
			failure = cmp.Or(failure, s.printID(result.ID))
		case errors.Is(err, filterd.ErrInvalid):
			s.tally.invalid(s.at[i], err)
		case failure == nil:
			failure = fmt.Errorf("line %d: %w", s.at[i], err)
		}
	}
	s.batch, s.at, s.size = s.batch[:0], s.at[:0], 0
	return failure
}
