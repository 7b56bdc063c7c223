package pubsub

import (
	"sync"
	"time"

	"github.com/filterd/filterd"
)

// The bounds of the queue between a source's reader and its handler. They
// only have to even out the two: what doesn't fit waits in the socket.
const (
	queueEntries = 1024
	queueBytes   = 16 << 20
	// maxBatch is how many messages a handler gets at once.
	maxBatch = 256
	// keepBuffer is the largest payload buffer that is kept for another
	// message, so that a few large messages don't stay in memory.
	keepBuffer = 4 << 10
)

// A queue takes messages and gaps from one reader to one handler, in order.
// When it is full the reader waits. Messages are recycled.
type queue struct {
	spare []*filterd.Message // for new messages; the reader's own

	mu       sync.Mutex // guards what follows
	notEmpty sync.Cond
	notFull  sync.Cond
	ring     [queueEntries]entry
	head     int // index of the oldest entry
	count    int
	bytes    int  // of all payloads in the ring
	waiting  bool // the reader waits
	closed   bool
	lost     losses
	free     []*filterd.Message // recycled by the handler's side
}

// An entry is a message or a gap.
type entry struct {
	message *filterd.Message
	gap     *filterd.Gap
}

// Losses are what a queue has dropped.
type losses struct {
	messages int
	from     time.Time             // when the oldest of them was received
	subs     map[subscription]bool // what they came through
	gaps     []*filterd.Gap
}

// add adds an entry.
func (l *losses) add(e entry) {
	if e.gap != nil {
		l.gaps = append(l.gaps, e.gap)
		return
	}
	m := e.message
	if l.messages++; l.messages == 1 {
		l.from, l.subs = m.Received, make(map[subscription]bool)
	}
	if m.Pattern != "" {
		l.subs[subscription{name: m.Pattern, glob: true}] = true
	} else {
		l.subs[subscription{name: m.Channel}] = true
	}
}

func newQueue() *queue {
	q := &queue{}
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
	return q
}

// putMessage queues a copy of a message, and reports whether it had to wait.
// After close the message is lost.
func (q *queue) putMessage(channel, pattern, payload string, received time.Time) (waited bool) {
	m := q.blank()
	*m = filterd.Message{Channel: channel, Pattern: pattern, Payload: append(m.Payload[:0], payload...), Received: received}
	return q.put(entry{message: m}, len(payload))
}

// putGap is putMessage for a gap.
func (q *queue) putGap(gap *filterd.Gap) { q.put(entry{gap: gap}, 0) }

// blank returns a message to fill in.
func (q *queue) blank() *filterd.Message {
	if len(q.spare) == 0 {
		q.mu.Lock()
		q.spare, q.free = q.free, q.spare
		q.mu.Unlock()
	}
	if n := len(q.spare); n > 0 {
		m := q.spare[n-1]
		q.spare = q.spare[:n-1]
		return m
	}
	return &filterd.Message{}
}

func (q *queue) put(e entry, bytes int) (waited bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && (q.count == len(q.ring) || q.count > 0 && q.bytes+bytes > queueBytes) {
		waited, q.waiting = true, true
		q.notFull.Wait()
	}
	q.waiting = false
	if q.closed {
		q.lost.add(e)
		return waited
	}
	q.ring[(q.head+q.count)%len(q.ring)] = e
	q.count++
	q.bytes += bytes
	q.notEmpty.Signal()
	return waited
}

// take recycles the batch it returned before, waits, and returns what is
// there: up to maxBatch messages, or a gap. Once the queue is closed and empty
// it returns neither.
func (q *queue) take(batch []*filterd.Message) ([]*filterd.Message, *filterd.Gap) {
	for _, m := range batch {
		payload := m.Payload[:0]
		if cap(payload) > keepBuffer {
			payload = nil
		}
		*m = filterd.Message{Payload: payload} // what the handler decoded may be large
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = append(q.free, batch...)
	batch = batch[:0]
	for q.count == 0 && !q.closed {
		q.notEmpty.Wait()
	}
	defer q.notFull.Signal()
	for q.count > 0 && len(batch) < maxBatch {
		e := q.ring[q.head]
		if e.gap != nil && len(batch) > 0 {
			break
		}
		q.ring[q.head] = entry{}
		q.head = (q.head + 1) % len(q.ring)
		q.count--
		if e.gap != nil {
			return batch, e.gap
		}
		q.bytes -= len(e.message.Payload)
		batch = append(batch, e.message)
	}
	return batch, nil
}

// full reports whether the reader waits for the handler.
func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// close lets take run dry. What is put from now on is lost.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.notEmpty.Signal()
	q.notFull.Signal()
}

// abandon closes the queue and drops what is in it.
func (q *queue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; q.count > 0; q.count-- {
		q.lost.add(q.ring[q.head])
		q.ring[q.head] = entry{}
		q.head = (q.head + 1) % len(q.ring)
	}
	q.bytes, q.closed = 0, true
	q.notEmpty.Signal()
	q.notFull.Signal()
}

// losses returns what was dropped, once nothing is put any more.
func (q *queue) losses() losses {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost
}
