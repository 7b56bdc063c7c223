package engine

import (
	"runtime"
	"sync"
	"time"

	"github.com/filterd/filterd"
)

const (
	// spreadFrom is how much work a goroutine is worth: it takes some
	// microseconds to start one and to wait for it.
	spreadFrom = 100 * time.Microsecond
	// measuredFrom is how many messages it takes to measure what they cost.
	measuredFrom = 16
)

// A part is neighbours in a batch, and the processor that has treated them.
type part struct {
	processor *Processor
	batch     []*filterd.Message
}

// process applies the rules of a route to a batch of its messages, and returns
// the parts in their order: one, unless the rules are so dear that other cores
// are worth their trouble. What comes of the messages is up to the caller, so
// that it goes out in their order.
func (w *worker) process(route *route, batch []*filterd.Message) []part {
	bound := w.processor.bind(route.program)
	worth := int(bound.cost * time.Duration(len(batch)) / spreadFrom)
	w.divide(batch, max(1, min(worth, runtime.GOMAXPROCS(0), len(batch))))
	var begin time.Time
	if len(batch) >= measuredFrom {
		begin = time.Now()
	}
	if len(w.parts) == 1 {
		w.processor.process(route, batch)
	} else {
		processAll(route, w.parts)
	}
	if !begin.IsZero() {
		cost := time.Since(begin) / time.Duration(len(w.parts[0].batch))
		bound.cost = (3*bound.cost + cost) / 4
	}
	return w.parts
}

// divide makes n parts of a batch.
func (w *worker) divide(batch []*filterd.Message, n int) {
	for len(w.helpers) < n-1 {
		w.helpers = append(w.helpers, w.newProcessor())
	}
	w.parts = append(w.parts[:0], part{w.processor, batch[:len(batch)/n]})
	for i := 1; i < n; i++ {
		w.parts = append(w.parts, part{w.helpers[i-1], batch[i*len(batch)/n : (i+1)*len(batch)/n]})
	}
}

// processAll lets a goroutine treat each part, and waits for them.
func processAll(route *route, parts []part) {
	var others sync.WaitGroup
	for _, p := range parts[1:] {
		others.Go(func() { p.processor.process(route, p.batch) })
	}
	parts[0].processor.process(route, parts[0].batch)
	others.Wait()
}
