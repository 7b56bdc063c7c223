package pubsub

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// pendingEntries makes so many entries of a stream pending.
func pendingEntries(t testing.TB, server *redistest.Server, stream string, rdb redis.UniversalClient, n int) []*filterd.Entry {
	t.Helper()
	server.Do("XGROUP", "CREATE", stream, "g", "0", "MKSTREAM")
	entries := make([]*filterd.Entry, n)
	for i := range entries {
		e := &filterd.Entry{}
		e.Init(stream, "g", server.Do("XADD", stream, "*", "event", fmt.Sprint(i)), nil)
		e.Server = rdb
		entries[i] = e
	}
	server.Do("XREADGROUP", "GROUP", "g", "me", "STREAMS", stream, ">")
	return entries
}

func pendingOf(server *redistest.Server, stream string) string {
	first, _, _ := strings.Cut(server.Do("XPENDING", stream, "g"), "\n")
	return first
}

// What is made of an entry is written once, whoever else tries to.
func TestGuard(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	sink := NewSink(rdb)
	entries := pendingEntries(t, server, "in", rdb, 3)
	batch := []filterd.Delivery{
		{Channel: "a", Stream: true, Payload: []byte("1"), Entry: entries[0]},
		{Channel: "b", Stream: true, Payload: []byte("2"), Entry: entries[0], MaxLen: 1000},
		{Channel: "a", Stream: true, Payload: []byte("3"), Entry: entries[1]},
		{Channel: "a", Stream: true, Payload: []byte("4")},
		{Channel: "c", Payload: []byte("5")},
		{Channel: "a", Stream: true, Payload: []byte("6"), Entry: entries[2]},
	}
	sink.Deliver(t.Context(), batch)
	for i, d := range batch {
		if d.Err != nil {
			t.Errorf("%d: %v", i, d.Err)
		}
	}
	for _, e := range entries {
		if e.Outcome() != filterd.EntryAcknowledged {
			t.Errorf("%s: outcome %d", e.ID, e.Outcome())
		}
	}
	payloads := func(stream string) string {
		messages, err := rdb.XRange(t.Context(), stream, "-", "+").Result()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, m := range messages {
			all = append(all, fmt.Sprint(m.Values["event"]))
		}
		return strings.Join(all, " ")
	}
	if got := payloads("a") + ", " + payloads("b") + ", " + pendingOf(server, "in"); got != "1 3 4 6, 2, 0" {
		t.Error(got)
	}
	// A consumer that was stopped meanwhile, and goes on with the script gone.
	server.Do("SCRIPT", "FLUSH")
	sink.Deliver(t.Context(), batch[:3])
	for i, d := range batch[:3] {
		if !errors.Is(d.Err, filterd.ErrTaken) {
			t.Errorf("%d: %v", i, d.Err)
		}
	}
	if got := payloads("a") + ", " + payloads("b"); got != "1 3 4 6, 2" {
		t.Error(got)
	}
}

// What can't be written leaves its entry pending, and nothing behind.
func TestGuardFails(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	sink := NewSink(rdb)
	deliver := func(entries []*filterd.Entry, channels ...string) (texts string) {
		batch := make([]filterd.Delivery, 0, len(entries)*len(channels))
		for _, e := range entries {
			for _, channel := range channels {
				batch = append(batch, filterd.Delivery{Channel: channel, Stream: true, Payload: []byte("x"), Entry: e})
			}
		}
		sink.Deliver(t.Context(), batch)
		for _, d := range batch {
			texts += fmt.Sprintln(d.Err)
		}
		return texts
	}
	server.Do("SET", "text", "x")
	const wrong = `append to stream "text": WRONGTYPE Operation against a key holding the wrong kind of value` + "\n"
	entries := pendingEntries(t, server, "in", rdb, 2)
	if got := deliver(entries[:1], "text"); got != wrong {
		t.Errorf("got %s", got)
	}
	if got := server.Do("XLEN", "out") + " " + pendingOf(server, "in"); got != "0 2" {
		t.Error(got)
	}
	server.Do("CONFIG", "SET", "maxmemory", "1")
	if got := deliver(entries, "out"); strings.Count(got, "OOM command not allowed") != 2 {
		t.Errorf("got %s", got)
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	server.Do("CONFIG", "SET", "min-replicas-to-write", "1")
	if got := deliver(entries, "out"); strings.Count(got, "NOREPLICAS") != 2 {
		t.Errorf("got %s", got)
	}
	server.Do("CONFIG", "SET", "min-replicas-to-write", "0")
	if got := server.Do("XLEN", "out") + " " + pendingOf(server, "in") + fmt.Sprint(entries[0].Outcome()); got != "0 20" {
		t.Error(got)
	}
	if got := deliver(entries, "out"); got != "<nil>\n<nil>\n" {
		t.Error(got)
	}
	// The group is gone: the entry was not taken by anybody.
	entries = pendingEntries(t, server, "gone", rdb, 1)
	server.Do("XGROUP", "DESTROY", "gone", "g")
	if got := deliver(entries, "out"); !strings.Contains(got, "NOGROUP") || entries[0].Outcome() != filterd.EntryDone {
		t.Error(got)
	}
	if got := server.Do("XLEN", "out"); got != "2" {
		t.Error(got)
	}
	// Nothing to ask: the answer is that of the connection.
	server.Stop()
	if got := deliver(entries, "out"); !strings.Contains(got, "refused") || entries[0].Outcome() != filterd.EntryDone {
		t.Error(got)
	}
}

// Runs of the script are bounded, and only for what is on its server.
func TestGuards(t *testing.T) {
	single, other := client(t, "127.0.0.1:1"), client(t, "127.0.0.1:1")
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	t.Cleanup(func() { cluster.Close() })
	entry := func(server any, stream, group string) *filterd.Entry {
		e := &filterd.Entry{Server: server}
		e.Init(stream, group, "1-1", nil)
		return e
	}
	many := make([]filterd.Delivery, 1000)
	for i := range many {
		many[i] = filterd.Delivery{Channel: "out", Entry: entry(single, "in", "g")}
	}
	one, tagged := entry(single, "in", "g"), entry(cluster, "{x}in", "g")
	for _, test := range []struct {
		name  string
		rdb   redis.UniversalClient
		batch []filterd.Delivery
		want  int
	}{
		{"many", single, many, maxGuardArgs / 4},
		{"large", single, []filterd.Delivery{{Entry: one, Payload: make([]byte, maxGuardBytes)}, {Entry: one, Payload: make([]byte, 1)}, {Entry: entry(single, "in", "g")}}, 2},
		{"other server", other, many, 0},
		{"no entry", single, []filterd.Delivery{{}, {Entry: one}}, 0},
		{"no entry behind", single, []filterd.Delivery{{Entry: one}, {}}, 1},
		{"other stream", single, []filterd.Delivery{{Entry: one}, {Entry: entry(single, "too", "g")}}, 1},
		{"other group", single, []filterd.Delivery{{Entry: one}, {Entry: entry(single, "in", "h")}}, 1},
		{"one slot", cluster, []filterd.Delivery{{Entry: tagged, Channel: "out{x}"}, {Entry: tagged, Channel: "{x}}"}}, 2},
		{"two slots", cluster, []filterd.Delivery{{Entry: tagged, Channel: "out{x}"}, {Entry: tagged, Channel: "{}{x}"}}, 0},
	} {
		if got := (appender{test.rdb}).guards(test.batch); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}
