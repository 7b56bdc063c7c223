package pubsub

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/filterd/filterd/internal/resp"
	"github.com/redis/go-redis/v9"
)

// A transport carries a source's commands to Redis, and what comes back. One
// goroutine sends and closes, another one fills and takes; closing ends a fill.
type transport interface {
	// send sends a command. The answers come to next.
	send(name string, args ...string) error
	// ready reports whether fill would not wait. It may say no where it would
	// not.
	ready() bool
	// fill waits for something to come. It ends the life of what next
	// returned.
	fill() error
	// next returns a frame that has come, if there is one.
	next(f *resp.Frame) (bool, error)
	close() error
}

// besides is what a frame may have beside a message of the largest size, names
// above all, in bytes.
const besides = 64 << 10

// connect opens a transport for messages of at most maxMessage bytes and sends
// a PING. A client of one server, or of a Sentinel's master, lends what it takes
// to dial; others are read through.
func connect(ctx context.Context, rdb redis.UniversalClient, maxMessage int) (transport, error) {
	if c, ok := rdb.(*redis.Client); ok {
		w, err := dial(ctx, c)
		if err != nil {
			return nil, err
		}
		w.Reader = resp.NewReader(w.conn, readBuffer, maxMessage+besides)
		return w, w.send("PING")
	}
	r := newRelayed(rdb.Subscribe(ctx)) // without channels: it doesn't connect yet
	if err := r.pubsub.Ping(ctx); err != nil {
		_ = r.pubsub.Close()
		return nil, err
	}
	go r.run() // ends when the connection is closed; close waits for it
	return r, nil
}

// readBuffer is how much is read at once, in bytes.
const readBuffer = 256 << 10

// A wire is a connection that go-redis has dialled and logged in, and that is
// ours since.
type wire struct {
	*resp.Reader
	conn    net.Conn
	peek    *peeker       // whether conn has something
	client  *redis.Client // that dialled; it has this connection only
	timeout time.Duration // of a write; 0 is none
	out     []byte        // the command that is sent
}

// dial dials as a client does, login and all, and takes the connection.
func dial(ctx context.Context, rdb *redis.Client) (*wire, error) {
	options := *rdb.Options()
	var kept keptConn
	options.Dialer = kept.wrap(options.Dialer)
	options.Protocol, options.MaxRetries, options.DialerRetries = 2, -1, 1
	options.PoolSize, options.MinIdleConns, options.MaxIdleConns, options.MaxActiveConns = 1, 0, 0, 0
	options.PipelinePoolSize, options.AutoPipelineOptions = -1, nil
	options.PushNotificationProcessor, options.ClientSideCache, options.ClientSideCacheConfig = nil, nil, nil

	w := &wire{client: redis.NewClient(&options), timeout: max(0, options.WriteTimeout)}
	err := w.client.Conn().Ping(ctx).Err() // the Conn is never given back: nobody else uses it
	if redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "unknown command") {
		err = nil // answers, too
	}
	if w.conn = kept.get(); err == nil && w.conn == nil {
		err = errors.New("the client's dialer was not asked")
	}
	if err == nil {
		err = w.conn.SetDeadline(time.Time{}) // go-redis has left some
	}
	if err != nil {
		_ = w.close() // the other error matters
		return nil, err
	}
	w.peek = newPeeker(w.conn)
	return w, nil
}

func (w *wire) send(name string, args ...string) error {
	w.out = resp.AppendCommand(w.out[:0], name, args...)
	if w.timeout > 0 {
		if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
			return err
		}
	}
	_, err := w.conn.Write(w.out)
	return err
}

func (w *wire) ready() bool                      { return !w.peek.quiet() }
func (w *wire) fill() error                      { return w.Fill() }
func (w *wire) next(f *resp.Frame) (bool, error) { return w.Next(f) }

func (w *wire) close() error {
	var err error
	if w.conn != nil {
		err = w.conn.Close()
	}
	_ = w.client.Close() // which has nothing else to close
	return err
}

// A keptConn is the last connection that a dialer has made. Go-redis dials on
// a goroutine of its own.
type keptConn struct {
	mu   sync.Mutex // guards conn
	conn net.Conn
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

func (k *keptConn) wrap(dial dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err == nil {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.conn = conn
		}
		return conn, err
	}
}

func (k *keptConn) get() net.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.conn
}

// offline is a context that has ended. Receive and the commands of a
// redis.PubSub ignore that while they have a connection; but when it breaks,
// it keeps them from dialling another one on their own, which would only be
// closed again.
var offline = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// isClosed reports whether a client was closed. A wire doesn't notice.
func isClosed(rdb redis.UniversalClient) bool {
	c, ok := rdb.(*redis.Client)
	return ok && errors.Is(c.Ping(offline).Err(), redis.ErrClosed)
}
