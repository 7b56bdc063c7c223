package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

// demoRules is the config file of the demo.
//
//go:embed demo/demo.yaml
var demoRules []byte

const (
	// demoSettle is how long the demo waits at its end for messages that are
	// on their way.
	demoSettle = time.Second
	// demoDrain bounds how long it waits for what they lead to.
	demoDrain = 2 * time.Second
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show the whole idea live: a Redis, trading bots, rules, and what becomes of each message",
		Description: "Starts redis-server or valkey-server from PATH, or else a Redis within this program, on a port of this\n" +
			"machine only. Simulated bots publish on PRICE_DATA, TRADE_COMMANDS and BOT_STATUS, and some of what they\n" +
			"publish is broken. On a terminal it shows rules, counters and events live until q or Ctrl-C;\n" +
			"elsewhere it prints a line for each event.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "for", Usage: "end after a `DURATION` such as 10s (default: when it is told to)"},
			&cli.IntFlag{Name: "port", Usage: "the broker's `PORT` (default: a free one)"},
			&cli.BoolFlag{Name: "print-rules", Usage: "print the demo's config file, to go on from, and do nothing else"},
			outputFlag(),
		},
		Action: demo,
	}
}

func demo(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.IsSet("for") && c.Duration("for") <= 0 {
		return usage("--for %v: want more than 0", c.Duration("for"))
	}
	if port := c.Int("port"); port < 0 || port > 65535 {
		return usage("--port %d: want a port from 1 to 65535", port)
	}
	if c.Bool("print-rules") {
		_, err := c.App.Writer.Write(demoRules)
		return err
	}
	rules, err := loadDemoRules()
	if err != nil {
		return err
	}

	// A terminal that is closed must not leave the broker behind.
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGHUP)
	defer stop()
	b, err := startBrokerOn(ctx, c.Int("port"))
	if err != nil {
		if ctx.Err() != nil {
			return nil // it was told to end
		}
		return err
	}
	defer b.Close()

	ctx, quit := context.WithCancel(ctx)
	defer quit()
	run := &demoRun{
		rules:    rules,
		broker:   b,
		limit:    c.Duration("for"),
		events:   make(chan demoEvent, 256),
		finished: make(chan struct{}),
	}
	display, err := newDemoDisplay(c, run, quit)
	if err != nil {
		return err
	}
	var failure error
	go func() { // ends soon after ctx; the display waits for it
		defer close(run.finished)
		failure = run.run(ctx)
	}()
	err = run.show(display, quit)
	if errors.Is(err, syscall.EPIPE) {
		return &exitError{code: exitFailed} // nobody listens any more
	}
	return errors.Join(failure, err)
}

// loadDemoRules loads the embedded config file. Nothing around the process can
// make it fail.
func loadDemoRules() (*config.Config, error) {
	return config.Parse("demo.yaml", demoRules, config.Environment(func(string) (string, bool) { return "", false }))
}

// A demoDisplay shows what happens. Its methods are called by one goroutine.
type demoDisplay interface {
	event(e demoEvent) error
	// refresh is called ten times a second.
	refresh() error
	// close is called last, also after an error.
	close()
}

// A demoRun is one run of the demo: bots, an engine and an observer, which
// have nothing in common but the broker. So what is shown is what really went
// through Redis.
type demoRun struct {
	rules  *config.Config
	broker *broker
	limit  time.Duration // 0: until it is told to end

	// events go to the display. They are dropped once finished is closed.
	events   chan demoEvent
	finished chan struct{}

	mu     sync.Mutex     // guards engine
	engine *engine.Engine // nil until it runs
}

// emit hands an event to the display.
func (r *demoRun) emit(e demoEvent) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	select {
	case r.events <- e:
	case <-r.finished:
	}
}

// show displays events until the run has finished. Whoever emits never waits
// for a display that has failed.
func (r *demoRun) show(d demoDisplay, quit func()) error {
	defer d.close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var failure error
	try := func(err error) {
		if failure == nil && err != nil {
			failure = err
			quit()
		}
	}
	event := func(e demoEvent) {
		if failure == nil {
			try(d.event(e))
		}
	}
	for {
		select {
		case e := <-r.events:
			event(e)
		case <-tick.C:
			if failure == nil {
				try(d.refresh())
			}
		case <-r.finished:
			for {
				select {
				case e := <-r.events:
					event(e)
				default:
					return failure
				}
			}
		}
	}
}

// stats returns what the engine has counted so far.
func (r *demoRun) stats() engine.Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.engine == nil {
		return engine.Stats{}
	}
	return r.engine.Stats()
}

// run runs the demo until ctx or its time ends, or the broker does. First the
// bots stop, then the engine, then the observer, so that everything that was
// published is also shown.
func (r *demoRun) run(ctx context.Context) error {
	rdb, err := pubsub.Connect(ctx, pubsub.Options{URL: filterd.Secret(r.broker.URL)})
	if err != nil {
		return r.unlessEnded(ctx, err)
	}
	defer rdb.Close()
	known := newDemoOrigins()
	noise := slog.New(&demoLog{emit: r.emit, known: known})

	eng, err := r.rules.Engine(engine.Config{Sink: pubsub.NewSink(rdb), Logger: noise, DrainTimeout: demoDrain})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.engine = eng
	r.mu.Unlock()
	defer eng.Close()

	observer, err := newDemoObserver(rdb, r.rules, known, noise, r.emit)
	if err != nil {
		return err
	}
	source := pubsub.NewSource(rdb, pubsub.SourceOptions{Logger: noise, DrainTimeout: demoDrain})

	var running sync.WaitGroup
	defer running.Wait()
	observing, stopObserving := context.WithCancel(context.WithoutCancel(ctx))
	defer stopObserving()
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	var engineErr, observerErr error
	worked := make(chan struct{})
	running.Go(func() { observerErr = observer.Run(observing) })
	running.Go(func() {
		defer close(worked)
		engineErr = eng.Run(working, source)
	})
	for _, part := range []interface{ WaitReady(context.Context) error }{observer, source} {
		if err := part.WaitReady(ctx); err != nil {
			return r.unlessEnded(ctx, err)
		}
	}
	began := time.Now()
	r.emit(demoEvent{Event: demoStarted, Start: r.describe()})

	publishing, stopPublishing := context.WithCancel(ctx)
	if r.limit > 0 { // a deadline would be one for the connections as well, and end publishes before it ends us
		defer time.AfterFunc(r.limit, stopPublishing).Stop()
	}
	defer stopPublishing()
	bots := newDemoBots(rdb, r.rules.Registry, rand.NewPCG(rand.Uint64(), rand.Uint64()), known, r.emit)
	botsDone := make(chan struct{})
	running.Go(func() {
		defer close(botsDone)
		bots.run(publishing)
	})
	var failure error
	select {
	case <-botsDone:
	case <-worked:
		failure = errors.New("the engine stopped")
	case <-r.broker.Ended():
		failure = fmt.Errorf("the broker (%s) has ended", r.broker.Name)
	}
	took := time.Since(began)
	stopPublishing()
	<-botsDone
	if failure == nil {
		r.settle(bots.sent)
	}
	stopWorking()
	<-worked
	failure = errors.Join(failure, engineErr, eng.Close())
	stopObserving()
	running.Wait()
	r.emit(demoEvent{Event: demoSummary, Summary: r.summarize(took, bots.refused)})
	return errors.Join(failure, observerErr)
}

// unlessEnded returns an error, unless it came about because the demo was told
// to end.
func (r *demoRun) unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// settle waits until the engine has received what the bots have sent.
func (r *demoRun) settle(sent uint64) {
	for deadline := time.Now().Add(demoSettle); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		received := uint64(0)
		for _, channel := range r.stats().Channels {
			received += channel.Received
		}
		if received >= sent {
			return
		}
	}
}

// describe returns what the demo is made of.
func (r *demoRun) describe() *demoStart {
	s := &demoStart{Broker: r.broker.Name, URL: r.broker.URL, Limit: r.limit}
	for _, rule := range r.rules.Rules {
		d := demoRule{Name: rule.Name, From: rule.From, To: targets(rule)}
		if rule.When != nil {
			d.When = fmt.Sprint(rule.When)
		}
		s.Rules = append(s.Rules, d)
	}
	cli := "redis-cli -p " + strconv.Itoa(r.broker.Port)
	whale := ` PRICE_DATA '{"symbol":"BTC","price":90000,"qty":5}'`
	s.Try = []string{
		cli + ` publish` + whale,
		cli + ` publish PRICE_DATA '{"symbol":"BTC","price":"high"}'`,
		cli + ` subscribe whale-alerts`,
		`filterd demo --print-rules > filterd.yaml && filterd run -c filterd.yaml --embedded`,
	}
	if _, err := exec.LookPath("redis-cli"); err != nil {
		s.Try[1] = `filterd publish --url ` + s.URL + whale
	}
	return s
}

// summarize returns what the engine has counted in the end.
func (r *demoRun) summarize(took time.Duration, refused uint64) *demoTotals {
	stats := r.stats()
	t := &demoTotals{Seconds: took.Round(time.Millisecond).Seconds(), Refused: refused, DeadLetters: stats.DeadLetters, Rules: []demoRuleTotals{}}
	for _, channel := range stats.Channels {
		t.Received += channel.Received
		t.Rejected += invalidCount(channel)
	}
	for _, rule := range r.rules.Rules {
		s := stats.Rules[rule.Name]
		t.Matched += s.Matched
		t.Failed += s.Errors
		t.Rules = append(t.Rules, demoRuleTotals{Name: rule.Name, Seen: seenCount(stats, rule.From), Matched: s.Matched, Errors: s.Errors})
	}
	return t
}

// seenCount returns how many valid messages the channels have brought, which
// is how many a rule has looked at.
func seenCount(s engine.Stats, from []string) uint64 {
	seen := uint64(0)
	for _, name := range from {
		seen += s.Channels[name].Received - invalidCount(s.Channels[name])
	}
	return seen
}

func invalidCount(s engine.ChannelStats) uint64 {
	total := uint64(0)
	for _, n := range s.Invalid {
		total += n
	}
	return total
}
