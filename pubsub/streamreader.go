package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/redis/go-redis/v9"
)

const (
	// streamBlock is how long Redis waits for a new entry before it says that
	// there is none. It bounds how late the end of Run is noticed.
	streamBlock = 500 * time.Millisecond
	// failedRetry is after what time an entry is delivered again that a target
	// has failed on.
	failedRetry = time.Second
	// ackDelay is how long an acknowledgement waits for others, where the
	// entry was let go of while nothing is read.
	ackDelay = 2 * time.Millisecond
)

// A streamReader reads one stream as a member of one group. Its goroutine reads
// and calls the handler; those who let go of entries last, on other goroutines,
// come through settle.
type streamReader struct {
	source  *StreamSource
	stream  filterd.Stream
	rdb     redis.UniversalClient
	leave   context.CancelFunc
	settled chan struct{} // capacity 1: done or open may be another

	fault atomic.Pointer[error] // why the stream can't be read; nil if it can

	logs                                                                 lograte.Limiter
	read, redelivered, claimed, acknowledged, malformed, poison, trimmed atomic.Uint64

	// The goroutine's own.
	conn   entryConn
	batch  []*filterd.Message // memory for what the handler gets, which keeps nothing of it
	begun  filterd.Beginner   // that has something to finish; or nil
	size   batchSize
	last   string // ID of the last new entry
	newest string // the greatest of them
	joined bool   // there was a group
	lost   bool   // it was gone
	round  int    // of takeBack
	caught bool   // what a former process left behind has been delivered

	acking sync.Mutex // held while done is being acknowledged; taken before mu

	mu         sync.Mutex                // guards what follows
	open       map[*openEntries]struct{} // delivered, and not all of them settled
	delivering *openEntries              // that the handler is being called with; or nil
	done       []string                  // to be acknowledged
	again      map[string]retry          // to be delivered again
}

// A retry says why an entry is to be delivered again, and since which round of
// takeBack.
type retry struct {
	outcome filterd.EntryOutcome
	round   int
}

func newStreamReader(s *StreamSource, stream filterd.Stream, leave context.CancelFunc) *streamReader {
	r := &streamReader{
		source: s, stream: stream, leave: leave,
		settled: make(chan struct{}, 1),
		size:    batchSize{count: firstBatch},
		open:    make(map[*openEntries]struct{}),
		again:   make(map[string]retry),
	}
	r.fault.Store(&errUnread)
	return r
}

func (r *streamReader) stats() StreamStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return StreamStats{
		Read: r.read.Load(), Redelivered: r.redelivered.Load(), Claimed: r.claimed.Load(), Acknowledged: r.acknowledged.Load(),
		Malformed: r.malformed.Load(), Poison: r.poison.Load(), Trimmed: r.trimmed.Load(), Held: r.unsettled(),
	}
}

// run reads until ctx ends. Then it waits for what is held, and acknowledges
// that, until handling ends.
func (r *streamReader) run(ctx, handling context.Context, h filterd.Handler) {
	var closeClient func()
	r.rdb, closeClient = ownClient(r.source.rdb)
	defer closeClient()
	keeping, stop := context.WithCancel(handling)
	var keeper sync.WaitGroup
	keeper.Go(func() { r.keep(keeping) }) // ends with stop
	wait := &backoff.ExponentialBackOff{
		InitialInterval: minBackoff, MaxInterval: maxBackoff, Multiplier: 2, RandomizationFactor: 0.5,
	}
	for ctx.Err() == nil {
		err := r.session(ctx, handling, h, wait)
		if ctx.Err() != nil {
			break
		}
		r.lost = r.lost || redis.HasErrorPrefix(err, "NOGROUP") || errors.Is(err, errOtherGroup)
		err = unreachable(r.rdb, err)
		r.note(err)
		pause := wait.NextBackOff()
		if suppressed, ok := r.logs.Allow(); ok {
			r.source.options.Logger.Warn("stream can't be read, trying again", "stream", r.stream.Name, "group", r.stream.Group,
				"error", err, "in", pause, "suppressed", suppressed)
		}
		rest(ctx, pause)
	}
	r.drain(handling)
	stop()
	keeper.Wait()
	if r.acknowledge(handling) == nil {
		r.forgetConsumer(handling)
	}
}

// ownClient returns a client for one reader, whose connections nobody else waits
// for, and what closes it. Clients that choose their connections themselves are
// shared.
func ownClient(rdb redis.UniversalClient) (redis.UniversalClient, func()) {
	c, ok := rdb.(*redis.Client)
	if !ok {
		return rdb, func() {}
	}
	options := *c.Options()
	options.MaxRetries = -1                                                                           // a reply that is lost must be looked for
	options.PoolSize, options.MinIdleConns, options.MaxIdleConns, options.MaxActiveConns = 2, 0, 0, 0 // to read, and to acknowledge meanwhile
	options.PipelinePoolSize, options.AutoPipelineOptions = -1, nil
	options.PushNotificationProcessor, options.ClientSideCache, options.ClientSideCacheConfig = nil, nil, nil
	if options.ReadTimeout > 0 {
		options.ReadTimeout += streamBlock
	}
	own := redis.NewClient(&options)
	return own, func() { _ = own.Close() } // nothing is left to be sent
}

// rest sleeps unless ctx ends.
func rest(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// session reads until something goes wrong or ctx ends.
func (r *streamReader) session(ctx, handling context.Context, h filterd.Handler, wait *backoff.ExponentialBackOff) error {
	if err := r.join(ctx); err != nil {
		return err
	}
	conn, err := connectEntries(ctx, r.rdb, r.stream.Name, r.source.options.MaxMessage)
	if err != nil {
		return err
	}
	r.conn = conn
	defer func() { _ = conn.close() }() // what matters has been read, or is pending
	defer r.finish()
	if err := r.takeBack(ctx, handling, h); err != nil {
		return err
	}
	r.caught = true
	var claimed time.Time // when others' entries were last looked for
	retried := time.Now() // when our own were
	for ctx.Err() == nil {
		now := time.Now()
		claim := now.Sub(claimed) >= r.stream.ClaimIdle/3
		postponed, failed := r.toRetry()
		switch {
		case postponed || failed && now.Sub(retried) >= failedRetry:
			r.finish()
			if err := r.putBack(ctx); err != nil {
				return err
			}
			if postponed {
				rest(ctx, wait.NextBackOff())
			}
			retried = now
			if err := r.takeBack(ctx, handling, h); err != nil {
				return err
			}
			continue
		case claim && !conn.asked():
			claimed = now
			r.finish()
			if err := r.claim(ctx, handling, h); err != nil {
				return err
			}
			continue
		}
		if !conn.ready() && r.finish() {
			continue
		}
		part, err := r.fetch(ctx)
		if err != nil {
			return err
		}
		r.note(nil)
		wait.Reset()
		if part.last && r.size.full && !claim && ctx.Err() == nil { // Redis reads the next ones meanwhile
			if err := r.ask(); err != nil {
				return err
			}
		}
		if time.Since(part.since) > r.stream.ClaimIdle/2 {
			r.postpone(part.entries) // the handler kept them waiting so long that others may claim them
			continue
		}
		r.deliver(handling, r.beginning(h), part.entries)
		if err := r.acknowledge(handling); err != nil {
			return err
		}
	}
	for conn.asked() { // let nobody wait for them
		part, err := r.fetch(handling)
		if err != nil {
			return err
		}
		if r.finish(); r.behind(0) {
			continue // they stay pending, behind what was postponed
		}
		r.deliver(handling, h.Messages, part.entries)
	}
	return nil
}

// beginning returns what hands a batch to the handler, which may leave something
// for finish.
func (r *streamReader) beginning(h filterd.Handler) func(context.Context, []*filterd.Message) {
	b, ok := h.(filterd.Beginner)
	if !ok {
		return h.Messages
	}
	return func(ctx context.Context, batch []*filterd.Message) {
		r.begun = b
		b.Begin(ctx, batch)
	}
}

// finish has the handler finish what it has begun, and reports whether it may
// have.
func (r *streamReader) finish() bool {
	if r.begun == nil {
		return false
	}
	r.begun.End()
	r.begun = nil
	return true
}

// ask asks for new entries.
func (r *streamReader) ask() error {
	return r.conn.ask("XREADGROUP", "GROUP", r.stream.Group, r.source.options.Consumer, "COUNT", strconv.Itoa(r.size.count),
		"BLOCK", strconv.FormatInt(r.block().Milliseconds(), 10), "STREAMS", r.stream.Name, ">")
}

// fetch waits for new entries.
func (r *streamReader) fetch(ctx context.Context) (entryPart, error) {
	if !r.conn.asked() {
		if err := r.ask(); err != nil {
			return entryPart{}, err
		}
	}
	part, err := r.conn.next(ctx)
	if len(part.entries) > 0 {
		r.read.Add(uint64(len(part.entries)))
		r.last = part.entries[len(part.entries)-1].id
	}
	r.size.add(part)
	return part, err
}

// putBack puts entries that were asked for among those to be delivered again,
// behind others that are.
func (r *streamReader) putBack(ctx context.Context) error {
	for r.conn.asked() {
		part, err := r.fetch(ctx)
		if err != nil {
			return err
		}
		r.postpone(part.entries)
	}
	return nil
}

func (r *streamReader) postpone(entries []streamEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := r.inHand()
	for _, e := range entries {
		if !held[e.id] {
			r.again[e.id] = retry{filterd.EntryPostponed, r.round}
		}
	}
}

// A batchSize is how many entries to ask for: fewer after large ones, and more
// after small ones. Redis bounds their number only, and has the reply in memory.
type batchSize struct {
	count int
	full  bool // the last reply had as many

	entries, bytes int // of the reply of which parts have come
}

// The bounds of a reply: its entries at first, about its bytes at most.
const (
	firstBatch  = 16
	wantedBytes = 8 << 20
)

func (s *batchSize) add(part entryPart) {
	s.entries += len(part.entries)
	for i := range part.entries {
		for _, field := range part.entries[i].fields {
			s.bytes += len(field)
		}
	}
	if !part.last {
		return
	}
	s.full = s.entries >= s.count
	switch {
	case s.bytes > wantedBytes:
		s.count = max(1, s.count/2)
	case s.full && s.bytes < wantedBytes/4:
		s.count = min(2*s.count, maxBatch)
	}
	s.entries, s.bytes = 0, 0
}

// openEntries are entries that were delivered together.
type openEntries struct {
	reader  *streamReader
	entries []filterd.Entry
	left    int // of which settle has not been called; the reader's mu guards it
}

// unsettled returns how many entries have not been settled. The caller holds mu.
func (r *streamReader) unsettled() (count int) {
	for o := range r.open {
		count += o.left
	}
	return count
}

// held yields the IDs of entries that somebody holds. The caller holds mu.
func (r *streamReader) held() iter.Seq[string] {
	return func(yield func(string) bool) {
		for o := range r.open {
			for i := range o.entries {
				if e := &o.entries[i]; e.Held() && !yield(e.ID) {
					return
				}
			}
		}
	}
}

// inHand returns the IDs of entries that somebody holds, and of those that are
// done and not acknowledged. The caller holds mu.
func (r *streamReader) inHand() map[string]bool {
	ids := make(map[string]bool)
	for id := range r.held() {
		ids[id] = true
	}
	for _, id := range r.done {
		ids[id] = true
	}
	return ids
}

// deliver hands entries to the handler, by do, and lets go of them, and returns
// how many there were: those that are in hand are not delivered again.
func (r *streamReader) deliver(ctx context.Context, do func(context.Context, []*filterd.Message), from []streamEntry) int {
	if from = r.fresh(from); len(from) == 0 {
		return 0
	}
	r.note(nil) // whatever the handler takes its time for
	now := time.Now()
	o := &openEntries{reader: r, entries: make([]filterd.Entry, len(from)), left: len(from)}
	settle := o.settle
	for len(r.batch) < len(from) {
		r.batch = append(r.batch, &filterd.Message{Channel: r.stream.Name})
	}
	batch := r.batch[:len(from)]
	for i, m := range batch {
		e := &o.entries[i]
		e.Init(r.stream.Name, r.stream.Group, from[i].id, settle)
		e.Server = r.source.rdb
		payload, fault := from[i].message(r.stream.Name, r.stream.Field)
		switch {
		case fault != nil:
			r.malformed.Add(1)
		case from[i].poison:
			r.poison.Add(1)
			fault = entryFault(r.stream.Name, filterd.ReasonPoison, fmt.Sprintf("delivered %d times in vain", from[i].delivered))
		}
		e.Fault = fault
		m.ID, m.Payload, m.Entry, m.Received = from[i].id, payload, e, now
	}
	r.mu.Lock()
	r.open[o], r.delivering = struct{}{}, o
	r.mu.Unlock()
	do(ctx, batch)
	for i, m := range batch {
		m.Reset(nil)
		m.Entry = nil
		o.entries[i].Release()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delivering = nil
	return len(from)
}

// fresh returns the entries that are not in hand, which are not to be delivered
// again any more. New entries have greater IDs than all before, unless the group
// was taken back.
func (r *streamReader) fresh(entries []streamEntry) []streamEntry {
	if len(entries) == 0 {
		return nil
	}
	first, last := entries[0].id, entries[len(entries)-1].id
	ahead := r.newest == "" || compareIDs(first, r.newest) > 0
	if ahead || compareIDs(last, r.newest) > 0 {
		r.newest = last
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ahead && len(r.again) == 0 {
		return entries
	}
	held := r.inHand()
	fresh := entries[:0]
	for _, e := range entries {
		if !held[e.id] {
			fresh = append(fresh, e)
			delete(r.again, e.id)
		}
	}
	return fresh
}

// settle notes what is to become of an entry that nobody holds any more.
func (o *openEntries) settle(e *filterd.Entry) {
	r := o.reader
	r.mu.Lock()
	if o.left--; o.left == 0 {
		delete(r.open, o)
	}
	switch outcome := e.Outcome(); outcome {
	case filterd.EntryDone:
		r.done = append(r.done, e.ID)
	case filterd.EntryPostponed, filterd.EntryFailed:
		r.again[e.ID] = retry{outcome, r.round}
	case filterd.EntryAcknowledged:
		r.acknowledged.Add(1)
	}
	late := e.Outcome() == filterd.EntryDone && r.delivering != o // nobody acknowledges it by the way
	r.mu.Unlock()
	if late {
		r.wake()
	}
}

// quiet waits until everybody who has let go of an entry has said so: they are
// at it.
func (r *streamReader) quiet(ctx context.Context) {
	for r.settling() && ctx.Err() == nil {
		time.Sleep(10 * time.Microsecond)
	}
}

// settling reports whether there are entries that nobody holds, and that are not
// settled.
func (r *streamReader) settling() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := range r.open {
		held := 0
		for i := range o.entries {
			if o.entries[i].Held() {
				held++
			}
		}
		if held != o.left {
			return true
		}
	}
	return false
}

// behind reports whether entries were postponed in a round or later: what comes
// after them waits.
func (r *streamReader) behind(round int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, retry := range r.again {
		if retry.outcome == filterd.EntryPostponed && retry.round >= round {
			return true
		}
	}
	return false
}

// toRetry reports whether entries are to be delivered again.
func (r *streamReader) toRetry() (postponed, failed bool) {
	postponed = r.behind(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	return postponed, len(r.again) > 0
}

// drain waits until the handler has nothing, or ctx ends.
func (r *streamReader) drain(ctx context.Context) {
	for {
		r.mu.Lock()
		left := len(r.open)
		r.mu.Unlock()
		if left == 0 || ctx.Err() != nil {
			return
		}
		rest(ctx, ackDelay)
	}
}
