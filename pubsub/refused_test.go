package pubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

func TestRefuses(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{io.EOF, false},
		{context.DeadlineExceeded, false},
		{errors.New("NOPERM is not what the server said"), false},
		{redis.ErrClosed, false},
		{replyError(noChannel), true},
		{fmt.Errorf("append: %w", replyError("WRONGTYPE Operation against a key holding the wrong kind of value")), true},
		{redis.ErrCrossSlot, true},
		{replyError("ERR string exceeds maximum allowed size (proto-max-bulk-len)"), true},
		{replyError("ERR unknown command 'SPUBLISH'"), true},
		{replyError("BUSYKEY Target key name already exists."), true},
		{replyError("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."), false},
		{replyError("LOADING Redis is loading the dataset in memory"), false},
		{replyError("READONLY You can't write against a read only replica."), false},
		{replyError("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), false},
		{replyError("NOREPLICAS Not enough good replicas to write."), false},
		{replyError("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."), false},
		{replyError("OOM command not allowed when used memory > 'maxmemory'."), false},
		{replyError("CLUSTERDOWN Hash slot not served"), false},
		{replyError("TRYAGAIN Multiple keys request during rehashing of slot"), false},
		{replyError("MOVED 1 127.0.0.1:7001"), false},
		{replyError("ASK 1 127.0.0.1:7001"), false},
		{replyError("NOAUTH Authentication required."), false},
		{replyError("WRONGPASS invalid username-password pair or user is disabled."), false},
		{replyError("DENIED Redis is running in protected mode"), false},
		{replyError("ERR max number of clients reached"), false},
	} {
		if got := refuses(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
		if got := errors.Is(judged(test.err), filterd.ErrRefused); got != test.want {
			t.Errorf("%v is judged %v, want %v", test.err, got, test.want)
		}
	}
}

// On every way to Redis it is known whether it was the message that was refused.
func TestSinkRefusals(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SET", "text", "x")
	rdb := reader(t, server, "+publish", "+spublish", "+xadd", "&open", "~*")
	for name, sink := range map[string]*Sink{"own connection": NewSink(rdb), "the client's": {pipelines{rdb}, appender{rdb}}} {
		t.Run(name, func(t *testing.T) {
			batch := []filterd.Delivery{
				{Channel: "open"}, {Channel: "closed"}, {Channel: "closed", Sharded: true}, {Channel: "out", Stream: true}, {Channel: "text", Stream: true}, {Channel: "open"},
			}
			outcomes := func() string {
				sink.Deliver(t.Context(), batch)
				var b strings.Builder
				for _, d := range batch {
					switch {
					case d.Err == nil:
						b.WriteString("+")
					case errors.Is(d.Err, filterd.ErrRefused):
						b.WriteString("-")
					default:
						b.WriteString("?")
					}
				}
				return b.String()
			}
			if got := outcomes(); got != "+--+-+" {
				t.Errorf("got %s, %+v", got, batch)
			}
			server.Do("CONFIG", "SET", "maxmemory", "1")
			if got := outcomes(); got != "+--??+" {
				t.Errorf("out of memory: got %s, %+v", got, batch)
			}
			server.Do("CONFIG", "SET", "maxmemory", "0")
			server.Do("ACL", "SETUSER", "reader", "resetpass", ">other")
			server.Do("CLIENT", "KILL", "USER", "reader")
			if got := outcomes(); got != "??????" {
				t.Errorf("with another password: got %s, %+v", got, batch)
			}
			server.Do("ACL", "SETUSER", "reader", "resetpass", ">pass")
			if got := outcomes(); got != "+--+-+" {
				t.Errorf("again: got %s, %+v", got, batch)
			}
		})
	}
}

// What one target refuses keeps nothing from the others, and leaves the entry to
// whom it may concern. Other entries are acknowledged with what is written.
func TestGuardOfRefused(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SET", "text", "x")
	commands := []string{"+xadd", "+xack", "+xpending", "+xdel", "+eval", "+evalsha", "~in", "~a", "~b", "~text"}
	rdb := reader(t, server, commands...)
	entries := pendingEntries(t, server, "in", rdb, 4)
	deliver := func(of int, streams ...string) (batch []filterd.Delivery) {
		for _, stream := range streams {
			batch = append(batch, filterd.Delivery{Channel: stream, Stream: true, Payload: fmt.Append(nil, of), Entry: entries[of]})
		}
		return batch
	}
	sink := NewSink(rdb)
	outcomes := func(batch []filterd.Delivery) string {
		sink.Deliver(t.Context(), batch)
		var b strings.Builder
		for _, d := range batch {
			switch acknowledged := d.Entry.Outcome() == filterd.EntryAcknowledged; {
			case d.Err == nil && acknowledged:
				b.WriteString("!")
			case d.Err == nil:
				b.WriteString("+")
			case errors.Is(d.Err, filterd.ErrRefused) && !acknowledged:
				b.WriteString("-")
			default:
				b.WriteString("?")
			}
		}
		return b.String()
	}
	state := func() string {
		return fmt.Sprintf("a %s, b %s, pending %s", server.Do("XLEN", "a"), server.Do("XLEN", "b"), pendingOf(server, "in"))
	}
	// The wrong type: the script says so of the entry.
	batch := append(deliver(0, "a", "text", "b"), deliver(1, "a")...)
	if got := outcomes(batch); got != "+-+!" {
		t.Errorf("got %s, %+v", got, batch)
	}
	if got := state(); got != "a 2, b 1, pending 3" {
		t.Error(got)
	}
	// No permission: the server says so of the script.
	batch = append(append(deliver(2, "a"), deliver(0, "a", "closed")...), deliver(3, "closed")...)
	if got := outcomes(batch); got != "!+--" {
		t.Errorf("got %s, %+v", got, batch)
	}
	if got := state(); got != "a 4, b 1, pending 2" {
		t.Error(got)
	}
	// The script may not run: no entry is to blame, and nothing is written.
	server.Do("ACL", "SETUSER", "reader", "-evalsha", "-eval")
	batch = append(deliver(0, "a"), deliver(3, "a")...)
	if got := outcomes(batch); got != "??" || !strings.Contains(batch[0].Err.Error(), "evalsha") {
		t.Errorf("got %s, %+v", got, batch)
	}
	if got := state(); got != "a 4, b 1, pending 2" {
		t.Error(got)
	}
	// It may not acknowledge: the same.
	server.Do("ACL", "SETUSER", "reader", "+evalsha", "+eval", "-xack")
	if got := outcomes(batch); got != "??" {
		t.Errorf("got %s, %+v", got, batch)
	}
	if got := state(); got != "a 4, b 1, pending 2" {
		t.Error(got)
	}
}
