package pubsub

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/faultproxy"
	"github.com/filterd/filterd/internal/redistest"
)

func finish(s filterd.Started) {
	if s != nil {
		s.Finish()
	}
}

// Batches that are only started go out at once, in order with those of others,
// and have their outcomes when they are finished, whoever has read them.
func TestSinkStart(t *testing.T) {
	server := redistest.Start(t)
	source, r, _ := start(t, client(t, server.Addr), SourceOptions{}, []string{"c"}, nil)
	ready(t, source)
	sink := NewSink(client(t, server.Addr))
	batch := func(n int) []filterd.Delivery {
		return []filterd.Delivery{{Channel: "c", Payload: fmt.Append(nil, n)}, {Channel: "nobody"}}
	}
	check := func(what string, batch []filterd.Delivery) {
		t.Helper()
		if batch[0].Err != nil || batch[0].Receivers != 1 || batch[1].Err != nil || batch[1].Receivers != 0 {
			t.Errorf("%s: %+v", what, batch)
		}
	}
	first, second, third := batch(1), batch(2), batch(4)
	one := sink.Start(t.Context(), first)
	if one == nil {
		t.Fatal("a lone batch was waited for")
	}
	r.want(t, "c 1") // it is out
	two := sink.Start(t.Context(), second)
	finish(one)
	check("the first", first)
	if err := deliver(t.Context(), sink, "c", "3"); err != nil {
		t.Error(err)
	}
	finish(two)
	check("what a Deliver has read the replies of", second)
	three := sink.Start(t.Context(), third)
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	finish(three)
	check("what Close has read the replies of", third)
	if err := deliver(t.Context(), sink, "c", "5"); err != nil {
		t.Error(err)
	}
	r.want(t, "c 1", "c 2", "c 3", "c 4", "c 5")
	if started := sink.Start(t.Context(), nil); started != nil {
		t.Error("an empty batch was left to be finished")
	}
}

// Many goroutines start, finish and deliver at once: each batch gets its own
// outcomes, and the messages of each goroutine come in order.
func TestSinkStartTogether(t *testing.T) {
	const callers, messages = 8, 300
	server := redistest.Start(t)
	names := make([]string, callers)
	for i := range names {
		names[i] = fmt.Sprint("c", i)
	}
	source, r, _ := start(t, client(t, server.Addr), SourceOptions{}, names, nil)
	ready(t, source)
	sink := NewSink(client(t, server.Addr))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			var before filterd.Started
			var last [][]filterd.Delivery
			settle := func() {
				finish(before)
				for _, batch := range last {
					d := batch[0]
					if d.Err != nil || d.Receivers != 1 {
						t.Errorf("%s: %+v", name, d)
					}
				}
				before, last = nil, nil
			}
			for j := range messages {
				batch := []filterd.Delivery{{Channel: name, Payload: fmt.Append(nil, j)}}
				if i%2 == 0 && j%3 == 0 {
					sink.Deliver(t.Context(), batch)
				} else {
					started := sink.Start(t.Context(), batch)
					settle()
					before = started
				}
				last = append(last, batch)
				if j%5 == 0 {
					settle()
				}
			}
			settle()
		})
	}
	all.Wait()
	eventually(t, "all messages", func() bool { return len(r.got()) == callers*messages })
	next := make(map[string]int)
	for _, m := range r.got() {
		name, payload, _ := strings.Cut(m, " ")
		if payload != fmt.Sprint(next[name]) {
			t.Fatalf("%s: got %s, want %d", name, payload, next[name])
		}
		next[name]++
	}
}

// A connection that breaks before the replies have come is an error of each
// message, and none of the next batch.
func TestSinkStartBroken(t *testing.T) {
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	sink := NewSink(client(t, proxy.Addr()))
	if err := deliver(t.Context(), sink, "c", "0"); err != nil {
		t.Fatal(err)
	}
	for _, between := range []func(){
		func() {},
		func() { // reads the replies, in vain, and goes on
			if err := deliver(t.Context(), sink, "c", "between"); err != nil {
				t.Errorf("between: %v", err)
			}
		},
	} {
		proxy.Set(faultproxy.Fault{LoseReplies: true})
		batch := []filterd.Delivery{{Channel: "c", Payload: []byte("1")}}
		started := sink.Start(t.Context(), batch)
		if started == nil {
			t.Fatal("a lone batch was waited for")
		}
		proxy.Cut()
		proxy.Set(faultproxy.Fault{})
		between()
		started.Finish()
		if err := batch[0].Err; err == nil || !strings.HasPrefix(err.Error(), `publish to "c": no reply: `) {
			t.Errorf("got %v", err)
		}
		if err := deliver(t.Context(), sink, "c", "2"); err != nil {
			t.Error(err)
		}
	}
}
