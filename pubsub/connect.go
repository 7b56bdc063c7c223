package pubsub

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// The modes in which Redis runs.
const (
	ModeSingle   = "single"   // one server
	ModeSentinel = "sentinel" // the master of a group that sentinels watch
	ModeCluster  = "cluster"  // Redis Cluster
)

// The ports that addresses without one get.
const (
	defaultPort         = 6379
	defaultSentinelPort = 26379
)

// dialTimeout bounds connecting, TLS handshake included.
const dialTimeout = 5 * time.Second

// Options says where Redis is and how to log in. The zero value is one server
// on localhost:6379, without a login.
type Options struct {
	// URL is redis://[user[:password]@]host[:port][/db], rediss:// for TLS,
	// or unix:///path/to/socket. The fields below overrule its parts; Addrs
	// and Host can't be given with it.
	URL filterd.Secret
	// Mode is ModeSingle, ModeSentinel or ModeCluster. Default ModeSingle.
	Mode string
	// Addrs are host:port addresses: the server, the sentinels, or some nodes
	// of the cluster. An address that starts with / is a Unix socket.
	Addrs []string
	// Host and Port are another way to give one address. Default localhost,
	// and 6379, or 26379 for a sentinel.
	Host string
	Port int
	// Master is the name under which the sentinels know the master. Required
	// in ModeSentinel, and for it only.
	Master string
	// DB is the database's number. Pub/sub doesn't depend on it. A Cluster
	// has only 0.
	DB int
	// Username and Password log in to the server. A username needs a
	// password; a password alone is the default user's.
	Username string
	Password filterd.Secret
	// SentinelUsername and SentinelPassword log in to the sentinels.
	SentinelUsername string
	SentinelPassword filterd.Secret
	// TLS encrypts the connections. Default: only with a rediss:// URL, and
	// then as the zero TLS says.
	TLS *TLS
	// ClientName is what CLIENT LIST shows. Default none.
	ClientName string
}

// TLS says how connections are encrypted and who is trusted.
type TLS struct {
	// CA is a PEM file with the certificates that are trusted. Default: those
	// of the system.
	CA string
	// Cert and Key are PEM files that show who the client is. Default: it
	// shows nothing.
	Cert, Key string
	// ServerName is the name that the server's certificate must hold. Default:
	// the host of the address.
	ServerName string
}

// ErrUnreachable is matched by errors of [Connect], and of [Source.Run] and
// [Subscriber.Run] with FailFast: Redis is not there, or doesn't let this
// client in.
var ErrUnreachable = errors.New("redis is unreachable")

// Connect makes a client and checks with one PING that Redis answers. The
// error lists everything that is wrong with the options, or matches
// [ErrUnreachable]; it names the address and shows no password. The caller
// closes the client.
func Connect(ctx context.Context, options Options) (redis.UniversalClient, error) {
	rdb, err := options.Client()
	if err != nil {
		return nil, err
	}
	if err := rdb.Ping(ctx).Err(); err != nil {
		_ = rdb.Close() // the other error matters
		return nil, &unreachableError{addr: options.address(), err: err}
	}
	return rdb, nil
}

// Client makes a client without connecting it, for programs that start before
// Redis does. The error lists everything that is wrong with the options. The
// client doesn't retry: a repeated PUBLISH would be a duplicate. Only in a
// Cluster does go-redis repeat commands when a node fails, and those of this
// package not even then. The caller closes the client.
func (o Options) Client() (redis.UniversalClient, error) {
	universal, err := o.resolve()
	if err != nil {
		return nil, fmt.Errorf("redis options: %w", err)
	}
	rdb := redis.NewUniversalClient(universal)
	followSlots(rdb)
	return rdb, nil
}

// address returns where valid options lead, for errors.
func (o Options) address() string {
	u, err := o.resolve()
	if err != nil {
		return "unknown address"
	}
	addr := strings.Join(u.Addrs, ",")
	if o.Mode == ModeSentinel {
		return fmt.Sprintf("the master %q of sentinels %s", o.Master, addr)
	}
	return addr
}

// resolve checks the options and turns them into those of go-redis.
func (o Options) resolve() (*redis.UniversalOptions, error) {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	u := &redis.UniversalOptions{
		Protocol:              2,  // nothing here needs RESP3, and go-redis has lost its pushes before
		MaxRetries:            -1, // a retried PUBLISH is a duplicate
		DialerRetries:         1,  // those who reconnect have a backoff of their own
		DialTimeout:           dialTimeout,
		ContextTimeoutEnabled: true,
		ClientName:            o.ClientName,
		DB:                    o.DB,
		Username:              o.Username,
		Password:              o.Password.Reveal(),
		MasterName:            o.Master,
		SentinelUsername:      o.SentinelUsername,
		SentinelPassword:      o.SentinelPassword.Reveal(),
		IsClusterMode:         o.Mode == ModeCluster,
	}

	switch o.Mode {
	case "", ModeSingle, ModeSentinel, ModeCluster:
	default:
		refuse("mode %q: want single, sentinel or cluster", o.Mode)
	}

	if o.URL != "" {
		base, err := parseURL(o.URL.Reveal())
		if err != nil {
			errs = append(errs, err)
		} else {
			u.Addrs = []string{base.Addr}
			u.Username = cmp.Or(u.Username, base.Username)
			u.Password = cmp.Or(u.Password, base.Password)
			u.DB = cmp.Or(u.DB, base.DB)
			u.TLSConfig = base.TLSConfig
		}
		if len(o.Addrs) > 0 || o.Host != "" || o.Port != 0 {
			refuse("url: can't be given together with addrs, host or port")
		}
	} else if len(o.Addrs) > 0 {
		if o.Host != "" || o.Port != 0 {
			refuse("addrs: can't be given together with host or port")
		}
		for _, addr := range o.Addrs {
			if !isAddress(addr) {
				refuse("address %q: want host:port", addr)
			}
		}
		u.Addrs = o.Addrs
	} else {
		if o.Port < 0 || o.Port > 65535 {
			refuse("port %d: want 1 to 65535", o.Port)
		}
		port := defaultPort
		if o.Mode == ModeSentinel {
			port = defaultSentinelPort
		}
		u.Addrs = []string{net.JoinHostPort(cmp.Or(o.Host, "localhost"), strconv.Itoa(cmp.Or(o.Port, port)))}
	}

	single := o.Mode == "" || o.Mode == ModeSingle
	if single && len(o.Addrs) > 1 {
		refuse("addrs: %d addresses need mode sentinel or cluster", len(o.Addrs))
	}
	if o.Mode == ModeSentinel && o.Master == "" {
		refuse("master: mode sentinel needs the master's name")
	}
	if o.Mode != ModeSentinel {
		if o.Master != "" {
			refuse("master: only mode sentinel has one")
		}
		if o.SentinelUsername != "" || o.SentinelPassword != "" {
			refuse("sentinel login: only mode sentinel has one")
		}
	}
	if u.DB < 0 {
		refuse("db %d: want 0 or more", u.DB)
	}
	if o.Mode == ModeCluster && u.DB > 0 {
		refuse("db %d: a cluster has only database 0", u.DB)
	}
	// go-redis would log in as nobody, and thus as the default user.
	if u.Username != "" && u.Password == "" {
		refuse("username %q: needs a password", u.Username)
	}
	if u.SentinelUsername != "" && u.SentinelPassword == "" {
		refuse("sentinel username %q: needs a password", u.SentinelUsername)
	}
	if o.TLS != nil {
		config, err := o.TLS.config()
		if err != nil {
			errs = append(errs, err)
		} else {
			u.TLSConfig = config
		}
	} else if u.TLSConfig != nil {
		u.TLSConfig.ServerName = "" // that of the address dialled, which a cluster or sentinel names
	}
	if u.TLSConfig != nil {
		// The dialer of go-redis doesn't heed the context with TLS.
		dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: u.TLSConfig}
		u.Dialer = dialer.DialContext
	}
	return u, errors.Join(errs...)
}

// parseURL parses a URL without ever showing it: it may hold a password, and
// one that isn't escaped may turn up in any of its parts.
func parseURL(text string) (*redis.Options, error) {
	parsed, err := url.Parse(text)
	if err == nil && parsed.RawQuery != "" {
		return nil, errors.New("url: parameters after ? are not supported")
	}
	options, err := redis.ParseURL(text)
	if err != nil {
		return nil, errors.New("url: want redis://[user[:password]@]host[:port][/db], rediss:// for TLS, or unix:///path; special characters of a password are %-encoded")
	}
	return options, nil
}

func isAddress(addr string) bool {
	if strings.HasPrefix(addr, "/") {
		return true
	}
	_, port, err := net.SplitHostPort(addr)
	number, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && number > 0
}

// config loads the files.
func (t *TLS) config() (*tls.Config, error) {
	var errs []error
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		config.RootCAs = x509.NewCertPool()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("tls ca: %w", err))
		case !config.RootCAs.AppendCertsFromPEM(text):
			errs = append(errs, fmt.Errorf("tls ca: no certificate in %s", t.CA))
		}
	}
	switch {
	case t.Cert != "" && t.Key != "":
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("tls cert: %w", err))
		}
		config.Certificates = []tls.Certificate{pair}
	case t.Cert != "":
		errs = append(errs, errors.New("tls cert: needs a key"))
	case t.Key != "":
		errs = append(errs, errors.New("tls key: needs a cert"))
	}
	return config, errors.Join(errs...)
}
