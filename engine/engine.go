package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lane"
	"github.com/filterd/filterd/internal/stamps"
)

// Config is what an engine is made of. A zero field is its documented default.
type Config struct {
	// Table holds the rules. Required.
	Table *Table
	// Sink takes what goes to channels and streams. Required if a rule has such a
	// target, a dead letter channel among them, or a Stage, which may emit.
	Sink filterd.Sink
	// Logger is told of errors, gaps and reloads, and takes what rules send
	// to the log. Errors that repeat are logged every ten seconds, with their
	// number. Default slog.Default().
	Logger *slog.Logger
	// Workers is how many goroutines run the Stage of one rule. Default: as
	// many as can run at once, and at least 2.
	Workers int
	// QueueMessages bounds the messages that wait for one callback, one
	// goroutine of a webhook, or the log, of one rule, or for one of its
	// workers. Default 1024.
	QueueMessages int
	// QueueBytes bounds the payloads that wait there. Default 16 MiB.
	QueueBytes int
	// Lease says whether this process is the one, of several with the same
	// rules, that sends what becomes of the messages of channels. Another one
	// leaves them alone: they are counted as Standby in [ChannelStats], no rule
	// sees them, and gaps are told to no rule. Entries of streams are treated
	// in any case: their groups share them. A callback or webhook still gets,
	// and a dead letter still tells of, what was queued before the lease ended;
	// what was to be published then is Withheld in [RuleStats]. IDs of dead
	// letters and of events of gaps begin with the lease's fence. Default: every
	// message is treated.
	Lease filterd.Lease
	// Attend makes [Engine.Busy] tell how long batches take, for which it looks
	// at the clock twice a batch.
	Attend bool
	// Tracer records the way of messages: of events with a traceparent that
	// says so, and of those without a trace of which it wants to. Callbacks and
	// webhooks are then given the place in the trace that they are called at,
	// with their context: see [filterd.TraceContextOf]. Default: nothing is
	// recorded.
	Tracer Tracer
	// ReplaceTraceparent makes an event whose way is recorded go on with the
	// span of its output as its traceparent. Default: it keeps the one that it
	// came with, byte for byte, which is where its trace began.
	ReplaceTraceparent bool
	// DrainTimeout bounds how long Close waits for callbacks and webhooks to
	// take what is queued. Default 5 s.
	DrainTimeout time.Duration
}

// An Engine feeds messages to the rules of its table and sends what they keep.
// Its methods are safe for concurrent use.
type Engine struct {
	config   Config
	counters counters
	stamps   stamps.Tracker
	current  atomic.Pointer[generation]
	taps     atomic.Pointer[[]*Tap] // nil: there are none; written under mu
	halted   atomic.Pointer[HaltError]
	halt     chan struct{} // closed when halted is set
	busy     sync.Map      // *handler: those that may be at work, with Attend

	// lifetime is what callbacks and webhooks are called with; Close ends it.
	lifetime context.Context
	end      context.CancelFunc

	mu      sync.Mutex                  // guards what follows
	sources map[*filterd.Source]bool    // that are running, by the place of Run's argument
	lanes   map[laneKey]*lane.Lane[job] // of the current generation
	retired map[laneKey]*lane.Lane[job] // that no rule has any more, but that still drain
	stages  map[io.Closer]int           // how many generations that are not drained have each
	closed  bool

	tables    map[*Table]int      // how many generations that aren't drained have it
	evaluated filterd.Evaluations // by tables that nobody uses any more, less what others have counted before
}

// A HaltError says that a rule with [OnErrorHalt] failed and the engine stopped.
type HaltError struct {
	Rule string
	Err  error
}

func (e *HaltError) Error() string { return fmt.Sprintf("halted by rule %q: %v", e.Rule, e.Err) }

// Unwrap returns what the rule failed on.
func (e *HaltError) Unwrap() error { return e.Err }

// ErrClosed is returned by a closed engine.
var ErrClosed = errors.New("engine is closed")

// New makes an engine. The caller must Close it.
func New(config Config) (*Engine, error) {
	if config.Table == nil {
		return nil, errors.New("an engine needs a table")
	}
	if config.QueueMessages < 0 || config.QueueBytes < 0 || config.DrainTimeout < 0 || config.Workers < 0 {
		return nil, errors.New("an engine's bounds are not negative")
	}
	config.Logger = cmp.Or(config.Logger, slog.Default())
	config.Workers = cmp.Or(config.Workers, max(2, runtime.GOMAXPROCS(0)))
	config.DrainTimeout = cmp.Or(config.DrainTimeout, 5*time.Second)
	e := &Engine{
		config:  config,
		halt:    make(chan struct{}),
		lanes:   make(map[laneKey]*lane.Lane[job]),
		tables:  make(map[*Table]int),
		sources: make(map[*filterd.Source]bool),
		retired: make(map[laneKey]*lane.Lane[job]),
		stages:  make(map[io.Closer]int),
	}
	e.lifetime, e.end = context.WithCancel(context.Background())
	if err := e.reload(context.Background(), config.Table); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload makes a table the engine's rules. A message is treated by one table
// from start to end. Subscriptions that both tables have are not touched, and
// neither are the counters and queues of rules that keep their name. Reload
// returns when no message is treated by the old table any more, or ctx ends;
// the new table holds either way. Stages that no table has any more are closed
// when their last message is done. On an error the old table stays.
func (e *Engine) Reload(ctx context.Context, t *Table) error {
	err := e.reload(ctx, t)
	if err != nil {
		e.RefuseReload(err)
	}
	return err
}

// RefuseReload counts a reload that came to nothing before there was a table,
// such as one of a file with mistakes. [Stats] tells of it.
func (e *Engine) RefuseReload(err error) {
	e.counters.refusedReloads.Add(1)
	e.counters.lastRefusal.Store(&Refusal{Time: time.Now(), Err: err})
}

func (e *Engine) reload(ctx context.Context, t *Table) error {
	if e.config.Sink == nil && t.needsSink() {
		return errors.New("an engine whose rules send to channels needs a sink")
	}
	drained, number, err := e.swap(t)
	if err != nil {
		return err
	}
	if number > 1 {
		e.config.Logger.Debug("table swapped", "generation", number, "rules", len(t.rules))
	}
	select {
	case <-drained:
	case <-ctx.Done():
	}
	return nil
}

// swap makes t the current table, and returns a channel that is closed when
// nobody uses the old one any more.
func (e *Engine) swap(t *Table) (drained <-chan struct{}, number uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, 0, ErrClosed
	}
	next, unused := e.newGeneration(t)
	for _, s := range t.closers() {
		e.stages[s]++
	}
	if e.tables[t]++; e.tables[t] == 1 { // not what it was asked elsewhere
		e.evaluated = e.evaluated.Sub(t.Evaluations())
	}
	old := e.current.Swap(next)
	e.stamps.Keep(next.number, t.followsStamps)
	for source := range e.sources {
		(*source).Subscribe(t.Subscriptions())
	}
	if old == nil {
		none := make(chan struct{})
		close(none)
		return none, next.number, nil
	}
	drained = old.retire()
	go func() { // ends when the old table's last message has left the queues
		<-drained
		e.closeStages(old.table)
		e.letGo(old.table)
		for _, key := range unused {
			e.closeRetired(key)
		}
	}()
	return drained, next.number, nil
}

// letGo lets go of a table that a generation had, but for what it counted.
func (e *Engine) letGo(t *Table) {
	e.counters.forgetGroups()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tables[t]--; e.tables[t] == 0 {
		delete(e.tables, t)
		e.evaluated = e.evaluated.Add(t.Evaluations())
	}
}

// closeRetired lets a lane end once it has drained, unless a reload has taken
// it back meanwhile. The next reload forgets it.
func (e *Engine) closeRetired(key laneKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.retired[key]; l != nil {
		l.Close()
	}
}

func (t *Table) needsSink() bool {
	for _, r := range t.rules {
		for _, to := range r.To {
			if to.Channel != "" || to.Stream != "" || to.Sharded != "" || to.Computed != nil {
				return true
			}
		}
		if r.DeadLetter != "" || r.Stage != nil { // which may emit
			return true
		}
	}
	for _, c := range t.registry.Contracts() {
		if c.DeadLetter != "" {
			return true
		}
	}
	return false
}

// Run takes messages from sources, subscribing them to what the rules ask for,
// until ctx ends, a rule halts the engine, or a source can't go on. It returns
// when every source has stopped and every message they delivered is published
// or queued: nil if ctx ended, a [*HaltError], or the source's error. It may be
// called again; it does not close the engine.
func (e *Engine) Run(ctx context.Context, sources ...filterd.Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrClosed
	}
	subscriptions := e.current.Load().table.Subscriptions()
	for i := range sources {
		e.sources[&sources[i]] = true
		sources[i].Subscribe(subscriptions)
	}
	e.mu.Unlock()
	defer e.forget(sources)

	var running sync.WaitGroup
	errs := make([]error, len(sources))
	for i, source := range sources {
		running.Go(func() {
			errs[i] = source.Run(ctx, e.newHandler())
			if errs[i] != nil {
				cancel()
			}
		})
	}
	finished := make(chan struct{})
	go func() { // ends with the sources
		running.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-e.halt:
		cancel()
		<-finished
	}
	if halted := e.halted.Load(); halted != nil {
		return halted
	}
	return errors.Join(errs...)
}

func (e *Engine) forget(sources []filterd.Source) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range sources {
		delete(e.sources, &sources[i])
	}
	if len(e.sources) == 0 {
		e.stamps.Keep(e.current.Load().number, func(string) bool { return false }) // nobody listens
	}
}

// Process treats one message, which it borrows, on the caller's goroutine. The
// message stands for all copies of itself: a rule runs once, however many of
// its From entries match. When Process returns, what goes to channels is
// published and what goes to callbacks is queued; messages for a rule's Stage
// are queued before it. The error is a
// [*filterd.ValidationError] if the message breaks its contract, a [*HaltError]
// if the engine is halted, [ErrClosed] if it is closed, [ErrStandby] if another
// process has the lease; a rule's failure is
// the rule's: see [Rule.OnError] and [Engine.Stats].
func (e *Engine) Process(ctx context.Context, m *filterd.Message) error {
	g := e.acquire()
	if g == nil {
		return ErrClosed
	}
	defer g.release()
	w := g.workers.Get().(*worker)
	defer g.workers.Put(w)
	w.one[0] = m
	w.ctx = ctx
	err := w.run(w.one[:], true)
	w.one[0] = nil
	w.flush(ctx)
	w.ctx = e.lifetime
	if halted := e.halted.Load(); halted != nil {
		return halted
	}
	return err
}

// Stats returns what was counted so far.
func (e *Engine) Stats() Stats {
	s := e.counters.snapshot()
	current := e.current.Load()
	s.Generation, s.Linear = current.number, current.table.Linear()
	s.Reloads = s.Generation - 1
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Evaluations = e.evaluated
	for t := range e.tables {
		s.Evaluations = s.Evaluations.Add(t.Evaluations())
	}
	for rule, l := range e.allLanes() {
		r := s.Rules[rule]
		r.Queued += l.Len()
		s.Rules[rule] = r
	}
	return s
}

// allLanes yields every lane with the name of its rule. The caller holds mu.
func (e *Engine) allLanes() iter.Seq2[string, *lane.Lane[job]] {
	return func(yield func(string, *lane.Lane[job]) bool) {
		for key, l := range e.lanes {
			if !yield(key.rule, l) {
				return
			}
		}
		for key, l := range e.retired {
			if !yield(key.rule, l) {
				return
			}
		}
	}
}

// Halted returns the [*HaltError] that the engine has stopped with; nil if it
// hasn't.
func (e *Engine) Halted() error {
	if halted := e.halted.Load(); halted != nil {
		return halted
	}
	return nil
}

// Close ends the engine: further messages are refused, and what is queued is
// handed to its callbacks and webhooks for DrainTimeout. Then their context ends,
// and what is queued, or in the hands of those who give up, is counted as
// dropped. The error says how many messages that were, and how many callbacks
// have not returned even so.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock() // callbacks may ask for Stats
	defer e.end()
	ctx, cancel := context.WithTimeout(context.Background(), e.config.DrainTimeout)
	defer cancel()
	last := e.current.Load()
	drained := last.retire()
	defer func() {
		go func() { // ends with the last message
			<-drained
			e.closeStages(last.table)
		}()
	}()
	select {
	case <-drained:
	case <-ctx.Done():
	}
	e.mu.Lock()
	lanes := slices.AppendSeq(slices.Collect(maps.Values(e.lanes)), maps.Values(e.retired))
	e.mu.Unlock()
	for _, l := range lanes {
		l.Close()
	}
	var dropped, inHand int
	for _, l := range lanes {
		n, m := l.Wait(ctx)
		dropped += n
		inHand += m
	}
	if inHand > 0 {
		e.end()
		moment, cancel := context.WithTimeout(context.Background(), giveUpTime)
		defer cancel()
		dropped += inHand
		inHand = 0
		for _, l := range lanes {
			_, m := l.Wait(moment)
			inHand += m
		}
		dropped -= inHand
	}
	if dropped+inHand > 0 {
		return fmt.Errorf("the drain ended with %d messages dropped and %d in the hands of callbacks that have not returned", dropped, inHand)
	}
	return nil
}

// giveUpTime is how long Close waits for callbacks whose context has ended.
const giveUpTime = 100 * time.Millisecond

// fail halts the engine.
func (e *Engine) fail(rule string, err error) {
	halted := &HaltError{Rule: rule, Err: err}
	if e.halted.CompareAndSwap(nil, halted) {
		e.config.Logger.Error("halted", "rule", rule, "error", err)
		close(e.halt)
	}
}
