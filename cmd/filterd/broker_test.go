package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/filterd/filterd/pubsub"
)

// temporary gives the test a folder for temporary files of its own, which must
// be empty in the end.
func temporary(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	t.Cleanup(func() {
		if left, _ := filepath.Glob(filepath.Join(dir, "filterd-broker-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// alive reports whether there is a process that runs.
func alive(pid int) bool {
	if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		return !strings.Contains(string(state), ") Z ") // nobody has waited for it, but it has ended
	}
	p, err := os.FindProcess(pid)
	return err == nil && runtime.GOOS != "linux" && p.Signal(nil) == nil
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// ask sends a command to a broker.
func ask(t *testing.T, b *broker, args ...any) string {
	t.Helper()
	rdb, err := pubsub.Connect(t.Context(), pubsub.Options{URL: filterd.Secret(b.URL)})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	reply, err := rdb.Do(t.Context(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(reply)
}

func serverPID(t *testing.T, b *broker) int {
	t.Helper()
	_, after, _ := strings.Cut(ask(t, b, "INFO", "server"), "process_id:")
	text, _, _ := strings.Cut(after, "\r\n")
	pid, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// script puts a program of that name into a PATH that has nothing else.
func script(t *testing.T, name, text string) (path string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs shell scripts")
	}
	dir := t.TempDir()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	return path
}

func TestBrokerIsAServer(t *testing.T) {
	temporary(t)
	b, err := startBroker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !strings.HasPrefix(b.Name, "redis-server ") && !strings.HasPrefix(b.Name, "valkey-server ") {
		t.Errorf("name %q", b.Name)
	}
	if want := fmt.Sprintf("redis://127.0.0.1:%d", b.Port); b.URL != want {
		t.Errorf("url %s, want %s", b.URL, want)
	}
	for setting, want := range map[string]string{"save": "", "appendonly": "no", "bind": "127.0.0.1", "protected-mode": "yes"} {
		if got := ask(t, b, "CONFIG", "GET", setting); got != fmt.Sprintf("[%s %s]", setting, want) {
			t.Errorf("setting %s, want %q", got, want)
		}
	}
	pid := serverPID(t, b)
	b.Close()
	b.Close()
	if alive(pid) {
		t.Error("the server lives on")
	}
	select {
	case <-b.Ended():
	default:
		t.Error("it has not ended")
	}
}

func TestBrokerThatIsKilledHasEnded(t *testing.T) {
	temporary(t)
	b, err := startBroker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p, err := os.FindProcess(serverPID(t, b))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.Ended():
	case <-time.After(20 * time.Second):
		t.Error("it has not ended")
	}
}

func TestBrokerWithoutAServerInPath(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	b, err := startBroker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !strings.HasPrefix(b.Name, "in-process broker") {
		t.Errorf("name %q", b.Name)
	}
	if got := ask(t, b, "PING"); got != "PONG" {
		t.Errorf("PING: %s", got)
	}
	ask(t, b, "SET", "k", "v", "PX", "50")
	waitUntil(t, "expiry", func() bool { return ask(t, b, "EXISTS", "k") == "0" })
	b.Close()
	if _, err := net.Dial("tcp", strings.TrimPrefix(b.URL, "redis://")); err == nil {
		t.Error("it still listens")
	}
}

func TestBrokerOnATakenPort(t *testing.T) {
	temporary(t)
	other := redistest.Start(t) // that answers, and is not ours
	port, _ := strconv.Atoi(other.Port())
	want := fmt.Sprintf("start a broker: port %d is taken", port)
	if _, err := startBrokerOn(t.Context(), port); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	t.Setenv("PATH", "")
	if _, err := startBrokerOn(t.Context(), port); err == nil || err.Error() != want {
		t.Errorf("in-process: error %v, want %s", err, want)
	}
	if other.Do("PING") != "PONG" {
		t.Error("the other server is gone")
	}
}

func TestBrokerThatNeverAnswers(t *testing.T) {
	temporary(t)
	pids := filepath.Join(t.TempDir(), "pids")
	path := script(t, "redis-server", "/bin/sleep 60 & echo $$ $! >"+pids+"; echo thinking; wait\n")
	started := func() (all []int) {
		text, _ := os.ReadFile(pids)
		for _, field := range strings.Fields(string(text)) {
			pid, _ := strconv.Atoi(field)
			all = append(all, pid)
		}
		return all
	}
	gone := func() bool {
		for _, pid := range started() {
			if alive(pid) {
				return false
			}
		}
		return true
	}

	_, err := startServer(t.Context(), path, 0, 500*time.Millisecond)
	if want := path + ": no answer within 500ms; it said:\nthinking"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if len(started()) != 2 {
		t.Fatalf("the script did not run: %v", started())
	}
	waitUntil(t, "the script's end", gone)

	if err := os.Remove(pids); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := startBroker(ctx)
		failed <- err
	}()
	waitUntil(t, "the start", func() bool { return len(started()) == 2 })
	cancel()
	select {
	case err := <-failed:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that of the context", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a start that was cancelled goes on")
	}
	waitUntil(t, "the script's end", gone)
}

func TestBrokerThatEndsAtOnce(t *testing.T) {
	temporary(t)
	path := script(t, "valkey-server", "echo 'no such \x1b[31moption' >&2; exit 1\n")
	_, err := startBroker(t.Context())
	if want := "start a broker: " + path + ": it ended at once; it said:\nno such \\x1b[31moption"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestServerName(t *testing.T) {
	for info, want := range map[string]string{
		"# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n":                           "redis-server 7.0.15",
		"# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nx:\r\n": "valkey-server 8.1.1",
		"": "redis-server",
	} {
		if got := serverName(info); got != want {
			t.Errorf("%q: got %q, want %q", info, got, want)
		}
	}
}

// TestBrokerDiesWithItsParent kills a process that has a broker. The process
// is this test, run again.
func TestBrokerDiesWithItsParent(t *testing.T) {
	const child = "FILTERD_TEST_BROKER_PARENT"
	if os.Getenv(child) != "" {
		b, err := startBroker(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("pid", serverPID(t, b))
		time.Sleep(time.Minute)
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can tell a process of its parent's end")
	}
	t.Setenv("TMPDIR", t.TempDir()) // the folder can't be removed by a process that was killed
	cmd := exec.Command(os.Args[0], "-test.run=^TestBrokerDiesWithItsParent$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "pid %d", &pid)
	}
	if pid == 0 || !alive(pid) {
		t.Fatal("there is no broker")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the broker's end", func() bool { return !alive(pid) })
}
