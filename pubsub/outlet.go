package pubsub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/resp"
	"github.com/redis/go-redis/v9"
)

const (
	// writeSize is how much an outlet gathers before it writes, in bytes, and
	// keepOut how large a buffer it keeps.
	writeSize = 64 << 10
	keepOut   = 1 << 20
	// attempts is how many connections a batch may be written to, as long as
	// nothing of it has been.
	attempts = 2
	// replyBuffer is how much is read at once, in bytes.
	replyBuffer = 16 << 10
	// watchEvery is how often an outlet that rests asks whether its client was
	// closed meanwhile.
	watchEvery = time.Second
)

// An outlet publishes on one connection that go-redis has dialled. Who comes
// first leads: it writes its batch and all that wait, and reads the replies.
// Those who come meanwhile wait, and the first of them leads the next round. So
// a lone caller meets nobody, many share the way to the server and back, and
// there is no goroutine of the outlet's own.
//
// A lone leader can leave before the replies have come, see Start: then its batch
// is parked, and whoever leads next reads its replies first.
type outlet struct {
	client *redis.Client
	stamp  func(*filterd.Delivery) // before a delivery is written; nil for none

	mu      sync.Mutex // guards what follows
	led     bool       // somebody leads
	closing bool       // the connection ends with the round
	waiting []*call

	// The leader's own, or mu's while nobody leads.
	wire    *wire // nil: there is no connection
	calls   []*call
	pending []*filterd.Delivery // of the calls, in order
	out     []byte
	ends    []int               // of the frames in out
	parked  *call               // nil: none is
	unread  []*filterd.Delivery // of the parked call, without their replies
}

// A call is one Deliver or Start that waits.
type call struct {
	outlet *outlet
	ctx    context.Context
	batch  []filterd.Delivery
	turn   chan bool // capacity 1: true to lead, false when all is done
}

var calls = sync.Pool{New: func() any { return &call{turn: make(chan bool, 1)} }}

// Deliver implements [filterd.Sink].
func (o *outlet) Deliver(ctx context.Context, batch []filterd.Delivery) {
	c := o.call(ctx, batch)
	if o.join(c) {
		o.round(false)
		o.pass()
	}
	c.recycle()
}

// Start implements [filterd.Starter].
func (o *outlet) Start(ctx context.Context, batch []filterd.Delivery) filterd.Started {
	c := o.call(ctx, batch)
	if o.join(c) {
		parked := o.round(true)
		o.pass()
		if parked {
			return c
		}
	}
	c.recycle()
	return nil
}

// Finish implements [filterd.Started].
func (c *call) Finish() {
	o := c.outlet
	o.mu.Lock()
	lead := !o.led && o.parked == c
	if lead {
		o.led = true
	}
	o.mu.Unlock()
	if lead {
		o.unpark()
		o.pass()
	}
	<-c.turn
	c.recycle()
}

func (o *outlet) call(ctx context.Context, batch []filterd.Delivery) *call {
	c := calls.Get().(*call)
	c.outlet, c.ctx, c.batch = o, ctx, batch
	return c
}

func (c *call) recycle() {
	c.outlet, c.ctx, c.batch = nil, nil, nil
	calls.Put(c)
}

// Close closes the connection: now, or at the end of the round.
func (o *outlet) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.led {
		o.closing = true
		return nil
	}
	o.unpark()
	return o.hangUp()
}

// join adds a call to those that wait, and returns true when it is to lead, or
// false when it is done.
func (o *outlet) join(c *call) bool {
	o.mu.Lock()
	o.waiting = append(o.waiting, c)
	if !o.led {
		o.led = true
		o.mu.Unlock()
		return true
	}
	o.mu.Unlock()
	select {
	case lead := <-c.turn:
		return lead
	case <-c.ctx.Done():
	}
	o.mu.Lock()
	if i := slices.Index(o.waiting, c); i >= 0 && len(c.turn) == 0 {
		o.waiting = slices.Delete(o.waiting, i, i+1)
		o.mu.Unlock()
		for i := range c.batch {
			fail(&c.batch[i], c.ctx.Err())
		}
		return false
	}
	o.mu.Unlock()
	return <-c.turn // the round goes on with its batch
}

// pass ends a round, and with it the caller's lead.
func (o *outlet) pass() {
	for i, c := range o.calls {
		if i > 0 { // the first is the leader
			c.turn <- false
		}
	}
	clear(o.calls)
	clear(o.pending)
	o.calls, o.pending = o.calls[:0], o.pending[:0]
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		o.unpark()
		_ = o.hangUp() // nobody waits for that
		o.closing = false
	}
	if o.led = len(o.waiting) > 0; o.led {
		o.waiting[0].turn <- true
	}
}

// round publishes the batches of all who wait. It may park that of a leader who
// is alone, and reports whether it has.
func (o *outlet) round(park bool) (parked bool) {
	o.unpark()
	o.mu.Lock()
	o.calls = append(o.calls[:0], o.waiting...)
	clear(o.waiting)
	o.waiting = o.waiting[:0]
	o.mu.Unlock()

	o.pending = o.pending[:0]
	for _, c := range o.calls {
		err := c.ctx.Err()
		for i := range c.batch {
			if err != nil {
				fail(&c.batch[i], err)
			} else {
				o.pending = append(o.pending, &c.batch[i])
			}
		}
	}
	rest := o.pending
	for attempt := 1; len(rest) > 0; attempt++ {
		err := o.connect()
		if err == nil {
			var written int
			written, err = o.write(rest)
			if err == nil && park && len(o.calls) == 1 {
				o.parked, o.unread = o.calls[0], append(o.unread, rest...)
				return true
			}
			if failure := o.replies(rest[:written]); failure != nil {
				err = failure
			}
			if err == nil {
				return false
			}
			_ = o.hangUp() // the other error matters
			if rest = rest[written:]; attempt < attempts {
				continue
			}
		}
		for _, d := range rest {
			fail(d, err)
		}
		return false
	}
	return false
}

// unpark reads the replies of the parked call.
func (o *outlet) unpark() {
	c := o.parked
	if c == nil {
		return
	}
	o.calls = append(o.calls[:0], c)
	if o.replies(o.unread) != nil {
		_ = o.hangUp() // the other error matters, and is in the deliveries
	}
	clear(o.unread)
	o.calls, o.unread, o.parked = o.calls[:0], o.unread[:0], nil
	c.turn <- false
}

// connect makes a connection unless there is one.
func (o *outlet) connect() error {
	if o.wire != nil && !o.wire.peek.quiet() {
		_ = o.hangUp() // the server has
	}
	if o.wire != nil {
		return nil
	}
	if isClosed(o.client) {
		return redis.ErrClosed
	}
	ctx := o.calls[0].ctx
	if len(o.calls) > 1 {
		ctx = context.WithoutCancel(ctx) // it isn't that of the others
	}
	w, err := dial(ctx, o.client)
	if err != nil {
		return err
	}
	w.Reader = resp.NewReader(w.conn, replyBuffer, replyBuffer)
	o.wire = w
	o.watch(w)
	return nil
}

func (o *outlet) hangUp() error {
	if o.wire == nil {
		return nil
	}
	err := o.wire.close()
	o.wire = nil
	return err
}

// watch ends a connection once the client is closed.
func (o *outlet) watch(w *wire) {
	time.AfterFunc(watchEvery, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		switch {
		case o.led || o.parked != nil:
			o.watch(w)
		case o.wire != w: // it has ended
		case isClosed(o.client):
			_ = o.hangUp() // nobody waits for that
		default:
			o.watch(w)
		}
	})
}

// write writes deliveries. It returns how many were written, and why the
// connection is of no more use.
func (o *outlet) write(deliveries []*filterd.Delivery) (written int, err error) {
	for written < len(deliveries) && err == nil {
		o.out, o.ends = o.out[:0], o.ends[:0]
		for _, d := range deliveries[written:] {
			if o.stamp != nil {
				o.stamp(d)
			}
			if d.Sharded {
				o.out = resp.AppendSpublish(o.out, d.Channel, d.Payload)
			} else {
				o.out = resp.AppendPublish(o.out, d.Channel, d.Payload)
			}
			if len(o.out) >= writeSize {
				o.ends = append(o.ends, len(o.out))
				break
			}
			o.ends = append(o.ends, len(o.out))
		}
		var n int
		if err = o.wire.conn.SetWriteDeadline(o.deadline(o.wire.timeout)); err == nil {
			n, err = o.wire.conn.Write(o.out)
		}
		// A command that isn't whole is none to the server.
		count, exact := slices.BinarySearch(o.ends, n)
		if exact {
			count++
		}
		written += count
	}
	if cap(o.out) > keepOut {
		o.out = nil
	}
	return written, err
}

// replies reads the outcomes of deliveries. The error, which those without an
// outcome have, is why the connection is of no more use.
func (o *outlet) replies(deliveries []*filterd.Delivery) error {
	var f resp.Frame
	for i, d := range deliveries {
		if err := o.reply(&f, d); err != nil {
			for _, d := range deliveries[i:] {
				fail(d, fmt.Errorf("no reply: %w", err))
			}
			return err
		}
	}
	return nil
}

// reply reads the outcome of a delivery.
func (o *outlet) reply(f *resp.Frame, d *filterd.Delivery) error {
	for {
		ok, err := o.wire.Next(f)
		if err != nil {
			return err
		}
		if ok {
			break
		}
		if err := o.wire.conn.SetReadDeadline(o.deadline(o.client.Options().ReadTimeout)); err != nil {
			return err
		}
		if err := o.wire.Fill(); err != nil {
			return err
		}
	}
	switch f.Kind {
	case resp.Integer:
		d.Receivers, d.Err = f.Number, nil
	case resp.Error:
		fail(d, judged(replyError(f.Payload)))
	default:
		return fmt.Errorf("unexpected reply: %s %s", f.Verb, f.Payload)
	}
	return nil
}

// deadline returns until when the round may take for what begins now: as long
// as the timeout, or as the contexts of all calls, allow. The zero time is for
// ever.
func (o *outlet) deadline(timeout time.Duration) time.Time {
	var latest time.Time
	for _, c := range o.calls {
		deadline, bounded := c.ctx.Deadline()
		if !bounded {
			latest = time.Time{}
			break
		}
		latest = later(latest, deadline)
	}
	if timeout <= 0 {
		return latest
	}
	if end := time.Now().Add(timeout); latest.IsZero() || end.Before(latest) {
		return end
	}
	return latest
}
