package pubsub

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/stamps"
	"github.com/redis/go-redis/v9"
)

const (
	// A publisher says how far it has come minHeartbeat after the last event
	// of a channel, and then at intervals that double up to maxHeartbeat: who
	// was not listening just then hears one of the next.
	minHeartbeat = time.Second
	maxHeartbeat = time.Minute
	// maxStamped bounds the channels that a publisher numbers. When there are
	// more, it goes on as another producer.
	maxStamped = 1 << 16
)

// A stamper numbers the events that a publisher sends to stamped channels. The
// number is given when the event is written, or about to be: in the order in
// which Redis gets them.
//
// A number that was given and could not be written, or got no answer, is missing
// for the subscribers: they count it as lost, as its publisher counts an error.
type stamper struct {
	sink   *Sink
	logger *slog.Logger

	mu       sync.Mutex // guards what follows
	producer string     // of producerSize bytes
	channels map[string]*numbered
	timer    *time.Timer // nil: nothing is to be said
	next     time.Time   // when timer fires

	order sync.Mutex // held from numbering to delivery where a client chooses its connections itself
}

// A numbered channel is one with stamps.
type numbered struct {
	last uint64    // the last number
	said int       // heartbeats since
	due  time.Time // when the next is
}

// newStamper returns nil where a registry has no stamped channels.
func newStamper(sink *Sink, registry *filterd.Registry, logger *slog.Logger) *stamper {
	if !slices.ContainsFunc(registry.Contracts(), func(c *filterd.Contract) bool { return c.Stamped }) {
		return nil
	}
	s := &stamper{sink: sink, logger: cmp.Or(logger, slog.Default()), producer: rand.Text(), channels: make(map[string]*numbered)}
	if o, ok := sink.to.(*outlet); ok {
		o.stamp = s.stamp
	}
	return s
}

// The stamp of an event begins its JSON, so that its place is known: two
// extensions, with a producer of as many letters as rand.Text has and a number
// of as many digits as any. The number 0 is none yet.
const (
	producerSize = 26
	digits       = 20
	stampHead    = `{"` + filterd.ProducerAttribute + `":"`
	stampMiddle  = `","` + filterd.SequenceAttribute + `":"`
	producerAt   = len(stampHead)
	sequenceAt   = producerAt + producerSize + len(stampMiddle)
)

var (
	noProducer = strings.Repeat("-", producerSize)
	noSequence = strings.Repeat("0", digits)
	noStamp    = stampHead + noProducer + stampMiddle + noSequence + `",`
)

// withRoom returns the JSON of an event with room for a stamp.
func withRoom(event []byte) []byte {
	return append([]byte(noStamp), event[1:]...)
}

// stamp numbers a payload that has room for a stamp.
func (s *stamper) stamp(d *filterd.Delivery) {
	if !bytes.HasPrefix(d.Payload, []byte(noStamp)) {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[d.Channel]
	if c == nil {
		if len(s.channels) == maxStamped {
			clear(s.channels)
			s.producer = rand.Text()
		}
		c = &numbered{}
		s.channels[d.Channel] = c
	}
	c.last++
	c.said, c.due = 0, now.Add(minHeartbeat)
	copy(d.Payload[producerAt:], s.producer)
	number := strconv.AppendUint(nil, c.last, 10)
	copy(d.Payload[sequenceAt+digits-len(number):], number)
	s.wake(c.due)
}

// wake has a heartbeat sent at a time, or before. The caller holds mu.
func (s *stamper) wake(at time.Time) {
	switch {
	case s.timer == nil:
		s.timer = time.AfterFunc(time.Until(at), s.beat)
	case at.Before(s.next):
		s.timer.Reset(time.Until(at))
	default:
		return
	}
	s.next = at
}

// beat says how far the channels have come for which that is due.
func (s *stamper) beat() {
	now := time.Now()
	s.mu.Lock()
	var batch []filterd.Delivery
	var next time.Time
	due := slices.Sorted(maps.Keys(s.channels))
	for at := 0; at < len(due); {
		h := stamps.Heartbeat{Producer: s.producer, Sequences: make(map[string]uint64)}
		for ; at < len(due) && len(h.Sequences) < stamps.MaxChannels; at++ {
			c := s.channels[due[at]]
			if !c.due.After(now) {
				c.said++
				c.due = now.Add(min(minHeartbeat<<min(c.said, 10), maxHeartbeat))
				h.Sequences[due[at]] = c.last
			}
			if next.IsZero() || c.due.Before(next) {
				next = c.due
			}
		}
		if len(h.Sequences) > 0 {
			batch = append(batch, filterd.Delivery{Channel: filterd.StampsChannel, Payload: h.Append(nil)})
		}
	}
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), minHeartbeat)
	defer cancel()
	s.deliver(ctx, batch)
	for _, d := range batch {
		switch err := d.Err; {
		case err == nil: // or the next one will do
		case redis.HasErrorPrefix(err, "NOPERM"):
			s.logger.Warn("redis refuses heartbeats: what is lost last goes unnoticed (grant the channel with ACL SETUSER)", "channel", d.Channel, "error", err)
			return
		case errors.Is(err, redis.ErrClosed):
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	s.wake(next)
}

// deliver delivers what may have to be stamped.
func (s *stamper) deliver(ctx context.Context, batch []filterd.Delivery) {
	if _, ok := s.sink.to.(*outlet); !ok {
		s.order.Lock()
		defer s.order.Unlock()
		for i := range batch {
			s.stamp(&batch[i])
		}
	}
	s.sink.Deliver(ctx, batch)
}

// stampable refuses an event that says already what its stamp would.
func stampable(e *filterd.Event) error {
	for _, name := range []string{filterd.ProducerAttribute, filterd.SequenceAttribute} {
		if _, has := e.Extensions[name]; has {
			return fmt.Errorf("the channel is stamped: the extension %s is its publisher's to set", name)
		}
	}
	return nil
}
