package comparison

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/redistest"
)

// rules is the rules file of the relay, and relayed the number of messages of
// one run.
const (
	rules = `
redis: {url: "${REDIS_URL}"}
rules:
  trades:
    from: in
    when: data.symbol == "BTC-USD" && data.price * data.qty > 10000
    to: out
`
	relayed = 200_000
)

// A relay is a program that takes messages of 324 bytes from the channel in and
// publishes some of them to out.
type relay struct {
	name    string
	command []string
}

// A run is what one relay needed for one load.
type run struct {
	cpu, wall time.Duration // per message
}

// BenchmarkRelay measures the whole path: a message through Redis, one rule,
// and back to Redis, by filterd, by a raw relay of sockets and by the
// hand-written program in turn. It reports the medians of CPU time and
// throughput, and of what filterd's are to the others' in the same round. One in
// ten messages matches, or all.
//
//	go test -run - -bench Relay -benchtime 10x ./internal/comparison
func BenchmarkRelay(b *testing.B) {
	relays := build(b)
	for _, every := range []int{10, 1} {
		b.Run(fmt.Sprintf("match=1in%d", every), func(b *testing.B) {
			server := redistest.Start(b, "--client-output-buffer-limit", "pubsub 0 0 0")
			load := newLoad(every)
			runs := make([][]run, len(relays))
			for i := range b.N {
				for j := range relays {
					j = (i + j) % len(relays) // each goes first in turn
					runs[j] = append(runs[j], relays[j].measure(b, server, load))
				}
			}
			for j, r := range relays {
				b.ReportMetric(median(runs[j], func(i int) float64 { return float64(runs[j][i].cpu.Nanoseconds()) / 1e3 }), r.name+"-cpu-µs/msg")
				b.ReportMetric(median(runs[j], func(i int) float64 { return float64(time.Second/runs[j][i].wall) / 1e3 }), r.name+"-kmsg/s")
			}
			for j, r := range relays[1:] {
				other := runs[1+j]
				b.ReportMetric(median(other, func(i int) float64 { return float64(runs[0][i].cpu) / float64(other[i].cpu) }), "cpu/"+r.name)
				b.ReportMetric(median(other, func(i int) float64 { return float64(other[i].wall) / float64(runs[0][i].wall) }), "throughput/"+r.name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(runs []run, figure func(i int) float64) float64 {
	figures := make([]float64, len(runs))
	for i := range figures {
		figures[i] = figure(i)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

func build(b *testing.B) []relay {
	b.Helper()
	dir := b.TempDir()
	file := filepath.Join(dir, "filterd.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		b.Fatal(err)
	}
	relays := []relay{
		{"filterd", []string{filepath.Join(dir, "filterd"), "run", "-c", file, "--log-level", "error"}},
		{"raw", []string{filepath.Join(dir, "raw")}},
		{"handwritten", []string{filepath.Join(dir, "handwritten")}},
	}
	for i, source := range []string{"../../cmd/filterd", "./raw", "./handwritten"} {
		if out, err := exec.Command("go", "build", "-o", relays[i].command[0], source).CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
	return relays
}

// A load is what is sent: PUBLISH commands, and how many of them match.
type load struct {
	commands []byte
	matching int
}

func newLoad(every int) load {
	var l load
	var commands bytes.Buffer
	for i := range relayed {
		price := 1.5
		if i%every == 0 {
			price = 60000.5
			l.matching++
		}
		payload := trade(i, price)
		fmt.Fprintf(&commands, "*3\r\n$7\r\nPUBLISH\r\n$2\r\nin\r\n$%d\r\n%s\r\n", len(payload), payload)
	}
	l.commands = commands.Bytes()
	return l
}

// trade returns an event of 324 bytes.
func trade(i int, price float64) string {
	text := fmt.Sprintf(`{"specversion":"1.0","id":"%012d","source":"/exchange/feed","type":"com.example.trade.v1","datacontenttype":"application/json","time":"2026-11-23T12:00:00.000000Z","data":{"symbol":"BTC-USD","side":"buy","price":%.1f,"qty":2,"venue":"example","trade":%d,"note":""}}`, i, price, i)
	return strings.Replace(text, `"note":""`, `"note":"`+strings.Repeat("x", 324-len(text))+`"`, 1)
}

// measure starts the relay, sends the load, and waits until all that matches
// has come back.
func (r relay) measure(b *testing.B, server *redistest.Server, l load) run {
	b.Helper()
	command := exec.Command(r.command[0], r.command[1:]...)
	command.Env = append(os.Environ(), "REDIS_URL="+server.URL())
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = command.Process.Kill(); _ = command.Wait() }()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer rdb.Close()
	counter := rdb.Subscribe(ctx, "out")
	defer counter.Close()
	for _, channel := range []string{"in", "out"} {
		for rdb.PubSubNumSub(ctx, channel).Val()[channel] != 1 {
			if ctx.Err() != nil {
				b.Fatalf("%s did not subscribe to %s", r.name, channel)
			}
			time.Sleep(time.Millisecond)
		}
	}
	before := cpu(b, command.Process.Pid)
	start := time.Now()
	sent := make(chan error, 1)
	go func() { sent <- send(server.Addr, l.commands) }()
	for arrived := 0; arrived < l.matching; {
		received, err := counter.Receive(ctx)
		if err != nil {
			b.Fatalf("%s: %d of %d came back: %v", r.name, arrived, l.matching, err)
		}
		if _, ok := received.(*redis.Message); ok {
			arrived++
		}
	}
	wall := time.Since(start)
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
	return run{cpu: (cpu(b, command.Process.Pid) - before) / relayed, wall: wall / relayed}
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

// cpu returns the CPU time that the threads of a process have used.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		b.Skip("CPU times are read from /proc/PID/task/*/schedstat")
	}
	var total time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		var used int64 // nanoseconds
		if _, err := fmt.Sscan(string(text), &used); err != nil {
			b.Fatal(err)
		}
		total += time.Duration(used)
	}
	return total
}
