package config

import (
	"errors"
	"net/url"
	"strings"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/pubsub"
)

// redis reads the section redis. What fits together is pubsub's to say.
func (l *loader) redis(key string, n *node) {
	s, ok := l.section(key, n, redisKeys)
	if !ok {
		return
	}
	before := len(l.problems.list)
	o := &l.config.Redis
	o.URL = l.redisURL(s)
	if key, n := s.get("mode"); n != nil {
		o.Mode, _ = l.oneOf(key, n, redisModes...)
	}
	if key, n := s.get("addrs"); n != nil {
		if n.kind == listNode {
			o.Addrs, _, _ = l.texts(key, n, "a list of host:port")
		} else {
			l.want(key, n, "", "a list of host:port")
		}
	}
	o.Host = l.optionalText(s, "host")
	if key, n := s.get("port"); n != nil {
		o.Port, _ = l.integer(key, n, 1, 65535)
	}
	o.Master = l.optionalText(s, "master")
	if key, n := s.get("db"); n != nil {
		o.DB, _ = l.integer(key, n, 0, 1<<30)
	}
	o.Username = l.optionalText(s, "username")
	o.Password = l.secret(s, "password", "a password")
	o.SentinelUsername = l.optionalText(s, "sentinel_username")
	o.SentinelPassword = l.secret(s, "sentinel_password", "a password")
	if key, n := s.get("max_message"); n != nil {
		switch size := l.byteSize(key, n); {
		case size >= filterd.DefaultMaxSize:
			l.config.MaxMessage = size
		case size > 0:
			l.fail(key, n, "", "want a size from %s to %s: channels have a max_size of %[1]s by default", sizeText(filterd.DefaultMaxSize), sizeText(maxMaxSize))
		}
	}
	if key, n := s.get("tls"); n != nil {
		o.TLS = l.tls(key, n)
	}
	if len(l.problems.list) > before || l.problems.more > 0 {
		return
	}
	client, err := o.Client() // checks, and connects to nothing
	if err == nil {
		client.Close()
		return
	}
	for _, err := range unjoin(errors.Unwrap(err)) {
		l.redisError(s, err)
	}
}

// redisError reports what pubsub says about the options, at the key it speaks
// of.
func (l *loader) redisError(s section, err error) {
	message := err.Error()
	for _, at := range [...]struct{ prefix, key string }{
		{"url", "url"}, {"addrs", "addrs"}, {"address", "addrs"}, {"port", "port"}, {"master", "master"}, {"db", "db"},
		{"sentinel login", "sentinel_username"}, {"sentinel login", "sentinel_password"}, {"sentinel username", "sentinel_username"},
		{"username", "username"}, {"tls ca", "tls.ca"}, {"tls cert", "tls.cert"}, {"tls key", "tls.key"}, {"tls", "tls"},
	} {
		if !strings.HasPrefix(message, at.prefix) {
			continue
		}
		n := s.node
		for name := range strings.SplitSeq(at.key, ".") {
			if n != nil {
				n = n.get(name)
			}
		}
		if n != nil {
			key := s.key + "." + at.key
			l.fail(key, n, "", "%s", l.conceal(detail(message), key, n))
			return
		}
	}
	l.fail(s.key, s.node, "", "%s", message)
}

// detail cuts off which option a message of pubsub's is about, unless that is
// one of several addresses.
func detail(message string) string {
	if _, rest, ok := strings.Cut(message, ": "); ok && !strings.HasPrefix(message, "address") {
		return rest
	}
	return message
}

func (l *loader) redisURL(s section) filterd.Secret {
	key, n := s.get("url")
	if n == nil {
		return ""
	}
	if u, err := url.Parse(n.value); err == nil && u.User != nil {
		if password, _ := u.User.Password(); password != "" && !strings.Contains(password, "${") {
			l.fail(key, n, "put it into ${VARIABLE} or ${file:path}", "a password may not stand in the file")
			return ""
		}
	}
	return filterd.Secret(l.optionalText(s, "url"))
}

func (l *loader) tls(key string, n *node) *pubsub.TLS {
	s, ok := l.section(key, n, tlsKeys)
	if !ok {
		return nil
	}
	return &pubsub.TLS{CA: l.pem(s, "ca"), Cert: l.pem(s, "cert"), Key: l.pem(s, "key"), ServerName: l.optionalText(s, "server_name")}
}
