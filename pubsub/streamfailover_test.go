package pubsub

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// After a failover streams are read and written again, as soon as there is a
// master, and what it knows of is neither lost nor left pending.
//
// It takes half a minute, most of it until servers know each other:
// FILTERD_CHAOS=1 runs it.
func TestStreamFailover(t *testing.T) {
	if os.Getenv("FILTERD_CHAOS") == "" {
		t.Skip("task chaos runs this")
	}
	for name, start := range map[string]func(*testing.T) failover{"sentinel": sentinelFailover, "cluster": clusterFailover} {
		t.Run(name, func(t *testing.T) {
			endsWithDialling(t)
			f := start(t)
			rdb, publisher := clientWith(t, f.options), clientWith(t, f.options)
			const in, out = "{g}:in", "{g}:out" // in the slot of the server that dies
			add := func(payload string) error {
				return publisher.XAdd(t.Context(), &redis.XAddArgs{Stream: in, Values: []any{"event", payload}}).Err()
			}
			sink := NewSink(rdb)
			h := &streamHandler{do: func(m *filterd.Message) {
				batch := []filterd.Delivery{{Channel: out, Stream: true, Payload: slices.Clone(m.Payload), Entry: m.Entry}}
				if sink.Deliver(t.Context(), batch); batch[0].Err != nil {
					m.Entry.Postpone()
				}
			}}
			s, _ := readStreams(t, rdb, "me", h, filterd.Stream{Name: in})
			ready(t, s)
			if err := add("before"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is written", func() bool { return f.master.Do("XLEN", out) == "1" })
			eventually(t, "the replica has it", func() bool {
				return field(f.master.Do("INFO", "replication"), "master_repl_offset") == field(f.replica.Do("INFO", "replication"), "slave_repl_offset")
			})
			f.master.Stop()
			died := time.Now()
			eventually(t, "it says so", func() bool { return s.Ready() != nil })
			eventually(t, "the replica is a master", f.promoted)
			promoted := time.Now()
			ready(t, s)
			t.Logf("promoted after %v, read again %v later", promoted.Sub(died).Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
			eventually(t, "entries are added", func() bool { return add("after") == nil })
			eventually(t, "the entry is written", func() bool { return f.replica.Do("XLEN", out) == "2" })
			if late := time.Since(promoted); late > 5*time.Second {
				t.Errorf("written %v after the promotion", late)
			}
			pendingIs(t, f.replica, in, 0)
		})
	}
}

// field returns the value of a line "name:value".
func field(info, name string) string {
	_, value, _ := strings.Cut(info, name+":")
	value, _, _ = strings.Cut(value, "\r")
	return value
}
