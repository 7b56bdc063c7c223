package config

import (
	"crypto/tls"
	"net"
	"strconv"
	"strings"

	"github.com/filterd/filterd"
)

// DefaultListen is where the daemon's admin server listens by default.
const DefaultListen = "127.0.0.1:9464"

// minToken is how long a token must be, in bytes: nobody guesses so long a one.
const minToken = 16

// A Server is the section server: where the daemon serves its state, its
// metrics and what changes it. The package only reads it.
type Server struct {
	// Listen is the host:port of the admin server. Without TLS and a Token
	// the host is one that only the same machine reaches. A port of 0 is any
	// that is free.
	Listen string
	// Token is what a request must show to change something, or to see
	// messages; empty if nobody may.
	Token filterd.Secret
	// Probe is the host:port of a server for orchestrators, which says no
	// more than whether the daemon lives and is ready, and its metrics; empty
	// for none.
	Probe string
	// TLS makes the admin server encrypt; may be nil.
	TLS *ServerTLS
}

// A ServerTLS names the files of a server's certificate, relative to the
// working directory, or absolute.
type ServerTLS struct {
	Cert, Key string
}

// Loopback reports whether only the same machine reaches the admin server.
func (s *Server) Loopback() bool { return loopback(s.Listen) }

// loopback reports whether a host:port is reached from the same machine only.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// LoadServer reads the section server of a config file, and nothing else of it:
// it may be asked for while the rest of the file is faulty. It is nil if the
// file has none. Errors are those of [Load].
func LoadServer(path string, opts ...Option) (*Server, error) {
	file, src, here, err := openFile(path, nil)
	if err != nil {
		return nil, err
	}
	l, err := newLoader(path, src, append([]Option{here}, opts...))
	if err != nil {
		return nil, err
	}
	if root := l.root(); root != nil {
		if key, n := (section{"", root}).get("server"); n != nil {
			l.server(key, n)
		}
	}
	if found := l.problems.sorted(); len(found) > 0 {
		return nil, &Error{Problems: found, Files: []File{file}}
	}
	return l.config.Server, nil
}

// server reads the section server.
func (l *loader) server(key string, n *node) {
	s, ok := l.section(key, n, serverKeys)
	if !ok {
		return
	}
	server := &Server{Listen: DefaultListen, Token: l.token(s), Probe: l.address(s, "probe")}
	l.config.Server = server
	if _, n := s.get("listen"); n != nil {
		server.Listen = l.address(s, "listen")
	}
	if key, n := s.get("tls"); n != nil {
		server.TLS = l.serverTLS(key, n)
	}
	if _, port, err := net.SplitHostPort(server.Probe); err == nil && port != "0" && server.Probe == server.Listen {
		key, n := s.get("probe")
		l.fail(key, n, "give one of them another port", "the same address as server.listen")
	}
	if key, n := s.get("listen"); n != nil && server.Listen != "" && !loopback(server.Listen) {
		_, tls := s.get("tls")
		_, token := s.get("token")
		missing := ""
		switch {
		case tls == nil && token == nil:
			missing = "server.tls and server.token"
		case tls == nil:
			missing = "server.tls"
		case token == nil:
			missing = "server.token"
		default:
			return
		}
		l.fail(key, n, "listen on 127.0.0.1, or add "+missing, "other machines reach this address: that takes TLS and a token")
	}
}

// address reads a host:port.
func (l *loader) address(s section, name string) string {
	key, n := s.get(name)
	if n == nil {
		return ""
	}
	value := l.optionalText(s, name)
	if value == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(value)
	number, notANumber := strconv.Atoi(port)
	switch {
	case err == nil && notANumber == nil && number >= 0 && number <= 65535:
		return value
	case value != n.value:
		l.wantReferred(key, n, "host:port")
	default:
		l.fail(key, n, `write "127.0.0.1:9464"`, "want host:port")
	}
	return ""
}

// token reads the token, which may only be referred to.
func (l *loader) token(s section) filterd.Secret {
	key, n := s.get("token")
	token := l.secret(s, "token", "a token")
	if token == "" {
		return ""
	}
	for _, c := range []byte(token.Reveal()) {
		if c <= ' ' || c >= 0x7F {
			l.fail(key, n, "make one with: openssl rand -hex 32", "a token is of ASCII letters, digits and signs")
			return ""
		}
	}
	if len(token.Reveal()) < minToken {
		l.fail(key, n, "make one with: openssl rand -hex 32", "a token has at least %d characters", minToken)
		return ""
	}
	return token
}

// serverTLS reads the server's certificate, and whether it fits its key.
func (l *loader) serverTLS(key string, n *node) *ServerTLS {
	s, ok := l.section(key, n, serverTLSKeys)
	if !ok {
		return nil
	}
	before := len(l.problems.list)
	t := &ServerTLS{Cert: l.pem(s, "cert"), Key: l.pem(s, "key")}
	switch {
	case len(l.problems.list) > before:
	case t.Cert == "" || t.Key == "":
		l.fail(key, n, "", "want cert and key")
	default:
		if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
			l.fail(key, n, "", "%v", err)
		}
	}
	return t
}

// pem reads the name of a PEM file.
func (l *loader) pem(s section, name string) string {
	path := l.optionalText(s, name)
	if path == "" {
		return ""
	}
	_, err := l.regularFile(path, maxSize)
	if key, n := s.get(name); err != nil && path != n.value {
		l.wantReferred(key, n, "the path of a file")
	} else if err != nil {
		l.fail(key, n, "", "%v", err)
	}
	return l.file(path)
}

// secret reads what may only be referred to.
func (l *loader) secret(s section, name, what string) filterd.Secret {
	key, n := s.get(name)
	if n == nil {
		return ""
	}
	if n.kind == scalarNode && !n.blank() && !strings.Contains(n.value, "${") {
		l.fail(key, n, "write ${VARIABLE} or ${file:path}", "%s may not stand in the file", what)
		return ""
	}
	return filterd.Secret(l.optionalText(s, name))
}
