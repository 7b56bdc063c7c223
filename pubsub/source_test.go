package pubsub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/faultproxy"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// start runs a source with a recorder.
func start(t testing.TB, rdb redis.UniversalClient, options SourceOptions, names, globs []string) (*Source, *recorder, func() error) {
	t.Helper()
	if options.Logger == nil {
		options.Logger = (&log{}).logger()
	}
	s, r := NewSource(rdb, options), &recorder{}
	s.Subscribe(filterd.Subscriptions{Channels: names, Globs: globs})
	stop := run(t, func(ctx context.Context) error { return s.Run(ctx, r) })
	return s, r, stop
}

func TestSource(t *testing.T) {
	server := redistest.Start(t)
	for name, rdb := range map[string]redis.UniversalClient{
		"our client": client(t, server.Addr),
		// A client of the user's making: RESP3, retries, no context timeouts.
		"go-redis defaults": redis.NewClient(&redis.Options{Addr: server.Addr}),
		"somebody's own":    another{client(t, server.Addr)},
	} {
		t.Run(name, func(t *testing.T) {
			defer rdb.Close()
			// Names shorter than six bytes once hung in go-redis.
			s, r, stop := start(t, rdb, SourceOptions{}, []string{"a", "trade", "trades"}, []string{"p*"})
			ready(t, s)
			say(t, server, "a", "1", 1)
			say(t, server, "trade", "", 1)
			say(t, server, "trades", "x\x00\r\n", 1)
			say(t, server, "p", "2", 1)
			say(t, server, "other", "3", 0)
			r.want(t, "a 1", "trade ", "trades x\x00\r\n", "p<p* 2")
			if err := stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
			say(t, server, "a", "after the end", 0)
		})
	}
}

func TestSourceShortNames(t *testing.T) {
	server := redistest.Start(t)
	for size := 1; size <= 7; size++ {
		name := strings.Repeat("n", size)
		s, r, stop := start(t, client(t, server.Addr), SourceOptions{}, []string{name}, nil)
		ready(t, s)
		say(t, server, name, "m", 1)
		r.want(t, name+" m")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSourceSubscribeTellsTheDifference(t *testing.T) {
	server := redistest.Start(t)
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{}, nil, nil)
	ready(t, s) // with nothing
	for _, step := range []struct {
		names, globs []string
		commands     string // subscribe, unsubscribe, psubscribe, punsubscribe so far, with the one for probes
	}{
		{[]string{"a", "b"}, []string{"x.*"}, "2 0 1 0"},
		{[]string{"b", "a", "a"}, []string{"x.*"}, "2 0 1 0"},
		{[]string{"a", "c"}, []string{"x.*"}, "3 1 1 0"},
		{nil, []string{"y.*"}, "3 2 2 1"},
		{[]string{"a"}, nil, "4 2 2 2"},
	} {
		s.Subscribe(filterd.Subscriptions{Channels: step.names, Globs: step.globs})
		ready(t, s)
		got := fmt.Sprint(callsOf(server, "subscribe"), callsOf(server, "unsubscribe"), callsOf(server, "psubscribe"), callsOf(server, "punsubscribe"))
		if got != step.commands {
			t.Fatalf("%v %v: got %s commands, want %s", step.names, step.globs, got, step.commands)
		}
	}
	say(t, server, "a", "1", 1)
	say(t, server, "b", "2", 0)
	say(t, server, "x.1", "3", 0)
	r.want(t, "a 1")
}

func TestSourceBatches(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	s := NewSource(rdb, SourceOptions{Logger: (&log{}).logger()})
	r := &recorder{block: make(chan struct{})}
	s.Subscribe(filterd.Subscriptions{Channels: []string{"c"}})
	run(t, func(ctx context.Context) error { return s.Run(ctx, r) })
	ready(t, s)

	say(t, server, "c", "0", 1)
	eventually(t, "an idle source hands a message over at once", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.entered == 1
	})
	// While the handler is busy, more come than one batch takes.
	const count = 3000
	want := []string{"c 0"}
	pipeline := rdb.Pipeline()
	for i := 1; i <= count; i++ {
		payload := fmt.Sprint(i)
		if i%500 == 0 {
			payload += strings.Repeat("x", 2*readBuffer) // more than is read at once
		}
		pipeline.Publish(t.Context(), "c", payload)
		want = append(want, "c "+payload)
	}
	if _, err := pipeline.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(r.block)
	r.want(t, want...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if largest := slices.Max(r.batches); r.batches[0] != 1 || largest < 2 || largest > maxBatch {
		t.Errorf("batches: got %v, want 1, then up to %d", r.batches, maxBatch)
	}
}

func TestSourceReconnectsAfterKill(t *testing.T) {
	server := redistest.Start(t)
	logged := &log{}
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{Logger: logged.logger()}, []string{"b", "a"}, []string{"g*"})
	ready(t, s)
	say(t, server, "a", "before", 1)
	r.want(t, "a before")
	before := time.Now()
	server.Stop()
	eventually(t, "a failed attempt", func() bool { return strings.Contains(logged.String(), "no connection to redis") })
	gone, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.WaitReady(gone); !errors.Is(err, context.DeadlineExceeded) ||
		!strings.HasPrefix(err.Error(), `not subscribed to "a", "b", "g*" (`) {
		t.Errorf("WaitReady without a server: %v", err)
	}
	server.Restart()
	ready(t, s)
	say(t, server, "a", "after", 1)
	say(t, server, "g", "after", 1)
	r.want(t, "a before", "gap a,b,g*", "a after", "g<g* after")

	gap := r.lastGap()
	if gap.From.After(before) || gap.From.Before(before.Add(-patience)) || gap.To.Before(before) || gap.Length() <= 0 {
		t.Errorf("gap from %v to %v, but the server was killed at %v", gap.From, gap.To, before)
	}
	if gap.Reason != "the server closed the connection" && !strings.Contains(gap.Reason, "connection reset") {
		t.Errorf("gap's reason: %q", gap.Reason)
	}
	line := `level=WARN msg="messages may have been missed" length=` + gap.Length().String()
	if !strings.Contains(logged.String(), line) {
		t.Errorf("log without %q:\n%s", line, logged)
	}
}

func TestSourceReconnectsAfterClientKill(t *testing.T) {
	server := redistest.Start(t)
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{}, []string{"a"}, nil)
	ready(t, s)
	for i := 1; i <= 3; i++ {
		if got := server.Do("CLIENT", "KILL", "TYPE", "pubsub"); got != "1" {
			t.Fatalf("CLIENT KILL: got %s, want 1", got)
		}
		eventually(t, "the gap", func() bool { return len(r.got()) == 2*i-1 })
		ready(t, s)
		say(t, server, "a", fmt.Sprint(i), 1)
		eventually(t, "the message", func() bool { return len(r.got()) == 2*i })
	}
	r.want(t, "gap a", "a 1", "gap a", "a 2", "gap a", "a 3")
	// go-redis would connect and subscribe once more each time.
	if stats := server.Do("INFO", "commandstats"); !strings.Contains(stats, "cmdstat_subscribe:calls=8,") {
		t.Errorf("want 4 SUBSCRIBEs, and as many for probes:\n%s", stats)
	}
}

// Waits grow only while connecting fails: a connection that is cut again and
// again is made again at once. Each cut is one gap, and leaves nothing behind.
func TestSourceReconnectsAtOnce(t *testing.T) {
	kills, pause := 12, time.Duration(0) // with growing waits, some 12 s
	if os.Getenv("FILTERD_CHAOS") != "" {
		kills, pause = 300, time.Second
	}
	server := redistest.Start(t)
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{}, []string{"a"}, nil)
	ready(t, s)
	goroutines := runtime.NumGoroutine()
	var took time.Duration
	for i := 1; i <= kills; i++ {
		time.Sleep(pause)
		begin := time.Now()
		if got := server.Do("CLIENT", "KILL", "TYPE", "pubsub"); got != "1" {
			t.Fatalf("CLIENT KILL: got %s, want 1", got)
		}
		eventually(t, "the gap", func() bool { return len(r.got()) == i })
		ready(t, s)
		took += time.Since(begin)
	}
	if took > time.Duration(kills)*maxBackoff/4 {
		t.Errorf("%d reconnects took %v", kills, took)
	}
	if got := len(r.got()); got != kills {
		t.Errorf("%d gaps for %d kills", got, kills)
	}
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	t.Logf("%d connections cut, %d gaps, %v each, %d goroutines before and %d after", kills, len(r.got()), took/time.Duration(kills), goroutines, runtime.NumGoroutine())
}

// A peer that is silent without closing the connection is noticed within two
// probe intervals.
func TestSourceNoticesSilence(t *testing.T) {
	const interval = 500 * time.Millisecond
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	for name, silence := range map[string]struct{ begin, end func() }{
		"stopped process": {server.Pause, server.Resume},
		"half-open": {
			func() { proxy.Set(faultproxy.Fault{LoseRequests: true, LoseReplies: true}) },
			func() { proxy.Set(faultproxy.Fault{}) },
		},
		"deaf peer": {
			func() { proxy.Set(faultproxy.Fault{LoseRequests: true}) },
			func() { proxy.Set(faultproxy.Fault{}) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			logged := &log{}
			s, r, stop := start(t, client(t, proxy.Addr()), SourceOptions{ProbeInterval: interval, Logger: logged.logger()}, []string{"a"}, nil)
			ready(t, s)
			begin := time.Now()
			silence.begin()
			eventually(t, "notice", func() bool { return strings.Contains(logged.String(), `error="no answer to PING within 500ms"`) })
			// No upper bound on a busy machine; TestExamine has the exact one.
			if took := time.Since(begin); took < interval/2 {
				t.Errorf("noticed after %v, want after a PING", took)
			}
			silence.end()
			ready(t, s)
			eventually(t, "the message", func() bool {
				server.Do("PUBLISH", "a", "after")
				return slices.Contains(r.got(), "a after")
			})
			r.mu.Lock()
			gap := r.gaps[0]
			r.mu.Unlock()
			if gap.From.After(begin) || gap.Reason != "no answer to PING within 500ms" {
				t.Errorf("gap from %v because of %q, but silence began at %v", gap.From, gap.Reason, begin)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A quiet channel is no silent peer.
func TestSourceStaysOnQuietChannels(t *testing.T) {
	const interval = 100 * time.Millisecond
	server := redistest.Start(t)
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{ProbeInterval: interval}, []string{"a"}, nil)
	ready(t, s)
	eventually(t, "five probes", func() bool { return callsOf(server, "ping") > 5 && callsOf(server, "publish") >= 5 })
	say(t, server, "a", "m", 1)
	eventually(t, "the message", func() bool { got := r.got(); return len(got) > 0 && got[len(got)-1] == "a m" })
}

func TestSourceWaitsForRedis(t *testing.T) {
	server := redistest.Start(t)
	server.Stop()
	logged := &log{}
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{Logger: logged.logger()}, []string{"a"}, nil)
	eventually(t, "a log line", func() bool { return strings.Contains(logged.String(), "\n") })
	server.Restart()
	ready(t, s)
	say(t, server, "a", "m", 1)
	r.want(t, "a m") // and no gap: nothing had been listened to
	lines := strings.Split(logged.String(), "\n")
	want := fmt.Sprintf(`level=WARN msg="no connection to redis, trying again" address=%s error="redis at %[1]s: dial tcp %[1]s: connect: connection refused (no server listens there: start it or correct the address)" in=`, server.Addr)
	if !strings.Contains(lines[0], want) {
		t.Errorf("got  %s\nwant %s", lines[0], want)
	}
}

func TestSourceFailFast(t *testing.T) {
	server := redistest.Start(t)
	server.Stop()
	s := NewSource(client(t, server.Addr), SourceOptions{FailFast: true, Logger: (&log{}).logger()})
	err := s.Run(deadline(t), &recorder{})
	wantError(t, err, fmt.Sprintf("redis at %s: dial tcp %[1]s: connect: connection refused (no server listens there: start it or correct the address)", server.Addr))
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v does not match ErrUnreachable", err)
	}

	// Once it has worked, it goes on.
	server.Restart()
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{FailFast: true}, []string{"a"}, nil)
	ready(t, s)
	server.Restart()
	eventually(t, "the gap", func() bool { return len(r.got()) == 1 })
	ready(t, s)
	say(t, server, "a", "m", 1)
	r.want(t, "gap a", "a m")
}

const noChannel = "NOPERM this user has no permissions to access one of the channels used as arguments"

// reader adds a user who may read some channels, and returns a client of it.
func reader(t testing.TB, server *redistest.Server, rules ...string) redis.UniversalClient {
	t.Helper()
	server.Do(append([]string{"ACL", "SETUSER", "reader", "on", ">pass", "resetchannels"}, rules...)...)
	return clientWith(t, Options{Addrs: []string{server.Addr}, Username: "reader", Password: "pass"})
}

func TestSourceRefusedSubscription(t *testing.T) {
	server := redistest.Start(t)
	rdb := reader(t, server, "+subscribe", "+psubscribe", "&open", "&free.*")
	logged := &log{}
	s, r, _ := start(t, rdb, SourceOptions{Logger: logged.logger()}, []string{"open", "closed"}, []string{"free.*", "shut.*"})
	err := s.WaitReady(deadline(t))
	wantError(t, err, `subscribe to "closed": `+noChannel+" (grant it with ACL SETUSER)\n"+
		`subscribe to "shut.*": `+noChannel+" (grant it with ACL SETUSER)")
	if refusal, ok := errors.AsType[*SubscribeError](err); !ok || refusal.Channel != "closed" {
		t.Errorf("%v is no SubscribeError", err)
	}
	for _, channel := range []string{"closed", "shut.*"} {
		line := fmt.Sprintf(`level=ERROR msg="redis refuses a subscription" channel=%s error="%s"`, channel, noChannel)
		eventually(t, line, func() bool { return strings.Contains(logged.String(), line) })
	}
	// The others work.
	say(t, server, "open", "1", 1)
	say(t, server, "closed", "2", 0)
	say(t, server, "free.1", "3", 1)
	r.want(t, "open 1", "free.1<free.* 3")

	// What is no longer wanted is no longer an error.
	s.Subscribe(filterd.Subscriptions{Channels: []string{"open"}, Globs: []string{"free.*"}})
	ready(t, s)

	// A grant counts on the next connection at the latest.
	s.Subscribe(filterd.Subscriptions{Channels: []string{"open", "closed"}})
	if err := s.WaitReady(deadline(t)); err == nil {
		t.Error("closed channel: no error")
	}
	server.Do("ACL", "SETUSER", "reader", "&closed")
	server.Do("CLIENT", "KILL", "USER", "reader")
	eventually(t, "the grant", func() bool { return s.WaitReady(deadline(t)) == nil })
	eventually(t, "the message", func() bool {
		server.Do("PUBLISH", "closed", "4") // Redis may have ended the connection twice
		return slices.Contains(r.got(), "closed 4")
	})
	if !slices.Contains(r.got(), "gap open") {
		t.Errorf("got %q, want a gap", r.got())
	}
}

// A channel that is refused after it had been heard stays deaf when the others
// are heard again: its gap is its own, and ends when it is granted.
func TestSourceRefusedLater(t *testing.T) {
	server := redistest.Start(t)
	rdb := reader(t, server, "+subscribe", "+psubscribe", "+unsubscribe", "+punsubscribe", "&a", "&b", "&g*")
	logged := &log{}
	s, r, stop := start(t, rdb, SourceOptions{Logger: logged.logger()}, []string{"a", "b"}, []string{"g*"})
	ready(t, s)
	begin := time.Now()
	server.Do("ACL", "SETUSER", "reader", "resetchannels", "&a", "&g*") // what ends the connection
	r.want(t, "gap a,g*")
	first := r.lastGap()
	if err := s.WaitReady(deadline(t)); err == nil || !strings.Contains(err.Error(), `subscribe to "b"`) {
		t.Errorf("WaitReady: %v", err)
	}
	// Another gap of the others, while b is deaf all along.
	server.Do("CLIENT", "KILL", "USER", "reader")
	r.want(t, "gap a,g*", "gap a,g*")
	if second := r.lastGap(); second.From.Before(first.From) {
		t.Errorf("second gap: %+v", second)
	}
	server.Do("ACL", "SETUSER", "reader", "&b")
	granted := time.Now()
	server.Do("CLIENT", "KILL", "USER", "reader")
	r.want(t, "gap a,g*", "gap a,g*", "gap b", "gap a,g*")
	r.mu.Lock()
	gap := r.gaps[2]
	r.mu.Unlock()
	if gap.From != first.From || gap.From.After(begin) || gap.To.Before(granted) || gap.Reason != first.Reason {
		t.Errorf("gap of b: %+v, after %+v", gap, first)
	}
	ready(t, s)
	if line := `level=INFO msg="redis no longer refuses a subscription" channel=b`; !strings.Contains(logged.String(), line) {
		t.Errorf("log without %q:\n%s", line, logged)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := r.got(); len(got) != 4 {
		t.Errorf("got %q", got)
	}
}

// On the connection that refused it, the gap ends with the next attempt.
func TestLedgerRefusedLater(t *testing.T) {
	l, begin := newLedger(), time.Now()
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	confirm := func(name string) (again bool) {
		t.Helper()
		again, err := l.confirm(kindSubscribe, name, begin)
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	connect := func(s int) {
		t.Helper()
		l.connect(at(s))
		if _, err := l.pong(); err != nil {
			t.Fatal(err)
		}
		l.plan(at(s))
	}
	restored := func(s int, want string) {
		t.Helper()
		endings, ok := l.restored(at(s))
		var got []string
		for _, e := range endings {
			got = append(got, fmt.Sprint(strings.Join(e.gap.Channels, ","), " ", e.gap.From.Sub(begin), " ", e.gap.To.Sub(begin), " ", e.gap.Reason))
			l.reported(e)
		}
		if text := strings.Join(got, "; "); text != want || !ok {
			t.Fatalf("restored: %q, %v, want %q", text, ok, want)
		}
	}
	l.want(subscriptions([]string{"a", "b"}, nil))
	connect(0)
	if confirm("a") || confirm("b") {
		t.Error("confirmed again at first")
	}
	restored(0, "")
	l.disconnect(at(1), errors.New("broken"))
	connect(2)
	if _, err := l.refuse(replyError(noChannel), at(2)); err != nil { // both for one
		t.Fatal(err)
	}
	l.plan(at(2))
	confirm("a")
	if _, err := l.refuse(replyError(noChannel), at(3)); err != nil {
		t.Fatal(err)
	}
	restored(4, "a 1s 4s broken")
	restored(5, "")
	if err := l.wait(t.Context()); err == nil {
		t.Error("wait: no error")
	}
	if planned := l.plan(at(3).Add(refusedRetry)); len(planned) != 1 {
		t.Fatalf("planned %v", planned)
	}
	if !confirm("b") {
		t.Error("not confirmed again")
	}
	restored(40, "b 1s 40s broken")
	restored(41, "")

	// What is still refused at the end is a gap until then.
	l.disconnect(at(50), errors.New("broken again"))
	if endings := l.outages.finish(at(60)); len(endings) != 1 || !slices.Equal(endings[0].gap.Channels, []string{"a", "b"}) || endings[0].gap.To != at(60) {
		t.Errorf("finish: %v", endings)
	}
}

func TestSourceRefusedFailsFast(t *testing.T) {
	server := redistest.Start(t)
	rdb := reader(t, server, "+subscribe", "&open")
	s := NewSource(rdb, SourceOptions{FailFast: true, Logger: (&log{}).logger()})
	s.Subscribe(filterd.Subscriptions{Channels: []string{"open", "closed"}, Globs: []string{"g*"}})
	err := s.Run(context.Background(), &recorder{}) // one that can't end
	wantError(t, err, `subscribe to "closed": `+noChannel+" (grant it with ACL SETUSER)\n"+
		`subscribe to "g*": NOPERM this user has no permissions to run the 'psubscribe' command (grant it with ACL SETUSER)`)
}

func TestSourceAsksAgain(t *testing.T) {
	l := newLedger()
	l.want(subscriptions([]string{"a"}, nil))
	begin := time.Now()
	l.connect(begin)
	if _, err := l.pong(); err != nil {
		t.Fatal(err)
	}
	if commands := l.plan(begin); len(commands) != 1 || commands[0].kind != kindSubscribe {
		t.Fatalf("first plan: %v", commands)
	}
	if refusal, err := l.refuse(replyError(noChannel), begin); refusal == nil || err != nil {
		t.Fatalf("first refusal: %v, %v", refusal, err)
	}
	if commands := l.plan(begin.Add(refusedRetry - 1)); len(commands) != 0 {
		t.Errorf("plan before the pause is over: %v", commands)
	}
	if commands := l.plan(begin.Add(refusedRetry)); len(commands) != 1 {
		t.Errorf("plan after the pause: %v", commands)
	}
	if refusal, err := l.refuse(replyError(noChannel), begin); refusal != nil || err != nil {
		t.Errorf("second refusal: %v, %v, want none reported", refusal, err)
	}
	if refusal, err := l.refuse(replyError("ERR out of turn"), begin); refusal != nil || err == nil {
		t.Errorf("an error out of turn: %v, %v, want the connection to end", refusal, err)
	}
}

func TestSourceWrongPassword(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "right")
	for password, want := range map[filterd.Secret]string{
		"wrong": "WRONGPASS invalid username-password pair or user is disabled. (check username and password)",
		"":      "NOAUTH Authentication required. (check username and password)",
	} {
		s := NewSource(clientWith(t, Options{Addrs: []string{server.Addr}, Password: password}), SourceOptions{FailFast: true})
		s.Subscribe(filterd.Subscriptions{Channels: []string{"a"}})
		err := s.Run(deadline(t), &recorder{})
		wantError(t, err, "redis at "+server.Addr+": "+want)
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v does not match ErrUnreachable", err)
		}
	}
}

func TestSourceClosedClient(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	s, ended := NewSource(rdb, SourceOptions{Logger: (&log{}).logger()}), make(chan error, 1)
	go func() { ended <- s.Run(context.Background(), &recorder{}) }() // ends with the client
	ready(t, s)
	rdb.Close()
	select {
	case err := <-ended:
		wantError(t, err, "the redis client was closed")
	case <-time.After(patience):
		t.Fatal("Run goes on with a closed client")
	}
}

// The handler's context lives on for a while after Run's has ended, so that
// the handler can deliver what it has. Redis is told at once.
func TestSourceDrains(t *testing.T) {
	server := redistest.Start(t)
	s := NewSource(client(t, server.Addr), SourceOptions{Logger: (&log{}).logger(), DrainTimeout: patience})
	s.Subscribe(filterd.Subscriptions{Channels: []string{"a"}, Globs: []string{"g*"}})
	h := &drainer{entered: make(chan struct{}), leave: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, h) }() // ends after cancel
	ready(t, s)
	say(t, server, "a", "m", 1)
	<-h.entered
	cancel()
	eventually(t, "the end of the subscriptions", func() bool {
		return server.Do("PUBLISH", "a", "late") == "0" && server.Do("PUBLISH", "g", "late") == "0"
	})
	close(h.leave)
	if err := <-ended; err != nil || h.err != nil || h.gaps != 0 {
		t.Errorf("Run: %v; the handler's context: %v; %d gaps", err, h.err, h.gaps)
	}
}

// A drainer is a handler that stays with its first message for a while.
type drainer struct {
	entered, leave chan struct{}
	err            error
	gaps           int
}

func (d *drainer) Messages(ctx context.Context, batch []*filterd.Message) {
	if string(batch[0].Payload) == "m" {
		close(d.entered)
		<-d.leave
		d.err = ctx.Err()
	}
}

func (d *drainer) Gap(filterd.Gap) { d.gaps++ }

// A handler that doesn't come back ends with its context, after DrainTimeout.
func TestSourceDrainIsBounded(t *testing.T) {
	server := redistest.Start(t)
	logged := &log{}
	s := NewSource(client(t, server.Addr), SourceOptions{Logger: logged.logger(), DrainTimeout: 50 * time.Millisecond})
	s.Subscribe(filterd.Subscriptions{Channels: []string{"a"}})
	h, begin := &stuck{entered: make(chan struct{}, 1)}, time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, h) }() // ends after cancel
	ready(t, s)
	say(t, server, "a", "first", 1)
	<-h.entered
	const lost = 1000 // wait in the socket
	for i := range lost {
		say(t, server, "a", fmt.Sprint(i), 1)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if h.gap.Reason != fmt.Sprintf("the drain timed out with %d messages unhandled", lost) || !slices.Equal(h.gap.Channels, []string{"a"}) || h.gap.From.Before(begin) || h.gap.Length() <= 0 || h.gaps != 1 {
		t.Errorf("%d gaps, the last: %+v", h.gaps, h.gap)
	}
	if want := fmt.Sprintf(`msg="messages were received but not handled in time" dropped=%d`, lost); !strings.Contains(logged.String(), want) {
		t.Errorf("log without %q:\n%s", want, logged)
	}
}

type stuck struct {
	entered chan struct{}
	gaps    int
	gap     filterd.Gap // the last
}

func (s *stuck) Messages(ctx context.Context, _ []*filterd.Message) {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-ctx.Done()
}

func (s *stuck) Gap(gap filterd.Gap) {
	s.gaps++
	s.gap = gap
}

// What Redis counted as received is handled, although the end comes in the
// middle of a flood.
func TestSourceDrainLosesNothing(t *testing.T) {
	server := redistest.Start(t)
	for name, rdb := range map[string]redis.UniversalClient{
		"our client":        client(t, server.Addr),
		"go-redis defaults": redis.NewClient(&redis.Options{Addr: server.Addr}),
		"somebody's own":    another{client(t, server.Addr)},
	} {
		t.Run(name, func(t *testing.T) {
			defer rdb.Close()
			const count, size = 30_000, 500
			logged, h := &log{}, &slow{}
			s := NewSource(rdb, SourceOptions{Logger: logged.logger(), DrainTimeout: patience})
			s.Subscribe(filterd.Subscriptions{Channels: []string{"a"}, Globs: []string{"g*"}})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx, h) }() // ends after cancel
			ready(t, s)
			publisher, received := client(t, server.Addr), 0
			for sent := 0; sent < count; sent += size {
				if sent == count/2 {
					cancel()
				}
				pipeline := publisher.Pipeline()
				for i := range size {
					pipeline.Publish(t.Context(), []string{"a", "g1"}[i%2], "m")
				}
				replies, err := pipeline.Exec(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, reply := range replies {
					received += int(reply.(*redis.IntCmd).Val())
				}
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if h.handled != received || h.gaps != 0 {
				t.Errorf("handled %d of %d messages, with %d gaps", h.handled, received, h.gaps)
			}
			if text := logged.String(); strings.Contains(text, "WARN") {
				t.Errorf("log:\n%s", text)
			}
		})
	}
}

// A slow handler counts, and falls behind.
type slow struct{ handled, gaps int }

func (s *slow) Messages(_ context.Context, batch []*filterd.Message) {
	time.Sleep(5 * time.Millisecond)
	s.handled += len(batch)
}

func (s *slow) Gap(filterd.Gap) { s.gaps++ }

// What may still come when the end can't wait for it is a gap.
func TestSourceDrainWithoutAnswer(t *testing.T) {
	server := redistest.Start(t)
	proxy := faultproxy.Start(t, server.Addr)
	const timeout = 300 * time.Millisecond
	deaf := faultproxy.Fault{LoseRequests: true}
	for name, test := range map[string]struct {
		timeout time.Duration
		cut     bool
		reason  string
	}{
		"silent peer":           {timeout, false, "the drain timed out after 300ms"},
		"the connection breaks": {patience, true, "the server closed the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Set(faultproxy.Fault{})
			logged, r := &log{}, &recorder{}
			s := NewSource(client(t, proxy.Addr()), SourceOptions{Logger: logged.logger(), DrainTimeout: test.timeout})
			s.Subscribe(filterd.Subscriptions{Channels: []string{"a"}, Globs: []string{"g*"}})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx, r) }() // ends after cancel
			ready(t, s)
			say(t, server, "a", "m", 1)
			r.want(t, "a m")
			proxy.Set(deaf)
			begin := time.Now()
			cancel()
			if test.cut {
				time.Sleep(timeout / 3) // the UNSUBSCRIBE is on its way
				proxy.Cut()
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(patience / 2):
				t.Fatal("Run does not return")
			}
			if took := time.Since(begin); !test.cut && took < timeout {
				t.Errorf("gave up after %v", took)
			}
			r.want(t, "a m", "gap a,g*")
			gap := r.lastGap()
			if !strings.Contains(gap.Reason, test.reason) && !strings.Contains(gap.Reason, "connection reset") || gap.From.After(begin) || gap.To.Before(begin) {
				t.Errorf("gap: %+v", gap)
			}
			if line := `level=WARN msg="messages may have been missed"`; !strings.Contains(logged.String(), line) {
				t.Errorf("log without %q:\n%s", line, logged)
			}
		})
	}
}

// A gap that isn't over at the end is reported as it is.
func TestSourceEndsInAGap(t *testing.T) {
	server := redistest.Start(t)
	logged := &log{}
	s, r, stop := start(t, client(t, server.Addr), SourceOptions{Logger: logged.logger()}, []string{"a"}, nil)
	ready(t, s)
	server.Stop()
	eventually(t, "a failed attempt", func() bool { return strings.Contains(logged.String(), "no connection to redis") })
	if err := stop(); err != nil {
		t.Error(err)
	}
	r.want(t, "gap a")
}
