package measure

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// maxWrite is how much is published at once, in bytes.
	maxWrite = 32 << 10
	// A closed loop pauses when Redis holds back so many bytes for a
	// subscriber, and goes on below the second number: enough that the relay
	// does not run dry between two looks. By default Redis would cut a
	// subscriber off at 32 MB, or after a minute above 8.
	maxHeldBack  = 6 << 20
	fineHeldBack = 4 << 20
)

// A generator publishes a load. One goroutine writes, and another reads the
// replies.
type generator struct {
	load   *Load
	conn   net.Conn
	sent   atomic.Uint64 // messages, since the generator was made
	paused atomic.Bool   // Redis holds back too much
	behind time.Duration // the writer's own until it returns
	failed chan error    // of the replies
}

func newGenerator(ctx context.Context, url string, load *Load) (*generator, error) {
	conn, err := dial(ctx, url)
	if err != nil {
		return nil, err
	}
	g := &generator{load: load, conn: conn, failed: make(chan error, 1)}
	go g.replies() // ends with the connection
	return g, nil
}

// replies reads the replies, and looks for errors among them.
func (g *generator) replies() {
	lines := bufio.NewReaderSize(g.conn, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if err == nil && line[0] == '-' {
			err = fmt.Errorf("%q", line[1:len(line)-2])
		}
		if err != nil {
			g.failed <- fmt.Errorf("publish: %w", err)
			_, _ = io.Copy(io.Discard, g.conn)
			return
		}
	}
}

// write publishes the next messages up to a number of all, but not more than
// fit one write.
func (g *generator) write(upTo uint64) error {
	sent := g.sent.Load()
	first := int(sent % uint64(len(g.load.ends)))
	begin, last := 0, first
	if first > 0 {
		begin = g.load.ends[first-1]
	}
	most := first + int(min(upTo-sent, uint64(len(g.load.ends)-first)))
	for last+1 < most && g.load.ends[last+1]-begin <= maxWrite {
		last++
	}
	// Counted first: an output must not come before its message.
	g.sent.Store(sent + uint64(last+1-first))
	_, err := g.conn.Write(g.load.frames[begin:g.load.ends[last]])
	return err
}

// closed publishes up to a number of all messages, as fast as may be, until
// time is up. May says up to which it may go on just now.
func (g *generator) closed(ctx context.Context, count uint64, until time.Time, may func() uint64) error {
	for sent := g.sent.Load(); sent < count && ctx.Err() == nil; sent = g.sent.Load() {
		if !until.IsZero() && !time.Now().Before(until) {
			return nil
		}
		allowed := min(count, may())
		if g.paused.Load() || allowed <= sent {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if err := g.write(allowed); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// open publishes that many messages more, each when it is due: so many per
// second, from start on. It never waits for what became of them. If that is
// more than can be published it gives up after twice the time.
func (g *generator) open(ctx context.Context, count uint64, rate float64, start time.Time) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer exactTimers()()
	first := g.sent.Load()
	for done := uint64(0); done < count && ctx.Err() == nil; done = g.sent.Load() - first {
		now := time.Since(start)
		if now > 2*at(count, rate)+time.Second {
			return nil
		}
		late := now - at(done, rate)
		if late < 0 {
			sleep(min(-late, 100*time.Millisecond))
			continue
		}
		g.behind = max(g.behind, late)
		due := min(count, uint64(now.Seconds()*rate)+1)
		if err := g.write(first + max(due, done+1)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// at returns when message n is due, after the start.
func at(n uint64, rate float64) time.Duration {
	return time.Duration(float64(n) / rate * float64(time.Second))
}
