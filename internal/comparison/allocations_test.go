package comparison

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/filterd/filterd/pubsub"
)

// TestAllocations runs source, engine and sink against a server, and counts
// what the process allocates: nothing for a message that isn't kept, at most
// once for one that is republished.
func TestAllocations(t *testing.T) {
	for name, test := range map[string]struct {
		every int // which message matches
		most  float64
	}{
		"none matches": {relayed + 1, 0.01},
		"all match":    {1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 0 0 0")
			rdb, err := pubsub.Connect(t.Context(), pubsub.Options{Addrs: []string{server.Addr}})
			if err != nil {
				t.Fatal(err)
			}
			defer rdb.Close()
			when, err := exprfilter.Compile(`data.symbol == "BTC-USD" && data.price * data.qty > 10000`)
			if err != nil {
				t.Fatal(err)
			}
			table, err := engine.Compile(engine.Definition{Rules: []engine.Rule{{Name: "trades", From: []string{"in"}, When: when, To: []engine.Target{{Channel: "out"}}}}})
			if err != nil {
				t.Fatal(err)
			}
			e, err := engine.New(engine.Config{Table: table, Sink: pubsub.NewSink(rdb)})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			source := pubsub.NewSource(rdb, pubsub.SourceOptions{})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- e.Run(ctx, source) }() // ends with cancel
			defer func() { cancel(); <-ended }()
			if err := source.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			l := newLoad(test.every)
			pass := func(count uint64) {
				t.Helper()
				if err := send(server.Addr, l.commands); err != nil {
					t.Fatal(err)
				}
				for deadline := time.Now().Add(time.Minute); e.Stats().Channels["in"].Received < count; time.Sleep(20 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("the messages did not come")
					}
				}
			}
			pass(relayed) // what is kept from then on
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			pass(2 * relayed)
			runtime.ReadMemStats(&after)
			if got := float64(after.Mallocs-before.Mallocs) / relayed; got > test.most {
				t.Errorf("%.3f allocations for a message, want at most %v", got, test.most)
			} else {
				t.Logf("%.3f allocations for a message", got)
			}
		})
	}
}
