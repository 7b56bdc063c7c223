//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/redistest"
)

// haRules is a group's file: what comes in goes out, and gaps are told of.
const haRules = `
ha: {group: prices, lease: 2s}
rules:
  all: {from: in, to: out}
  gaps: {from: in, when: "false", to: told, on_gap: true}
`

// A group is daemons with the same rules, a publisher of numbered messages, and
// what has come of these.
type group struct {
	*testing.T
	server  *redistest.Server
	rdb     *redis.Client
	section string // of the file: redis
	members int

	mu     sync.Mutex // guards what follows
	paused bool
	sent   int   // the last number that was published
	came   []int // numbers, in the order of their coming
	told   []string
}

func newGroup(t *testing.T) *group {
	server := redistest.Start(t)
	return newGroupOn(t, server, redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1}), "redis: {url: \"${REDIS_URL}\"}\n")
}

// newGroupOn makes a group on any Redis, with a client of it, which it closes.
func newGroupOn(t *testing.T, server *redistest.Server, rdb *redis.Client, section string) *group {
	g := &group{T: t, server: server, rdb: rdb, section: section}
	out := g.rdb.Subscribe(t.Context(), "out", "told")
	if _, err := out.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.observe(ctx, out) }) // both end with ctx
	running.Go(func() { g.publish(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = out.Close()
		running.Wait()
		_ = g.rdb.Close()
	})
	return g
}

// publish publishes a number every millisecond, unless it is paused.
func (g *group) publish(ctx context.Context) {
	for ctx.Err() == nil {
		g.mu.Lock()
		if !g.paused && g.rdb.Publish(ctx, "in", fmt.Sprint(g.sent+1)).Err() == nil {
			g.sent++
		}
		g.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

// observe notes what is sent.
func (g *group) observe(ctx context.Context, out *redis.PubSub) {
	for ctx.Err() == nil {
		m, err := out.ReceiveMessage(ctx)
		if err != nil {
			time.Sleep(10 * time.Millisecond) // it connects again
			continue
		}
		g.mu.Lock()
		if m.Channel == "told" {
			g.told = append(g.told, m.Payload)
		} else {
			var n int
			_, _ = fmt.Sscan(m.Payload, &n)
			g.came = append(g.came, n)
		}
		g.mu.Unlock()
	}
}

// pause stops the publisher, or lets it go on, and returns the last number.
func (g *group) pause(paused bool) (sent int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = paused
	return g.sent
}

// arrived returns how many numbers have come.
func (g *group) arrived() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.came)
}

// inOrder checks that no number has come twice, or late.
func (g *group) inOrder() {
	g.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, n := range g.came {
		if i > 0 && n <= g.came[i-1] {
			g.Fatalf("%d came after %d", n, g.came[i-1])
		}
	}
}

// toldOf waits for the event of a gap whose text contains all parts.
func (g *group) toldOf(parts ...string) {
	g.Helper()
	eventually(g, "the gap is told of: "+strings.Join(parts, " "), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.ContainsFunc(g.told, func(event string) bool {
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(event, part) })
		})
	})
}

// A member is a daemon of the group.
type member struct {
	*daemon
	url   string
	ended <-chan error
	since int // the number before the first that it can hear
}

// join starts a daemon, and waits until it is ready. What is published meanwhile
// waits, so that it is known what it hears.
func (g *group) join() *member {
	g.Helper()
	since := g.pause(true)
	g.members++
	m := &member{daemon: &daemon{T: g.T, folder: g.TempDir(), server: g.server, log: &log{}}, since: since}
	m.write("token", testToken+"\n")
	m.write("filterd.yaml", g.section+adminSection+haRules)
	m.ended = m.launch()
	g.Cleanup(func() { m.signal(syscall.SIGKILL) })
	m.waitFor("ready", 1, "")
	m.url = m.serving("server.listen")
	g.pause(false)
	return m
}

func (m *member) signal(s syscall.Signal) { _ = m.cmd.Process.Signal(s) } // it may have ended

// stop stops a member, and returns when it stands still.
func (m *member) stop() {
	m.Helper()
	m.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(m.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		m.Fatalf("it has not stopped: %v, %v", status, err)
	}
}

func (m *member) status() adminStatus {
	m.Helper()
	return getJSON[adminStatus](m, request{url: m.url + "/api/v1/status"})
}

// fenced returns how the IDs of the leader's events begin.
func (m *member) fenced() string {
	m.Helper()
	return fmt.Sprintf(`"id":"%d-`, m.status().HA.Fence)
}

// heard returns how many messages a member has sent, and how many it has left to
// the leader.
func (m *member) heard() (received, standby uint64) {
	m.Helper()
	for _, ch := range m.status().Channels {
		if ch.Channel == "in" {
			return ch.Received, ch.Standby
		}
	}
	return 0, 0
}

// leads waits until a member leads, and the numbers come.
func (g *group) leads(m *member) {
	g.Helper()
	m.eventually("it leads", func() bool { return m.status().HA.Role == "leader" })
	n := g.arrived()
	m.eventually("numbers come", func() bool { return g.arrived() > n })
}

// Of several daemons one sends, whatever becomes of it and of Redis; nothing is
// sent twice, and what is left out is counted.
func TestHA(t *testing.T) {
	g := newGroup(t)
	a := g.join()
	g.leads(a)
	b := g.join()
	eventually(t, "b leaves numbers to a", func() bool { _, standby := b.heard(); return standby > 0 })
	s := b.status()
	if !s.Ready || s.HA.Role != "standby" || s.HA.Leader != a.status().HA.Leader || s.HA.Lease != 2 {
		t.Errorf("b: ready %v, %+v", s.Ready, s.HA)
	}
	if _, body := (request{url: b.url + "/metrics"}).get(t); !strings.Contains(body, `filterd_ha_leader{group="prices"} 0`) ||
		!strings.Contains(body, `filterd_messages_total{channel="in",outcome="standby"}`) {
		t.Error(body)
	}

	a.signal(syscall.SIGKILL)
	<-a.ended
	g.leads(b)
	took := b.lastGap(t)
	if !strings.HasPrefix(took.Reason, "the lease was taken over from ") || took.Length <= 0 {
		t.Errorf("the gap: %+v", took)
	}
	b.waitFor("messages may have been missed", 1, took.Reason)
	t.Logf("nobody was known to lead for %v s", took.Length)
	g.toldOf(`"reason":"the lease was taken over from `, `"channels":["in"]`, b.fenced())
	g.inOrder()

	// One that is stopped for longer than its lease finds that out.
	c := g.join()
	sent := g.pause(true)
	for _, m := range []*member{b, c} { // every number is counted by both
		m.eventually("all numbers are counted", func() bool {
			received, standby := m.heard()
			return received+standby == uint64(sent-m.since)
		})
	}
	before, stoodBy := b.heard()
	eventually(t, "what b has sent comes", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.came[len(g.came)-1] == sent })
	b.stop()
	g.pause(false)
	g.leads(c)
	b.signal(syscall.SIGCONT)
	eventually(t, "b leaves the numbers to c", func() bool { _, standby := b.heard(); return standby > stoodBy+100 })
	if received, _ := b.heard(); received != before || b.status().HA.Role != "standby" {
		t.Errorf("b has sent %d messages more", received-before)
	}
	g.toldOf(c.fenced())
	g.inOrder()

	// A Redis that comes back empty has one leader again.
	g.pause(true)
	g.server.Restart()
	var leader, other *member
	eventually(t, "there is a leader", func() bool {
		for _, pair := range [][2]*member{{b, c}, {c, b}} {
			if pair[0].status().HA.Role == "leader" && pair[1].status().HA.Role == "standby" && pair[1].status().HA.Leader != "" && pair[0].status().Ready && pair[1].status().Ready {
				leader, other = pair[0], pair[1]
			}
		}
		return leader != nil
	})
	g.pause(false)
	g.leads(leader)
	g.inOrder()

	// Who ends gives the lease back, with all that it has read sent.
	leader.signal(syscall.SIGTERM)
	if err := <-leader.ended; err != nil {
		t.Errorf("%v\n%s", err, leader.log)
	}
	g.leads(other)
	g.inOrder()
	var text strings.Builder
	if err := newApp(strings.NewReader(""), &text, &text).Run([]string{"filterd", "status", "--admin", other.url}); err != nil ||
		!strings.Contains(text.String(), "\nha            leader of group prices, fence ") {
		t.Errorf("%v\n%s", err, &text)
	}
	other.signal(syscall.SIGTERM)
	if err := <-other.ended; err != nil {
		t.Errorf("%v\n%s", err, other.log)
	}
}

// When a master dies and its replica takes over, numbers come again, from one
// daemon, and none twice; what was missed is a gap of both.
//
// It takes 10 s: FILTERD_CHAOS=1 runs it.
func TestChaosHAFailover(t *testing.T) {
	if os.Getenv("FILTERD_CHAOS") == "" {
		t.Skip("task chaos runs this")
	}
	master := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+master.Port(), "--repl-diskless-sync-delay", "0")
	sentinel := redistest.StartSentinel(t, "prices", master)
	eventually(t, "the sentinel knows the replica", func() bool {
		return len(sentinel.Do("SENTINEL", "REPLICAS", "prices")) > 0 && strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up")
	})
	rdb := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "prices", SentinelAddrs: []string{sentinel.Addr}, MaxRetries: -1})
	g := newGroupOn(t, master, rdb, "redis: {mode: sentinel, master: prices, addrs: ["+sentinel.Addr+"]}\n")
	a := g.join()
	g.leads(a)
	b := g.join()
	eventually(t, "b leaves numbers to a", func() bool { _, standby := b.heard(); return standby > 0 })
	master.Stop()
	died := time.Now()
	eventually(t, "the replica is a master", func() bool {
		return sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "prices") == "127.0.0.1\n"+replica.Port()
	})
	promoted := time.Now()
	n := g.arrived()
	eventually(t, "numbers come", func() bool { return g.arrived() > n })
	t.Logf("promoted after %v, numbers come again %v later", promoted.Sub(died).Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
	eventually(t, "one leads, and both work", func() bool {
		s, o := a.status(), b.status()
		return s.Ready && o.Ready && (s.HA.Role == "leader") != (o.HA.Role == "leader") && s.Gaps > 0 && o.Gaps > 0
	})
	g.inOrder()
	for _, m := range []*member{a, b} {
		m.signal(syscall.SIGTERM)
		if err := <-m.ended; err != nil {
			t.Error(err)
		}
	}
	g.inOrder()
}

// Without a Redis there is nothing to be elected by, and --once ends.
func TestHAUnreachable(t *testing.T) {
	d := &daemon{T: t, folder: t.TempDir()}
	d.write("filterd.yaml", "redis: {url: \"redis://127.0.0.1:"+redistest.FreePort(t)+"\"}\n"+haRules)
	var out strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := newApp(strings.NewReader(""), &out, &out).RunContext(ctx, []string{"filterd", "run", "--once", "-c", d.path("filterd.yaml")})
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitUnreachable || ctx.Err() != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}

// lastGap returns the last gap that a member has counted.
func (m *member) lastGap(t *testing.T) adminGap {
	t.Helper()
	gaps := getJSON[adminGaps](t, request{url: m.url + "/api/v1/gaps"})
	if len(gaps.Last) == 0 {
		t.Fatal("no gap")
	}
	return gaps.Last[len(gaps.Last)-1]
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
