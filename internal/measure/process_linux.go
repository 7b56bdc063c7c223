package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// attributes puts a relay into a process group of its own, so that Ctrl-C
// reaches only who measures it, and has it end with its parent, however that
// ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// cpu returns the CPU time that the threads of a process have used, as the
// scheduler knows it.
func (p *process) cpu() time.Duration {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
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

// used returns what cpu gave at the end, less what it gave at the begin.
func (p *process) used(begin, end time.Duration) time.Duration { return end - begin }

// resident returns the resident memory of a process, in bytes.
func (p *process) resident() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	var size, pages int64
	if err == nil {
		_, err = fmt.Sscan(string(text), &size, &pages)
	}
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// sleep sleeps as exactly as the system can: Go's timers are late by up to a
// millisecond, which is more than what is to be measured.
func sleep(d time.Duration) {
	for ts := syscall.NsecToTimespec(int64(d)); syscall.Nanosleep(&ts, &ts) == syscall.EINTR; {
	}
}

// exactTimers has the timers of the calling thread fire when they should, and
// not up to 50 µs later, until restore is called. Where that is refused they
// are a little late. The goroutine must be locked to its thread, and not end
// with it: what ends with the thread that started it would end, too.
func exactTimers() (restore func()) {
	const setTimerSlack, usual = 29, 0 // PR_SET_TIMERSLACK
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
	return func() { _, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, usual, 0) }
}
