//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/faultproxy"
	"github.com/filterd/filterd/internal/redistest"
)

// A victim is a daemon around which things go wrong. It ends well with its test,
// and not before: else the test fails.
type victim struct {
	*daemon
	url string
}

// newVictim starts a daemon on a Redis with these arguments. The rules' file has
// the address in the place of ADDRESS.
func newVictim(t *testing.T, server *redistest.Server, address, file string) *victim {
	t.Helper()
	d := &daemon{T: t, folder: filepath.Join(t.TempDir(), "etc"), server: server, log: &log{}}
	d.rdb = redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = d.rdb.Close() })
	d.write("token", testToken+"\n")
	d.write("filterd.yaml", adminSection+strings.ReplaceAll(file, "ADDRESS", address))
	d.start()
	return &victim{d, d.serving("server.listen")}
}

// counted returns the value of a series; 0 if there is none.
func (v *victim) counted(series string) float64 {
	v.Helper()
	return scrape(v, request{url: v.url + "/metrics"})[series]
}

func (v *victim) ready() bool {
	status, _ := request{url: v.url + "/readyz"}.get(v)
	return status == 200
}

// says waits until the log has a text that it had not.
func (v *victim) says(text string, before int) {
	v.Helper()
	v.eventually(text, func() bool { return strings.Count(v.log.String(), text) > before })
}

// passes waits until messages pass again.
func (v *victim) passes() {
	v.Helper()
	v.eventually("it is ready", v.ready)
	v.serves("v1")
}

// goesWrong does what is wrong, waits for what the log says of it and until a
// counter is higher, and that messages pass again, once it has been put right.
func (v *victim) goesWrong(what, says, counter string, wrong, right func()) {
	v.Helper()
	v.passes()
	counted, said := v.counted(counter), strings.Count(v.log.String(), says)
	wrong()
	v.says(says, said)
	right()
	v.eventually(what+" is counted", func() bool { return v.counted(counter) > counted })
	v.passes()
}

// Whatever a server says, a daemon names what is wrong, counts the gap, and goes
// on.
func TestSurvivesTheServersWords(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 1mb 0 0",
		"--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024") // microseconds
	proxy := faultproxy.Start(t, server.Addr)
	v := newVictim(t, server, proxy.Addr(), "redis: {url: redis://ADDRESS}\nrules: {r: {from: in, to: v1}, big: {from: big, to: {log: debug}}}\n")
	const gaps = "filterd_gaps_total"
	const message = "*3\r\n$7\r\nmessage\r\n$2\r\nin\r\n"
	nothing := func() {}
	v.goesWrong("half a frame", "the server closed the connection in the middle of a message", gaps,
		func() { proxy.Say(message + "$5\r\n12"); proxy.Cut() }, nothing)
	v.goesWrong("a frame of 512 MB", "536870912 bytes of a message are over the limit of ", gaps,
		func() { proxy.Say(message + "$536870912\r\nxxx") }, proxy.Cut)
	if memory := v.counted("process_resident_memory_bytes"); memory > 400<<20 {
		t.Errorf("it takes %.0f bytes", memory)
	}
	v.goesWrong("garbage", "the server does not speak RESP2: want an array, a status, an error or a number, got ", gaps,
		func() { proxy.Say("HTTP/1.1 400 Bad Request\r\n\r\n") }, nothing)
	v.goesWrong("MOVED", "MOVED 1 127.0.0.1:1", gaps, func() { proxy.Say("-MOVED 1 127.0.0.1:1\r\n") }, nothing)
	v.goesWrong("a cut of who is behind", "messages may have been missed", gaps, func() {
		v.must(v.cmd.Process.Signal(syscall.SIGSTOP))
		for payload := strings.Repeat("x", 1<<20); v.rdb.Publish(t.Context(), "big", payload).Val() > 0; {
		}
		v.must(v.cmd.Process.Signal(syscall.SIGCONT))
	}, nothing)

	// A server that has much to load answers LOADING meanwhile.
	for i := range 500 {
		v.must(v.rdb.Set(t.Context(), fmt.Sprint("key", i), strings.Repeat("x", 100), 0).Err())
	}
	server.Do("SAVE")
	counted, loaded := v.counted(gaps), make(chan struct{})
	go func() { server.Restart(); close(loaded) }()
	v.eventually("it says that Redis is loading", func() bool {
		_, text := request{url: v.url + "/readyz"}.get(t)
		return strings.Contains(text, "LOADING Redis is loading the dataset in memory")
	})
	<-loaded
	v.must(v.got.Close())
	v.got = v.rdb.PSubscribe(t.Context(), "v*")
	_, err := v.got.Receive(t.Context())
	v.must(err)
	v.eventually("it is counted", func() bool { return v.counted(gaps) > counted })
	v.passes()
}

// What Redis refuses makes a daemon not ready, with the reason, until it refuses
// it no more.
func TestSurvivesRefusals(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "app", "on", ">"+testToken, "~*", "&*", "+@all")
	v := newVictim(t, server, server.Addr, "redis: {url: redis://ADDRESS, username: app, password: \"${file:token}\"}\nrules: {r: {from: in, to: v1}}\n")
	const gaps = "filterd_gaps_total"
	v.goesWrong("NOPERM", "NOPERM this user has no permissions to access one of the channels used as arguments", gaps,
		func() { server.Do("ACL", "SETUSER", "app", "resetchannels", "&__filterd:*") },
		func() {
			v.eventually("it isn't ready", func() bool {
				status, text := request{url: v.url + "/readyz"}.get(t)
				return status == 503 && strings.Contains(text, `subscribe to \"in\": NOPERM `)
			})
			server.Do("ACL", "SETUSER", "app", "allchannels")
			server.Do("CLIENT", "KILL", "USER", "app") // or it asks again after half a minute
		})
}

// A stream that can't be read doesn't keep a service manager from hearing that
// the rest is at work: else it would start the daemon again and again.
func TestSurvivesAStreamThatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("SET", "broken", "x")
	v := newVictim(t, server, server.Addr, "redis: {url: redis://ADDRESS}\nrules: {r: {from: [in, {stream: broken}], to: v1}}\n") // waits until it says so
	v.serves("v1")
	if v.ready() {
		t.Error("/readyz says nothing of the stream")
	}
	server.Do("DEL", "broken")
	v.passes()
}

// What can't be written is named and counted, and nothing that comes after it is
// lost.
func TestSurvivesAServerThatCannotWrite(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	v := newVictim(t, server, server.Addr, `
redis: {url: redis://ADDRESS}
rules:
  r: {from: in, to: v1}
  disk: {from: disk, to: {stream: out}}
  memory: {from: memory, to: {stream: out}}
  replica: {from: replica, to: {stream: out}}
  copied: {from: {stream: out}, to: {stream: copies}}
`)
	undelivered := func(rule string) string { return `filterd_rule_drops_total{reason="undelivered",rule="` + rule + `"}` }
	say := func(channel string) { v.must(v.rdb.Publish(t.Context(), channel, "1").Err()) } // which writes nothing
	dump := filepath.Join(server.Do("CONFIG", "GET", "dir")[len("dir\n"):], "dump.rdb")
	v.goesWrong("a full disk", "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk", undelivered("disk"), func() {
		v.must(os.Mkdir(dump, 0o700)) // so that it can't be replaced
		server.Do("CONFIG", "SET", "save", "3600 1")
		server.Do("BGSAVE")
		v.eventually("it can't save", func() bool { return strings.Contains(server.Do("INFO", "persistence"), "rdb_last_bgsave_status:err") })
		say("disk")
	}, func() {
		server.Do("CONFIG", "SET", "save", "")
		v.must(os.Remove(dump))
	})
	v.goesWrong("no memory", "OOM command not allowed when used memory > 'maxmemory'", undelivered("memory"), func() {
		server.Do("CONFIG", "SET", "maxmemory", "1")
		say("memory")
	}, func() { server.Do("CONFIG", "SET", "maxmemory", "0") })
	v.goesWrong("a replica", "READONLY You can't write against a read only replica", undelivered("replica"), func() {
		server.Do("REPLICAOF", "127.0.0.1", "1")
		say("replica")
		v.eventually("the stream can't be read", func() bool { return v.counted(`filterd_stream_ready{group="filterd",stream="out"}`) == 0 && !v.ready() })
	}, func() { server.Do("REPLICAOF", "NO", "ONE") })
	for _, channel := range []string{"disk", "memory", "replica"} {
		say(channel)
	}
	v.eventually("every entry is copied once", func() bool {
		return server.Do("XLEN", "out") == "3" && server.Do("XLEN", "copies") == "3" && strings.HasPrefix(server.Do("XPENDING", "out", "filterd"), "0\n")
	})
}

// So is what a Cluster can't serve for a while.
func TestSurvivesAClusterThatIsDown(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t), "--cluster-node-timeout", "500")
	server.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	up := func() bool { return strings.Contains(server.Do("CLUSTER", "INFO"), "cluster_state:ok") }
	waitUntil(t, "the cluster is up", up)
	v := newVictim(t, server, server.Addr, `
redis: {mode: cluster, addrs: [ADDRESS]}
rules:
  r: {from: in, to: v1}
  stored: {from: in, to: {stream: "{s}out"}}
  copied: {from: {stream: "{s}out"}, to: {stream: "{s}copies"}}
`)
	v.goesWrong("CLUSTERDOWN", "CLUSTERDOWN ", `filterd_rule_drops_total{reason="undelivered",rule="stored"}`, func() {
		server.Do("CLUSTER", "DELSLOTSRANGE", "0", "16383")
		v.must(v.rdb.Publish(t.Context(), "in", "1").Err())
		if _, err := v.got.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}, func() {
		v.eventually("it isn't ready", func() bool { return !v.ready() })
		server.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
		v.eventually("the cluster is up", up)
	})
	v.eventually("every entry is copied once", func() bool {
		return server.Do("XLEN", "{s}copies") == server.Do("XLEN", "{s}out") && strings.HasPrefix(server.Do("XPENDING", "{s}out", "filterd"), "0\n")
	})
}

// What is no message becomes a dead letter, and nothing of it stays pending.
func TestSurvivesEntriesThatAreNone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	v := newVictim(t, server, server.Addr, `
redis: {url: redis://ADDRESS}
channels: {in: {envelope: cloudevents, dead_letter: {stream: dead}}}
rules:
  r: {from: {stream: in}, to: {stream: out}}
`)
	server.Do("XADD", "in", "*", "price", "1")
	server.Do("XADD", "in", "*", "event", "1", "more", "2")
	server.Do("XADD", "in", "*", "event", `{"no": "event"}`)
	server.Do("XADD", "in", "*", "event", `{"specversion":"1.0","id":"1","source":"s","type":"t"}`)
	v.eventually("the event is passed on", func() bool { return server.Do("XLEN", "out") == "1" })
	v.eventually("nothing is pending", func() bool { return strings.HasPrefix(server.Do("XPENDING", "in", "filterd"), "0\n") })
	if dead := server.Do("XRANGE", "dead", "-", "+"); server.Do("XLEN", "dead") != "3" ||
		!strings.Contains(dead, `want one field, \"event\", not \"price\"`) || !strings.Contains(dead, `not \"event\", \"more\"`) || !strings.Contains(dead, "specversion") {
		t.Errorf("dead letters: %s", dead)
	}
	for series, want := range map[string]float64{
		`filterd_stream_entries_total{group="filterd",outcome="malformed",stream="in"}`: 2,
		`filterd_messages_total{channel="in",outcome="entry"}`:                          2,
		`filterd_messages_total{channel="in",outcome="envelope"}`:                       1,
		`filterd_dead_letters_total{outcome="published"}`:                               3,
	} {
		if got := v.counted(series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}
