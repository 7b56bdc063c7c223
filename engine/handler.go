package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
)

// A handler takes what one source delivers.
type handler struct {
	engine *Engine
	worker *worker
	held   *generation  // of what the worker has begun; nil: nothing
	since  atomic.Int64 // when it was called, in nanoseconds since 1970; 0: it isn't at work, or nobody looks
}

func (e *Engine) newHandler() *handler { return &handler{engine: e} }

// Fork implements [filterd.Forker].
func (h *handler) Fork() filterd.Handler { return h.engine.newHandler() }

// Messages implements [filterd.Handler].
func (h *handler) Messages(ctx context.Context, batch []*filterd.Message) {
	h.Begin(ctx, batch)
	h.End()
}

// Begin implements [filterd.Beginner]: the outcomes of what was published are
// left to be counted. The generation stays in use until they are.
func (h *handler) Begin(ctx context.Context, batch []*filterd.Message) {
	h.work()
	defer h.rest()
	g := h.engine.acquire()
	if g == nil {
		h.engine.refuse(batch)
		return
	}
	w, behind := h.workerOf(g)
	w.ctx = ctx
	_ = w.run(batch, false) // counted and logged there
	begun := w.start(ctx, behind)
	if h.held != nil {
		h.held.release()
		h.held = nil
	}
	if begun {
		h.held = g
	} else {
		g.release()
	}
}

// End implements [filterd.Beginner].
func (h *handler) End() {
	h.work()
	defer h.rest()
	h.finish()
}

// finish counts the outcomes of what was begun, and reports whether entries of it
// were postponed.
func (h *handler) finish() (postponed bool) {
	if h.held != nil {
		postponed = h.worker.settleFlight()
		h.held.release()
		h.held = nil
	}
	return postponed
}

// Gap implements [filterd.Handler].
func (h *handler) Gap(gap filterd.Gap) {
	h.work()
	defer h.rest()
	h.finish()
	h.engine.counters.gaps.add(gap)
	g := h.engine.acquire()
	if g == nil {
		return
	}
	defer g.release()
	ctx, cancel := context.WithTimeout(h.engine.lifetime, h.engine.config.DrainTimeout)
	defer cancel()
	w, _ := h.workerOf(g)
	w.ctx = ctx
	if len(w.table.onGap) > 0 {
		w.tellOfGap(&gap, silence(&gap))
		w.flush(ctx)
	}
}

// workerOf returns the handler's worker under a generation, and whether what
// another one had begun was postponed.
func (h *handler) workerOf(g *generation) (w *worker, behind bool) {
	if h.worker == nil || h.worker.generation != g {
		behind = h.finish()
		h.worker = g.newWorker()
		h.worker.handler = h
	}
	return h.worker, behind
}

// work notes that the handler begins to work, if somebody wants to know.
func (h *handler) work() {
	if h.engine.config.Attend && h.since.Load() == 0 {
		h.since.Store(time.Now().UnixNano())
		h.engine.busy.Store(h, nil)
	}
}

// rest notes that it is done.
func (h *handler) rest() {
	if h.engine.config.Attend {
		h.engine.busy.Delete(h)
		h.since.Store(0)
	}
}

// Busy returns how long the engine has been at work on a batch of a source's
// already: on the oldest of them. Waiting for room in a queue, as streams do, is no
// work. It is 0 without [Config.Attend].
func (e *Engine) Busy() time.Duration {
	now, longest := time.Now().UnixNano(), int64(0)
	e.busy.Range(func(key, _ any) bool {
		if since := key.(*handler).since.Load(); since > 0 {
			longest = max(longest, now-since)
		}
		return true
	})
	return time.Duration(longest)
}
