package engine

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/filterd/filterd"
)

// maxStageBatch is how many messages a Stage gets at once, at most.
const maxStageBatch = 64

// stage queues a message for a rule's Stage: in the lane of its channel and
// key, so that their order holds.
func (w *worker) stage(b *boundProgram, at int, m *filterd.Message) {
	r := b.rules[at]
	counters := w.rules[r.number]
	number, err := b.laneOf(at, m, w.engine.config.Workers)
	if err != nil {
		w.engine.ruleError(counters, r, m, err) // and go by the channel
	}
	conflation, err := b.conflationKey(at, m)
	if err != nil {
		conflation = m.Channel // it was counted above
	}
	w.users.Add(2) // the job uses the generation; the worker does so far
	j := job{message: m.Clone(), rule: r, counters: counters, span: w.spanStage(r, m), generation: w.generation, program: b.program, at: at}
	w.push(j, laneKey{rule: r.Name, number: number, overflow: r.Overflow}, len(m.Payload), conflation)
}

// laneOf returns which of several lanes a message goes through: that of its
// channel and key, and of its channel where the key can't be told, or b is nil
// since no rule has seen the message.
func (b *boundProgram) laneOf(at int, m *filterd.Message, lanes int) (int, error) {
	if lanes == 1 {
		return 0, nil
	}
	var hash maphash.Hash
	hash.SetSeed(laneSeed)
	hash.WriteString(m.Channel)
	var err error
	if b != nil && b.keys[at] != nil {
		var value any
		if value, err = b.keys[at].Evaluate(m); err != nil {
			err = fmt.Errorf("key: %w", err)
		} else {
			fmt.Fprintf(&hash, "\x00%v", value)
		}
	}
	return int(hash.Sum64() % uint64(lanes)), err
}

var laneSeed = maphash.MakeSeed()

// A stager is the worker of one lane to a Stage.
type stager struct {
	worker *worker // of the generation of the last job
	batch  []*filterd.Message
	spans  []Span // of the batch
}

// work runs jobs in order: neighbours of one generation and program together.
func (s *stager) work(jobs []job) {
	for len(jobs) > 0 {
		first := jobs[0]
		n := 0
		s.batch, s.spans = s.batch[:0], s.spans[:0]
		for n < len(jobs) && jobs[n].generation == first.generation && jobs[n].program == first.program && jobs[n].message.Channel == first.message.Channel {
			s.batch = append(s.batch, jobs[n].message)
			s.spans = append(s.spans, jobs[n].span)
			n++
		}
		if s.worker == nil || s.worker.generation != first.generation {
			s.worker = first.generation.newWorker()
		}
		s.worker.finishStage(first.program, first.at, s.batch, s.spans)
		for _, m := range s.batch {
			if m.Entry != nil {
				m.Entry.Release()
			}
			first.generation.release()
		}
		clear(s.batch)
		clear(s.spans)
		jobs = jobs[n:]
	}
}

// finishStage runs a rule's Stage on a batch, and all that comes after it. The
// messages' spans are nil where nothing is recorded.
func (w *worker) finishStage(program *program, at int, batch []*filterd.Message, spans []Span) {
	b := w.processor.bind(program)
	for _, m := range batch {
		m.Bind(program.projection)
	}
	w.processor.finishStage(b, at, batch)
	if taps := w.engine.taps.Load(); taps != nil {
		w.tapStage(*taps, program.rules[at], batch)
	}
	for i, m := range batch {
		result := &w.processor.results[i]
		w.span = spans[i]
		w.finish(m, result)
		if w.span != nil {
			w.span.End(result.Outcomes[0].Err)
			w.span = nil
		}
	}
	w.flush(context.Background())
}
