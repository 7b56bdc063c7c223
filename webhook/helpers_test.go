package webhook

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/filterd/filterd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Keys, as an operator would make them.
const (
	oldKey   = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	newKey   = "C2FVsBQIhrscChlQIMV+b5sSYspob7oDiQ=="
	otherKey = "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVy"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// endpoint makes an endpoint that the test closes.
func endpoint(t testing.TB, o Options) *Endpoint {
	t.Helper()
	if o.Name == "" {
		o.Name = "ops"
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func message(payload string) *filterd.Message {
	return &filterd.Message{Channel: "in", Payload: []byte(payload)}
}

// A pipeNet is a network of pipes: it stands still while a bubble of
// testing/synctest looks at it, as sockets do not.
type pipeNet struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	dialed int
	mu     sync.Mutex // guards dialed
}

func (p *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeNet) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipeNet) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443} }

func (p *pipeNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.accept <- theirs:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dialed++
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipeNet) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialed
}

// inBubble makes an endpoint whose server is in the same bubble. The caller
// must call stop at its end.
func inBubble(t *testing.T, o Options, handler http.HandlerFunc) (e *Endpoint, network *pipeNet, stop func()) {
	t.Helper()
	network = &pipeNet{accept: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(network) })
	o.Name, o.URL, o.Allow = "ops", "http://ops.test/hook", loopback
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	e.link.transport.DialContext = network.dial
	return e, network, func() {
		e.Close()
		_ = server.Close()
		serving.Wait()
		time.Sleep(time.Minute) // connections end
	}
}
