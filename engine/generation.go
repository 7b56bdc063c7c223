package engine

import (
	"sync"
	"sync/atomic"

	"github.com/filterd/filterd/internal/lane"
)

// A generation is a table at work. It counts who uses it, so that a reload
// knows when its last message is done.
type generation struct {
	engine  *Engine
	table   *Table
	number  uint64
	rules   []*ruleCounters             // by the table's numbers
	lanes   map[laneKey]*lane.Lane[job] // of this table's rules
	workers sync.Pool                   // of *worker, for Process

	users   atomic.Int64 // twice the number of users, plus 1 once retired
	drain   sync.Once    // a late acquire may bring the users down to none again
	drained chan struct{}
}

// newGeneration makes the generation of a table, with the lanes of rules that
// stay. It also returns the lanes that the table has no use for, now retired.
// The caller holds e.mu.
func (e *Engine) newGeneration(t *Table) (next *generation, unused []*lane.Lane[job]) {
	next = &generation{engine: e, table: t, number: 1, drained: make(chan struct{}), lanes: make(map[laneKey]*lane.Lane[job])}
	if old := e.current.Load(); old != nil {
		next.number = old.number + 1
	}
	next.workers.New = func() any { return next.newWorker() }
	for _, r := range t.rules {
		next.rules = append(next.rules, e.counters.rule(r.Name))
		for _, to := range r.To {
			if to.Channel != "" || to.Computed != nil {
				continue
			}
			key := laneKey{r.Name, to.Callback, r.Overflow}
			if e.lanes[key] == nil {
				limits := lane.Limits{Messages: e.config.QueueMessages, Bytes: e.config.QueueBytes}
				e.lanes[key] = lane.New(limits, r.Overflow == OverflowDropNewest, e.work)
			}
			next.lanes[key] = e.lanes[key]
		}
	}
	for key, l := range e.lanes {
		if next.lanes[key] == nil {
			unused = append(unused, l)
			e.retired[l] = key.rule
			delete(e.lanes, key)
		}
	}
	return next, unused
}

// acquire returns the current generation, which stays whole until release; nil
// if the engine is closed.
func (e *Engine) acquire() *generation {
	for {
		g := e.current.Load()
		if g.users.Add(2)&1 == 0 {
			return g
		}
		g.release()
		if e.current.Load() == g { // retired, and nothing came after it
			return nil
		}
	}
}

func (g *generation) release() {
	if g.users.Add(-2) == 1 {
		g.markDrained()
	}
}

// retire lets nobody in any more, and returns a channel that is closed when
// the last user has left. It is called once.
func (g *generation) retire() <-chan struct{} {
	if g.users.Add(1) == 1 {
		g.markDrained()
	}
	return g.drained
}

func (g *generation) markDrained() { g.drain.Do(func() { close(g.drained) }) }
