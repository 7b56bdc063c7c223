package engine_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A handlerSource gives away its handler.
type handlerSource chan filterd.Handler

func (handlerSource) Subscribe(filterd.Subscriptions) {}
func (s handlerSource) Run(ctx context.Context, h filterd.Handler) error {
	s <- h
	<-ctx.Done()
	return nil
}

// A sinkFunc is a sink.
type sinkFunc func()

func (f sinkFunc) Deliver(context.Context, []filterd.Delivery) { f() }

// An engine that is asked to knows how long it has been at work on a batch, be it
// of channels or of streams; but waiting for room, as entries do, is no work.
func TestBusy(t *testing.T) {
	for name, test := range map[string]struct {
		idle bool // asked not to look
		to   []engine.Target
		busy bool
	}{
		"at work":          {to: to("out"), busy: true},
		"nobody looks":     {idle: true, to: to("out")},
		"waiting for room": {to: call("gate")},
	} {
		for _, stream := range []bool{false, true} {
			if name == "waiting for room" && !stream {
				continue // channels don't
			}
			t.Run(name, func(t *testing.T) {
				gate, reached := make(chan struct{}), make(chan struct{}, 10)
				hang := func() { reached <- struct{}{}; <-gate }
				callbacks := map[string]engine.Callback{"gate": func(context.Context, *filterd.Message) error { hang(); return nil }}
				rule := engine.Rule{Name: "r", From: []string{"c"}, Streams: []filterd.Stream{{Name: "in"}}, To: test.to}
				e := newEngine(t, engine.Config{
					Table:         compile(t, engine.Definition{Callbacks: callbacks, Rules: []engine.Rule{rule}}),
					Sink:          sinkFunc(hang),
					Attend:        !test.idle,
					QueueMessages: 1,
				})
				source := make(handlerSource, 1)
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { _ = e.Run(ctx, source) })
				defer running.Wait()
				defer cancel()
				h := <-source
				var batch []*filterd.Message
				if stream {
					h = h.(filterd.Forker).Fork()
					for _, id := range []string{"1-1", "1-2", "1-3"} { // in hand, queued, and waiting
						batch = append(batch, entry("in", filterd.DefaultGroup, id, "1", func(*filterd.Entry) {}))
					}
				} else {
					batch = append(batch, message("c", "1"))
				}
				returned := make(chan struct{})
				go func() { h.Messages(ctx, batch); close(returned) }()
				<-reached
				if test.busy {
					eventually(t, "busy for 20 ms", func() bool { return e.Busy() >= 20*time.Millisecond })
				} else {
					eventually(t, "waiting", func() bool { return test.idle || e.Stats().Rules["r"].Queued == 2 })
					eventually(t, "not busy", func() bool { return e.Busy() == 0 })
				}
				close(gate)
				<-returned
				if busy := e.Busy(); busy != 0 {
					t.Errorf("busy for %v with nothing", busy)
				}
			})
		}
	}
}
