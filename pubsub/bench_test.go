package pubsub

import (
	"context"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// tally is a handler that counts.
type tally struct {
	want int
	done chan struct{}
}

func (h *tally) Messages(_ context.Context, batch []*filterd.Message) {
	if h.want -= len(batch); h.want == 0 {
		close(h.done)
	}
}

func (*tally) Gap(filterd.Gap) {}

// BenchmarkRelay publishes 200 bytes through a sink, in batches, and reads
// them through a source.
func BenchmarkRelay(b *testing.B) {
	const size = 64
	server := redistest.Start(b)
	rdb := client(b, server.Addr)
	source, h := NewSource(rdb, SourceOptions{Logger: (&log{}).logger()}), &tally{done: make(chan struct{})}
	source.Subscribe(filterd.Subscriptions{Channels: []string{"prices"}})
	batch := make([]filterd.Delivery, size)
	for i := range batch {
		batch[i] = filterd.Delivery{Channel: "prices", Payload: []byte(strings.Repeat("m", 200))}
	}
	h.want = (b.N + size - 1) / size * size
	run(b, func(ctx context.Context) error { return source.Run(ctx, h) })
	ready(b, source)
	sink := NewSink(rdb)
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += size {
		sink.Deliver(context.Background(), batch)
	}
	<-h.done
}
