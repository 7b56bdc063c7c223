//go:build !linux

package measure

import (
	"os"
	"runtime"
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr { return nil }

func terminate(p *os.Process) error {
	if runtime.GOOS == "windows" {
		return p.Kill()
	}
	return p.Signal(syscall.SIGTERM)
}

// cpu is not told here while a process runs.
func (p *process) cpu() time.Duration { return 0 }

// used returns the CPU time of the whole life of a process that has ended, its
// start and the first messages included.
func (p *process) used(time.Duration, time.Duration) time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// resident is not told here.
func (p *process) resident() int64 { return 0 }

func sleep(d time.Duration) { time.Sleep(d) }

func exactTimers() (restore func()) { return func() {} }
