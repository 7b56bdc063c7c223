//go:build unix

package pubsub

import (
	"net"
	"syscall"
)

// quiet reports whether a connection on which nothing is due has nothing to
// read: neither data nor its end. It doesn't wait.
func quiet(conn net.Conn) bool {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = outer.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return true // it can't be asked
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var got error
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		_, _, got = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && (got == syscall.EAGAIN || got == syscall.EINTR)
}
