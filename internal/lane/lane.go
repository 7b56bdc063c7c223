// Package lane is the slow lane: bounded queues with one worker each, between
// those who must not wait and those who may take their time.
package lane

import (
	"context"
	"sync"
)

// Default bounds of a lane.
const (
	DefaultMessages = 1024
	DefaultBytes    = 16 << 20
)

// A Policy says what gives way in a full lane.
type Policy int

// The policies.
const (
	DropOldest Policy = iota // what is queued longest
	DropNewest               // what is pushed
	// Conflate keeps the newest value of each key: it takes the place of the
	// one before. When that is not enough, what is queued longest gives way.
	Conflate
)

// Limits bounds what a lane holds. A zero field is its default.
type Limits struct {
	Messages int
	Bytes    int
}

// A Lane hands what is pushed to one worker goroutine, in order. When it is
// full, values give way, or the caller waits. Safe for concurrent use.
type Lane[T any] struct {
	limits Limits
	policy Policy
	most   int // values in a batch
	work   func([]T)
	lost   func(value T, conflated bool) // may be nil
	done   chan struct{}                 // closed when the worker has ended

	mu      sync.Mutex        // guards what follows
	ready   sync.Cond         // signals the worker that the queue or closed changed
	room    sync.Cond         // tells those who wait for room that the queue or closed changed
	queue   []item[T]         // a ring
	head    int               // index of the oldest item
	count   int               // items in the ring
	popped  uint64            // items taken out so far: the number of the oldest
	newest  map[string]uint64 // number of the queued item of each key, to conflate
	bytes   int               // of all items in the ring
	waiting int               // callers that wait for room
	inHand  int               // values that work has been called with
	closed  bool
	ended   bool // the worker is about to end
}

type item[T any] struct {
	value T
	bytes int
	key   string
}

// New starts a lane whose worker calls work with what waits, at most that many
// values at once. The worker runs until the lane is closed and empty; work must
// recover its own panics, and may not keep the slice. lost is called with every
// value that gets lost, and told whether a newer one took its place; it must not
// block, nor use the lane. It may be nil.
func New[T any](limits Limits, policy Policy, most int, work func([]T), lost func(value T, conflated bool)) *Lane[T] {
	if limits.Messages == 0 {
		limits.Messages = DefaultMessages
	}
	if limits.Bytes == 0 {
		limits.Bytes = DefaultBytes
	}
	l := &Lane[T]{limits: limits, policy: policy, most: most, work: work, lost: lost, done: make(chan struct{})}
	l.ready.L, l.room.L = &l.mu, &l.mu
	if policy == Conflate {
		l.newest = make(map[string]uint64)
	}
	go l.run()
	return l
}

// Push queues a value that holds that many bytes, and returns how many values
// were lost for it: the value itself if it is larger than the whole lane, if
// the lane is closed, or if the newest gives way. What is conflated by the key,
// which other policies ignore, is not lost in this sense. It never blocks.
func (l *Lane[T]) Push(value T, bytes int, key string) (dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || bytes > l.limits.Bytes {
		l.lose(value, false)
		return 1
	}
	if at, queued := l.newest[key]; queued {
		i := &l.queue[(l.head+int(at-l.popped))%len(l.queue)]
		l.lose(i.value, true)
		l.bytes += bytes - i.bytes
		i.value, i.bytes = value, bytes
		for l.bytes > l.limits.Bytes {
			dropped++
			l.lose(l.pop(), false)
		}
		return dropped
	}
	for !l.fits(bytes) {
		dropped++
		if l.policy == DropNewest {
			l.lose(value, false)
			return dropped
		}
		l.lose(l.pop(), false)
	}
	if l.newest != nil {
		l.newest[key] = l.popped + uint64(l.count)
	}
	l.append(item[T]{value, bytes, key})
	return dropped
}

// PushWait queues a value as Push does, but nothing gives way: it waits for
// room. A value that is larger than the whole lane waits until nothing else is
// queued. It reports whether the value was queued: not if ctx ended first, or
// the lane is closed. Then it's the caller's still, and lost is not called.
func (l *Lane[T]) PushWait(ctx context.Context, value T, bytes int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed && !l.fits(bytes) {
		defer context.AfterFunc(ctx, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.room.Broadcast()
		})()
	}
	for !l.closed && !l.fits(bytes) && ctx.Err() == nil {
		l.waiting++
		l.room.Wait()
		l.waiting--
	}
	if l.closed || !l.fits(bytes) {
		return false
	}
	l.append(item[T]{value: value, bytes: bytes})
	return true
}

// fits reports whether there is room for that many bytes, or nothing is queued.
// The caller holds mu.
func (l *Lane[T]) fits(bytes int) bool {
	return l.count == 0 || l.count < l.limits.Messages && l.bytes+bytes <= l.limits.Bytes
}

// append adds an item. The caller holds mu.
func (l *Lane[T]) append(i item[T]) {
	if l.count == len(l.queue) {
		l.grow()
	}
	l.queue[(l.head+l.count)%len(l.queue)] = i
	l.count++
	l.bytes += i.bytes
	l.ready.Signal()
}

// Len returns how many values wait or are in the worker's hands.
func (l *Lane[T]) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count + l.inHand
}

// Close lets the worker end once the queue has drained. It does not wait.
func (l *Lane[T]) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.ready.Signal()
	l.room.Broadcast()
}

// Reopen takes Close back, and reports whether it could: the worker may have
// ended by then.
func (l *Lane[T]) Reopen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.closed = false
	}
	return !l.ended
}

// Ended reports whether a closed lane has drained.
func (l *Lane[T]) Ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// Wait waits until a closed lane's worker has ended, or ctx has. Then it
// empties the queue, so that the worker ends with what it has in hand, and
// returns how many values that lost, and how many are in hand.
func (l *Lane[T]) Wait(ctx context.Context) (dropped, inHand int) {
	select {
	case <-l.done:
		return 0, 0
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dropped = l.count
	for l.count > 0 {
		l.lose(l.pop(), false)
	}
	return dropped, l.inHand
}

func (l *Lane[T]) lose(value T, conflated bool) {
	if l.lost != nil {
		l.lost(value, conflated)
	}
}

func (l *Lane[T]) run() {
	defer close(l.done)
	var batch []T
	for {
		l.mu.Lock()
		for l.count == 0 && !l.closed {
			l.ready.Wait()
		}
		if l.count == 0 {
			l.ended = true
			l.mu.Unlock()
			return
		}
		for l.count > 0 && len(batch) < l.most {
			batch = append(batch, l.pop())
		}
		l.inHand = len(batch)
		if l.waiting > 0 {
			l.room.Broadcast()
		}
		l.mu.Unlock()
		l.work(batch)
		clear(batch)
		batch = batch[:0]
		l.mu.Lock()
		l.inHand = 0
		l.mu.Unlock()
	}
}

// pop takes the oldest item out. The caller holds mu.
func (l *Lane[T]) pop() T {
	oldest := l.queue[l.head]
	l.queue[l.head] = item[T]{}
	l.head = (l.head + 1) % len(l.queue)
	l.count--
	l.bytes -= oldest.bytes
	if l.newest != nil && l.newest[oldest.key] == l.popped {
		delete(l.newest, oldest.key)
	}
	l.popped++
	return oldest.value
}

// grow makes room for one more item. The caller holds mu.
func (l *Lane[T]) grow() {
	queue := make([]item[T], min(max(2*len(l.queue), 8), l.limits.Messages))
	for i := range l.count {
		queue[i] = l.queue[(l.head+i)%len(l.queue)]
	}
	l.queue, l.head = queue, 0
}
