package pubsub

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/faultproxy"
	"github.com/filterd/filterd/internal/redistest"
)

// A candidate is a lease that is run, as one of several processes would.
type candidate struct {
	*Lease
	stop func() error

	mu   sync.Mutex // guards gaps
	gaps []filterd.Gap
}

// stand lets a process of that name stand for election until the test ends.
func stand(t testing.TB, rdb redis.UniversalClient, name string, lease time.Duration) *candidate {
	t.Helper()
	c := &candidate{Lease: NewLease(rdb, "g", LeaseOptions{Name: name, Lease: lease, Logger: (&log{}).logger()})}
	answered := make(chan struct{})
	c.stop = run(t, func(ctx context.Context) error {
		c.Run(ctx, func(gap filterd.Gap) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.gaps = append(c.gaps, gap)
		}, func() { close(answered) })
		return nil
	})
	select {
	case <-answered:
	case <-time.After(patience):
		t.Fatalf("%s gets no answer", name)
	}
	return c
}

func (c *candidate) leads() bool {
	_, held := c.Held()
	return held
}

// lastGap returns the last gap, and how many there were.
func (c *candidate) lastGap() (gap filterd.Gap, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n = len(c.gaps); n > 0 {
		gap = c.gaps[n-1]
	}
	return gap, n
}

// long is a lease that does not expire within a test, short one that does.
const (
	long  = time.Minute
	short = 400 * time.Millisecond
)

// One of several has the lease, until it gives it back: then the next one takes
// over, and knows since when nobody had it.
func TestLease(t *testing.T) {
	server := redistest.Start(t)
	a := stand(t, client(t, server.Addr), "a", long)
	b := stand(t, client(t, server.Addr), "b", long)
	if s := a.Stats(); s != (LeaseStats{Group: "g", Lease: long, Leads: true, Leader: "a", Fence: 1, Taken: 1}) {
		t.Errorf("a: %+v", s)
	}
	if s := b.Stats(); s != (LeaseStats{Group: "g", Lease: long, Leader: "a"}) {
		t.Errorf("b: %+v", s)
	}
	if _, n := a.lastGap(); n > 0 {
		t.Error("a gap before the first leader")
	}
	c := stand(t, client(t, server.Addr), "c", long/12) // looks more often than b
	before := time.Now()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	if fence, held := a.Held(); held || fence != 1 {
		t.Errorf("a after its end: %d, %v", fence, held)
	}
	eventually(t, "c leads", c.leads)
	if s := c.Stats(); s.Fence != 2 || s.Taken != 1 || s.Leader != "c" {
		t.Errorf("c: %+v", s)
	}
	gap, n := c.lastGap()
	const rounding = 2 * time.Millisecond // Redis counts in milliseconds
	if n != 1 || gap.From.Before(before.Add(-patience)) || gap.From.After(after.Add(rounding)) || gap.To.Before(gap.From) || gap.Reason != "the lease was taken over from a" {
		t.Errorf("c's gap: %+v of %d; a ended between %v and %v", gap, n, before, after)
	}
	if keys := server.Do("KEYS", "*"); !strings.Contains(keys, "filterd:ha:{g}:state") {
		t.Errorf("keys %s", keys)
	}
	// What isn't the caller's is neither renewed nor given back.
	server.Do("SET", "filterd:ha:{g}", "d 1", "PX", "60000")
	eventually(t, "c sees that d has it", func() bool { return !c.leads() && c.Stats().Leader == "d" })
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if got := server.Do("GET", "filterd:ha:{g}"); got != "d 1" {
		t.Errorf("the lease is %q", got)
	}
}

// Who can't renew stops before the lease expires, and when it can again it says
// from when on nobody had it.
func TestLeaseIsNotRenewed(t *testing.T) {
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	a := stand(t, client(t, proxy.Addr()), "a", short)
	if !a.leads() {
		t.Fatal("a does not lead")
	}
	for i, fault := range []faultproxy.Fault{{LoseReplies: true}, {LoseRequests: true, LoseReplies: true}, {Refuse: true}} {
		fence, _ := a.Held()
		b := stand(t, client(t, server.Addr), "b", short)
		proxy.Set(fault)
		if fault.Refuse {
			proxy.Cut()
		}
		// While its requests arrive it goes on having the lease, and doesn't
		// know; otherwise b takes it, and never before a has stopped.
		var both, taken bool
		eventually(t, "a stops", func() bool {
			taken = b.leads() || taken
			both = both || b.leads() && a.leads() // b first: a must have stopped before
			return !a.leads() && (i == 0 || taken)
		})
		if both {
			t.Errorf("%+v: b has it before a has stopped", fault)
		}
		if a.Ready() == nil {
			t.Errorf("%+v: a is ready", fault)
		}
		if err := b.stop(); err != nil { // before a can ask again
			t.Fatal(err)
		}
		_, n := a.lastGap()
		proxy.Set(faultproxy.Fault{})
		proxy.Cut()
		eventually(t, "a leads again", a.leads)
		eventually(t, "a tells of it", func() bool { _, more := a.lastGap(); return more > n })
		gap, _ := a.lastGap()
		want, reason := fence, "the lease was not renewed in time"
		if b.Stats().Taken > 0 {
			want, reason = fence+2, "the lease was taken over from b"
		}
		if got, _ := a.Held(); got != want || gap.Reason != reason || !gap.From.Before(gap.To) || a.Ready() != nil {
			t.Errorf("%+v: fence %d after %d, gap %+v", fault, got, fence, gap)
		}
	}
}

// A reign ends by either clock.
func TestReign(t *testing.T) {
	now := time.Now()
	wall := now.Round(0)
	for i, test := range []struct {
		end  time.Time
		at   time.Time
		want bool
	}{
		{now.Add(time.Second), now, true},
		{now.Add(time.Second), now.Add(2 * time.Second), false},
		{wall.Add(time.Second), now.Add(time.Second), false}, // to the moment
		{time.Time{}, now, false},
	} {
		if got := (&reign{end: test.end}).lasts(test.at); got != test.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	if (*reign)(nil).lasts(now) {
		t.Error("no reign lasts")
	}
}

// A Redis that comes back empty has lost who has the lease: who has it goes on,
// without a gap; others wait until it has expired. The fence never falls.
func TestLeaseRedisLosesItsData(t *testing.T) {
	server := redistest.Start(t)
	a := stand(t, client(t, server.Addr), "a", 5*time.Second)
	b := stand(t, client(t, server.Addr), "b", 5*time.Second)
	server.Do("FLUSHALL")
	eventually(t, "somebody takes it again", func() bool { return server.Do("GET", "filterd:ha:{g}") != "" })
	if !a.leads() || b.leads() {
		t.Errorf("a: %+v, b: %+v", a.Stats(), b.Stats())
	}
	eventually(t, "a knows", func() bool { fence, _ := a.Held(); return fence == 2 })
	if _, n := a.lastGap(); n > 0 {
		t.Error("a gap, although a had the lease")
	}

	// Nobody had it: then the first to come doesn't take what another one may
	// still count on.
	late := NewLease(client(t, server.Addr), "g", LeaseOptions{Name: "late", Lease: short})
	late.fence = 7 // it has heard of
	server.Do("FLUSHALL")
	reply, err := late.ask(t.Context(), false)
	if err != nil || reply.outcome != leaseForgotten && reply.outcome != leaseOthers {
		t.Errorf("%+v, %v", reply, err)
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	server.Do("FLUSHALL")
	begin := time.Now()
	c := &candidate{Lease: late}
	c.stop = run(t, func(ctx context.Context) error { late.Run(ctx, func(filterd.Gap) {}, nil); return nil })
	eventually(t, "it leads", c.leads)
	if took := time.Since(begin); took < short {
		t.Errorf("after %v", took)
	}
	if fence, _ := c.Held(); fence != 8 {
		t.Errorf("fence %d", fence)
	}
}

// A reply that got lost means nothing: the next attempt finds what the last one
// did.
func TestLeaseReplyIsLost(t *testing.T) {
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	l := NewLease(client(t, proxy.Addr()), "g", LeaseOptions{Name: "a", Lease: short})
	if _, err := l.eval(t.Context(), leaseScript, "other 1", 1, 0, 0); err != nil { // which has it for a millisecond
		t.Fatal(err)
	}
	eventually(t, "it expires", func() bool { return server.Do("EXISTS", "filterd:ha:{g}") == "0" })
	l.options.Lease = 4 * time.Second // the attempt takes a second
	proxy.Set(faultproxy.Fault{LoseReplies: true})
	if _, err := l.attempt(t.Context(), nil); err == nil {
		t.Fatal("no error")
	}
	if server.Do("EXISTS", "filterd:ha:{g}") != "1" {
		t.Fatal("it was not taken")
	}
	proxy.Set(faultproxy.Fault{})
	var gaps []filterd.Gap
	if _, err := l.attempt(t.Context(), func(gap filterd.Gap) { gaps = append(gaps, gap) }); err != nil {
		t.Fatal(err)
	}
	if fence, held := l.Held(); fence != 2 || !held || len(gaps) != 1 || gaps[0].Reason != "the lease was taken over from other" {
		t.Errorf("fence %d, %v, gaps %+v", fence, held, gaps)
	}
}

// On a Cluster it is where its slot is, also when that is another server's since
// the one that had it died.
func TestLeaseOnACluster(t *testing.T) {
	endsWithDialling(t)
	servers := redistest.StartCluster(t, "--cluster-require-full-coverage", "no")
	cluster := func() redis.UniversalClient {
		return clientWith(t, Options{Mode: ModeCluster, Addrs: []string{servers[0].Addr, servers[1].Addr, servers[2].Addr}})
	}
	a, b := stand(t, cluster(), "a", short), stand(t, cluster(), "b", short)
	if !a.leads() || b.leads() {
		t.Errorf("a: %+v, b: %+v", a.Stats(), b.Stats())
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b leads", b.leads)
	if slot, state := servers[0].Do("CLUSTER", "KEYSLOT", a.keys[0]), servers[0].Do("CLUSTER", "KEYSLOT", a.keys[1]); slot != state {
		t.Errorf("slots %s and %s", slot, state)
	}
	c := stand(t, cluster(), "c", short)
	var slot int
	if _, err := fmt.Sscan(servers[0].Do("CLUSTER", "KEYSLOT", b.keys[0]), &slot); err != nil {
		t.Fatal(err)
	}
	owner := min(slot/5461, 2)
	heir := servers[(owner+1)%3]
	servers[owner].Stop()
	for i, server := range servers {
		if i != owner {
			server.Do("CLUSTER", "SETSLOT", fmt.Sprint(slot), "NODE", heir.Do("CLUSTER", "MYID"))
		}
	}
	eventually(t, "one leads, by the heir", func() bool { // by itself go-redis looks for it once a minute
		return heir.Do("EXISTS", b.keys[0]) == "1" && b.leads() != c.leads()
	})
}

// A user that may run no scripts is told so, and nobody leads.
func TestLeaseIsRefused(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "default", "-@scripting")
	a := &candidate{Lease: NewLease(client(t, server.Addr), "g", LeaseOptions{Lease: short, Logger: (&log{}).logger()})}
	if err := a.Ready(); err == nil || err.Error() != "the lease of group g: not asked for yet" {
		t.Errorf("before it asks: %v", err)
	}
	run(t, func(ctx context.Context) error { a.Run(ctx, nil, nil); return nil })
	eventually(t, "it says why", func() bool {
		err := a.Ready()
		return strings.HasPrefix(err.Error(), "the lease of group g: NOPERM")
	})
	if a.leads() {
		t.Error("it leads")
	}
}

// The permissions that docs/operations.md names are enough.
func TestLeasePermissions(t *testing.T) {
	server := redistest.Start(t)
	server.Do(strings.Fields("ACL SETUSER u on >p +evalsha +eval +get +set +del +pttl +pexpire +hmget +hset +time ~filterd:ha:*")...)
	as := func() redis.UniversalClient {
		return clientWith(t, Options{Addrs: []string{server.Addr}, Username: "u", Password: "p"})
	}
	a, b := stand(t, as(), "a", short), stand(t, as(), "b", short)
	eventually(t, "somebody leads", func() bool { return a.leads() || b.leads() })
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b leads", b.leads)
	end := b.reign.Load().end
	eventually(t, "it is renewed", func() bool { return b.reign.Load().end.After(end) })
}
