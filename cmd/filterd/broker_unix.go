//go:build unix && !linux

package main

import (
	"os"
	"syscall"
)

// serverAttributes puts a server into a process group of its own, so that
// Ctrl-C reaches filterd only, which has messages to send before it stops the
// server.
func serverAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// kill ends a server at once, and what it has started.
func kill(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
