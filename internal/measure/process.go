package measure

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

// A process is a relay that runs.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it has ended; then err holds
	err    error
	mu     sync.Mutex // guards said
	said   []string   // its last lines
	read   sync.WaitGroup
	stderr *os.File
}

// maxSaid is how many lines of what a relay last said are kept, and maxLine
// how much of each.
const (
	maxSaid = 10
	maxLine = 2 << 10
)

// start starts a relay.
func start(r Relay) (*process, error) {
	p := &process{cmd: exec.Command(r.Path, r.Args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), r.Env...)
	p.cmd.Stdin = bytes.NewReader(r.Stdin)
	p.cmd.SysProcAttr = attributes()
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = to, to
	started := make(chan error, 1)
	go func() { // ends with the process
		// What is to end with its parent ends with the thread that started
		// it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		_ = to.Close() // the process has its own
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		_ = from.Close()
		return nil, err
	}
	p.stderr = from
	p.read.Go(func() { p.listen(from, r.Log) })
	return p, nil
}

// listen reads what the process says, until its end.
func (p *process) listen(from io.Reader, log func([]byte)) {
	lines := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if line = bytes.TrimRight(line, "\n"); len(line) > 0 {
			p.mu.Lock()
			p.said = append(p.said, string(line[:min(len(line), maxLine)]))
			p.said = p.said[max(0, len(p.said)-maxSaid):]
			p.mu.Unlock()
			if log != nil {
				log(line)
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// failure says that the process has ended, and what it said last.
func (p *process) failure() error {
	p.read.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	if len(p.said) == 0 {
		return fmt.Errorf("the relay ended: %w", err)
	}
	return fmt.Errorf("the relay ended: %w; it said:\n%s", err, strings.Join(p.said, "\n"))
}

// stop ends the process, kindly first, and returns when it has and all it said
// was read.
func (p *process) stop() {
	if terminate(p.cmd.Process) != nil {
		_ = p.cmd.Process.Kill()
	}
	patience := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	<-p.ended
	patience.Stop()
	p.read.Wait()
	_ = p.stderr.Close()
}
