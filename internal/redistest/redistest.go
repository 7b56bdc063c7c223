// Package redistest starts real redis-server processes for tests.
package redistest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a server may take to come up, on a busy machine.
const patience = 30 * time.Second

// attempts is how often another port is tried after one that was taken
// between choosing it and binding it.
const attempts = 5

// A Server is a redis-server process on a port of 127.0.0.1. It ends with the
// test. Its methods fail the test rather than return errors; they must not be
// called concurrently.
type Server struct {
	// Addr is the server's address, "127.0.0.1:port". It stays the same over
	// Stop and Restart.
	Addr string

	t       testing.TB
	binary  string
	folder  string
	args    []string
	process *exec.Cmd     // nil while the server is stopped
	ended   chan struct{} // closed when process has ended
	output  *output
}

// Start starts a server on a free port and waits until it answers. Args are
// those of redis-server, for instance "--requirepass", "x"; they come after
// the defaults, which are no persistence and a temporary folder.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, nil, args)
}

// start starts a server. With a file, the arguments follow that file's name,
// as in "redis-server sentinel.conf --sentinel".
func start(t testing.TB, file []string, args []string) *Server {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("this test needs redis-server in PATH: apt-get install redis-server, brew install redis, or see https://redis.io/docs/latest/operate/oss_and_stack/install/")
	}
	s := &Server{t: t, binary: binary, folder: t.TempDir()}
	t.Cleanup(s.Stop)
	for range attempts {
		port := FreePort(t)
		s.Addr = "127.0.0.1:" + port
		s.args = append(file, "--bind", "127.0.0.1", "--port", port, "--dir", s.folder, "--daemonize", "no", "--loglevel", "notice")
		if file == nil {
			s.args = append(s.args, "--save", "", "--appendonly", "no")
		}
		s.args = append(s.args, args...)
		if err = s.launch(); err == nil {
			return s
		}
		if !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	t.Fatal(err)
	return nil
}

// URL returns the server's address as a redis:// URL, without credentials.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Port returns the server's port.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// Log returns what the server has written so far.
func (s *Server) Log() string { return s.output.String() }

// Stop kills the server as kill -9 does, and waits until it is gone. Nothing
// happens if it isn't running.
func (s *Server) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill() // it may be gone already
	<-s.ended
	s.process = nil
}

// Restart stops the server and starts it again on the same port, with the
// same arguments. Without persistence it comes up empty.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = s.launch(); err == nil {
			return
		}
		if !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	s.t.Fatal(err)
}

// Pause stops the process without ending it: its connections stay open and
// silent.
func (s *Server) Pause() {
	s.t.Helper()
	if err := pause(s.process.Process); err != nil {
		s.t.Fatal(err)
	}
}

// Resume lets a paused process go on.
func (s *Server) Resume() {
	s.t.Helper()
	if err := resume(s.process.Process); err != nil {
		s.t.Fatal(err)
	}
}

// launch starts the process and waits until it answers.
func (s *Server) launch() error {
	s.output = &output{}
	s.process = exec.Command(s.binary, s.args...)
	s.process.Stdout, s.process.Stderr = s.output, s.output
	s.process.SysProcAttr = attributes()
	if err := s.process.Start(); err != nil {
		s.process = nil
		return fmt.Errorf("start redis-server: %w", err)
	}
	process, ended := s.process, make(chan struct{})
	s.ended = ended
	go func() { // ends with the process, which Stop waits for
		_ = process.Wait() // killed, mostly
		close(ended)
	}()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case <-ended:
			s.process = nil
			return fmt.Errorf("redis-server ended at once:\n%s", s.Log())
		default:
		}
		if answers(s.Addr) {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.Stop()
	return fmt.Errorf("redis-server on %s did not answer within %v:\n%s", s.Addr, patience, s.Log())
}

// answers reports whether a server is there that has loaded its data. One that
// asks for a password is.
func answers(addr string) bool {
	reply, err := do(addr, "PING")
	if err != nil {
		return strings.HasPrefix(err.Error(), "NOAUTH")
	}
	return reply == "PONG"
}

// FreePort returns a port of 127.0.0.1 that nobody listens on just now.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// WriteFile writes a file into the server's folder and returns its path.
func (s *Server) WriteFile(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.folder, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
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
