package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	// brokerPatience is how long a server has to come up.
	brokerPatience = 10 * time.Second
	// brokerAttempts is how often another port is tried after one that was
	// taken between choosing and binding it.
	brokerAttempts = 5
	// brokerOutput is how much of what a server last said is kept, in bytes.
	brokerOutput = 4 << 10
)

// brokerPrograms are looked for in PATH, in this order.
var brokerPrograms = [...]string{"redis-server", "valkey-server"}

// errPortTaken says that another program has the port.
var errPortTaken = errors.New("the port is taken")

// A broker is a Redis of this process's own, on the loopback interface: a
// redis-server or valkey-server from PATH, else one within the process. It
// keeps nothing on disk, and ends with the process where the system can see to
// that.
//
// While a broker lives, writing to a broken pipe is an error like others: the
// signal would end the process and leave the server behind.
type broker struct {
	Name string // what it is and its version: "redis-server 7.0.15"
	URL  string // redis://127.0.0.1:PORT
	Port int

	ended chan struct{} // closed when a server's process has ended; nil within this process
	end   func()
	once  sync.Once
}

// startBroker starts a broker on a free port and waits until it answers. The
// broker outlives ctx: the caller must Close it.
func startBroker(ctx context.Context) (*broker, error) { return startBrokerOn(ctx, 0) }

// startBrokerOn is startBroker with a port; 0 is any.
func startBrokerOn(ctx context.Context, port int) (*broker, error) {
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	b, err := findBroker(ctx, port)
	if err != nil {
		signal.Stop(pipes)
		if errors.Is(err, errPortTaken) && port != 0 {
			return nil, fmt.Errorf("start a broker: port %d is taken", port)
		}
		return nil, fmt.Errorf("start a broker: %w", err)
	}
	end := b.end
	b.end = func() {
		end()
		signal.Stop(pipes)
	}
	return b, nil
}

func findBroker(ctx context.Context, port int) (*broker, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if path := brokerProgram(); path != "" {
		return startServer(ctx, path, port, brokerPatience)
	}
	return startInProcess(port)
}

// brokerProgram returns the path of the server that would be started; empty if
// there is none.
func brokerProgram() string {
	for _, program := range brokerPrograms {
		if path, err := exec.LookPath(program); err == nil {
			return path
		}
	}
	return ""
}

// Ended is closed when the broker has gone, by Close or by itself. It is nil
// for one that can't go by itself.
func (b *broker) Ended() <-chan struct{} { return b.ended }

// Close stops the broker and returns when it is gone, with all it has left on
// disk. It may be called again.
func (b *broker) Close() { b.once.Do(b.end) }

// startInProcess starts the broker that is part of this program.
func startInProcess(port int) (*broker, error) {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true) // or keys would never expire
	if err := m.StartAddr(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		m.Close()
		if portTaken(err.Error()) {
			err = errPortTaken
		}
		return nil, err
	}
	b := &broker{Name: "in-process broker", URL: "redis://" + m.Addr(), end: m.Close}
	b.Port, _ = strconv.Atoi(m.Port())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == "github.com/alicebob/miniredis/v2" {
				b.Name += " (miniredis " + strings.TrimPrefix(dependency.Version, "v") + ")"
			}
		}
	}
	return b, nil
}

// startServer starts a server's program.
func startServer(ctx context.Context, path string, port int, patience time.Duration) (*broker, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	for attempt := 1; ; attempt++ {
		on := port
		if on == 0 {
			var err error
			if on, err = freePort(); err != nil {
				return nil, err
			}
		}
		b, err := launch(ctx, path, on)
		if err == nil || !errors.Is(err, errPortTaken) || port != 0 || attempt == brokerAttempts {
			return b, err
		}
	}
}

// freePort returns a port of 127.0.0.1 that nobody listens on just now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// launch starts a server on a port and waits until it answers. Nothing is left
// of it after an error.
func launch(ctx context.Context, path string, port int) (b *broker, err error) {
	folder, err := os.MkdirTemp("", "filterd-broker-")
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	output := &lastOutput{}
	cmd := exec.Command(path, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--protected-mode", "yes",
		"--save", "", "--appendonly", "no", "--dir", folder, "--daemonize", "no")
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = serverAttributes()
	cmd.WaitDelay = time.Second // a child of a script may hold the pipe open

	b = &broker{URL: "redis://" + addr, Port: port, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() { // ends with the server; Close waits for it
		// A server that is to end with its parent ends with the thread that
		// started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(b.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was killed, or output says why it ended
		}
	}()
	b.end = func() {
		select {
		case <-b.ended:
		default:
			kill(cmd.Process)
			<-b.ended
		}
		_ = os.RemoveAll(folder) // it is in the folder for temporary files
	}
	if err := <-started; err != nil {
		<-b.ended
		b.Close()
		return nil, err
	}
	if b.Name, err = waitForServer(ctx, addr, folder, b.ended); err != nil {
		b.Close()
		if text := output.String(); portTaken(text) {
			err = errPortTaken
		} else if text != "" {
			err = fmt.Errorf("%w; it said:\n%s", err, printable(text))
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// portTaken recognizes why a port could not be bound, in the words of the
// system.
func portTaken(text string) bool {
	return strings.Contains(text, "ddress already in use") || strings.Contains(text, "Only one usage of each socket address")
}

// waitForServer waits until the server answers, and returns its name. A server
// whose folder is another is not the one that was started.
func waitForServer(ctx context.Context, addr, folder string, ended <-chan struct{}) (name string, err error) {
	if resolved, err := filepath.EvalSymlinks(folder); err == nil {
		folder = resolved
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		name, where, err := askServer(ctx, addr)
		if err == nil && where == folder {
			return name, nil
		}
		if err == nil {
			return "", errPortTaken
		}
		select {
		case <-again.C:
		case <-ended:
			return "", errors.New("it ended at once")
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// askServer asks a server who it is and which folder it works in.
func askServer(ctx context.Context, addr string) (name, folder string, err error) {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil || ctx.Err() != nil {
		return "", "", errors.Join(err, ctx.Err())
	}
	if _, err := io.WriteString(conn, "PING\r\nINFO server\r\nCONFIG GET dir\r\n"); err != nil {
		return "", "", err
	}
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || line != "+PONG\r\n" {
		return "", "", errors.Join(fmt.Errorf("reply to PING: %q", line), err)
	}
	info, err := readBulk(r)
	if err != nil {
		return "", "", err
	}
	if line, err := r.ReadString('\n'); err != nil || line != "*2\r\n" {
		return "", "", errors.Join(fmt.Errorf("reply to CONFIG GET: %q", line), err)
	}
	for range 2 { // the setting's name, then its value
		if folder, err = readBulk(r); err != nil {
			return "", "", err
		}
	}
	return serverName(info), folder, nil
}

// readBulk reads a bulk string of RESP.
func readBulk(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	size, err := strconv.Atoi(strings.TrimRight(strings.TrimPrefix(line, "$"), "\r\n"))
	if err != nil || size < 0 || size > 1<<20 {
		return "", fmt.Errorf("reply %q", line)
	}
	text := make([]byte, size+len("\r\n"))
	_, err = io.ReadFull(r, text)
	return string(text[:size]), err
}

// serverName finds program and version in the reply to INFO server. Valkey
// still gives the version of Redis that it is compatible with.
func serverName(info string) string {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[key] = value
		}
	}
	if version := fields["valkey_version"]; version != "" {
		return "valkey-server " + oneLine(version)
	}
	return strings.TrimSpace("redis-server " + oneLine(fields["redis_version"]))
}

// lastOutput keeps the end of what was written. Safe for concurrent use.
type lastOutput struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (o *lastOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if over := len(o.text) - brokerOutput; over > 0 {
		o.text = append(o.text[:0], o.text[over:]...)
	}
	return len(p), nil
}

func (o *lastOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(string(o.text))
}
