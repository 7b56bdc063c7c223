package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// prices are contracts of every envelope.
func prices(t testing.TB) *filterd.Registry {
	t.Helper()
	schema, err := filterd.ParseSchema("price", []byte(`{
		"type": "object",
		"properties": {"symbol": {"type": "string"}, "price": {"type": "number", "exclusiveMinimum": 0}},
		"required": ["symbol", "price"]
	}`))
	if err != nil {
		t.Fatal(err)
	}
	registry, err := filterd.NewRegistry(
		filterd.Contract{Channel: "PRICE_DATA", Envelope: filterd.EnvelopeCloudEvents, Schema: schema, MaxSize: 1000},
		// A publisher validates whatever the mode.
		filterd.Contract{Channel: "raw.*", Envelope: filterd.EnvelopeRaw, Schema: schema, Validate: filterd.ValidateOff},
		filterd.Contract{Channel: "bytes", Envelope: filterd.EnvelopeBytes},
	)
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

type price struct {
	Symbol string      `json:"symbol"`
	Price  json.Number `json:"price"`
}

// listen runs a source that hears everything.
func listen(t testing.TB, server *redistest.Server) *recorder {
	t.Helper()
	s, r, _ := start(t, client(t, server.Addr), SourceOptions{}, nil, []string{"*"})
	ready(t, s)
	return r
}

var uuidV7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestPublishEvents(t *testing.T) {
	server := redistest.Start(t)
	r := listen(t, server)
	p := NewPublisher(client(t, server.Addr), prices(t), PublisherOptions{})
	before := time.Now()

	for channel, data := range map[string]any{
		"PRICE_DATA": price{"BTC<USD", "100.50"},
		"undeclared": json.RawMessage(`{ "n": 9007199254740993, "m": 1.10 }`),
	} {
		receivers, err := p.Publish(t.Context(), channel, data)
		if receivers != 1 || err != nil {
			t.Errorf("%s: got %d receivers, %v", channel, receivers, err)
		}
	}
	eventually(t, "both messages", func() bool { return len(r.got()) == 2 })
	ids := make(map[string]bool)
	for _, message := range r.got() {
		channel, payload, _ := strings.Cut(message, "<* ")
		event, err := filterd.DecodeEvent([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		if want := "/" + filepath.Base(os.Args[0]); event.Source != want || event.Type != channel {
			t.Errorf("source %q, type %q, want %q and the channel", event.Source, event.Type, want)
		}
		if !uuidV7.MatchString(event.ID) || ids[event.ID] {
			t.Errorf("id %q", event.ID)
		}
		ids[event.ID] = true
		if event.Time.Before(before.Add(-time.Second)) || event.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("time %v", event.Time)
		}
		want := map[string]string{
			"PRICE_DATA": `{"symbol":"BTC<USD","price":100.50}`,
			"undeclared": `{ "n": 9007199254740993, "m": 1.10 }`,
		}[channel]
		if string(event.Data) != want {
			t.Errorf("data %s, want %s", event.Data, want)
		}
	}
}

func TestPublishEnvelopes(t *testing.T) {
	server := redistest.Start(t)
	r := listen(t, server)
	p := NewPublisher(client(t, server.Addr), prices(t), PublisherOptions{
		Source: "/bot", Type: func(channel string) string { return "io.example." + channel },
	})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	given := &filterd.Event{Subject: "s", Time: at, Binary: []byte("\x00")}
	for _, out := range []Outgoing{
		{Channel: "raw.1", Data: json.RawMessage(`{"symbol": "A&B",  "price": 1.0}`)},
		{Channel: "raw.2", Data: map[string]any{"symbol": "A&B", "price": json.Number("1.0")}},
		{Channel: "bytes", Data: []byte("\x00\xff")},
		{Channel: "bytes", Data: "no JSON"},
		{Channel: "c", Event: &filterd.Event{ID: "1", Source: "/s", Type: "t", Time: at, Data: json.RawMessage(`[1.0]`)}},
	} {
		receivers, err := p.publish(t.Context(), out)
		if receivers != 1 || err != nil {
			t.Errorf("%+v: got %d receivers, %v", out, receivers, err)
		}
	}
	if receivers, err := p.PublishEvent(t.Context(), "c", given); receivers != 1 || err != nil {
		t.Errorf("PublishEvent: got %d receivers, %v", receivers, err)
	}
	if given.ID != "" || given.Source != "" || given.Type != "" {
		t.Errorf("the caller's event was changed: %+v", given)
	}
	if receivers, err := p.Publish(t.Context(), "c", nil); receivers != 1 || err != nil {
		t.Errorf("nil data: got %d receivers, %v", receivers, err)
	}
	eventually(t, "all messages", func() bool { return len(r.got()) == 7 })
	got := r.got()
	for i := range got {
		got[i] = regexp.MustCompile(`"id":"[^"]{36}"`).ReplaceAllString(got[i], `"id":"…"`)
		got[i] = regexp.MustCompile(`"time":"[^"]*\.[^"]*"`).ReplaceAllString(got[i], `"time":"…"`)
	}
	if want := []string{
		`raw.1<* {"symbol": "A&B",  "price": 1.0}`,
		`raw.2<* {"price":1.0,"symbol":"A&B"}`,
		"bytes<* \x00\xff",
		"bytes<* no JSON",
		`c<* {"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-02T03:04:05Z","data":[1.0]}`,
		`c<* {"specversion":"1.0","id":"…","source":"/bot","type":"io.example.c","subject":"s","time":"2026-01-02T03:04:05Z","data_base64":"AA=="}`,
		`c<* {"specversion":"1.0","id":"…","source":"/bot","type":"io.example.c","time":"…"}`,
	}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// What is refused, and how; nothing of it may be sent.
var refusedMessages = map[string]struct {
	out     Outgoing
	want    string
	invalid bool // a ValidationError
}{
	"schema": {
		Outgoing{Channel: "PRICE_DATA", Data: price{"BTC", "-1"}},
		"PRICE_DATA: schema: /data/price: exclusiveMinimum: got -1, want 0", true,
	},
	"all failures": {
		Outgoing{Channel: "raw.x", Data: map[string]any{"symbol": 1}},
		"raw.x: schema: missing property 'price'; /symbol: got number, want string", true,
	},
	"size": {
		Outgoing{Channel: "PRICE_DATA", Event: &filterd.Event{ID: "1", Source: "/s", Type: "t", Time: time.Unix(0, 0).UTC(), Data: json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)}},
		"PRICE_DATA: size: 1095 bytes are over the limit of 1000", true,
	},
	"envelope": {
		Outgoing{Channel: "c", Event: &filterd.Event{Source: "no uri", Subject: "\x00"}},
		`c: envelope: /source: "no uri" is not a URI reference (RFC 3986); /subject: control character U+0000 is not allowed`, true,
	},
	"no JSON in an event": {
		Outgoing{Channel: "c", Data: json.RawMessage(`1,"id":"2"`)}, "c: envelope: /data: not JSON: invalid character ',' after top-level value at byte 2", true,
	},
	"no JSON": {
		Outgoing{Channel: "raw.x", Data: json.RawMessage(`{`)}, "raw.x: malformed: not JSON: unexpected end of JSON input at byte 1", true,
	},
	"glob":          {Outgoing{Channel: "raw.*", Data: 1}, `publish to "raw.*": that is a pattern, not a channel`, false},
	"no channel":    {Outgoing{Data: 1}, "publish: no channel given", false},
	"bytes":         {Outgoing{Channel: "c", Data: []byte("1")}, `publish to "c": a []byte may be JSON or binary: give a json.RawMessage, or an event with Binary`, false},
	"not bytes":     {Outgoing{Channel: "bytes", Data: 1}, `publish to "bytes": a channel with envelope bytes takes a []byte or a string, not int`, false},
	"raw event":     {Outgoing{Channel: "raw.x", Event: &filterd.Event{}}, `publish to "raw.x": a channel with envelope raw takes no events`, false},
	"event as data": {Outgoing{Channel: "c", Data: &filterd.Event{}}, `publish to "c": an event goes out by PublishEvent`, false},
	"no number":     {Outgoing{Channel: "c", Data: math.NaN()}, `publish to "c": encode data: json: unsupported value: NaN`, false},
}

func TestPublishRefuses(t *testing.T) {
	server := redistest.Start(t)
	r := listen(t, server)
	p := NewPublisher(client(t, server.Addr), prices(t), PublisherOptions{})
	for name, test := range refusedMessages {
		t.Run(name, func(t *testing.T) {
			receivers, err := p.publish(t.Context(), test.out)
			wantError(t, err, test.want)
			if receivers != 0 || errors.Is(err, filterd.ErrInvalid) != test.invalid {
				t.Errorf("got %d receivers; matches ErrInvalid: %v", receivers, errors.Is(err, filterd.ErrInvalid))
			}
		})
	}
	invalid, ok := errors.AsType[*filterd.ValidationError](func() error {
		_, err := p.Publish(t.Context(), "PRICE_DATA", price{"BTC", "0"})
		return err
	}())
	if !ok || invalid.Channel != "PRICE_DATA" || invalid.Reason != filterd.ReasonSchema || invalid.Pointer() != "/data/price" {
		t.Errorf("got %+v", invalid)
	}
	// Nothing arrived, and Redis has seen no PUBLISH.
	if stats := server.Do("INFO", "commandstats"); strings.Contains(stats, "cmdstat_publish:") {
		t.Errorf("something was published:\n%s", stats)
	}
	say(t, server, "c", "last", 1)
	r.want(t, "c<* last")
}

func TestPublishBatch(t *testing.T) {
	server := redistest.Start(t)
	r := listen(t, server)
	p := NewPublisher(client(t, server.Addr), prices(t), PublisherOptions{})

	results, err := p.PublishBatch(t.Context(), []Outgoing{
		{Channel: "raw.x", Data: price{"A", "1"}},
		{Channel: "raw.x", Data: price{"B", "-1"}},
		{Channel: "bytes", Data: "fine"},
		{Channel: "a*", Data: 1},
	})
	wantError(t, err, "message 1: raw.x: schema: /price: exclusiveMinimum: got -1, want 0\nmessage 3: publish to \"a*\": that is a pattern, not a channel")
	if results != nil || !errors.Is(err, filterd.ErrInvalid) {
		t.Errorf("results %v; matches ErrInvalid: %v", results, errors.Is(err, filterd.ErrInvalid))
	}

	results, err = p.PublishBatch(t.Context(), []Outgoing{
		{Channel: "raw.x", Data: price{"A", "1"}},
		{Channel: "bytes", Data: "2"},
	})
	if !slices.Equal(results, []Result{{Receivers: 1}, {Receivers: 1}}) || err != nil {
		t.Errorf("got %v, %v", results, err)
	}
	r.want(t, `raw.x<* {"symbol":"A","price":1}`, "bytes<* 2") // nothing of the first batch

	if results, err = p.PublishBatch(t.Context(), nil); len(results) != 0 || err != nil {
		t.Errorf("empty batch: got %v, %v", results, err)
	}

	restricted := NewPublisher(reader(t, server, "+publish", "&bytes"), prices(t), PublisherOptions{})
	results, err = restricted.PublishBatch(t.Context(), []Outgoing{{Channel: "bytes", Data: "3"}, {Channel: "raw.x", Data: price{"A", "1"}}})
	wantError(t, err, `message 1: publish to "raw.x": `+noChannel)
	if len(results) != 2 || results[0] != (Result{Receivers: 1}) || results[1].Err == nil {
		t.Errorf("got %v", results)
	}
}

func TestTypedPublisher(t *testing.T) {
	server := redistest.Start(t)
	r := listen(t, server)
	p := For[price](NewPublisher(client(t, server.Addr), prices(t), PublisherOptions{}), "raw.x")
	if receivers, err := p.Publish(t.Context(), price{"A", "1"}); receivers != 1 || err != nil {
		t.Errorf("Publish: got %d, %v", receivers, err)
	}
	if results, err := p.PublishBatch(t.Context(), price{"B", "2"}, price{"C", "3"}); len(results) != 2 || err != nil {
		t.Errorf("PublishBatch: got %v, %v", results, err)
	}
	_, err := p.Publish(t.Context(), price{"A", "0"})
	wantError(t, err, p.Channel()+": schema: /price: exclusiveMinimum: got 0, want 0")
	r.want(t, `raw.x<* {"symbol":"A","price":1}`, `raw.x<* {"symbol":"B","price":2}`, `raw.x<* {"symbol":"C","price":3}`)
}

func TestPublishWithoutServer(t *testing.T) {
	server := redistest.Start(t)
	p := NewPublisher(client(t, server.Addr), nil, PublisherOptions{})
	server.Stop()
	receivers, err := p.Publish(t.Context(), "c", 1)
	wantError(t, err, `publish to "c": dial tcp `+server.Addr+": connect: connection refused")
	if receivers != 0 {
		t.Errorf("got %d receivers", receivers)
	}
}

// A message for a sharded channel goes there, by its contract but for stamps.
func TestPublishSharded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "c", Envelope: filterd.EnvelopeCloudEvents, Stamped: true})
	if err != nil {
		t.Fatal(err)
	}
	h := &recorder{}
	source := NewShardedSource(rdb, SourceOptions{Logger: (&log{}).logger()})
	source.Subscribe(filterd.Subscriptions{Sharded: []string{"c"}})
	stop := run(t, func(ctx context.Context) error { return source.Run(ctx, h) })
	ready(t, source)
	p := NewPublisher(rdb, registry, PublisherOptions{})
	if receivers, err := p.PublishSharded(deadline(t), "c", map[string]int{"n": 1}); err != nil || receivers != 1 {
		t.Fatal(receivers, err)
	}
	if results, err := p.PublishBatch(deadline(t), []Outgoing{{Channel: "c", Data: map[string]int{"n": 2}, Sharded: true}}); err != nil || results[0].Receivers != 1 {
		t.Fatal(results, err)
	}
	eventually(t, "both come", func() bool { return len(h.got()) == 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, got := range h.got() {
		if !strings.Contains(got, fmt.Sprintf(`"data":{"n":%d}`, i+1)) || strings.Contains(got, filterd.ProducerAttribute) {
			t.Errorf("%d: %s", i, got)
		}
	}
}
