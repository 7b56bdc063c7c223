package redistest

import "syscall"

// attributes makes the server end even with a test that was killed.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
