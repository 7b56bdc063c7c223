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

// Limits bounds what a lane holds. A zero field is its default.
type Limits struct {
	Messages int
	Bytes    int
}

// A Lane hands what is pushed to one worker goroutine, in order. When it is
// full, values give way; the caller is told how many. Safe for concurrent use.
type Lane[T any] struct {
	limits     Limits
	dropNewest bool
	most       int // values in a batch
	work       func([]T)
	lost       func(T)       // may be nil
	done       chan struct{} // closed when the worker has ended

	mu     sync.Mutex // guards what follows
	ready  sync.Cond  // signals the worker that the queue or closed changed
	queue  []item[T]  // a ring
	head   int        // index of the oldest item
	count  int        // items in the ring
	bytes  int        // of all items in the ring
	inHand int        // values that work has been called with
	closed bool
	ended  bool // the worker is about to end
}

type item[T any] struct {
	value T
	bytes int
}

// New starts a lane whose worker calls work with what waits, at most that many
// values at once. With dropNewest a full lane refuses what is pushed, else it
// forgets what it holds longest. The worker runs until the lane is closed and
// empty; work must recover its own panics, and may not keep the slice. lost is
// called with every value that gets lost; it must not block, nor use the lane.
// It may be nil.
func New[T any](limits Limits, dropNewest bool, most int, work func([]T), lost func(T)) *Lane[T] {
	if limits.Messages == 0 {
		limits.Messages = DefaultMessages
	}
	if limits.Bytes == 0 {
		limits.Bytes = DefaultBytes
	}
	l := &Lane[T]{limits: limits, dropNewest: dropNewest, most: most, work: work, lost: lost, done: make(chan struct{})}
	l.ready.L = &l.mu
	go l.run()
	return l
}

// Push queues a value that holds that many bytes, and returns how many values
// were lost for it: the value itself if it is larger than the whole lane, if
// the lane is closed, or if the newest gives way. It never blocks.
func (l *Lane[T]) Push(value T, bytes int) (dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || bytes > l.limits.Bytes {
		l.lose(value)
		return 1
	}
	for l.count >= l.limits.Messages || l.bytes+bytes > l.limits.Bytes {
		dropped++
		if l.dropNewest {
			l.lose(value)
			return dropped
		}
		l.lose(l.pop())
	}
	if l.count == len(l.queue) {
		l.grow()
	}
	l.queue[(l.head+l.count)%len(l.queue)] = item[T]{value, bytes}
	l.count++
	l.bytes += bytes
	l.ready.Signal()
	return dropped
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
		l.lose(l.pop())
	}
	return dropped, l.inHand
}

func (l *Lane[T]) lose(value T) {
	if l.lost != nil {
		l.lost(value)
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
