package pubsub

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// probes returns how many channels a server has for probes.
func probes(server *redistest.Server) int {
	return strings.Count(server.Do("PUBSUB", "CHANNELS"), reserved)
}

// callsOf returns how often a command was called.
func callsOf(server *redistest.Server, command string) (n int) {
	_, stats, _ := strings.Cut(server.Do("INFO", "commandstats"), "cmdstat_"+command+":calls=")
	_, _ = fmt.Sscan(stats, &n) // there is none before the first call
	return n
}

// A server that lives and answers, but that nobody publishes to any more, as a
// master that was demoted or cut off, is left.
func TestSourceNoticesDemotion(t *testing.T) {
	const interval = 200 * time.Millisecond
	old, next := redistest.Start(t), redistest.Start(t)
	var master atomic.Value
	master.Store(old.Addr)
	rdb := redis.NewClient(&redis.Options{
		Addr: "the-master:6379", ContextTimeoutEnabled: true,
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, master.Load().(string))
		},
	})
	defer rdb.Close()
	s, r, stop := start(t, rdb, SourceOptions{ProbeInterval: interval}, []string{"a"}, nil)
	ready(t, s)
	say(t, old, "a", "1", 1)
	eventually(t, "some probes", func() bool { return callsOf(old, "publish") >= 5 })

	master.Store(next.Addr)
	begin := time.Now()
	old.Do("CLIENT", "KILL", "TYPE", "normal") // the client's, not the source's; as go-redis does when the master changes
	eventually(t, "the gap", func() bool { return len(r.got()) == 2 })
	ready(t, s)
	say(t, next, "a", "2", 1)
	r.want(t, "a 1", "gap a", "a 2")
	const reason = "a probe that was published did not arrive within 200ms: others may publish to another server"
	if gap := r.lastGap(); gap.Reason != reason || gap.From.After(begin) {
		t.Errorf("gap: %+v, but the master changed at %v", gap, begin)
	}
	if got := old.Do("PUBSUB", "NUMSUB", "a"); got != "a\n0" {
		t.Errorf("at the old master: %q", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Nobody sees probes: neither their own source, nor another one, nor the gaps
// and counters; and sources that hear each other's probes come to rest.
func TestSourceHidesProbes(t *testing.T) {
	const interval = 100 * time.Millisecond
	server := redistest.Start(t)
	var recorders []*recorder
	for range 2 {
		s, r, _ := start(t, client(t, server.Addr), SourceOptions{ProbeInterval: interval}, []string{reserved + "x"}, []string{"*", "__*"})
		ready(t, s)
		recorders = append(recorders, r)
	}
	if got := probes(server); got != 3 { // and x
		t.Errorf("%d channels for probes", got)
	}
	begin := time.Now()
	eventually(t, "some probes", func() bool { return callsOf(server, "publish") >= 12 })
	// 2 in every interval; a storm would be one for each round trip.
	if n, most := callsOf(server, "publish"), int(2*time.Since(begin)/interval)+4; n > most {
		t.Errorf("%d probes, want %d at most", n, most)
	}
	server.Do("PUBLISH", reserved+"x", "by name")
	server.Do("PUBLISH", "_", "m")
	for _, r := range recorders {
		r.want(t, reserved+"x by name", "_<* m")
	}
}

// Where Redis refuses the channel, or to publish there, PING has to do.
func TestSourceProbesByPing(t *testing.T) {
	const interval = 50 * time.Millisecond
	for name, test := range map[string]struct {
		rules  []string
		probes int
		log    string
	}{
		"no channel": {[]string{"+subscribe", "+ping", "+publish", "&a"}, 0, "probed_by=PING"},
		"no publish": {[]string{"+subscribe", "+ping", "&*"}, 1, `msg="redis refuses to publish probes: PING has to do"`},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			logged := &log{}
			s, r, _ := start(t, reader(t, server, test.rules...), SourceOptions{ProbeInterval: interval, Logger: logged.logger()}, []string{"a"}, nil)
			ready(t, s)
			eventually(t, "some PINGs", func() bool { return callsOf(server, "ping") > 10 })
			say(t, server, "a", "m", 1)
			r.want(t, "a m")
			if got := probes(server); got != test.probes {
				t.Errorf("%d channels for probes, want %d", got, test.probes)
			}
			if strings.Count(logged.String(), test.log) != 1 {
				t.Errorf("log without one %q:\n%s", test.log, logged)
			}
		})
	}
}

// A client that can't publish any more says nothing about the source's
// connection.
func TestSourceStaysWithoutPublishing(t *testing.T) {
	const interval = 100 * time.Millisecond
	server := redistest.Start(t)
	var refuse atomic.Bool
	rdb := redis.NewClient(&redis.Options{
		Addr: server.Addr, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if refuse.Load() {
				return nil, fmt.Errorf("no more connections")
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	})
	defer rdb.Close()
	s, r, stop := start(t, rdb, SourceOptions{ProbeInterval: interval}, []string{"a"}, nil)
	ready(t, s)
	refuse.Store(true)
	server.Do("CLIENT", "KILL", "TYPE", "normal")
	server.Do("CONFIG", "RESETSTAT")
	eventually(t, "some PINGs", func() bool { return callsOf(server, "ping") >= 10 })
	say(t, server, "a", "m", 1)
	r.want(t, "a m")
	if err := stop(); err != nil {
		t.Error(err)
	}
}
