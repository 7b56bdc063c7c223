package comparison

import (
	"bufio"
	"context"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/filterd/filterd/internal/resp"
	"github.com/filterd/filterd/pubsub"
)

// relayed is how many messages are counted.
const relayed = 200_000

// TestAllocations runs source, engine and sink against a server, and counts
// what the process allocates: nothing for a message that isn't kept, at most
// once for one that is republished.
func TestAllocations(t *testing.T) {
	// On a slow machine, or under the race detector, rules are dear enough to be
	// divided among cores, and goroutines are allocated.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, test := range map[string]struct {
		every int // which message matches
		most  float64
	}{
		"none matches": {0, 0.01},
		"all match":    {1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 0 0 0")
			rdb, err := pubsub.Connect(t.Context(), pubsub.Options{Addrs: []string{server.Addr}})
			if err != nil {
				t.Fatal(err)
			}
			defer rdb.Close()
			when, err := exprfilter.Compile(condition)
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
			var commands []byte
			for _, m := range trades(relayed, test.every) {
				commands = resp.AppendPublish(commands, m.Channel, m.Payload)
			}
			pass := func(count uint64) {
				t.Helper()
				if err := send(server.Addr, commands); err != nil {
					t.Fatal(err)
				}
				for deadline := time.Now().Add(time.Minute); e.Stats().Channels["in"].Received < count; time.Sleep(200 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("the messages did not come")
					}
				}
			}
			pass(relayed) // what is kept from then on
			least := math.Inf(1)
			for try := uint64(2); least > test.most && try <= 4; try++ { // the clocks of the process have allocations of their own
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				pass(try * relayed)
				runtime.ReadMemStats(&after)
				least = min(least, float64(after.Mallocs-before.Mallocs)/relayed)
			}
			if t.Logf("%.3f allocations for a message", least); least > test.most {
				t.Errorf("want at most %v", test.most)
			}
		})
	}
}

// send sends commands and reads all their replies.
func send(address string, commands []byte) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	written := make(chan error, 1)
	go func() { _, err := conn.Write(commands); written <- err }()
	replies := bufio.NewReader(conn)
	for range relayed {
		if _, err := replies.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return <-written
}
