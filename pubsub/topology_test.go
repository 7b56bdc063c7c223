package pubsub

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

func TestSentinel(t *testing.T) {
	master := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "prices", master)
	options := Options{Mode: ModeSentinel, Master: "prices", Addrs: []string{sentinel.Addr}}
	connects(t, options)

	s, r, _ := start(t, clientWith(t, options), SourceOptions{}, []string{"a"}, []string{"g*"})
	ready(t, s)
	say(t, master, "a", "1", 1)
	p := NewPublisher(clientWith(t, options), nil, PublisherOptions{})
	if receivers, err := p.PublishEvent(t.Context(), "b", &filterd.Event{ID: "1"}); receivers != 0 || err != nil {
		t.Errorf("Publish: got %d, %v", receivers, err)
	}
	master.Restart()
	eventually(t, "the gap", func() bool { return len(r.got()) == 2 })
	ready(t, s)
	say(t, master, "g", "2", 1)
	r.want(t, "a 1", "gap a,g*", "g<g* 2")
}

// The replica takes over from a master that died.
func TestSentinelFailover(t *testing.T) {
	master := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+master.Port())
	sentinel := redistest.StartSentinel(t, "prices", master)
	eventually(t, "the sentinel knows the replica", func() bool {
		return len(sentinel.Do("SENTINEL", "REPLICAS", "prices")) > 0
	})
	options := Options{Mode: ModeSentinel, Master: "prices", Addrs: []string{sentinel.Addr}}
	s, r, _ := start(t, clientWith(t, options), SourceOptions{}, []string{"a"}, nil)
	ready(t, s)
	master.Stop()
	eventually(t, "the replica is the master", func() bool {
		return sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "prices") == "127.0.0.1\n"+replica.Port()
	})
	eventually(t, "the gap", func() bool { return len(r.got()) > 0 })
	ready(t, s)
	say(t, replica, "a", "m", 1)
	eventually(t, "the message", func() bool { got := r.got(); return got[len(got)-1] == "a m" })
}

func TestCluster(t *testing.T) {
	servers := redistest.StartCluster(t)
	options := Options{Mode: ModeCluster, Addrs: []string{servers[0].Addr, servers[1].Addr}}
	connects(t, options)
	rdb := clientWith(t, options)

	// Channels of several slots on one connection, and every node publishes.
	names := []string{"a", "b", "d", "e"} // not that of connects, which may be late
	s, r, _ := start(t, rdb, SourceOptions{}, names, []string{"g*"})
	ready(t, s)
	var want []string
	for i, server := range servers {
		server.Do("PUBLISH", names[i], fmt.Sprint(i)) // receivers may be on another node
		want = append(want, fmt.Sprintf("%s %d", names[i], i))
		r.want(t, want...)
	}
	servers[0].Do("PUBLISH", "g", "glob")
	r.want(t, append(want, "g<g* glob")...)

	// The messages of one channel stay in order although there are three
	// masters.
	subscriber := NewSubscriber(rdb, nil, SubscriberOptions{Logger: (&log{}).logger()})
	var c collector
	if err := subscriber.Handle("ordered", nil, c.take); err != nil {
		t.Fatal(err)
	}
	run(t, subscriber.Run)
	ready(t, subscriber)
	const count = 300
	batch := make([]filterd.Delivery, count)
	want = nil
	for i := range batch {
		batch[i] = filterd.Delivery{Channel: "ordered", Payload: fmt.Append(nil, i)}
		want = append(want, fmt.Sprint("ordered ", i))
	}
	NewSink(rdb).Deliver(context.Background(), batch)
	for i, d := range batch {
		if d.Err != nil {
			t.Fatalf("delivery %d: %v", i, d.Err)
		}
	}
	c.want(t, want...)

	// Keys are on all masters.
	kv := NewKV(rdb, "m")
	for i := range 20 {
		for want := range 2 {
			if got := try(kv.Incr(t.Context(), fmt.Append(nil, i), 1, time.Hour)); got != fmt.Sprint(want+1) {
				t.Errorf("key %d: got %s, want %d", i, got, want+1)
			}
		}
	}
}
