package main

import (
	"os"
	"syscall"
)

// serverAttributes puts a server into a process group of its own, so that
// Ctrl-C reaches filterd only, which has messages to send before it stops the
// server; and has the server end with its parent, however that ends.
func serverAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// kill ends a server at once, and what it has started.
func kill(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
