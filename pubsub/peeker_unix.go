//go:build unix

package pubsub

import (
	"net"
	"syscall"
)

// A peeker looks whether a connection has something to read. One goroutine uses
// it.
type peeker struct {
	raw syscall.RawConn // nil where it can't be asked
	fd  func(fd uintptr)
	got error // of the last look
	one [1]byte
}

func newPeeker(conn net.Conn) *peeker {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = outer.NetConn()
	}
	p := &peeker{}
	if socket, ok := conn.(syscall.Conn); ok {
		p.raw, _ = socket.SyscallConn() // its error is that of a closed connection, which its reader meets, too
	}
	p.fd = func(fd uintptr) { // made once: each batch looks
		_, _, p.got = syscall.Recvfrom(int(fd), p.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}
	return p
}

// quiet reports whether a connection on which nothing is due has nothing to
// read: neither data nor its end. It doesn't wait.
func (p *peeker) quiet() bool {
	if p.raw == nil {
		return true
	}
	err := p.raw.Control(p.fd)
	return err == nil && (p.got == syscall.EAGAIN || p.got == syscall.EINTR)
}
