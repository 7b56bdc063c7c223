package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"mime"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
)

// Bounds of what strangers may ask of a server.
const (
	maxAdminConns  = 64 // at a time; others wait in the system's queue
	maxAdminHeader = 16 << 10
	maxAdminBody   = 4 << 20
	adminPatience  = 10 * time.Second // for a request to arrive
	adminAnswer    = 30 * time.Second // for an answer to be taken
)

// guard lets a request through to a route if it may pass. A page in a browser
// must not be able to talk to a server of the same machine: so the Host must be
// ours, since a name can be made to lead here; and the Origin, if there is one.
// There are no cookies, and other origins are told nothing.
func (a *admin) guard(route *adminRoute, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(adminAnswer))
		status, text := a.refusal(route, r)
		if status == 0 {
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
			next.ServeHTTP(w, r)
			return
		}
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="filterd"`)
		}
		w.Header().Set("Connection", "close") // there may be a body, which nobody wants
		if suppressed, ok := a.refusals.Allow(); ok {
			a.logger.Warn("request refused", "from", r.RemoteAddr, "method", r.Method, "path", shorten(r.URL.Path, 200), "status", status, "reason", text, "suppressed", suppressed)
		}
		writeError(w, status, text)
	})
}

// refusal says why a request may not pass; 0 if it may. The route is nil if
// there is none.
func (a *admin) refusal(route *adminRoute, r *http.Request) (status int, text string) {
	if !a.ours(r) {
		return http.StatusForbidden, "the Host header names another server: use localhost, the address that filterd listens on, or a name of its certificate"
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != scheme(r)+r.Host {
		return http.StatusForbidden, "pages of other origins may not ask"
	}
	if a.open && (route == nil || !route.public) || route != nil && route.token {
		switch given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); {
		case a.token() == "":
			return http.StatusForbidden, "this needs a token, and the config file has none: set server.token"
		case !ok:
			return http.StatusUnauthorized, "this needs the token of server.token: send Authorization: Bearer TOKEN"
		case !same(given, a.token()):
			return http.StatusUnauthorized, "the token is wrong"
		}
	}
	if r.Method == http.MethodPost {
		if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
			return http.StatusUnsupportedMediaType, "want Content-Type: application/json"
		}
	}
	if r.ContentLength > maxAdminBody {
		return http.StatusRequestEntityTooLarge, tooLarge
	}
	return 0, ""
}

const tooLarge = "the body is over the limit of 4 MiB"

// token returns the token of the current config file: it can be changed by a
// reload.
func (a *admin) token() filterd.Secret {
	if s := a.config().Server; s != nil {
		return s.Token
	}
	return ""
}

// same compares in a time that tells nothing of the token.
func same(given string, token filterd.Secret) bool {
	g, t := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token.Reveal()))
	return subtle.ConstantTimeCompare(g[:], t[:]) == 1
}

// ours reports whether a request was meant for this server: for this machine,
// the address that it came to, or a name that the certificate vouches for.
func (a *admin) ours(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if ip := net.ParseIP(host); ip != nil {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if ip.IsLoopback() || local != nil && ip.Equal(local.IP) {
			return true
		}
	}
	if r.TLS == nil || a.certificate == nil {
		return false
	}
	certificate, err := a.certificate.get(nil)
	return err == nil && certificate.Leaf != nil && certificate.Leaf.VerifyHostname(host) == nil
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https://"
	}
	return "http://"
}

// A certificate is a server's, as its files are. Safe for concurrent use.
type certificate struct {
	files config.ServerTLS

	mu    sync.Mutex // guards what follows
	pair  *tls.Certificate
	stamp [2]stamp // of the files that pair was read from
}

// get returns the certificate. It looks whether the files have changed; while
// they are no pair, the last one holds.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var now [2]stamp
	for i, path := range []string{c.files.Cert, c.files.Key} {
		if info, err := os.Stat(path); err == nil {
			now[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	if c.pair != nil && now == c.stamp {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err == nil {
		c.pair, c.stamp = &pair, now
	} else if c.pair == nil {
		return nil, err
	}
	return c.pair, nil
}

// A boundedListener accepts so many connections at a time, so that strangers
// can't take all the memory and files of the process.
type boundedListener struct {
	net.Listener
	slots chan struct{}
}

func newBoundedListener(l net.Listener) *boundedListener {
	return &boundedListener{l, make(chan struct{}, maxAdminConns)}
}

// Accept implements [net.Listener].
func (l *boundedListener) Accept() (net.Conn, error) {
	l.slots <- struct{}{} // connections end in time, each of them
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &boundedConn{Conn: conn, done: sync.OnceFunc(func() { <-l.slots })}, nil
}

type boundedConn struct {
	net.Conn
	done func()
}

// Close implements [net.Conn].
func (c *boundedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
