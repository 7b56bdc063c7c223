package pubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// A collector is a callback that writes down what it gets.
type collector struct {
	mu       sync.Mutex // guards messages
	messages []string
}

func (c *collector) take(_ context.Context, m *filterd.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages = append(c.messages, m.Channel+" "+string(m.Payload))
	return nil
}

func (c *collector) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.messages)
}

func (c *collector) want(t testing.TB, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(c.got()) < len(want) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if got := c.got(); !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// expensive keeps messages with a price above 100.
var expensive = filterd.FilterFunc(func(m *filterd.Message) (bool, error) {
	data, err := m.Data()
	if err != nil {
		return false, err
	}
	object, ok := data.(map[string]any)
	if !ok {
		return false, errors.New("data is no object")
	}
	price, _ := object["price"].(float64)
	return price > 100, nil
})

func newSubscriber(t testing.TB, server *redistest.Server, registry *filterd.Registry, options SubscriberOptions) *Subscriber {
	t.Helper()
	if options.Logger == nil {
		options.Logger = (&log{}).logger()
	}
	return NewSubscriber(client(t, server.Addr), registry, options)
}

func handle(t testing.TB, s *Subscriber, channel string, where filterd.Filter, callback Callback) {
	t.Helper()
	if err := s.Handle(channel, where, callback); err != nil {
		t.Fatal(err)
	}
}

// counts returns a handler's counters in one line.
func counts(s *Subscriber, i int) string {
	h := s.Stats().Handlers[i]
	var invalid []string
	for _, reason := range slices.Sorted(maps.Keys(h.Invalid)) {
		if h.Invalid[reason] > 0 {
			invalid = append(invalid, fmt.Sprintf(" %s=%d", reason, h.Invalid[reason]))
		}
	}
	return fmt.Sprintf("%s: received=%d%s matched=%d dropped=%d errors=%d panics=%d",
		h.Channel, h.Received, strings.Join(invalid, ""), h.Matched, h.Dropped, h.Errors, h.Panics)
}

func TestSubscriber(t *testing.T) {
	server := redistest.Start(t)
	s := newSubscriber(t, server, nil, SubscriberOptions{})
	var all, some, globs collector
	handle(t, s, "prices", nil, all.take)
	handle(t, s, "prices", expensive, some.take)
	handle(t, s, "pri*", expensive, globs.take)
	run(t, s.Run)
	ready(t, s)
	say(t, server, "prices", `{"price":1}`, 2) // two subscriptions
	say(t, server, "prices", `{"price":200}`, 2)
	say(t, server, "private", `{"price":300}`, 1)
	say(t, server, "prices", `[]`, 2) // an error of the filters
	say(t, server, "prices", `{"price":400}`, 2)
	all.want(t, `prices {"price":1}`, `prices {"price":200}`, `prices []`, `prices {"price":400}`)
	some.want(t, `prices {"price":200}`, `prices {"price":400}`)
	globs.want(t, `prices {"price":200}`, `private {"price":300}`, `prices {"price":400}`)
	for i, want := range []string{
		"prices: received=4 matched=4 dropped=0 errors=0 panics=0",
		"prices: received=4 matched=2 dropped=0 errors=1 panics=0",
		"pri*: received=5 matched=3 dropped=0 errors=1 panics=0",
	} {
		if got := counts(s, i); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestSubscriberHandleErrors(t *testing.T) {
	s := NewSubscriber(nil, nil, SubscriberOptions{})
	wantError(t, s.Handle("", nil, nil), "handle \"\": no channel given\nno callback given")
	wantError(t, s.Handle("c", nil, nil), `handle "c": no callback given`)
}

func TestSubscriberWhileRunning(t *testing.T) {
	server := redistest.Start(t)
	s := newSubscriber(t, server, nil, SubscriberOptions{})
	run(t, s.Run)
	ready(t, s)
	var handlers [10]collector
	for i := range handlers {
		handle(t, s, fmt.Sprint("c", i), nil, handlers[i].take)
		ready(t, s)
		for j := range i + 1 {
			say(t, server, fmt.Sprint("c", j), fmt.Sprint(i), 1)
		}
	}
	for j := range handlers {
		var want []string
		for i := j; i < len(handlers); i++ {
			want = append(want, fmt.Sprintf("c%d %d", j, i))
		}
		handlers[j].want(t, want...)
	}
}

func TestSubscriberInvalid(t *testing.T) {
	server := redistest.Start(t)
	var mu sync.Mutex // guards invalid
	var invalid []string
	logged := &log{}
	s := newSubscriber(t, server, prices(t), SubscriberOptions{
		Logger: logged.logger(),
		OnInvalid: func(m *filterd.Message, err *filterd.ValidationError) {
			mu.Lock()
			defer mu.Unlock()
			invalid = append(invalid, m.Channel+": "+string(err.Reason))
		},
	})
	var exact, first, second collector
	handle(t, s, "PRICE_DATA", nil, exact.take)
	handle(t, s, "PRICE*", nil, first.take)
	handle(t, s, "raw.*", nil, second.take)
	handle(t, s, "raw?x", nil, second.take)
	run(t, s.Run)
	ready(t, s)
	const event = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":%s}`
	for _, payload := range []string{
		"{", `{"price":1}`, fmt.Sprintf(event, `{}`), strings.Repeat(" ", 1001), fmt.Sprintf(event, `{"symbol":"A","price":1}`),
	} {
		say(t, server, "PRICE_DATA", payload, 2)
	}
	say(t, server, "raw.x", "nothing", 2) // its contract validates no data, but it must be JSON
	say(t, server, "raw.x", "1", 2)
	valid := "PRICE_DATA " + fmt.Sprintf(event, `{"symbol":"A","price":1}`)
	exact.want(t, valid)
	first.want(t, valid)
	second.want(t, "raw.x 1", "raw.x 1")
	for i, want := range []string{
		"PRICE_DATA: received=5 envelope=1 malformed=1 schema=1 size=1 matched=1 dropped=0 errors=0 panics=0",
		"PRICE*: received=5 envelope=1 malformed=1 schema=1 size=1 matched=1 dropped=0 errors=0 panics=0",
		"raw.*: received=2 malformed=1 matched=1 dropped=0 errors=0 panics=0",
		"raw?x: received=2 malformed=1 matched=1 dropped=0 errors=0 panics=0",
	} {
		if got := counts(s, i); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// Once each, although every message came twice.
	if want := []string{"PRICE_DATA: malformed", "PRICE_DATA: envelope", "PRICE_DATA: schema", "PRICE_DATA: size", "raw.x: malformed"}; !slices.Equal(invalid, want) {
		t.Errorf("OnInvalid: got %q, want %q", invalid, want)
	}
	if got := strings.Count(logged.String(), `msg="invalid message" error="PRICE_DATA: malformed: not JSON: unexpected end of JSON input at byte 1"`); got != 1 {
		t.Errorf("logged %d times:\n%s", got, logged)
	}
}

// A callback owns its message.
func TestSubscriberMessagesAreOwned(t *testing.T) {
	server := redistest.Start(t)
	s := newSubscriber(t, server, nil, SubscriberOptions{})
	var mu sync.Mutex // guards messages
	var messages []*filterd.Message
	keep := func(_ context.Context, m *filterd.Message) error {
		mu.Lock()
		defer mu.Unlock()
		messages = append(messages, m)
		return nil
	}
	handle(t, s, "c", nil, keep)
	handle(t, s, "c", nil, keep)
	run(t, s.Run)
	ready(t, s)
	const count = 500
	for i := range count {
		say(t, server, "c", fmt.Sprintf(`"%03d"`, i), 1)
	}
	eventually(t, "all messages", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(messages) == 2*count
	})
	seen := make(map[string]int)
	for _, m := range messages {
		seen[string(m.Payload)]++
		m.Payload[1] = 'x'
	}
	for payload, times := range seen {
		if times != 2 {
			t.Errorf("%s came %d times", payload, times)
		}
	}
	if len(seen) != count {
		t.Errorf("got %d different payloads, want %d", len(seen), count)
	}
}

func TestSubscriberPanics(t *testing.T) {
	server := redistest.Start(t)
	logged := &log{}
	s := newSubscriber(t, server, nil, SubscriberOptions{Logger: logged.logger()})
	var other collector
	handle(t, s, "c", nil, func(_ context.Context, m *filterd.Message) error {
		if string(m.Payload) == `"panic"` {
			panic("boom")
		}
		return errors.New("no luck")
	})
	handle(t, s, "c", filterd.FilterFunc(func(*filterd.Message) (bool, error) { panic("bang") }), other.take)
	handle(t, s, "c", nil, other.take)
	run(t, s.Run)
	ready(t, s)
	say(t, server, "c", `"panic"`, 1)
	say(t, server, "c", `"error"`, 1)
	other.want(t, `c "panic"`, `c "error"`)
	for i, want := range []string{
		"c: received=2 matched=2 dropped=0 errors=1 panics=1",
		"c: received=2 matched=0 dropped=0 errors=0 panics=2",
		"c: received=2 matched=2 dropped=0 errors=0 panics=0",
	} {
		eventually(t, want, func() bool { return counts(s, i) == want })
	}
	for _, line := range []string{
		`level=ERROR msg="callback failed" channel=c error="panic: boom\ngoroutine `,
		`level=ERROR msg="filter failed" channel=c error="panic: bang\ngoroutine `,
	} {
		if strings.Count(logged.String(), line) != 1 {
			t.Errorf("log without one %q:\n%s", line, logged)
		}
	}
}

// A blocked callback stalls nobody else, and what it drops is counted exactly.
func TestSubscriberBlockedCallback(t *testing.T) {
	const queued, count = 10, 100
	for name, options := range map[string]SubscriberOptions{
		"messages": {QueueMessages: queued},
		"bytes":    {QueueBytes: queued * len(`"00"`)},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			s := newSubscriber(t, server, nil, options)
			entered, leave := make(chan struct{}), make(chan struct{})
			var once sync.Once
			var slow, quick collector
			handle(t, s, "c", nil, func(ctx context.Context, m *filterd.Message) error {
				once.Do(func() {
					close(entered)
					<-leave
				})
				return slow.take(ctx, m)
			})
			handle(t, s, "d", nil, quick.take)
			run(t, s.Run)
			ready(t, s)
			want := []string{`c "00"`}
			for i := range count {
				say(t, server, "c", fmt.Sprintf(`"%02d"`, i), 1)
				if i == 0 {
					<-entered
				}
				if i >= count-queued {
					want = append(want, fmt.Sprintf(`c "%02d"`, i))
				}
			}
			say(t, server, "d", "1", 1)
			quick.want(t, "d 1") // and, coming later, it has all the others behind it
			if got, want := counts(s, 0), fmt.Sprintf("c: received=%d matched=%[1]d dropped=%d errors=0 panics=0", count, count-1-queued); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			close(leave)
			slow.want(t, want...)
		})
	}
}

func TestSubscriberReconnects(t *testing.T) {
	server := redistest.Start(t)
	gaps := make(chan filterd.Gap, 10)
	s := newSubscriber(t, server, nil, SubscriberOptions{OnGap: func(gap filterd.Gap) { gaps <- gap }})
	var c collector
	handle(t, s, "c", nil, c.take)
	run(t, s.Run)
	ready(t, s)
	say(t, server, "c", "1", 1)
	c.want(t, "c 1")
	server.Restart()
	gap := <-gaps
	ready(t, s)
	say(t, server, "c", "2", 1)
	c.want(t, "c 1", "c 2")
	if stats := s.Stats(); stats.Gaps != 1 || stats.GapTime != gap.Length() || !slices.Equal(gap.Channels, []string{"c"}) {
		t.Errorf("got %+v and %+v", stats, gap)
	}
}

// Run ends when the callbacks have done what waits for them.
func TestSubscriberDrains(t *testing.T) {
	server := redistest.Start(t)
	s := newSubscriber(t, server, nil, SubscriberOptions{DrainTimeout: patience})
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var c, other collector
	handle(t, s, "c", nil, func(ctx context.Context, m *filterd.Message) error {
		once.Do(func() {
			close(entered)
			<-leave
		})
		if err := ctx.Err(); err != nil {
			return err
		}
		return c.take(ctx, m)
	})
	handle(t, s, "d", nil, other.take)
	stop := run(t, s.Run)
	ready(t, s)
	say(t, server, "c", "1", 1)
	<-entered
	say(t, server, "c", "2", 1)
	say(t, server, "d", "3", 1)
	other.want(t, "d 3") // so the 2 waits
	go func() {          // ends when the connection is closed, which is before Run ends
		for server.Do("PUBLISH", "d", "late") != "0" {
			runtime.Gosched()
		}
		close(leave)
	}()
	if err := stop(); err != nil {
		t.Error(err)
	}
	c.want(t, "c 1", "c 2")
}

// A callback that doesn't return is given up.
func TestSubscriberDrainIsBounded(t *testing.T) {
	server := redistest.Start(t)
	logged := &log{}
	s := newSubscriber(t, server, nil, SubscriberOptions{DrainTimeout: 50 * time.Millisecond, Logger: logged.logger()})
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	defer close(leave)
	var other collector
	handle(t, s, "c", nil, func(context.Context, *filterd.Message) error {
		entered <- struct{}{}
		<-leave
		return nil
	})
	handle(t, s, "c", nil, func(ctx context.Context, _ *filterd.Message) error {
		entered <- struct{}{}
		<-ctx.Done() // this one listens
		return ctx.Err()
	})
	handle(t, s, "c", nil, other.take)
	stop := run(t, s.Run)
	ready(t, s)
	say(t, server, "c", "1", 1)
	<-entered
	<-entered
	say(t, server, "c", "2", 1)
	other.want(t, "c 1", "c 2")
	if err := stop(); err != nil {
		t.Error(err)
	}
	for i, want := range []string{
		"c: received=2 matched=2 dropped=1 errors=0 panics=0",
		"c: received=2 matched=2 dropped=1 errors=1 panics=0",
		"c: received=2 matched=2 dropped=0 errors=0 panics=0",
	} {
		if got := counts(s, i); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if got := strings.Count(logged.String(), `level=ERROR msg="a callback doesn't return" channel=c`); got != 1 {
		t.Errorf("logged %d times:\n%s", got, logged)
	}
}

func TestSubscriberRunsAgain(t *testing.T) {
	server := redistest.Start(t)
	s := newSubscriber(t, server, nil, SubscriberOptions{})
	var c collector
	handle(t, s, "c", nil, c.take)
	var want []string
	for i := range 3 {
		stop := run(t, s.Run)
		ready(t, s)
		say(t, server, "c", fmt.Sprint(i), 1)
		want = append(want, fmt.Sprint("c ", i))
		c.want(t, want...)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	if stats := s.Stats(); stats.Gaps != 0 {
		t.Errorf("%d gaps, but nothing broke", stats.Gaps)
	}
}

func TestSubscriberUnreachable(t *testing.T) {
	server := redistest.Start(t)
	server.Stop()
	s := newSubscriber(t, server, nil, SubscriberOptions{FailFast: true})
	if err := s.Run(deadline(t)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}
