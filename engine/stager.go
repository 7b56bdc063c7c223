package engine

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"

	"github.com/filterd/filterd"
)

// maxStageBatch is how many messages a Stage gets at once, at most.
const maxStageBatch = 64

// stage queues a message for a rule's Stage: in the lane of its channel and
// key, so that their order holds.
func (w *worker) stage(b *boundProgram, at int, m *filterd.Message) {
	r := b.rules[at]
	counters := w.rules[r.number]
	var hash maphash.Hash
	hash.SetSeed(stageSeed)
	hash.WriteString(m.Channel)
	if key := b.keys[at]; key != nil {
		value, err := key.Evaluate(m)
		if err != nil {
			w.ruleError(r, m, fmt.Errorf("key: %w", err)) // and go by the channel
		}
		fmt.Fprintf(&hash, "\x00%v", value)
	}
	lane := w.lanes[laneKey{rule: r.Name, stage: 1 + int(hash.Sum64()%uint64(w.engine.config.Workers)), overflow: r.Overflow}]
	w.users.Add(2) // the job uses the generation; the worker does so far
	j := job{message: m.Clone(), rule: r.Name, counters: counters, generation: w.generation, program: b.program, at: at}
	if dropped := lane.Push(j, len(m.Payload)); dropped > 0 {
		w.engine.log(&counters.failures, slog.LevelWarn, "queue is full", "rule", r.Name, "policy", r.Overflow)
	}
}

var stageSeed = maphash.MakeSeed()

// A stager is the worker of one lane to a Stage.
type stager struct {
	worker *worker // of the generation of the last job
	batch  []*filterd.Message
}

// work runs jobs in order: neighbours of one generation and program together.
func (s *stager) work(jobs []job) {
	for len(jobs) > 0 {
		first := jobs[0]
		n := 0
		s.batch = s.batch[:0]
		for n < len(jobs) && jobs[n].generation == first.generation && jobs[n].program == first.program && jobs[n].message.Channel == first.message.Channel {
			s.batch = append(s.batch, jobs[n].message)
			n++
		}
		if s.worker == nil || s.worker.generation != first.generation {
			s.worker = first.generation.newWorker()
		}
		s.worker.finishStage(first.program, first.at, s.batch)
		for range n {
			first.generation.release()
		}
		clear(s.batch)
		jobs = jobs[n:]
	}
}

// lost is called for a job that gave way in the queue.
func (s *stager) lost(j job) {
	j.lost()
	j.generation.release()
}

// finishStage runs a rule's Stage on a batch, and all that comes after it.
func (w *worker) finishStage(program *program, at int, batch []*filterd.Message) {
	b := w.processor.bind(program)
	for _, m := range batch {
		m.Bind(program.projection)
	}
	w.processor.finishStage(b, at, batch)
	if taps := w.engine.taps.Load(); taps != nil {
		w.tapStage(*taps, program.rules[at], batch)
	}
	for i, m := range batch {
		w.finish(m, &w.processor.results[i])
	}
	w.flush(context.Background())
}
