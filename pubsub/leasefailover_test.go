package pubsub

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd/internal/redistest"
)

// An election watches candidates: how long two of them lead at a time.
type election struct {
	candidates []*candidate
	overlap    time.Duration
	end        context.CancelFunc
	ended      chan struct{}
}

func watchElection(t *testing.T, candidates ...*candidate) *election {
	ctx, cancel := context.WithCancel(context.Background())
	e := &election{candidates: candidates, end: cancel, ended: make(chan struct{})}
	go func() { // ends with ctx
		defer close(e.ended)
		last := time.Now()
		for ctx.Err() == nil {
			time.Sleep(time.Millisecond)
			leaders := 0
			for _, c := range candidates {
				if c.leads() {
					leaders++
				}
			}
			now := time.Now()
			if leaders > 1 {
				e.overlap += now.Sub(last)
			}
			last = now
		}
	}()
	t.Cleanup(func() { cancel(); <-e.ended })
	return e
}

// over ends it, and returns how long two led at a time.
func (e *election) over() time.Duration {
	e.end()
	<-e.ended
	return e.overlap
}

// A failover is a master that can die, and whose replica takes over then.
type failover struct {
	options         Options
	master, replica *redistest.Server
	promoted        func() bool // whether the replica is the master
}

func sentinelFailover(t *testing.T) failover {
	master := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+master.Port(), "--repl-diskless-sync-delay", "0")
	sentinel := redistest.StartSentinel(t, "prices", master)
	eventually(t, "the sentinel knows the replica", func() bool { return len(sentinel.Do("SENTINEL", "REPLICAS", "prices")) > 0 })
	eventually(t, "the replica is one", func() bool { return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up") })
	// The replica's own connections end when it is told to be the master.
	promoted := func() bool {
		return sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "prices") == "127.0.0.1\n"+replica.Port()
	}
	return failover{Options{Mode: ModeSentinel, Master: "prices", Addrs: []string{sentinel.Addr}}, master, replica, promoted}
}

func clusterFailover(t *testing.T) failover {
	const timeout = "1000" // milliseconds until a server counts as failed
	servers := redistest.StartCluster(t, "--cluster-node-timeout", timeout, "--repl-diskless-sync-delay", "0")
	var slot int
	if _, err := fmt.Sscan(servers[0].Do("CLUSTER", "KEYSLOT", "filterd:ha:{g}"), &slot); err != nil {
		t.Fatal(err)
	}
	owner := min(slot/5461, 2)
	replica := redistest.StartReplica(t, servers, servers[owner], "--cluster-node-timeout", timeout)
	promoted := func() bool { return strings.HasPrefix(replica.Do("ROLE"), "master") }
	return failover{Options{Mode: ModeCluster, Addrs: []string{servers[(owner+1)%3].Addr}}, servers[owner], replica, promoted}
}

// After a failover one leads, within the lease, and never two at a time.
//
// It takes a minute, most of it until servers know each other: FILTERD_CHAOS=1
// runs it.
func TestLeaseFailover(t *testing.T) {
	if os.Getenv("FILTERD_CHAOS") == "" {
		t.Skip("task chaos runs this")
	}
	const lease = 2 * time.Second
	for name, start := range map[string]func(*testing.T) failover{"sentinel": sentinelFailover, "cluster": clusterFailover} {
		for _, dies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, leader dies %v", name, dies), func(t *testing.T) {
				endsWithDialling(t)
				f := start(t)
				a := stand(t, clientWith(t, f.options), "a", lease)
				eventually(t, "a leads", a.leads)
				b := stand(t, clientWith(t, f.options), "b", lease)
				eventually(t, "the replica has the lease", func() bool { return strings.HasPrefix(f.replica.Do("INFO", "keyspace"), "# Keyspace\r\ndb0:keys=2") })
				e := watchElection(t, a, b)
				f.master.Stop()
				died := time.Now()
				if dies {
					_ = a.stop() // it can't give anything back
				}
				eventually(t, "the replica is a master", f.promoted)
				promoted := time.Now()
				eventually(t, "one leads", func() bool { return a.leads() || b.leads() })
				led := time.Now()
				t.Logf("promoted after %v, led %v later, by a %v", promoted.Sub(died).Round(time.Millisecond), led.Sub(promoted).Round(time.Millisecond), a.leads())
				time.Sleep(2 * lease)
				if a.leads() == b.leads() {
					t.Errorf("a leads: %v, b leads: %v", a.leads(), b.leads())
				}
				if overlap := e.over(); overlap > 0 {
					t.Errorf("two led for %v", overlap)
				}
				if late := led.Sub(promoted); late > lease {
					t.Errorf("led %v after the promotion, want within the lease", late)
				}
			})
		}
	}
}

// A replica that has not heard of the last renewals lets another process take the
// lease while the former leader still counts on it: for less than the lease's time.
//
// It takes 10 s: FILTERD_CHAOS=1 runs it.
func TestLeaseFailoverToAReplicaThatLags(t *testing.T) {
	if os.Getenv("FILTERD_CHAOS") == "" {
		t.Skip("task chaos runs this")
	}
	endsWithDialling(t)
	const lease = 4 * time.Second
	f := sentinelFailover(t)
	master, replica := f.master, f.replica
	a := stand(t, clientWith(t, f.options), "a", lease)
	eventually(t, "a leads", a.leads)
	b := stand(t, clientWith(t, f.options), "b", lease)
	has := func() bool { return replica.Do("EXISTS", a.keys[0]) == "1" }
	eventually(t, "the replica has the lease", has)
	master.Do("ACL", "SETUSER", "default", "-psync", "-sync")
	master.Do("CLIENT", "KILL", "TYPE", "replica")
	eventually(t, "the lease has expired there", func() bool { return !has() })
	e := watchElection(t, a, b)
	master.Stop()
	eventually(t, "the replica is a master", f.promoted)
	eventually(t, "one has the lease there", has)
	time.Sleep(2 * lease)
	overlap := e.over()
	t.Logf("two led for %v", overlap)
	if overlap > lease || a.leads() == b.leads() {
		t.Errorf("two led for %v, want at most %v; now a leads: %v, b leads: %v", overlap, lease, a.leads(), b.leads())
	}
}
