package pubsub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

func stampedRegistry(t testing.TB, contracts ...filterd.Contract) *filterd.Registry {
	t.Helper()
	r, err := filterd.NewRegistry(contracts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Events are numbered in the order in which subscribers get them, whoever
// publishes them and however.
func TestPublisherStamps(t *testing.T) {
	server := redistest.Start(t)
	for name, rdb := range map[string]redis.UniversalClient{
		"our client":     client(t, server.Addr),
		"somebody's own": another{client(t, server.Addr)},
	} {
		t.Run(name, func(t *testing.T) {
			registry := stampedRegistry(t, filterd.Contract{Channel: "a", Stamped: true}, filterd.Contract{Channel: "b"})
			subscriber := NewSubscriber(client(t, server.Addr), registry, SubscriberOptions{Logger: (&log{}).logger(), QueueMessages: 1 << 20})
			var mu sync.Mutex
			sequences := make(map[string][]uint64) // by channel and producer
			take := func(_ context.Context, m *filterd.Message) error {
				if err := registry.Check(m); err != nil {
					return err
				}
				producer, sequence, ok := m.Stamp()
				if ok != (m.Channel == "a") {
					return fmt.Errorf("stamp %v", ok)
				}
				mu.Lock()
				defer mu.Unlock()
				sequences[m.Channel+" "+string(producer)] = append(sequences[m.Channel+" "+string(producer)], sequence)
				return nil
			}
			for _, channel := range []string{"a", "b"} {
				if err := subscriber.Handle(channel, nil, take); err != nil {
					t.Fatal(err)
				}
			}
			run(t, subscriber.Run)
			ready(t, subscriber)
			const publishers, each, batches = 2, 50, 5
			var publishing sync.WaitGroup
			for range publishers {
				p := NewPublisher(rdb, registry, PublisherOptions{})
				for range 8 {
					publishing.Go(func() {
						for i := range each {
							if _, err := p.Publish(context.Background(), "a", i); err != nil {
								t.Error(err)
							}
						}
						for range batches {
							if _, err := p.PublishBatch(context.Background(), []Outgoing{{Channel: "a", Data: 1}, {Channel: "b", Data: 2}, {Channel: "a", Data: 3}}); err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			publishing.Wait()
			const stamped, unstamped = 8 * (each + 2*batches), publishers * 8 * batches
			eventually(t, "all events", func() bool {
				stats := subscriber.Stats()
				return stats.Handlers[0].Received == publishers*stamped && stats.Handlers[1].Received == unstamped
			})
			eventually(t, "all callbacks", func() bool {
				mu.Lock()
				defer mu.Unlock()
				n := 0
				for _, of := range sequences {
					n += len(of)
				}
				return n == publishers*stamped+unstamped
			})
			if stats := subscriber.Stats(); stats.Lost != 0 || stats.Handlers[0].Errors+stats.Handlers[1].Errors != 0 {
				t.Errorf("stats: %+v", stats)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(sequences) != publishers+1 {
				t.Errorf("%d producers", len(sequences)-1)
			}
			for key, of := range sequences {
				for i, n := range of {
					if strings.HasPrefix(key, "a ") && n != uint64(i+1) {
						t.Fatalf("%s: number %d is %d: %v", key, i, n, of)
					}
				}
			}
		})
	}
}

// A stamp is part of what is checked, and of nothing else.
func TestPublisherStampsEvents(t *testing.T) {
	server := redistest.Start(t)
	registry := stampedRegistry(t, filterd.Contract{Channel: "a", Stamped: true, MaxSize: 200})
	p := NewPublisher(client(t, server.Addr), registry, PublisherOptions{})
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{}, []string{"a"}, nil)
	ready(t, s)
	event := &filterd.Event{ID: "1", Source: "s", Type: "t", Time: time.Unix(0, 0), Extensions: map[string]any{"z": "x"}, Data: json.RawMessage(`{"a": 1}`)}
	for range 2 {
		if _, err := p.PublishEvent(t.Context(), "a", event); err != nil {
			t.Fatal(err)
		}
	}
	if event.Extensions[filterd.SequenceAttribute] != nil {
		t.Errorf("the caller's event has a stamp: %v", event)
	}
	large := *event
	large.Data = json.RawMessage(`"` + strings.Repeat("x", 60) + `"`) // with the stamp too large
	_, err := p.PublishEvent(t.Context(), "a", &large)
	wantError(t, err, "a: size: 236 bytes are over the limit of 200")
	own := *event
	own.Extensions = map[string]any{"sequence": "7"}
	_, err = p.PublishEvent(t.Context(), "a", &own)
	wantError(t, err, `publish to "a": the channel is stamped: the extension sequence is its publisher's to set`)
	if _, err := p.PublishEvent(t.Context(), "a", event); err != nil { // what was refused has no number
		t.Fatal(err)
	}
	want := `{"producer":"` + p.stamps.producer + `","sequence":"0000000000000000000%d","specversion":"1.0","id":"1","source":"s","type":"t","time":"1970-01-01T00:00:00Z","z":"x","data":{"a": 1}}`
	r.want(t, "a "+fmt.Sprintf(want, 1), "a "+fmt.Sprintf(want, 2), "a "+fmt.Sprintf(want, 3))
}

// Redis cuts a subscriber that is too slow, again and again. What it then never
// gets is counted, exactly, the end of it included.
func TestStampedLossIsExact(t *testing.T) {
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 4mb 0 0")
	registry := stampedRegistry(t, filterd.Contract{Channel: "a.*", Stamped: true})
	logged := &log{}
	var gaps []filterd.Gap
	var mu sync.Mutex // guards gaps
	subscriber := NewSubscriber(client(t, server.Addr), registry, SubscriberOptions{Logger: logged.logger(), OnGap: func(gap filterd.Gap) {
		mu.Lock()
		defer mu.Unlock()
		gaps = append(gaps, gap)
	}})
	var slow atomic.Bool
	brake := filterd.FilterFunc(func(*filterd.Message) (bool, error) { // on the goroutine that reads
		if slow.Load() {
			time.Sleep(2 * time.Millisecond)
		}
		return false, nil
	})
	if err := subscriber.Handle("a.*", brake, func(context.Context, *filterd.Message) error { return nil }); err != nil {
		t.Fatal(err)
	}
	run(t, subscriber.Run)
	ready(t, subscriber)

	const count, channels, size = 30_000, 3, 1 << 10
	published := 0
	p := NewPublisher(client(t, server.Addr), registry, PublisherOptions{})
	data := strings.Repeat("x", size)
	publish := func(n int) {
		t.Helper()
		batch := make([]Outgoing, n)
		for i := range batch {
			batch[i] = Outgoing{Channel: fmt.Sprint("a.", i%channels), Data: data}
		}
		if _, err := p.PublishBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		published += n
	}
	publish(channels) // what is lost before a producer is known is not counted
	eventually(t, "the first", func() bool { return subscriber.Stats().Handlers[0].Received == channels })
	slow.Store(true)
	for published < count {
		publish(500)
	}
	slow.Store(false)
	eventually(t, "that every message is accounted for", func() bool {
		stats := subscriber.Stats()
		return stats.Handlers[0].Received+stats.Lost == uint64(published)
	})
	stats := subscriber.Stats()
	if stats.Lost == 0 || stats.Gaps == 0 || stats.Handlers[0].Lost != stats.Lost {
		t.Errorf("stats: %+v, want losses and gaps", stats)
	}
	mu.Lock()
	defer mu.Unlock()
	told := uint64(0)
	for _, gap := range gaps {
		told += gap.Lost
		if gap.Lost > 0 && (gap.Producer != p.stamps.producer || gap.Length() < 0 || !strings.HasPrefix(gap.Channels[0], "a.")) {
			t.Errorf("gap: %+v", gap)
		}
		if gap.Lost == 0 && !slices.Equal(gap.Channels, []string{"a.*"}) {
			t.Errorf("gap: %+v", gap)
		}
	}
	if told != stats.Lost {
		t.Errorf("gaps told of %d lost messages, want %d", told, stats.Lost)
	}
	if !strings.Contains(logged.String(), `msg="messages lost" lost=`) {
		t.Errorf("log:\n%s", logged)
	}
	t.Logf("published %d, received %d, lost %d, in %d gaps of %v", published, stats.Handlers[0].Received, stats.Lost, stats.Gaps, stats.GapTime)
}

// A publisher whose ACL has no heartbeats says so once, and publishes.
func TestHeartbeatsRefused(t *testing.T) {
	server := redistest.Start(t)
	logged := &log{}
	p := NewPublisher(reader(t, server, "+publish", "&a"), stampedRegistry(t, filterd.Contract{Channel: "a", Stamped: true}), PublisherOptions{Logger: logged.logger()})
	for range 2 {
		if _, err := p.Publish(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
		p.stamps.beat()
		p.stamps.mu.Lock()
		p.stamps.channels["a"].due = time.Time{}
		p.stamps.mu.Unlock()
		p.stamps.beat()
	}
	if text := logged.String(); !strings.Contains(text, `msg="redis refuses heartbeats: what is lost last goes unnoticed (grant the channel with ACL SETUSER)" channel=__filterd:stamps`) {
		t.Errorf("log:\n%s", text)
	}
}

// Heartbeats come a second after the last event, and then ever more rarely.
func TestHeartbeats(t *testing.T) {
	server := redistest.Start(t)
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{}, []string{filterd.StampsChannel}, nil)
	ready(t, s)
	p := NewPublisher(client(t, server.Addr), stampedRegistry(t, filterd.Contract{Channel: "*", Stamped: true}), PublisherOptions{})
	begin := time.Now()
	for _, channel := range []string{"b", "a", "b"} {
		if _, err := p.Publish(t.Context(), channel, 1); err != nil {
			t.Fatal(err)
		}
	}
	r.want(t, fmt.Sprintf(`%s {"producer":"%s","sequences":{"a":1,"b":2}}`, filterd.StampsChannel, p.stamps.producer))
	if took := time.Since(begin); took < minHeartbeat {
		t.Errorf("a heartbeat after %v", took)
	}
	var pauses []time.Duration
	p.stamps.mu.Lock()
	defer p.stamps.mu.Unlock()
	p.stamps.timer.Stop()
	for range 9 {
		c := p.stamps.channels["a"]
		c.due = time.Time{}
		p.stamps.mu.Unlock()
		now := time.Now()
		p.stamps.beat()
		p.stamps.mu.Lock()
		pauses = append(pauses, c.due.Sub(now).Round(time.Second))
	}
	if want := "[4s 8s 16s 32s 1m0s 1m0s 1m0s 1m0s 1m0s]"; fmt.Sprint(pauses) != want {
		t.Errorf("pauses %v, want %s", pauses, want)
	}
}
