// Package exampletest runs the example programs in their tests, as processes
// of their own: signals, exit codes and output are what a user gets.
package exampletest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd/internal/redistest"
)

// patience is how long a program may take for anything, on a busy machine.
const patience = 60 * time.Second

// variable makes the binary of a test run as the program that it tests. So
// the program is built as its test is: with the race detector, if that is on.
const variable = "FILTERD_EXAMPLE_TEST"

// Main is what TestMain of an example does: it runs the tests, or in a process
// that Start started the program's main function.
func Main(m *testing.M, main func()) {
	if os.Getenv(variable) == "" {
		os.Exit(m.Run())
	}
	main()
}

// A Program is a running example. Its methods fail the test rather than return
// errors.
type Program struct {
	t              testing.TB
	process        *exec.Cmd
	stdout, stderr output
	ended          chan struct{} // closed when the process has ended
}

// Start starts the program against a Redis. It is killed at the end of the
// test, if it is still there.
func Start(t testing.TB, redisURL string) *Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &Program{t: t, process: exec.Command(self), ended: make(chan struct{})}
	p.process.Dir = "../.." // users run it from the top of the repository
	p.process.Env = append(os.Environ(), variable+"=1", "REDIS_URL="+redisURL)
	p.process.Stdout, p.process.Stderr = &p.stdout, &p.stderr
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process, which the cleanup waits for
		_ = p.process.Wait() // the exit code is in ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.process.Process.Kill() // it is gone already, mostly
		<-p.ended
	})
	return p
}

// Stdout returns what the program has written to standard output so far.
func (p *Program) Stdout() string { return p.stdout.String() }

// Stderr returns what the program has written to standard error so far.
func (p *Program) Stderr() string { return p.stderr.String() }

// Await waits until standard output contains a text.
func (p *Program) Await(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.Stdout(), text); time.Sleep(10 * time.Millisecond) {
		select {
		case <-p.ended:
			if !strings.Contains(p.Stdout(), text) {
				p.fatal("the program ended without saying " + text)
			}
		default:
			if time.Now().After(deadline) {
				p.fatal("the program never said " + text)
			}
		}
	}
}

// Check compares all of standard output.
func (p *Program) Check(want string) {
	p.t.Helper()
	if got := p.Stdout(); got != want {
		p.t.Errorf("got:\n%s\nwant:\n%s\nstderr:\n%s", got, want, p.Stderr())
	}
}

// Interrupt sends SIGINT, as Ctrl-C does.
func (p *Program) Interrupt() {
	p.t.Helper()
	if err := p.process.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// Exit waits for the end of the program and returns its exit code.
func (p *Program) Exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.fatal("the program did not end")
	}
	return p.process.ProcessState.ExitCode()
}

// NoRedis is the test of a program, by its name, when no Redis is there.
func NoRedis(t *testing.T, name string) {
	addr := "127.0.0.1:" + redistest.FreePort(t)
	p := Start(t, "redis://"+addr)
	if code := p.Exit(); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	p.Check("")
	want := fmt.Sprintf("%s: redis at %s: dial tcp %[2]s: connect: connection refused (no server listens there: start it or correct the address)\n", name, addr)
	if got := p.Stderr(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func (p *Program) fatal(what string) {
	p.t.Helper()
	p.t.Fatalf("%s\nstdout:\n%s\nstderr:\n%s", what, p.Stdout(), p.Stderr())
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
