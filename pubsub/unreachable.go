package pubsub

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// unreachable says that rdb can't be used, why, and what to do about it.
func unreachable(rdb redis.UniversalClient, err error) error {
	if errors.Is(err, ErrUnreachable) {
		return err
	}
	return &unreachableError{addr: address(rdb), err: err}
}

// An unreachableError matches ErrUnreachable.
type unreachableError struct {
	addr string
	err  error
}

func (e *unreachableError) Error() string {
	text := fmt.Sprintf("redis at %s: %v", e.addr, plain(e.err))
	if hint := hint(e.err); hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

func (e *unreachableError) Is(target error) bool { return target == ErrUnreachable }
func (e *unreachableError) Unwrap() error        { return e.err }

// plain returns what the server said, where it said something, without the
// wrapping of go-redis.
func plain(err error) error {
	var reply redis.Error
	if errors.As(err, &reply) {
		return reply
	}
	return err
}

// hint says what to do about an error of connecting.
func hint(err error) string {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "no server listens there: start it or correct the address"
	case errors.As(err, &dns):
		return "correct the host's name"
	case errors.As(err, &unknown):
		return "give the file of the CA that signed the server's certificate"
	case errors.As(err, &hostname):
		return "give the server name that its certificate holds"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "the server closed the connection: it may want TLS, or allow no client from here"
	case redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "NOAUTH"):
		return "check username and password"
	case redis.HasErrorPrefix(err, "NOPERM"):
		return "grant it with ACL SETUSER"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "nothing answered in time: check address and firewall, and that both sides use TLS or none does"
	case strings.Contains(err.Error(), "all sentinels specified in configuration are unreachable"):
		return "check the sentinels' addresses and the master's name"
	}
	return ""
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// address returns where a client connects to, for errors and logs.
func address(rdb redis.UniversalClient) string {
	switch c := rdb.(type) {
	case *redis.Client:
		if addr := c.Options().Addr; addr != "FailoverClient" { // what go-redis puts there
			return addr
		}
		return "the sentinels' master"
	case *redis.ClusterClient:
		return strings.Join(c.Options().Addrs, ",")
	}
	return "unknown address"
}
