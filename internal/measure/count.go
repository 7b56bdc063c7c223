package measure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd/internal/resp"
)

// A counter reads what comes out. It knows outputs by their channel and
// payload: the third time that one comes it belongs to the third message, in
// the order of publishing, that it is expected of. So nothing has to be written
// into a payload. Redis keeps the order of one publisher's messages, and a relay
// has to.
type counter struct {
	conn     net.Conn
	reader   *resp.Reader
	load     *Load
	channels map[string]*arriving // the reader's
	total    atomic.Uint64        // of all channels
	last     atomic.Int64         // when, in ns since begin
	begin    time.Time
	failed   chan error
	ended    chan struct{} // closed when the reader has

	// What follows belongs to the reader, once start is set.
	latency *Histogram // nil in a closed loop
	start   atomic.Pointer[schedule]
}

// A schedule says when measured messages should have been published.
type schedule struct {
	first uint64 // the number of the first
	start time.Time
	rate  float64
}

// arriving is what has come to one channel.
type arriving struct {
	arrived atomic.Uint64
	known   map[string]*sequence
	unknown sequence
}

// A sequence is the outputs of one channel that look the same.
type sequence struct {
	positions []int // of their messages in the load
	arrived   uint64
}

// readBuffer is how much is read at once, in bytes.
const readBuffer = 256 << 10

// newCounter subscribes to all channels that something comes out to.
func newCounter(ctx context.Context, url string, load *Load, latency *Histogram) (*counter, error) {
	conn, err := dial(ctx, url)
	if err != nil {
		return nil, err
	}
	c := &counter{conn: conn, reader: resp.NewReader(conn, readBuffer, 512<<20), load: load, channels: make(map[string]*arriving), begin: time.Now(), failed: make(chan error, 1), ended: make(chan struct{}), latency: latency}
	var names []string
	for name, t := range load.channels {
		a := &arriving{known: make(map[string]*sequence), unknown: sequence{positions: t.unknown}}
		for payload, positions := range t.known {
			a.known[payload] = &sequence{positions: positions}
		}
		c.channels[name] = a
		names = append(names, name)
	}
	if err := c.subscribe(ctx, names); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("subscribe to what comes out: %w", err)
	}
	go c.read() // ends with the connection
	return c, nil
}

// subscribe subscribes, and returns when Redis has confirmed it.
func (c *counter) subscribe(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	if _, err := c.conn.Write(resp.AppendCommand(nil, "SUBSCRIBE", names...)); err != nil {
		return err
	}
	var f resp.Frame
	for confirmed := 0; confirmed < len(names); {
		ok, err := c.reader.Next(&f)
		switch {
		case err != nil:
			return err
		case !ok:
			if err := c.reader.Fill(); err != nil {
				return errors.Join(err, ctx.Err())
			}
		case f.Kind == resp.Error:
			return errors.New(string(f.Payload))
		case f.Kind == resp.Confirmation:
			confirmed++
		}
	}
	return nil
}

func (c *counter) read() {
	defer close(c.ended)
	for {
		if err := c.reader.Fill(); err != nil {
			c.failed <- fmt.Errorf("read what comes out: %w", err)
			return
		}
		now := time.Now()
		s := c.start.Load()
		n := uint64(0)
		for {
			var f resp.Frame
			ok, err := c.reader.Next(&f)
			if err != nil {
				c.failed <- fmt.Errorf("read what comes out: %w", err)
				return
			}
			if !ok {
				break
			}
			if f.Kind != resp.Message {
				continue
			}
			if a := c.channels[string(f.Channel)]; a != nil {
				a.arrived.Add(1)
				n++
				if c.latency != nil {
					c.attribute(a, f.Payload, s, now)
				}
			}
		}
		if n > 0 {
			c.last.Store(int64(now.Sub(c.begin)))
			c.total.Add(n)
		}
	}
}

// attribute finds the message that an output belongs to, and how long ago that
// should have been published. Those that warmed the relay up are not measured.
func (c *counter) attribute(a *arriving, payload []byte, s *schedule, now time.Time) {
	of := a.known[string(payload)]
	if of == nil {
		of = &a.unknown
	}
	turns := uint64(len(of.positions))
	if turns == 0 {
		return // not foreseen
	}
	message := of.arrived/turns*uint64(len(c.load.messages)) + uint64(of.positions[of.arrived%turns])
	of.arrived++
	if s != nil && message >= s.first {
		c.latency.Add(now.Sub(s.start) - at(message-s.first, s.rate))
	}
}

// close ends the reader, and returns when it has ended. It may be called again.
func (c *counter) close() {
	_ = c.conn.Close()
	<-c.ended
}

// lastArrival returns when something last came.
func (c *counter) lastArrival() time.Time { return c.begin.Add(time.Duration(c.last.Load())) }
