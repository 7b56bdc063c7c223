package main

import (
	"os"
	"syscall"
)

// serverAttributes puts a server into a process group of its own, so that
// Ctrl-C reaches filterd only, which has messages to send before it stops the
// server.
func serverAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// kill ends a server at once.
func kill(p *os.Process) { _ = p.Kill() }
