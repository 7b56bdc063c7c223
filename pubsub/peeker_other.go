//go:build !unix

package pubsub

import "net"

// A peeker looks whether a connection has something to read. Here it can't be
// asked.
type peeker struct{}

func newPeeker(net.Conn) *peeker { return &peeker{} }

// quiet reports whether a connection on which nothing is due has nothing to
// read.
func (*peeker) quiet() bool { return true }
