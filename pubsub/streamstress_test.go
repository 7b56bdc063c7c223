package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// stressed are the streams that go through a stress.
const stressed = 3

// A stress is what happens to entries on their way from stream to stream.
type stress struct {
	daemons int
	kill    bool // connections are cut
	destroy bool // groups are lost
	reload  bool
}

// Entries go from stream to stream while sinks fail, connections are cut, groups
// are lost and rules are reloaded. A ledger knows all of them.
func TestStreamStress(t *testing.T) {
	t.Parallel()
	if os.Getenv("FILTERD_CHAOS") == "" {
		runStress(t, stress{daemons: 1, kill: true, reload: true}, 2*time.Second)
		return
	}
	for name, s := range map[string]stress{
		"one":           {daemons: 1, kill: true, reload: true},
		"two":           {daemons: 2, kill: true, reload: true},
		"lost groups":   {daemons: 1, destroy: true},
		"lost by a few": {daemons: 3, destroy: true},
	} {
		t.Run(name, func(t *testing.T) { runStress(t, s, time.Minute) })
	}
}

func runStress(t *testing.T, s stress, length time.Duration) {
	server := redistest.Start(t)
	control := client(t, server.Addr)
	tables := stressTables(t)
	var engines []*engine.Engine
	var sinks []*flaky
	for d := range s.daemons {
		rdb := clientWith(t, Options{Addrs: []string{server.Addr}, ClientName: "daemon"})
		sink := &flaky{Sink: NewSink(rdb), fails: true}
		e, err := engine.New(engine.Config{Table: tables[0], Sink: sink, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		engines, sinks = append(engines, e), append(sinks, sink)
		source := NewStreamSource(rdb, StreamOptions{Consumer: fmt.Sprint("d", d), Logger: slog.New(slog.DiscardHandler)})
		run(t, func(ctx context.Context) error { return e.Run(ctx, source) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var sent [stressed]int
	counts := make([]int, 3)
	var working sync.WaitGroup
	often := func(most time.Duration, do func()) {
		working.Go(func() { // ends with ctx
			for ctx.Err() == nil {
				time.Sleep(rand.N(most))
				do()
			}
		})
	}
	often(60*time.Millisecond, func() {
		i, pipeline := rand.IntN(stressed), control.Pipeline()
		for range 1 + rand.IntN(300) {
			payload := fmt.Sprintf(`{"n":%d,"x":"%s"}`, sent[i], strings.Repeat("x", rand.IntN(4000)))
			pipeline.XAdd(context.Background(), &redis.XAddArgs{Stream: fmt.Sprint("in", i), Values: []any{"event", payload}})
			sent[i]++
		}
		if _, err := pipeline.Exec(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if s.kill {
		often(120*time.Millisecond, func() { counts[0] += cutOne(t, control) })
	}
	if s.destroy {
		often(2*time.Second, func() {
			control.XGroupDestroy(context.Background(), fmt.Sprint("in", rand.IntN(stressed)), filterd.DefaultGroup)
			counts[1]++
		})
	}
	if s.reload {
		often(100*time.Millisecond, func() {
			counts[2]++
			for _, e := range engines {
				if err := e.Reload(context.Background(), tables[counts[2]%2]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	for _, sink := range sinks {
		sink.heal()
	}
	for i := range sent {
		if sent[i] > 0 {
			eventually(t, fmt.Sprintf("in%d is treated", i), func() bool { return treated(control, fmt.Sprint("in", i)) })
		}
	}
	t.Logf("sent %v; %d connections cut, %d groups lost, %d reloads", sent, counts[0], counts[1], counts[2])
	for i, n := range sent {
		for stream, step := range map[string]int{"out": 1, "sevens": 7} {
			lost, twice, disorder := account(t, control, fmt.Sprint(stream, i), n, step)
			t.Logf("%s%d: %d lost, %d twice, %d out of order", stream, i, lost, twice, disorder)
			if lost > 0 || twice > 0 && !s.destroy || disorder > 0 && s.daemons == 1 && !s.destroy {
				t.Errorf("%s%d: %d of %d lost, %d twice, %d out of order", stream, i, lost, n, twice, disorder)
			}
		}
	}
}

// stressTables returns tables with the same rules, which differ.
func stressTables(t *testing.T) (tables [2]*engine.Table) {
	for i := range tables {
		var rules []engine.Rule
		for s := range stressed {
			in := []filterd.Stream{{Name: fmt.Sprint("in", s), ClaimIdle: 2 * time.Second}}
			rules = append(rules,
				engine.Rule{Name: fmt.Sprint("all", s), Streams: in, When: exprfilter.MustCompile(fmt.Sprintf("data.n >= %d", -i)), To: []engine.Target{{Stream: fmt.Sprint("out", s)}}},
				engine.Rule{Name: fmt.Sprint("sevens", s), Streams: in, When: exprfilter.MustCompile("int(data.n) % 7 == 0"), To: []engine.Target{{Stream: fmt.Sprint("sevens", s), MaxLen: 1e7}}})
		}
		table, err := engine.Compile(engine.Definition{Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		tables[i] = table
	}
	return tables
}

// cutOne cuts a connection of a daemon, and returns how many it has cut.
func cutOne(t *testing.T, control redis.UniversalClient) int {
	list, err := control.ClientList(context.Background()).Result()
	if err != nil {
		t.Error(err)
	}
	var ids []string
	for line := range strings.Lines(list) {
		if id, rest, _ := strings.Cut(strings.TrimPrefix(line, "id="), " "); strings.Contains(rest, " name=daemon ") {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0
	}
	return int(control.ClientKillByFilter(context.Background(), "ID", ids[rand.IntN(len(ids))]).Val())
}

// treated reports whether nothing is left of a stream for its group.
func treated(control redis.UniversalClient, stream string) bool {
	groups, err := control.XInfoGroups(context.Background(), stream).Result()
	last := control.XRevRangeN(context.Background(), stream, "+", "-", 1).Val()
	return err == nil && len(groups) == 1 && groups[0].Pending == 0 && len(last) == 1 && groups[0].LastDeliveredID == last[0].ID
}

// account says what became of the numbers below n, every step-th of which should
// be in a stream.
func account(t *testing.T, control redis.UniversalClient, stream string, n, step int) (lost, twice, disorder int) {
	seen, last := make([]int, n), -1
	for start := "-"; ; {
		page, err := control.XRangeN(t.Context(), stream, start, "+", 1000).Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, m := range page {
			var number int
			if _, err := fmt.Sscanf(m.Values["event"].(string), `{"n":%d`, &number); err != nil {
				t.Fatal(err)
			}
			if number < last {
				disorder++
			}
			last = number
			seen[number]++
		}
		start = "(" + page[len(page)-1].ID
	}
	for number := 0; number < n; number += step {
		switch {
		case seen[number] == 0:
			lost++
		case seen[number] > 1:
			twice++
		}
	}
	return lost, twice, disorder
}

// flaky is a sink that can't be reached for a moment now and then, in the middle
// of a batch.
type flaky struct {
	*Sink
	mu    sync.Mutex // guards fails
	fails bool
}

func (f *flaky) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = false
}

var errFlaky = errors.New("for a moment")

// cut fails the rest of a batch, from an entry on, and returns how much is left.
func (f *flaky) cut(batch []filterd.Delivery) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.fails || rand.IntN(40) > 0 || len(batch) == 0 {
		return len(batch)
	}
	n := rand.IntN(len(batch))
	for n > 0 && batch[n].Entry != nil && batch[n].Entry == batch[n-1].Entry {
		n--
	}
	for i := range batch[n:] {
		batch[n+i].Err = errFlaky
	}
	return n
}

func (f *flaky) Deliver(ctx context.Context, batch []filterd.Delivery) {
	f.Sink.Deliver(ctx, batch[:f.cut(batch)])
}

func (f *flaky) Start(ctx context.Context, batch []filterd.Delivery) filterd.Started {
	if n := f.cut(batch); n > 0 {
		return f.Sink.Start(ctx, batch[:n]) // the rest has failed at once
	}
	return nil
}
