package engine

import (
	"io"
	"maps"
	"slices"
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
func (e *Engine) newGeneration(t *Table) (next *generation, unused []laneKey) {
	next = &generation{engine: e, table: t, number: 1, drained: make(chan struct{}), lanes: make(map[laneKey]*lane.Lane[job])}
	if old := e.current.Load(); old != nil {
		next.number = old.number + 1
	}
	next.workers.New = func() any { return next.newWorker() }
	for _, r := range t.rules {
		next.rules = append(next.rules, e.counters.rule(r.Name))
		for _, key := range r.laneKeys(e.config.Workers) {
			if retired := e.retired[key]; retired != nil && retired.Reopen() {
				e.lanes[key] = retired
			}
			delete(e.retired, key)
			if e.lanes[key] == nil {
				e.lanes[key] = e.newLane(key)
			}
			next.lanes[key] = e.lanes[key]
		}
	}
	maps.DeleteFunc(e.retired, func(_ laneKey, l *lane.Lane[job]) bool { return l.Ended() })
	for key, l := range e.lanes {
		if next.lanes[key] == nil {
			unused = append(unused, key)
			e.retired[key] = l
			delete(e.lanes, key)
		}
	}
	return next, unused
}

// A laneKey names a queue: one of those between a rule and a slow target, or
// before the rule's Stage.
type laneKey struct {
	rule     string
	target   string // the slow target's name; empty for the Stage
	number   int    // which of several queues: messages are spread over them by their key
	overflow Overflow
}

// laneKeys returns the keys of all queues of the rule.
func (r *rule) laneKeys(workers int) []laneKey {
	var keys []laneKey
	for _, slow := range r.slow {
		if slow != nil {
			for i := range slow.lanes {
				keys = append(keys, laneKey{rule: r.Name, target: slow.name, number: i, overflow: r.Overflow})
			}
		}
	}
	if r.Stage != nil {
		for i := range workers {
			keys = append(keys, laneKey{rule: r.Name, number: i, overflow: r.Overflow})
		}
	}
	return keys
}

func (e *Engine) newLane(key laneKey) *lane.Lane[job] {
	limits := lane.Limits{Messages: e.config.QueueMessages, Bytes: e.config.QueueBytes}
	policy := lane.DropOldest
	switch key.overflow {
	case OverflowDropNewest:
		policy = lane.DropNewest
	case OverflowConflate:
		policy = lane.Conflate
	}
	if key.target != "" {
		return lane.New(limits, policy, 1, e.work, job.lost)
	}
	s := &stager{}
	return lane.New(limits, policy, maxStageBatch, s.work, job.lost)
}

// closeStages closes the stages of a table that nobody uses any more, but for
// those that other tables have as well: the current one, or one whose messages
// still wait.
func (e *Engine) closeStages(t *Table) {
	var unused []io.Closer
	e.mu.Lock()
	for _, s := range t.closers() {
		if e.stages[s]--; e.stages[s] == 0 {
			delete(e.stages, s)
			unused = append(unused, s)
		}
	}
	e.mu.Unlock()
	for _, s := range unused { // which may take as long as their calls
		if err := s.Close(); err != nil {
			e.config.Logger.Warn("closing a stage", "error", err)
		}
	}
}

// closers returns the table's stages that can be closed, each once.
func (t *Table) closers() []io.Closer {
	closers := make(map[io.Closer]bool)
	for _, r := range t.rules {
		if c, ok := r.Stage.(io.Closer); ok {
			closers[c] = true
		}
	}
	return slices.Collect(maps.Keys(closers))
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
