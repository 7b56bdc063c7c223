package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/pubsub"
	"github.com/filterd/filterd/webhook"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the rules of a config file until it is told to stop",
		Description: "SIGINT and SIGTERM end it: it stops reading, sends what it has read, and exits with code 0.\n" +
			"A second signal ends it at once.\n\n" +
			"When the config file, or a schema or module that it names, changes, and on SIGHUP, everything\n" +
			"is loaded anew and the tests beside the rules are run. If all is well the new rules take over\n" +
			"between two messages; if not, the log says why, and the old rules go on.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "once", Usage: "give up, with exit code 3, if Redis is unreachable at start"},
			&cli.BoolFlag{Name: "embedded", Usage: "start a Redis of its own instead of connecting to the config file's"},
			&cli.StringFlag{Name: "url", Usage: "connect to the Redis of this `URL` instead of the config file's", EnvVars: []string{redisVariable}},
			&cli.IntFlag{Name: "port", Usage: "`PORT` of the embedded Redis; 0 is any that is free"},
			&cli.DurationFlag{Name: "drain", Value: 5 * time.Second, Usage: "how long the end may take: half of the `DURATION` for what Redis has sent, half for webhooks and the log"},
			&cli.BoolFlag{Name: "no-server", Usage: "serve nothing over HTTP, whatever the section server says"},
			&cli.BoolFlag{Name: "log-memory", Hidden: true, Usage: "log what the process has allocated, when it is ready and at the end"}, // for bench
			logLevelFlag(),
			outputFlag(),
		},
		Action: runRules,
	}
}

// redisVariable is the environment's variable for --url: what is on a command
// line everybody can see, passwords too.
const redisVariable = "FILTERD_REDIS"

// streamsPatience is how long the daemon waits for streams that can't be read until
// it says that it is ready.
const streamsPatience = 10 * time.Second

func runRules(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	logger, err := newLogger(c)
	if err != nil {
		return err
	}
	if c.Duration("drain") <= 0 {
		return usage("--drain %v: want more than 0", c.Duration("drain"))
	}
	if port := c.Int("port"); port < 0 || port > 65535 || c.IsSet("port") && !c.Bool("embedded") {
		return usage("--port %d: want a port for --embedded", port)
	}
	if c.IsSet("url") && c.Bool("embedded") {
		return usage("--url and --embedded: want one of them")
	}
	pubsub.LogClients(logger)
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	hangups := make(chan os.Signal, 1) // one is as good as many
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	var embedded *broker
	if c.Bool("embedded") {
		if embedded, err = startBrokerOn(ctx, c.Int("port")); err != nil {
			return err
		}
		defer embedded.Close()
		go func() { // ends with the command
			select {
			case <-embedded.Ended():
				cancel(errors.New("the embedded broker has ended"))
			case <-ctx.Done():
			}
		}()
	}
	var rdb redis.UniversalClient // of the whole command, nil before it is wanted
	defer func() {
		if rdb != nil {
			_ = rdb.Close() // nothing is left to be sent
		}
	}()
	url := c.String("url") // instead of the file's
	if embedded != nil {
		url = embedded.URL
	}
	client := func(options pubsub.Options) (_ redis.UniversalClient, err error) {
		if url != "" {
			options = pubsub.Options{URL: filterd.Secret(url)}
		}
		if rdb == nil {
			rdb, err = options.Client()
		}
		return rdb, err
	}
	loaded, err := loadConfig(c, config.Stores(func(options pubsub.Options, module string) (wasmfilter.KV, error) {
		rdb, err := client(options)
		if err != nil {
			return nil, err
		}
		return pubsub.NewKV(rdb, module), nil
	}))
	if err != nil {
		return err
	}
	manager := newService(logger)
	reloads := &reloader{logger: logger, manager: manager}
	reloads.config.Store(loaded)
	if err := reloads.tellOfTests(loaded); err != nil {
		return err
	}
	defer func() { _ = reloads.config.Load().Close() }() // nothing of it runs any more
	if embedded != nil {
		logger.Info("embedded broker", "program", embedded.Name, "url", embedded.URL)
	}
	if _, err := client(loaded.Redis); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	var elected filterd.Lease // nil: there is no section ha
	var lease *pubsub.Lease
	if ha := loaded.HA; ha != nil {
		lease = pubsub.NewLease(rdb, ha.Group, pubsub.LeaseOptions{Lease: ha.Lease, Logger: logger})
		elected = lease
	}
	var export *traceExport // nil: there is no section traces
	var tracer engine.Tracer
	if loaded.Traces != nil {
		if export, err = newTraces(ctx, loaded.Traces, logger); err != nil {
			return &exitError{code: exitUsage, err: err}
		}
		defer export.close()
		tracer = export
	}
	eng, err := loaded.Engine(engine.Config{
		Lease:        elected,
		Tracer:       tracer,
		Sink:         pubsub.NewSink(rdb),
		Logger:       logger,
		Attend:       manager.watchdog > 0,
		DrainTimeout: c.Duration("drain") / 2, // after the source's half
	})
	if err != nil {
		return err
	}
	settled := make(chan struct{}) // closed when it is known who has the lease
	streams := pubsub.NewStreamSource(rdb, pubsub.StreamOptions{MaxMessage: loaded.MaxMessage, Logger: logger, DrainTimeout: c.Duration("drain") / 2})
	sharded := pubsub.NewShardedSource(rdb, pubsub.SourceOptions{
		Logger:       logger,
		FailFast:     c.Bool("once"),
		MaxMessage:   loaded.MaxMessage,
		DrainTimeout: c.Duration("drain") / 2,
	})
	source := pubsub.NewSource(rdb, pubsub.SourceOptions{
		Logger:   logger,
		FailFast: c.Bool("once"),
		OnReady: func() {
			if sharded.WaitReady(ctx) != nil {
				return // it says why
			}
			trying, cancel := context.WithTimeout(ctx, streamsPatience)
			_ = streams.WaitReady(trying) // it says why; the others work, and are not to be started again
			cancel()
			if ctx.Err() != nil {
				return
			}
			select {
			case <-settled:
			case <-time.After(2 * pubsub.DefaultLease): // it says what is wrong
			case <-ctx.Done():
				return
			}
			to := reloads.config.Load().Table.Subscriptions()
			args := []any{"channels", to.Channels, "patterns", to.Globs}
			if len(to.Streams) > 0 {
				args = append(args, "streams", streamNames(to.Streams))
			}
			if len(to.Sharded) > 0 {
				args = append(args, "sharded", to.Sharded)
			}
			logger.Info("ready", args...)
			manager.ready(reloads.status())
			if c.Bool("log-memory") {
				logMemory(logger)
			}
		},
		MaxMessage:   loaded.MaxMessage,
		DrainTimeout: c.Duration("drain") / 2,
	})
	logger.Info("starting", "version", version(), "config", loaded.Path, "rules", len(loaded.Rules))
	reloads.engine, reloads.maxMessage, reloads.server, reloads.ha, reloads.traces = eng, loaded.MaxMessage, loaded.Server, loaded.HA, loaded.Traces
	if url == "" {
		reloads.connected = &loaded.Redis
	}
	if loaded.Server != nil && !c.Bool("no-server") {
		server := &admin{
			logger: logger, engine: eng, config: reloads.config.Load,
			waiting: func() error { return errors.Join(source.Ready(), sharded.Ready(), streams.Ready()) },
			reload:  func(ctx context.Context) (adminReloaded, error) { return reloads.ask(ctx, hangups) },
			streams: streams,
			lease:   lease,
			traces:  export,
		}
		defer server.close()
		if err := server.start(loaded.Server); err != nil {
			return errors.Join(&exitError{code: exitUsage, err: err}, eng.Close())
		}
	}
	var reloading sync.WaitGroup
	running, stop := context.WithCancel(ctx)
	reloading.Go(func() { reloads.run(running, hangups) })
	giveBack := func() {}
	if lease == nil {
		close(settled)
	} else {
		source.Subscribe(loaded.Table.Subscriptions()) // there is something to wait for
		sharded.Subscribe(loaded.Table.Subscriptions())
		giveBack = elect(ctx, lease, eng, settled, source, sharded)
	}
	reloading.Go(func() { manager.watch(running, eng) })
	defer context.AfterFunc(c.Context, manager.stopping)()
	err = eng.Run(ctx, source, streams, sharded)
	stop()
	reloading.Wait()
	if cause := context.Cause(ctx); ctx.Err() != nil && c.Context.Err() == nil {
		err = errors.Join(err, cause)
	}
	err = errors.Join(err, eng.Close())
	giveBack() // once everything is sent
	export.close()
	logWebhooks(logger, reloads.config.Load().Webhooks)
	if c.Bool("log-memory") {
		logMemory(logger)
	}
	logStreams(logger, streams.Stats())
	logStats(logger, eng.Stats())
	var halted *engine.HaltError
	if errors.As(err, &halted) {
		return &exitError{code: exitFailed, err: err}
	}
	return redisError(err)
}

// A waitingSource is a source that says when it has subscribed.
type waitingSource interface {
	filterd.Source
	WaitReady(context.Context) error
}

// elect takes part in the election of the lease once the sources have subscribed,
// or been refused: who hears nothing should not lead. Settled is closed when it
// is known who leads. The function that it returns gives the lease back.
func elect(ctx context.Context, lease *pubsub.Lease, eng *engine.Engine, settled chan<- struct{}, sources ...waitingSource) func() {
	waiting, cancel := context.WithCancel(ctx)
	held, release := context.WithCancel(context.WithoutCancel(ctx))
	var electing sync.WaitGroup
	electing.Go(func() { // ends with release
		for _, s := range sources {
			_ = s.WaitReady(waiting) // the source logs what is refused
		}
		if waiting.Err() == nil {
			lease.Run(held, eng.MissedAll, func() { close(settled) })
		}
	})
	return func() {
		cancel()
		release()
		electing.Wait()
	}
}

// streamNames returns the names of streams, for the log.
func streamNames(streams []filterd.Stream) []string {
	names := make([]string, len(streams))
	for i, s := range streams {
		names[i] = s.Name
	}
	return names
}

// logStreams logs what became of the entries of streams.
func logStreams(logger *slog.Logger, streams []pubsub.StreamStats) {
	for _, s := range streams {
		logger.Info("stream", "stream", s.Stream, "group", s.Group, "read", s.Read, "acknowledged", s.Acknowledged, "redelivered", s.Redelivered, "claimed", s.Claimed,
			"malformed", s.Malformed, "poison", s.Poison, "trimmed", s.Trimmed)
	}
}

// logWebhooks logs what was posted, and why messages were not taken.
func logWebhooks(logger *slog.Logger, webhooks map[string]*webhook.Endpoint) {
	for _, name := range slices.Sorted(maps.Keys(webhooks)) {
		s := webhooks[name].Stats()
		args := []any{"webhook", name, "attempts", s.Attempts, "retries", s.Retries, "delivered", s.Delivered, "breaker", s.Breaker, "disabled", s.Disabled}
		for _, reason := range webhook.Reasons {
			if n := s.Failed[reason]; n > 0 {
				args = append(args, "failed_"+string(reason), n)
			}
		}
		logger.Info("webhook", args...)
	}
}

// logMemory logs what the process has on its heap, and how often it has
// allocated.
func logMemory(logger *slog.Logger) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	logger.Info("memory", "heap", m.HeapAlloc, "allocations", m.Mallocs, "collections", m.NumGC)
}

// logStats logs what was done with every message, and what was lost.
func logStats(logger *slog.Logger, s engine.Stats) {
	for _, name := range slices.Sorted(maps.Keys(s.Channels)) {
		channel := s.Channels[name]
		args := []any{"channel", name, "received", channel.Received}
		if channel.Standby > 0 {
			args = append(args, "standby", channel.Standby)
		}
		if channel.Lost > 0 {
			args = append(args, "lost", channel.Lost)
		}
		for _, reason := range filterd.Reasons {
			if n := channel.Invalid[reason]; n > 0 {
				args = append(args, "invalid_"+string(reason), n)
			}
		}
		logger.Info("channel", args...)
	}
	for _, name := range slices.Sorted(maps.Keys(s.ChannelGaps)) {
		logger.Info("gaps", "from", name, "gaps", s.ChannelGaps[name].Gaps, "gap_time", s.ChannelGaps[name].Time)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Rules)) {
		r := s.Rules[name]
		logger.Info("rule", "rule", name, "matched", r.Matched, "filtered", r.Filtered, "delivered", r.Delivered, "no_receivers", r.NoReceivers,
			"errors", r.Errors, "undelivered", r.Undelivered, "panics", r.Panics, "stuck", r.Stuck, "dropped", r.Dropped, "conflated", r.Conflated, "withheld", r.Withheld, "shadowed", r.Shadowed, "gaps", r.Gaps)
	}
	logger.Info("stopped", "gaps", s.Gaps, "gap_time", s.GapTime, "dead_letters", s.DeadLetters,
		"dead_letters_lost", s.DeadLettersLost, "unrouted", s.Unrouted, "refused", s.Refused, "taken", s.Taken)
}
