package pubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/filterd/filterd/internal/resp"
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
	wire    *wire         // that new entries are read from; nil where rdb is shared
	found   resp.Entries  // by the last read from wire
	count   int           // how many entries wire is asked for
	asked   time.Time     // when wire was asked for entries that have not been read; zero if it wasn't
	settled chan struct{} // capacity 1: done or held may be another

	fault atomic.Pointer[error] // why the stream can't be read; nil if it can

	logs                                                                 lograte.Limiter
	last                                                                 string // ID of the last new entry; the goroutine's own
	read, redelivered, claimed, acknowledged, malformed, poison, trimmed atomic.Uint64

	acking sync.Mutex // held while done is being acknowledged; taken before mu

	mu    sync.Mutex                      // guards what follows
	open  int                             // entries that settle has not been called for
	batch []filterd.Entry                 // of these, those that the handler is being called with; nil between calls
	held  map[string]*filterd.Entry       // of these, those that the handler has kept
	done  []string                        // to be acknowledged
	again map[string]filterd.EntryOutcome // to be delivered again
}

func newStreamReader(s *StreamSource, stream filterd.Stream, leave context.CancelFunc) *streamReader {
	r := &streamReader{
		source: s, stream: stream, leave: leave,
		settled: make(chan struct{}, 1),
		count:   maxBatch,
		held:    make(map[string]*filterd.Entry),
		again:   make(map[string]filterd.EntryOutcome),
	}
	r.fault.Store(&errUnread)
	return r
}

func (r *streamReader) stats() StreamStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return StreamStats{
		Read: r.read.Load(), Redelivered: r.redelivered.Load(), Claimed: r.claimed.Load(), Acknowledged: r.acknowledged.Load(),
		Malformed: r.malformed.Load(), Poison: r.poison.Load(), Trimmed: r.trimmed.Load(), Held: len(r.held),
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
	if c, ok := r.rdb.(*redis.Client); ok {
		var err error
		if r.wire, err = dial(ctx, c); err != nil {
			return err
		}
		r.wire.Reader = resp.NewReader(r.wire.conn, readBuffer, readBuffer)
		r.asked = time.Time{}
		defer func() { _ = r.wire.close() }() // what matters has been read, or is pending
	}
	if err := r.takeBack(ctx, handling, h); err != nil {
		return err
	}
	var claim time.Time // when others' entries were last looked for
	retry := time.Now() // when our own were
	for ctx.Err() == nil {
		now := time.Now()
		if now.Sub(claim) >= r.stream.ClaimIdle/3 {
			claim = now
			if err := r.claim(ctx, handling, h); err != nil {
				return err
			}
		}
		postponed, failed := r.toRetry()
		if postponed || failed && now.Sub(retry) >= failedRetry {
			if err := r.putBack(); err != nil {
				return err
			}
			if postponed {
				rest(ctx, wait.NextBackOff())
			}
			retry = now
			if err := r.takeBack(ctx, handling, h); err != nil {
				return err
			}
			r.note(nil)
			continue
		}
		entries, err := r.fetch(ctx)
		switch {
		case redis.HasErrorPrefix(err, "NOGROUP"):
			if err := r.rejoin(ctx); err != nil {
				return err
			}
		case err != nil:
			return err
		case len(entries) > 0:
			r.note(nil)
			wait.Reset()
			if len(entries) == r.count && ctx.Err() == nil { // Redis reads the next ones meanwhile
				if err := r.ask(); err != nil {
					return err
				}
			}
			r.deliver(handling, h, entries)
			if err := r.acknowledge(handling); err != nil {
				return err
			}
		default:
			r.note(nil)
			wait.Reset()
		}
	}
	if !r.asked.IsZero() { // let nobody wait for them
		entries, err := r.fetch(handling)
		if err != nil {
			return err
		}
		r.deliver(handling, h, entries)
	}
	return nil
}

// ask asks for new entries on the reader's own connection, if it has one.
func (r *streamReader) ask() error {
	if r.wire == nil {
		return nil
	}
	r.asked = time.Now()
	return r.wire.send("XREADGROUP", "GROUP", r.stream.Group, r.source.options.Consumer, "COUNT", strconv.Itoa(r.count),
		"BLOCK", strconv.FormatInt(r.block().Milliseconds(), 10), "STREAMS", r.stream.Name, ">")
}

// putBack puts entries that were asked for among those to be delivered again,
// behind others that are.
func (r *streamReader) putBack() error {
	if r.asked.IsZero() {
		return nil
	}
	entries, err := r.fetchWired()
	if err != nil {
		return err
	}
	r.postpone(entries)
	return nil
}

func (r *streamReader) postpone(entries []streamEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.again[e.id] = filterd.EntryPostponed
	}
}

// fetchWired waits for new entries on the reader's own connection. They are in
// its buffer, and hold until the next call. What the handler kept waiting so
// long that others may claim it is to be claimed again.
func (r *streamReader) fetchWired() ([]streamEntry, error) {
	if r.asked.IsZero() {
		if err := r.ask(); err != nil {
			return nil, err
		}
	}
	defer func() { r.asked = time.Time{} }()
	late := time.Since(r.asked) > r.stream.ClaimIdle/2
	timeout := r.rdb.(*redis.Client).Options().ReadTimeout
	if timeout <= 0 {
		timeout = answerTimeout
	}
	var f resp.Frame
	for {
		switch ok, err := r.wire.NextEntries(&r.found, &f); {
		case err != nil:
			return nil, err
		case ok && f.Kind == resp.Error:
			return nil, replyError(f.Payload)
		case ok:
			entries := wiredEntries(&r.found)
			if len(entries) > 0 {
				r.read.Add(uint64(len(entries)))
				r.last = entries[len(entries)-1].id
			}
			r.limit(entries)
			if late {
				r.postpone(entries)
				entries = nil
			}
			return entries, nil
		}
		if err := r.wire.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return nil, err
		}
		if err := r.wire.Fill(); err != nil {
			return nil, broken(err)
		}
	}
}

// limit asks for fewer entries after large ones, and for more after small ones:
// Redis bounds their number, not their bytes, and all of a batch are in memory.
func (r *streamReader) limit(entries []streamEntry) {
	bytes := 0
	for i := range entries {
		for _, field := range entries[i].fields {
			bytes += len(field)
		}
	}
	switch {
	case bytes > wantedBytes:
		r.count = max(1, r.count/2)
	case len(entries) == r.count && bytes < wantedBytes/4:
		r.count = min(2*r.count, maxBatch)
	}
}

// wantedBytes is about how much a batch should be at most.
const wantedBytes = 8 << 20

// fetch waits for new entries.
func (r *streamReader) fetch(ctx context.Context) ([]streamEntry, error) {
	if r.wire != nil {
		return r.fetchWired()
	}
	reply, err := r.do(ctx, "xreadgroup", "group", r.stream.Group, r.source.options.Consumer,
		"count", maxBatch, "block", r.block().Milliseconds(), "streams", r.stream.Name, ">")
	if errors.Is(err, redis.Nil) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	entries, err := parseStreams(reply)
	if len(entries) > 0 {
		r.read.Add(uint64(len(entries)))
		r.last = entries[len(entries)-1].id
	}
	return entries, err
}

// do sends a command about the stream, which is never sent twice.
func (r *streamReader) do(ctx context.Context, args ...any) (any, error) {
	command := newOnce(ctx, r.stream.Name, args...)
	_ = r.rdb.Process(ctx, command) // the command has the error
	return command.Result()
}

// join makes the group where it is missing. It begins with the oldest entry.
func (r *streamReader) join(ctx context.Context) error {
	_, err := r.do(ctx, "xgroup", "create", r.stream.Name, r.stream.Group, "0", "mkstream")
	if redis.HasErrorPrefix(err, "BUSYGROUP") {
		return nil
	}
	return err
}

// rejoin makes the group again that Redis has lost, with the stream or without
// it: from what has been treated, since "$" would skip entries. Who has entries
// in hand takes the group back to the oldest of them.
func (r *streamReader) rejoin(ctx context.Context) error {
	oldest := r.oldestOpen()
	from := "0"
	switch {
	case oldest != "":
		from = idBefore(oldest)
	case r.last != "":
		from = r.last
	}
	r.source.options.Logger.Warn("the group is gone: making it again", "stream", r.stream.Name, "group", r.stream.Group, "from", from)
	_, err := r.do(ctx, "xgroup", "create", r.stream.Name, r.stream.Group, from, "mkstream")
	if redis.HasErrorPrefix(err, "BUSYGROUP") { // somebody was faster
		if oldest == "" {
			return nil
		}
		_, err = r.do(ctx, "xgroup", "setid", r.stream.Name, r.stream.Group, from)
	}
	r.mu.Lock()
	clear(r.again) // they are new entries again
	r.mu.Unlock()
	return err
}

// oldestOpen returns the ID of the oldest entry that is not done; empty if
// there is none.
func (r *streamReader) oldestOpen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := slices.AppendSeq(slices.Collect(maps.Keys(r.held)), maps.Keys(r.again))
	if len(ids) == 0 {
		return ""
	}
	return slices.MinFunc(ids, compareIDs)
}

// deliver hands entries to the handler and lets go of them.
func (r *streamReader) deliver(ctx context.Context, h filterd.Handler, from []streamEntry) {
	now := time.Now()
	entries := make([]filterd.Entry, len(from))
	messages := make([]filterd.Message, len(from))
	batch := make([]*filterd.Message, len(from))
	for i := range from {
		e := &entries[i]
		e.Init(r.stream.Name, r.stream.Group, from[i].id, r.settle)
		e.Server = r.source.rdb
		payload, fault := from[i].message(r.stream.Field)
		switch {
		case fault != "":
			r.malformed.Add(1)
			e.Fault = entryFault(r.stream.Name, filterd.ReasonEntry, fault)
		case from[i].poison:
			r.poison.Add(1)
			e.Fault = entryFault(r.stream.Name, filterd.ReasonPoison, fmt.Sprintf("delivered %d times in vain", from[i].delivered))
		}
		messages[i] = filterd.Message{Channel: r.stream.Name, ID: from[i].id, Payload: payload, Entry: e, Received: now}
		batch[i] = &messages[i]
	}
	r.mu.Lock()
	r.open += len(entries)
	r.batch = entries
	r.mu.Unlock()
	h.Messages(ctx, batch)
	for i := range entries {
		entries[i].Release()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batch = nil
	for i := range entries {
		if e := &entries[i]; e.Held() { // if not, settle has been called, or waits for mu
			r.held[e.ID] = e
		}
	}
}

// settle notes what is to become of an entry that nobody holds any more.
func (r *streamReader) settle(e *filterd.Entry) {
	r.mu.Lock()
	r.open--
	delete(r.held, e.ID)
	switch outcome := e.Outcome(); outcome {
	case filterd.EntryDone:
		r.done = append(r.done, e.ID)
	case filterd.EntryPostponed, filterd.EntryFailed:
		r.again[e.ID] = outcome
	case filterd.EntryAcknowledged:
		r.acknowledged.Add(1)
	}
	late := r.batch == nil // nobody acknowledges it by the way
	r.mu.Unlock()
	if late {
		r.wake()
	}
}

// quiet waits until everybody who has let go of an entry has said so: what is
// pending and not held is nobody's then.
func (r *streamReader) quiet() {
	for {
		r.mu.Lock()
		quiet := r.open == len(r.held)
		r.mu.Unlock()
		if quiet {
			return
		}
		time.Sleep(10 * time.Microsecond) // they are at it
	}
}

// toRetry reports whether entries are to be delivered again.
func (r *streamReader) toRetry() (postponed, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, outcome := range r.again {
		if outcome == filterd.EntryPostponed {
			return true, true
		}
	}
	return false, len(r.again) > 0
}

// acknowledge acknowledges what is done.
func (r *streamReader) acknowledge(ctx context.Context) error {
	r.acking.Lock()
	defer r.acking.Unlock()
	for {
		r.mu.Lock()
		ids := r.done[:min(len(r.done), maxAcknowledged)]
		r.mu.Unlock()
		if len(ids) == 0 {
			return nil
		}
		args := append(make([]any, 0, 3+len(ids)), "xack", r.stream.Name, r.stream.Group)
		for _, id := range ids {
			args = append(args, id)
		}
		reply, err := r.do(ctx, args...)
		if err != nil {
			return err
		}
		if n, ok := reply.(int64); ok {
			r.acknowledged.Add(uint64(n))
		}
		r.mu.Lock()
		if r.done = r.done[len(ids):]; len(r.done) == 0 {
			r.done = nil
		}
		r.mu.Unlock()
	}
}

// maxAcknowledged bounds the entries of one XACK.
const maxAcknowledged = 1024

// keep acknowledges, until ctx ends, what is let go of while the reader waits
// for new entries, and keeps what the handler has from getting idle.
func (r *streamReader) keep(ctx context.Context) {
	refresh := time.NewTicker(r.stream.ClaimIdle / 4)
	defer refresh.Stop()
	for {
		var err error
		select {
		case <-r.settled:
			rest(ctx, ackDelay)
			err = r.acknowledge(ctx)
		case <-refresh.C:
			err = r.refresh(ctx)
		case <-ctx.Done():
			return
		}
		if err != nil { // the reader meets with the same, and says so
			rest(ctx, minBackoff)
			r.wake()
		}
	}
}

func (r *streamReader) wake() {
	select {
	case r.settled <- struct{}{}:
	default: // keep is about to look
	}
}

// drain waits until nothing is held, or ctx ends.
func (r *streamReader) drain(ctx context.Context) {
	for {
		r.mu.Lock()
		held := len(r.held)
		r.mu.Unlock()
		if held == 0 || ctx.Err() != nil {
			return
		}
		rest(ctx, ackDelay)
	}
}

// forgetConsumer removes this consumer from the group, if nothing is pending
// for it: that would be lost with it.
func (r *streamReader) forgetConsumer(ctx context.Context) {
	pending, err := r.pending(ctx, "-", 0, r.source.options.Consumer)
	if err != nil || len(pending) > 0 {
		return
	}
	_, _ = r.do(ctx, "xgroup", "delconsumer", r.stream.Name, r.stream.Group, r.source.options.Consumer) // it does no harm there
}
