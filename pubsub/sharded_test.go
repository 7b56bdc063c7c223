package pubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// startSharded runs a source of sharded channels with a recorder.
func startSharded(t testing.TB, rdb redis.UniversalClient, options SourceOptions, channels ...string) (*ShardedSource, *recorder, func() error) {
	t.Helper()
	if options.Logger == nil {
		options.Logger = (&log{}).logger()
	}
	s, r := NewShardedSource(rdb, options), &recorder{}
	s.Subscribe(filterd.Subscriptions{Sharded: channels, Channels: []string{"not", "sharded"}})
	stop := run(t, func(ctx context.Context) error { return s.Run(ctx, r) })
	return s, r, stop
}

// spublish publishes through a sink.
func spublish(t testing.TB, sink filterd.Sink, channel, payload string) {
	t.Helper()
	batch := []filterd.Delivery{{Channel: channel, Sharded: true, Payload: []byte(payload)}}
	if sink.Deliver(t.Context(), batch); batch[0].Err != nil || batch[0].Receivers != 1 {
		t.Fatalf("SPUBLISH %s: %d receivers, %v", channel, batch[0].Receivers, batch[0].Err)
	}
}

// On one server sharded channels are channels apart from others.
func TestShardedSource(t *testing.T) {
	const interval = 50 * time.Millisecond
	server := redistest.Start(t)
	logged := &log{}
	s, r, stop := startSharded(t, client(t, server.Addr), SourceOptions{ProbeInterval: interval, Logger: logged.logger()}, "a", "b")
	ready(t, s)
	sink := NewSink(client(t, server.Addr))
	spublish(t, sink, "a", "1")
	spublish(t, sink, "b", "2")
	say(t, server, "a", "another channel", 0)
	r.want(t, "sharded a 1", "sharded b 2")
	server.Do("CONFIG", "RESETSTAT")
	eventually(t, "some probes", func() bool { return callsOf(server, "spublish") >= 5 })
	if got := callsOf(server, "ssubscribe"); got != 0 {
		t.Errorf("%d new subscriptions", got)
	}

	s.Subscribe(filterd.Subscriptions{Sharded: []string{"b", "c"}})
	ready(t, s)
	spublish(t, sink, "c", "3")
	spublish(t, sink, "b", "4")
	if got := server.Do("SPUBLISH", "a", "5"); got != "0" {
		t.Errorf("a: %s receivers", got)
	}
	r.want(t, "sharded a 1", "sharded b 2", "sharded c 3", "sharded b 4")

	server.Do("CLIENT", "KILL", "TYPE", "pubsub")
	eventually(t, "the gap", func() bool { return len(r.got()) == 5 })
	ready(t, s)
	spublish(t, sink, "c", "6")
	r.want(t, "sharded a 1", "sharded b 2", "sharded c 3", "sharded b 4", "gap b,c", "sharded c 6")
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := server.Do("PUBSUB", "SHARDCHANNELS"); got != "" {
		t.Errorf("still subscribed to %s", got)
	}
	if got := r.got(); len(got) != 6 {
		t.Errorf("got %q", got)
	}
}

func TestShardedSourceRefused(t *testing.T) {
	server := redistest.Start(t)
	rdb := reader(t, server, "+ssubscribe", "+sunsubscribe", "+ping", "&open")
	s, _, _ := startSharded(t, rdb, SourceOptions{}, "open", "closed")
	wantError(t, s.WaitReady(deadline(t)), `subscribe to "closed": `+noChannel+" (grant it with ACL SETUSER)")

	fast := NewShardedSource(rdb, SourceOptions{FailFast: true, Logger: (&log{}).logger()})
	fast.Subscribe(filterd.Subscriptions{Sharded: []string{"closed"}})
	wantError(t, fast.Run(context.Background(), &recorder{}), `subscribe to "closed": `+noChannel+" (grant it with ACL SETUSER)")

	server.Stop()
	gone := NewShardedSource(rdb, SourceOptions{FailFast: true, Logger: (&log{}).logger()})
	gone.Subscribe(filterd.Subscriptions{Sharded: []string{"open"}})
	if err := gone.Run(context.Background(), &recorder{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	wantError(t, NewShardedSource(another{rdb}, SourceOptions{}).Run(t.Context(), &recorder{}),
		"sharded channels need a client of a cluster or of one server, not pubsub.another")
	if err := fast.Ready(); err == nil || err.Error() != `not subscribed to "closed"` {
		t.Errorf("Ready: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	wantError(t, fast.WaitReady(short), `not subscribed to "closed": context deadline exceeded`)
}

func TestShardedSourceClosedClient(t *testing.T) {
	server := redistest.Start(t)
	cluster := redistest.StartCluster(t)
	for name, options := range map[string]Options{
		"single":  {Addrs: []string{server.Addr}},
		"cluster": {Mode: ModeCluster, Addrs: []string{cluster[0].Addr}},
	} {
		t.Run(name, func(t *testing.T) {
			rdb := clientWith(t, options)
			s := NewShardedSource(rdb, SourceOptions{ProbeInterval: 100 * time.Millisecond, Logger: (&log{}).logger()})
			s.Subscribe(filterd.Subscriptions{Sharded: []string{"a"}})
			ended := make(chan error, 1)
			go func() { ended <- s.Run(context.Background(), &recorder{}) }() // ends with the client
			ready(t, s)
			rdb.Close()
			select {
			case err := <-ended:
				wantError(t, err, "the redis client was closed")
			case <-time.After(patience):
				t.Fatal("Run goes on with a closed client")
			}
		})
	}
}

// Slots move between the servers of a cluster while messages come. Every move is
// a gap of the channels in the slot, and soon over.
//
// FILTERD_CHAOS=1 makes 20 moves of it.
func TestShardedSourceFollowsSlots(t *testing.T) {
	moves := 4
	if os.Getenv("FILTERD_CHAOS") != "" {
		moves = 20
	}
	const soon = 5 * time.Second
	servers := redistest.StartCluster(t)
	options := Options{Mode: ModeCluster, Addrs: []string{servers[0].Addr}}
	channels := []string{"{1}a", "{1}b", "{2}a", "{3}a", "{4}a", "other"} // on all servers
	logged := &log{}
	s, r, stop := startSharded(t, clientWith(t, options), SourceOptions{Logger: logged.logger()}, channels...)
	ready(t, s)
	eventually(t, "three connections", func() bool { return strings.Count(logged.String(), `msg="connected to redis"`) == 3 }) // of each server, once it said so
	sink := NewSink(clientWith(t, options))
	for _, channel := range channels {
		spublish(t, sink, channel, "before")
	}
	eventually(t, "the messages", func() bool { return len(r.got()) == len(channels) })

	var slot int
	if _, err := fmt.Sscan(servers[0].Do("CLUSTER", "KEYSLOT", "{1}"), &slot); err != nil {
		t.Fatal(err)
	}
	owner := slices.IndexFunc(servers, func(s *redistest.Server) bool {
		return strings.Contains(s.Do("PUBSUB", "SHARDCHANNELS"), "{1}a")
	})
	var longest time.Duration
	for i := range moves {
		owner = (owner + 1) % len(servers)
		begin := time.Now()
		redistest.MoveSlot(t, servers, slot, servers[owner])
		eventually(t, "the gap", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.gaps) > i
		})
		ready(t, s)
		longest = max(longest, time.Since(begin))
		gap := r.lastGap()
		if !slices.Equal(gap.Channels, []string{"{1}a", "{1}b"}) || gap.Reason != errMoved.Error() || gap.Length() <= 0 || gap.To.Before(begin) || time.Since(gap.To) > patience {
			t.Errorf("gap: %+v", gap)
		}
		for _, channel := range channels {
			spublish(t, sink, channel, fmt.Sprint(i))
			eventually(t, "the message", func() bool {
				got := r.got()
				return got[len(got)-1] == fmt.Sprintf("sharded %s %d", channel, i)
			})
		}
	}
	if longest > soon {
		t.Errorf("subscribed again after %v, want within %v", longest, soon)
	}
	t.Logf("%d moves, subscribed again after %v at most", moves, longest)
	if err := stop(); err != nil {
		t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.gaps) != moves {
		t.Errorf("%d gaps for %d moves", len(r.gaps), moves)
	}
	if want := moves + (moves+1)*len(channels); len(r.messages) != want {
		t.Errorf("%d messages and gaps, want %d: %q", len(r.messages), want, r.messages)
	}
}

// endsWithDialling waits at the test's end, after that of its clients, for what
// go-redis leaves: it looks for a dead server once a second.
func endsWithDialling(t *testing.T) {
	t.Cleanup(func() {
		eventually(t, "the client has ended", func() bool {
			stacks := make([]byte, 1<<20)
			return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("tryDial"))
		})
	})
}

// A replica takes over the slots of a master that died; the channels of others
// are not touched.
//
// It takes 15 s, most of it until the replica is one: FILTERD_CHAOS=1 runs it.
func TestShardedSourceFailover(t *testing.T) {
	if os.Getenv("FILTERD_CHAOS") == "" {
		t.Skip("task chaos runs this")
	}
	const timeout = "1000" // milliseconds until a server counts as failed
	servers := redistest.StartCluster(t, "--cluster-node-timeout", timeout, "--repl-diskless-sync-delay", "0")
	endsWithDialling(t)
	var slot int
	if _, err := fmt.Sscan(servers[0].Do("CLUSTER", "KEYSLOT", "{1}"), &slot); err != nil {
		t.Fatal(err)
	}
	owner := min(slot/5461, 2)
	replica := redistest.StartReplica(t, servers, servers[owner], "--cluster-node-timeout", timeout)
	rdb := clientWith(t, Options{Mode: ModeCluster, Addrs: []string{servers[(owner+1)%3].Addr}})
	s, r, _ := startSharded(t, rdb, SourceOptions{ProbeInterval: time.Second}, "{1}a", "{2}a", "{3}a", "{4}a")
	ready(t, s)
	servers[owner].Stop()
	begin := time.Now()
	eventually(t, "the replica is a master", func() bool { return strings.HasPrefix(replica.Do("ROLE"), "master") })
	promoted := time.Now()
	eventually(t, "the gap", func() bool { return len(r.got()) > 0 })
	ready(t, s)
	t.Logf("promoted after %v, subscribed again %v later", promoted.Sub(begin), time.Since(promoted))
	gap := r.lastGap()
	if !slices.Contains(gap.Channels, "{1}a") || len(gap.Channels) == 4 {
		t.Errorf("gap: %+v", gap)
	}
	eventually(t, "the message", func() bool {
		replica.Do("SPUBLISH", "{1}a", "after")
		return slices.Contains(r.got(), "sharded {1}a after")
	})
}
