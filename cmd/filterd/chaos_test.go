//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/ledger"
	"github.com/filterd/filterd/internal/redistest"
)

// These tests break what is promised about streams as hard as they can, with
// real processes, and account for every message from outside. They do a little,
// or all of it with FILTERD_CHAOS, as the task chaos does: then they print what
// they have measured.
func chaos(little, full int) int {
	if os.Getenv("FILTERD_CHAOS") != "" {
		return full
	}
	return little
}

// measured prints a row of the task's table.
func measured(what, result string) {
	if os.Getenv("FILTERD_CHAOS") != "" {
		fmt.Printf("| %s | %s |\n", what, result)
	}
}

// A battle is a server, processes that share a group on it, and the account.
type battle struct {
	*testing.T
	server    *redistest.Server
	rdb       *redis.Client
	ledger    *ledger.Ledger
	file      string
	processes []*exec.Cmd
	last      string // ID of the last entry of out that was read
}

const (
	battleKeys = 16
	// inFlight is how many entries a process may have in hand: those of a
	// batch.
	inFlight = 256
)

// newBattle prepares rules that send the stream in to a target.
func newBattle(t *testing.T, to string, redisArgs ...string) *battle {
	b := &battle{T: t, server: redistest.Start(t, redisArgs...), last: "0", file: filepath.Join(t.TempDir(), "filterd.yaml")}
	b.rdb = redis.NewClient(&redis.Options{Addr: b.server.Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = b.rdb.Close() })
	var err error
	if b.ledger, err = ledger.New(t.Name(), battleKeys, []byte(`{"price":11}`)); err != nil {
		t.Fatal(err)
	}
	rules := fmt.Sprintf("redis: {url: %q}\nrules:\n  r:\n    from: {stream: in, claim_idle: 500ms, max_deliveries: 100000}\n    when: data.price > 10\n    to: %s\n", b.server.URL(), to)
	if err := os.WriteFile(b.file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := range b.processes {
			b.kill(i)
		}
	})
	return b
}

// start starts a process in place i.
func (b *battle) start(i int) {
	b.Helper()
	cmd := exec.Command("filterd", "run", "-c", b.file, "-o", "json")
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+b.TempDir())
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for len(b.processes) <= i {
		b.processes = append(b.processes, nil)
	}
	b.processes[i] = cmd
}

// kill ends a process as kill -9 does.
func (b *battle) kill(i int) {
	if cmd := b.processes[i]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		b.processes[i] = nil
	}
}

func (b *battle) signal(i int, s os.Signal) {
	b.Helper()
	if err := b.processes[i].Process.Signal(s); err != nil {
		b.Fatal(err)
	}
}

// publish writes messages to the stream in until there are so many, at most rate
// in a second. What the server does not acknowledge may be there or not.
func (b *battle) publish(ctx context.Context, count, rate int) {
	const most = 50
	for begin, i := time.Now(), 0; i < count && ctx.Err() == nil; i += most {
		if due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate)); time.Until(due) > 0 {
			time.Sleep(time.Until(due))
		}
		pipeline := b.rdb.Pipeline()
		marks := make([]ledger.Mark, min(most, count-i))
		for j := range marks {
			var payload []byte
			payload, marks[j] = b.ledger.Next()
			pipeline.XAdd(ctx, &redis.XAddArgs{Stream: "in", Values: []any{"event", payload}})
		}
		replies, _ := pipeline.Exec(ctx) // every command has its own error
		for j, reply := range replies {
			var refused redis.Error
			switch err := reply.Err(); {
			case errors.As(err, &refused):
				b.ledger.Refuse(marks[j])
			case err != nil:
				b.ledger.Doubt(marks[j])
			}
		}
	}
}

// collect reads what has come out to the stream out.
func (b *battle) collect() {
	for {
		entries, err := b.rdb.XRangeN(b.Context(), "out", "("+b.last, "+", 5000).Result()
		if err != nil || len(entries) == 0 {
			return // an error comes again, or is over
		}
		for _, e := range entries {
			b.ledger.Receive([]byte(e.Values["event"].(string)))
		}
		b.last = entries[len(entries)-1].ID
	}
}

// settle waits until all messages are out and acknowledged, and reports.
func (b *battle) settle() ledger.Report {
	b.Helper()
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(20 * time.Millisecond) {
		b.collect()
		groups, err := b.rdb.XInfoGroups(b.Context(), "in").Result()
		if err == nil && len(groups) == 1 && groups[0].Pending == 0 && groups[0].Lag == 0 && b.ledger.Left() <= 0 {
			b.collect()
			return b.ledger.Report()
		}
		if time.Now().After(deadline) {
			b.Errorf("it does not settle: %d left, groups %+v, %v", b.ledger.Left(), groups, err)
			return b.ledger.Report()
		}
	}
}

// once demands that nothing is lost and nothing there twice.
func (b *battle) once(what string) {
	b.Helper()
	r := b.settle()
	if r.Lost+r.Duplicated+r.Foreign > 0 {
		b.Errorf("%+v", r)
	}
	measured(what, fmt.Sprintf("%d published, %d lost, %d duplicated", r.Published, r.Lost, r.Duplicated))
}

// during calls do again and again while messages are published.
func (b *battle) during(count, rate int, do func()) {
	ctx, cancel := context.WithCancel(b.Context())
	published := make(chan struct{})
	go func() { // ends with its messages
		defer close(published)
		b.publish(ctx, count, rate)
	}()
	defer func() { cancel(); <-published }()
	for {
		select {
		case <-published:
			return
		default:
			do()
		}
	}
}

// Two processes share a group, and one after the other is killed.
func TestChaosKill(t *testing.T) {
	for name, test := range map[string]struct {
		to   string
		once bool
	}{"once": {"{stream: out}", true}, "at least once": {"out", false}} {
		t.Run(name, func(t *testing.T) {
			messages, kills := chaos(10_000, 1_000_000), chaos(4, 20)
			b := newBattle(t, test.to)
			if !test.once {
				messages = min(messages, 200_000)
				subscription := b.rdb.Subscribe(t.Context(), "out")
				if _, err := subscription.Receive(t.Context()); err != nil {
					t.Fatal(err)
				}
				received := make(chan struct{})
				go func() { // ends with the subscription
					defer close(received)
					for m := range subscription.Channel(redis.WithChannelSize(1 << 20)) {
						b.ledger.Receive([]byte(m.Payload))
					}
				}()
				defer func() { _ = subscription.Close(); <-received }()
			}
			b.start(0)
			b.start(1)
			done := 0
			rate := messages * 2 / kills // so that it lasts for the kills
			b.during(messages, max(rate, 4000), func() {
				time.Sleep(time.Duration(100+rand.IntN(200)) * time.Millisecond)
				if done < kills {
					b.kill(done % 2)
					b.start(done % 2)
					done++
				}
			})
			for ; done < kills; done++ {
				b.kill(done % 2)
				b.start(done % 2)
				time.Sleep(200 * time.Millisecond)
			}
			what := fmt.Sprintf("stream → %s, %d messages, %d × kill -9", test.to, messages, kills)
			if test.once {
				b.once(what)
				return
			}
			r := b.settle()
			if most := kills * inFlight; r.Lost+r.Foreign > 0 || r.Duplicated > most {
				t.Errorf("%+v, want at most %d duplicates", r, most)
			}
			measured(what, fmt.Sprintf("%d published, %d lost, %d duplicated, at most %d allowed", r.Published, r.Lost, r.Duplicated, kills*inFlight))
		})
	}
}

// A process stands still for longer than its entries may be idle, another one
// takes them over, and it goes on with what it had.
func TestChaosStop(t *testing.T) {
	stops := chaos(3, 100)
	b := newBattle(t, "{stream: out}")
	b.start(0)
	b.start(1)
	done := 0
	const rate = 4000
	b.during(stops*rate*9/10, rate, func() {
		if done < stops {
			b.signal(done%2, syscall.SIGSTOP)
			time.Sleep(800 * time.Millisecond)
			b.signal(done%2, syscall.SIGCONT)
			done++
		}
		time.Sleep(50 * time.Millisecond)
	})
	b.once(fmt.Sprintf("stream → stream, %d × stopped past claim_idle, claimed, continued", done))
	if done < stops {
		t.Errorf("stopped %d times, want %d", done, stops)
	}
}

// The server is killed under load, and keeps what it has acknowledged.
func TestChaosServer(t *testing.T) {
	kills := chaos(2, 10)
	b := newBattle(t, "{stream: out}", "--appendonly", "yes", "--appendfsync", "always")
	b.start(0)
	b.start(1)
	done, longest := 0, time.Duration(0)
	b.during(chaos(6000, 60_000), 2000, func() {
		time.Sleep(500 * time.Millisecond)
		if done == kills {
			return
		}
		b.server.Restart()
		done++
		begin, before := time.Now(), b.arrived()
		for b.arrived() <= before {
			if time.Since(begin) > patience {
				t.Fatal("it does not work again")
			}
			time.Sleep(5 * time.Millisecond)
		}
		longest = max(longest, time.Since(begin))
	})
	b.once(fmt.Sprintf("%d × Redis killed, appendfsync always", done))
	measured("working again after the server was", fmt.Sprintf("%v at most", longest.Round(time.Millisecond)))
	if done < kills {
		t.Errorf("killed %d times, want %d", done, kills)
	}
	if longest > 5*time.Second && os.Getenv("FILTERD_CHAOS") != "" {
		t.Errorf("it took %v to work again", longest)
	}
}

// arrived returns how many entries have come out.
func (b *battle) arrived() int64 {
	n, err := b.rdb.XLen(b.Context(), "out").Result()
	if err != nil {
		return -1
	}
	return n
}
