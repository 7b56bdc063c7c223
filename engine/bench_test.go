package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// trade is an event of 324 bytes.
const (
	trade = `{"specversion":"1.0","id":"000000000001","source":"/exchange/feed","type":"com.example.trade.v1","datacontenttype":"application/json","time":"2026-11-23T12:00:00.000000Z","data":{"symbol":"BTC-USD","side":"buy","price":60000.5,"qty":2,"venue":"example","trade":1,"note":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}`
)

// BenchmarkProcess measures one rule on one message, through the contract's
// check and on to a sink that does nothing, beside the hand-written program:
// encoding/json and expr.
func BenchmarkProcess(b *testing.B) {
	if len(trade) != 324 {
		b.Fatalf("the message has %d bytes", len(trade))
	}
	for _, test := range []struct{ name, limit string }{{"kept", "10000"}, {"dropped", "1000000"}} {
		source := `data.symbol == "BTC-USD" && data.price * data.qty > ` + test.limit
		b.Run(test.name+"/filterd", func(b *testing.B) {
			e := newEngine(b, engine.Config{
				Table: table(b, engine.Rule{Name: "r", From: []string{"in"}, When: when(source), To: to("out")}),
				Sink:  filterd.SinkFunc(func(context.Context, []filterd.Delivery) {}),
			})
			payload := []byte(trade)
			m := &filterd.Message{Channel: "in"}
			b.ReportAllocs()
			for b.Loop() {
				m.Reset(payload)
				if err := e.Process(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(test.name+"/handwritten", func(b *testing.B) {
			program, err := expr.Compile(source, expr.AsBool())
			if err != nil {
				b.Fatal(err)
			}
			payload := []byte(trade)
			b.ReportAllocs()
			for b.Loop() {
				var event map[string]any
				if err := json.Unmarshal(payload, &event); err != nil {
					b.Fatal(err)
				}
				if _, err := expr.Run(program, map[string]any{"data": event["data"]}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestProcessAllocates nothing for a valid message, kept or not.
func TestProcessAllocates(t *testing.T) {
	p := table(t, engine.Rule{Name: "kept", From: []string{"in"}, When: when(`data.price > 1 and event.type == "com.example.trade.v1"`), To: to("out")},
		engine.Rule{Name: "dropped", From: []string{"in"}, When: when(`data.symbol == "ETH-USD"`), To: to("out")}).NewProcessor()
	payload := []byte(trade)
	m := &filterd.Message{Channel: "in"}
	if n := testing.AllocsPerRun(100, func() {
		m.Reset(payload)
		if result, err := p.Process(m); err != nil || len(result.Outputs) != 1 {
			t.Fatal(result, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkBatch measures one rule on batches of different messages, as a source
// hands them over, up to a sink that does nothing: a message each.
func BenchmarkBatch(b *testing.B) {
	for _, test := range []struct {
		name, limit string
		set         []engine.Member
	}{{"kept", "10000", nil}, {"dropped", "1000000", nil}, {"set", "10000", []engine.Member{{Name: "notional", Value: value(b, "data.price * data.qty")}}}} {
		b.Run(test.name, func(b *testing.B) {
			e := newEngine(b, engine.Config{
				Table: table(b, engine.Rule{Name: "r", From: []string{"in"}, Set: test.set, When: when(`data.symbol == "BTC-USD" && data.price * data.qty > ` + test.limit), To: to("out")}),
				Sink:  filterd.SinkFunc(func(context.Context, []filterd.Delivery) {}),
			})
			batch := make([]*filterd.Message, 256)
			payloads := make([][]byte, len(batch))
			for i := range batch {
				batch[i] = &filterd.Message{Channel: "in", Received: time.Now()}
				payloads[i] = []byte(strings.NewReplacer(`"id":"000000000001"`, fmt.Sprintf(`"id":"%012d"`, 1+i), "60000.5", fmt.Sprintf("6%04d.5", i), `"trade":1`, fmt.Sprintf(`"trade":%d`, i%10)).Replace(trade))
			}
			b.ReportAllocs()
			err := e.Run(b.Context(), sourceFunc(func(ctx context.Context, h filterd.Handler) error {
				for i := 0; b.Loop(); i = (i + 1) % len(batch) {
					if i > 0 {
						continue
					}
					for i, m := range batch {
						m.Reset(payloads[i])
					}
					h.Messages(ctx, batch)
				}
				return nil
			}))
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// A sourceFunc is a source that subscribes to nothing.
type sourceFunc func(ctx context.Context, h filterd.Handler) error

func (sourceFunc) Subscribe(filterd.Subscriptions) {}

func (f sourceFunc) Run(ctx context.Context, h filterd.Handler) error { return f(ctx, h) }

// batches is a source that hands the same batch over again and again.
type batches struct {
	*testing.B
	batch []*filterd.Message
}

func (s *batches) Subscribe(filterd.Subscriptions) {}

func (s *batches) Run(ctx context.Context, h filterd.Handler) error {
	s.ResetTimer()
	for range s.N {
		received := time.Now()
		for _, m := range s.batch {
			m.Reset(m.Payload)
			m.Received = received
		}
		h.Messages(ctx, s.batch)
	}
	return nil
}

// BenchmarkSource measures a batch of 64 messages from a source to a sink, with
// what is counted on the way: one in ten is kept, or all are.
func BenchmarkSource(b *testing.B) {
	for _, every := range []int{10, 1} {
		b.Run(fmt.Sprintf("one in %d", every), func(b *testing.B) {
			e := newEngine(b, engine.Config{
				Table: table(b, engine.Rule{Name: "r", From: []string{"in"}, When: when(`data.symbol == "BTC-USD" && data.price * data.qty > 10000`), To: to("out")}),
				Sink:  filterd.SinkFunc(func(context.Context, []filterd.Delivery) {}),
			})
			source := &batches{B: b}
			for i := range 64 {
				payload := trade
				if i%every > 0 {
					payload = strings.Replace(trade, "BTC", "ETH", 1)
				}
				source.batch = append(source.batch, message("in", payload))
			}
			b.ReportAllocs()
			if err := e.Run(b.Context(), source); err != nil {
				b.Fatal(err)
			}
		})
	}
}
