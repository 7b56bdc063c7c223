//go:build unix

package comparison

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/redistest"
)

// streamed is how many entries go through a relay in a round.
const streamed = 200_000

// A streamRun is what one relay has shown with the entries of a stream.
type streamRun struct{ rate, cpu float64 } // entries/s; CPU µs an entry

// TestStreamNumbers measures stream → rule → stream beside a bare pipeline of
// go-redis, in turn, as ratios of the same round. Every entry matches.
//
//	task bench:streams
func TestStreamNumbers(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("FILTERD_ROUNDS"))
	if err != nil || rounds < 1 || runtime.GOOS != "linux" {
		t.Skip("takes a minute: FILTERD_ROUNDS says how many rounds, as task bench:streams does")
	}
	dir := t.TempDir()
	for name, source := range map[string]string{"filterd": "../../cmd/filterd", "barestream": "./barestream"} {
		if out, err := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", filepath.Join(dir, name), source).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	file := filepath.Join(dir, "filterd.yaml")
	rules := "redis: {url: '${REDIS_URL}'}\nrules: {trades: {from: {stream: in}, when: '" + condition + "', to: {stream: out}}}\n"
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	relays := [][]string{{"filterd", "run", "--config", file}, {"barestream"}}
	runs := make([][]streamRun, len(relays))
	for round := range rounds {
		for i := range relays {
			i = (round + i) % len(relays) // each goes first in turn
			run := streamThrough(t, filepath.Join(dir, relays[i][0]), relays[i][1:])
			fmt.Fprintf(os.Stderr, "round %d of %d: %s: %.0f entries/s, %.2f µs of CPU each\n", round+1, rounds, relays[i][0], run.rate, run.cpu)
			runs[i] = append(runs[i], run)
		}
	}
	var rate, cpu []float64
	for round := range rounds {
		rate = append(rate, runs[0][round].rate/runs[1][round].rate)
		cpu = append(cpu, runs[0][round].cpu/runs[1][round].cpu)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "median of %d rounds\ttarget\tmeasured\tleast\tmost\t\n", rounds)
	fmt.Fprintln(w, row{"stream to stream: throughput / bare pipeline", 0.7, true, rate})
	fmt.Fprintln(w, row{"stream to stream: CPU an entry / bare pipeline", 1.5, false, cpu})
	_ = w.Flush()
}

// streamThrough runs a relay from the stream in to the stream out, on a server
// of its own. The relay stands still while the entries are written.
func streamThrough(t *testing.T, path string, args []string) streamRun {
	server := redistest.Start(t)
	defer server.Stop()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: time.Minute})
	defer rdb.Close()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "REDIS_URL="+server.URL(), "GOMAXPROCS=2")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	add := func(count int) {
		const most = 1000
		for i := 0; i < count; i += most {
			pipeline := rdb.Pipeline()
			for j := i; j < min(i+most, count); j++ {
				pipeline.XAdd(t.Context(), &redis.XAddArgs{Stream: "in", Values: []any{"event", trade(j, 60000.5)[:324]}})
			}
			if _, err := pipeline.Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	arrived := func(count int64) {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
			n, err := rdb.XLen(t.Context(), "out").Result()
			if err != nil {
				t.Fatal(err)
			}
			if n == count {
				return
			}
			if n > count || time.Now().After(deadline) {
				t.Fatalf("%s: %d entries, want %d", filepath.Base(path), n, count)
			}
		}
	}
	add(1)
	arrived(1)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	add(streamed)
	before, begin := cpuOf(cmd.Process.Pid), time.Now()
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	arrived(1 + streamed)
	took := time.Since(begin)
	used := cpuOf(cmd.Process.Pid) - before
	return streamRun{streamed / took.Seconds(), float64(used.Nanoseconds()) / 1e3 / streamed}
}

// cpuOf returns the CPU time of a process, as the scheduler knows it.
func cpuOf(pid int) time.Duration {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	var total time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		var used int64 // nanoseconds
		if _, err := fmt.Sscan(string(text), &used); err == nil {
			total += time.Duration(used)
		}
	}
	return total
}
