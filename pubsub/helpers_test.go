package pubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// patience is how long something may take that has to happen.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	LogClients(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// client makes a client of a server, which ends with the test.
func client(t testing.TB, addr string) redis.UniversalClient {
	t.Helper()
	return clientWith(t, Options{Addrs: []string{addr}})
}

func clientWith(t testing.TB, options Options) redis.UniversalClient {
	t.Helper()
	rdb, err := options.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// deadline returns a context for what has to happen.
func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A log collects what is logged.
type log struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// A recorder is a source's handler that writes down what it gets.
type recorder struct {
	mu       sync.Mutex // guards what follows
	messages []string   // "channel payload" or "channel<pattern payload"
	batches  []int      // their sizes
	gaps     []filterd.Gap
	block    chan struct{} // if not nil, Messages waits for it to close
	entered  int           // calls of Messages begun
}

func (r *recorder) Messages(_ context.Context, batch []*filterd.Message) {
	r.mu.Lock()
	block := r.block
	r.entered++
	r.mu.Unlock()
	if block != nil {
		<-block
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, len(batch))
	for _, m := range batch {
		name := m.Channel
		if m.Sharded {
			name = "sharded " + name
		}
		if m.Pattern != "" {
			name += "<" + m.Pattern
		}
		if m.Received.IsZero() {
			name += " never received"
		}
		r.messages = append(r.messages, name+" "+string(m.Payload))
	}
}

func (r *recorder) Gap(gap filterd.Gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gaps = append(r.gaps, gap)
	r.messages = append(r.messages, "gap "+strings.Join(gap.Channels, ","))
}

func (r *recorder) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

func (r *recorder) lastGap() filterd.Gap {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gaps[len(r.gaps)-1]
}

// want waits until the recorder has exactly these messages and gaps.
func (r *recorder) want(t testing.TB, want ...string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for len(r.got()) < len(want) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if got := r.got(); !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// run runs a source or subscriber until the test ends or the returned function
// is called, which returns Run's error.
func run(t testing.TB, do func(ctx context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	ended := make(chan struct{})
	go func() { // ends with ctx
		err = do(ctx)
		close(ended)
	}()
	stop = func() error {
		cancel()
		select {
		case <-ended:
			return err
		case <-time.After(patience):
			return errors.New("Run does not return")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return stop
}

// ready waits for subscriptions.
func ready(t testing.TB, waiter interface{ WaitReady(context.Context) error }) {
	t.Helper()
	if err := waiter.WaitReady(deadline(t)); err != nil {
		t.Fatal(err)
	}
}

// say publishes and checks how many received it.
func say(t testing.TB, s *redistest.Server, channel, payload string, receivers int) {
	t.Helper()
	if got := s.Do("PUBLISH", channel, payload); got != fmt.Sprint(receivers) {
		t.Fatalf("PUBLISH %s: got %s receivers, want %d", channel, got, receivers)
	}
}

func wantError(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got error:\n%v\nwant:\n%s", err, want)
	}
}
