package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/pubsub"
)

func recordCommand() *cli.Command {
	return &cli.Command{
		Name:  "record",
		Usage: "write the messages of channels to a file, for 'filterd replay'",
		Description: "Without --channel, these are the channels and globs that the config file's rules take messages from.\n" +
			"Each line is a record, as 'filterd replay' reads it; where messages may have been missed there is a\n" +
			"record of that as well. A file whose name ends in .zst is compressed.\n\n" +
			"SIGINT, SIGTERM and SIGHUP end the recording: what Redis has sent by then is in it. If it is killed, what\n" +
			"came in the last second may be lost.\n\n" +
			"Example: filterd record --channel PRICE_DATA --for 1h --out prices.ndjson.zst",
		Flags: []cli.Flag{
			configFlag(), urlFlag(),
			&cli.StringSliceFlag{Name: "channel", Usage: "a `CHANNEL`, or a glob such as 'prices.*'; may be given again"},
			&cli.StringSliceFlag{Name: "sharded", Usage: "a sharded `CHANNEL`; may be given again"},
			&cli.StringFlag{Name: "out", Value: "-", Usage: "write to this new `FILE`; - is standard output"},
			&cli.BoolFlag{Name: "force", Usage: "overwrite files that exist"},
			&cli.DurationFlag{Name: "for", Usage: "end after this `DURATION`"},
			&cli.StringFlag{Name: "max-size", Usage: "end when the file has this `SIZE`, such as 100MiB; with --files, go on in another file"},
			&cli.IntFlag{Name: "files", Value: 1, Usage: "write up to `N` files, with a number before the ending, and then remove the oldest for each new one"},
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "end after `N` messages"},
			outputFlag(),
		},
		Action: recordChannels,
	}
}

func recordChannels(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	r := &recorder{name: c.String("out"), force: c.Bool("force"), keep: c.Int("files"), left: c.Int("count")}
	switch {
	case c.IsSet("count") && r.left < 1:
		return usage("--count %d: want more than 0", r.left)
	case c.IsSet("for") && c.Duration("for") <= 0:
		return usage("--for %v: want more than 0", c.Duration("for"))
	case r.keep < 1 || r.keep > 1 && (r.name == "-" || !c.IsSet("max-size")):
		return usage("--files %d: want at least 1, and more only with --out and --max-size", r.keep)
	}
	if c.IsSet("max-size") {
		if r.maxSize, err = parseSize(c.String("max-size")); err != nil {
			return usage("--max-size %s: %v", c.String("max-size"), err)
		}
	}
	if r.to, err = recordedChannels(c); err != nil {
		return err
	}
	for _, glob := range r.to.Globs {
		r.globs = append(r.globs, filterd.CompileGlob(glob))
	}
	rdb, _, err := connect(c)
	if err != nil {
		return err
	}
	defer rdb.Close()

	ctx, release := signal.NotifyContext(c.Context, syscall.SIGHUP)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.stop = func(why string) { cancel(endOf(why)) }
	if d := c.Duration("for"); d > 0 {
		timer := time.AfterFunc(d, func() { r.stop("time") })
		defer timer.Stop()
	}
	if r.name == "-" {
		r.file = &recordingFile{name: "standard output"}
		r.file.to(c.App.Writer)
		err = r.begin()
	} else {
		err = r.next()
	}
	if err != nil {
		return err
	}
	var flushing sync.WaitGroup
	flushing.Go(func() { r.flushEvery(ctx, time.Second) })
	err = r.run(ctx, rdb, slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn})))
	why := "signal"
	var end endOf
	if errors.As(context.Cause(ctx), &end) {
		why = string(end)
	} else if err != nil {
		why = "error"
	}
	cancel(nil)
	flushing.Wait()
	err = errors.Join(redisError(err), r.end(why))
	report := recordReport{Messages: r.messages, Gaps: r.gaps, Files: r.names, End: why}
	if asJSON(c) {
		_ = printJSON(c.App.ErrWriter, report)
	} else {
		fmt.Fprintf(c.App.ErrWriter, "messages=%d gaps=%d files=%d end=%s\n", report.Messages, report.Gaps, len(report.Files), why)
	}
	return err
}

// A recordReport is the last line of standard error.
type recordReport struct {
	Messages uint64   `json:"messages"`
	Gaps     uint64   `json:"gaps"`
	Files    []string `json:"files,omitempty"` // that are there
	End      string   `json:"end"`
}

// endOf is what ended a recording: "size", "time", "count" or "error"; a signal
// has no error.
type endOf string

func (e endOf) Error() string { return string(e) }

// recordedChannels returns what the flags, or else the rules, take messages
// from.
func recordedChannels(c *cli.Context) (filterd.Subscriptions, error) {
	if c.IsSet("channel") || c.IsSet("sharded") {
		to := subscriptions(c.StringSlice("channel"))
		to.Sharded = c.StringSlice("sharded")
		if slices.Contains(to.Channels, "") || slices.Contains(to.Sharded, "") {
			return to, usage("want the name of a channel, not an empty one")
		}
		return to, nil
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return filterd.Subscriptions{}, err
	}
	defer loaded.Close()
	to := loaded.Table.Subscriptions()
	for _, s := range to.Streams {
		fmt.Fprintf(c.App.ErrWriter, "warning: the stream %s is not recorded: it keeps its entries itself, and 'filterd tail --stream' prints them\n", oneLine(s.Name))
	}
	to.Streams = nil
	if len(to.Channels)+len(to.Globs)+len(to.Sharded) == 0 {
		return to, usage("%s: the rules take messages from no channel: name one with --channel", loaded.Path)
	}
	return to, nil
}

// subscriptions sorts channels and globs.
func subscriptions(names []string) (to filterd.Subscriptions) {
	for _, name := range names {
		if filterd.IsGlob(name) {
			to.Globs = append(to.Globs, name)
		} else {
			to.Channels = append(to.Channels, name)
		}
	}
	return to
}

// A recorder writes what it is given to one file, or to one after the other.
type recorder struct {
	to      filterd.Subscriptions
	name    string // of the file; - is standard output
	force   bool
	maxSize int64 // of a file, in bytes; 0 is any
	keep    int   // how many files
	stop    func(why string)

	globs []*filterd.Glob // of to

	mu       sync.Mutex // guards all below: Redis' readers write, a timer flushes
	file     *recordingFile
	part     int      // number of the file, from 1
	names    []string // of the files that are there
	left     int      // messages until the end; 0 at first is any number
	ended    bool     // nothing is recorded any more
	err      error    // the first one of a file
	messages uint64
	gaps     uint64
	inFile   struct{ messages, gaps uint64 }
}

// run records until ctx ends.
func (r *recorder) run(ctx context.Context, rdb redis.UniversalClient, logger *slog.Logger) error {
	options := pubsub.SourceOptions{FailFast: true, Logger: logger}
	var sources []filterd.Source
	if len(r.to.Channels)+len(r.to.Globs) > 0 {
		sources = append(sources, pubsub.NewSource(rdb, options))
	}
	if len(r.to.Sharded) > 0 {
		sources = append(sources, pubsub.NewShardedSource(rdb, options))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(sources))
	for _, source := range sources {
		source.Subscribe(r.to)
		go func() { // ends with ctx; run waits for it
			ended <- source.Run(ctx, r)
			cancel() // half a recording is none
		}()
	}
	var errs []error
	for range sources {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// Messages implements [filterd.Handler].
func (r *recorder) Messages(_ context.Context, batch []*filterd.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range batch {
		if !r.isFirst(m) || !r.write(newRecord(m)) {
			continue
		}
		r.messages++
		r.inFile.messages++
		if r.left--; r.left == 0 {
			r.finish("count", nil)
		}
		r.left = max(0, r.left)
	}
	if r.file.zstd == nil && !r.ended { // zstd is left to the timer: each flush costs compression
		r.try(r.file.flush())
	}
}

// Gap implements [filterd.Handler].
func (r *recorder) Gap(g filterd.Gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.write(record{Kind: recordGap, Time: time.Now(), Channels: g.Channels, From: g.From, To: g.To, Reason: g.Reason}) {
		r.gaps++
		r.inFile.gaps++
	}
}

// isFirst reports whether m is the copy of its message that is recorded: a
// channel that matches several subscriptions arrives once for each.
func (r *recorder) isFirst(m *filterd.Message) bool {
	switch {
	case m.Pattern == "":
		return true
	case slices.Contains(r.to.Channels, m.Channel):
		return false
	}
	first := slices.IndexFunc(r.globs, func(g *filterd.Glob) bool { return g.Match(m.Channel) })
	return first < 0 || r.globs[first].String() == m.Pattern
}

// write writes a record, if need be to another file. It reports whether the
// recording goes on.
func (r *recorder) write(line record) bool {
	if r.ended {
		return false
	}
	text, err := line.text()
	if err != nil {
		return r.try(err)
	}
	fits := func() bool {
		return r.maxSize == 0 || r.file.written+r.file.pending+int64(len(text))+endSize <= r.maxSize
	}
	if !fits() { // what is pending may get smaller
		if !r.try(r.file.flush()) {
			return false
		}
		switch {
		case fits():
		case r.keep == 1:
			r.finish("size", nil)
			return false
		case r.inFile.messages+r.inFile.gaps == 0: // no other file is larger
		case !r.try(r.close("continued")) || !r.try(r.next()):
			return false
		}
	}
	return r.try(r.file.write(text))
}

// try ends the recording with an error. It reports whether there is none.
func (r *recorder) try(err error) bool {
	if err != nil {
		r.finish("error", err)
	}
	return err == nil
}

// finish ends the recording, once.
func (r *recorder) finish(why string, err error) {
	if !r.ended {
		r.ended, r.err = true, err
		r.stop(why)
	}
}

// next begins the next file.
func (r *recorder) next() error {
	r.part++
	name := r.name
	if r.keep > 1 {
		name = numbered(name, r.part)
	}
	file, err := createRecording(name, r.force)
	if err != nil {
		return err
	}
	r.file, r.names = file, append(r.names, name)
	if len(r.names) > r.keep {
		if err := os.Remove(r.names[0]); err != nil {
			return err
		}
		r.names = r.names[1:]
	}
	return r.begin()
}

// numbered puts a number before a name's ending, so that names sort by it.
func numbered(name string, n int) string {
	dir, base := filepath.Split(name)
	stem, ending := base, ""
	if at := strings.IndexByte(strings.TrimLeft(base, "."), '.'); at >= 0 {
		at += len(base) - len(strings.TrimLeft(base, "."))
		stem, ending = base[:at], base[at:]
	}
	return fmt.Sprintf("%s%s.%06d%s", dir, stem, n, ending)
}

// begin writes what a file begins with.
func (r *recorder) begin() error {
	r.inFile.messages, r.inFile.gaps = 0, 0
	return r.mark(record{Kind: recordStart, Time: time.Now(), Version: recordingVersion, Channels: slices.Concat(r.to.Channels, r.to.Globs, r.to.Sharded)})
}

// close writes what a file ends with, and closes it.
func (r *recorder) close(why string) error {
	end := record{Kind: recordEnd, Time: time.Now(), Reason: why, Messages: &r.inFile.messages, Gaps: &r.inFile.gaps}
	return errors.Join(r.mark(end), r.file.close())
}

// mark writes a record at once.
func (r *recorder) mark(line record) error {
	text, err := line.text()
	if err != nil {
		return err
	}
	return errors.Join(r.file.write(text), r.file.flush())
}

// end ends the recording and returns its error.
func (r *recorder) end(why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.err != nil { // an end would claim that all before it is there
		_ = r.file.close()
		return r.err
	}
	return r.close(why)
}

// flushEvery flushes until ctx ends.
func (r *recorder) flushEvery(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.mu.Lock()
			if !r.ended {
				r.try(r.file.flush())
			}
			r.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// parseSize returns how many bytes a text such as 100MiB means.
func parseSize(text string) (int64, error) {
	number, unit := text, int64(1)
	for i, name := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(text, name); ok {
			number, unit = n, 1<<(10*(i+1))
		}
	}
	number = strings.TrimSuffix(number, "B")
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 1 || n > (1<<62)/unit {
		return 0, errors.New("want a number above 0, with KiB, MiB, GiB, or of bytes")
	}
	return n * unit, nil
}
