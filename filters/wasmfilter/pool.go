package wasmfilter

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// A pool holds a module's instances: those that are not in use, the last used
// one first, since its memory is still in the caches.
//
// The very last one is in a place of its own, so that a single user needs no
// lock: get takes it by one atomic operation and put brings it back by another.
// Whoever needs put to look further (somebody who waits, close) says so by
// urgent, and looks at that place afterwards; put looks at urgent after it has
// brought the instance. So one of them sees the other.
type pool struct {
	last   atomic.Pointer[instance]
	urgent atomic.Int32 // how many wait, and one more when closed

	mu       sync.Mutex // guards what follows
	free     []*instance
	live     int // instances, and permissions to make one
	limit    int // of live
	waiters  []chan *instance
	closed   bool
	idle     chan struct{} // closed when the pool is closed and live is 0; set by close
	counters counters
}

// maxUncounted is how many calls an instance may have made that Stats does not
// know of.
const maxUncounted = 100

// get takes an instance out of the pool, or nil: the permission to make one.
// It waits while all are in use.
func (p *pool) get(ctx context.Context) (*instance, error) {
	if i := p.last.Swap(nil); i != nil {
		return i, nil
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if last := len(p.free) - 1; last >= 0 {
		i := p.free[last]
		p.free = p.free[:last]
		p.mu.Unlock()
		return i, nil
	}
	if p.live < p.limit {
		p.live++
		p.mu.Unlock()
		return nil, nil
	}
	p.urgent.Add(1)
	if i := p.last.Swap(nil); i != nil {
		p.urgent.Add(-1)
		p.mu.Unlock()
		return i, nil
	}
	waiter := make(chan *instance, 1)
	p.waiters = append(p.waiters, waiter)
	p.mu.Unlock()
	select {
	case i, ok := <-waiter:
		if !ok {
			return nil, errClosed
		}
		return i, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	if at := slices.Index(p.waiters, waiter); at >= 0 {
		p.waiters = slices.Delete(p.waiters, at, at+1)
		p.urgent.Add(-1)
		p.mu.Unlock()
		return nil, ctx.Err()
	}
	p.mu.Unlock()
	if i, ok := <-waiter; ok { // it came at the same time
		p.put(i)
	}
	return nil, ctx.Err()
}

// put gives back what get returned: an instance, or nil if there is none any
// more.
func (p *pool) put(i *instance) {
	if i != nil && i.counters.calls < maxUncounted && p.urgent.Load() == 0 && p.last.CompareAndSwap(nil, i) {
		if p.urgent.Load() == 0 || !p.last.CompareAndSwap(i, nil) {
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.give(i)
}

// give is put with the lock held.
func (p *pool) give(i *instance) {
	if i != nil {
		p.counters.add(&i.counters)
		i.counters = counters{}
	}
	switch {
	case p.closed:
		if i != nil {
			i.close()
		}
		if p.live--; p.live == 0 {
			close(p.idle)
		}
	case len(p.waiters) > 0:
		p.waiters[0] <- i
		p.waiters = p.waiters[1:]
		p.urgent.Add(-1)
	case i != nil:
		p.free = append(p.free, i)
	default:
		p.live--
	}
}

// count adds an instance's counters, before it is closed.
func (p *pool) count(i *instance) {
	p.mu.Lock()
	p.counters.add(&i.counters)
	p.mu.Unlock()
}

// stats returns the counters, and how many instances there are.
func (p *pool) stats() (counters, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.last.Swap(nil); i != nil {
		p.give(i)
	}
	return p.counters, p.live
}

// memory returns the linear memory of the instances that are not in use, in
// bytes, but for one that is in a place of its own: stats puts it to the others.
func (p *pool) memory() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := int64(0)
	for _, i := range p.free {
		bytes += int64(i.memory.Size())
	}
	return bytes
}

// close closes all instances, those in use as soon as they are given back. It
// waits for them. It is called once.
func (p *pool) close() {
	p.mu.Lock()
	p.closed, p.idle = true, make(chan struct{})
	p.urgent.Add(1)
	for _, waiter := range p.waiters {
		close(waiter)
	}
	p.waiters = nil
	if p.live == 0 {
		close(p.idle)
	}
	free := p.free
	if i := p.last.Swap(nil); i != nil {
		free = append(free, i)
	}
	for _, i := range free {
		p.give(i)
	}
	p.free = nil
	p.mu.Unlock()
	<-p.idle
}
