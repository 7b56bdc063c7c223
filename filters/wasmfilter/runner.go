package wasmfilter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filterd/filterd"
)

// A runner is a module's state for one goroutine: an instance is taken from
// the pool for each batch.
type runner struct {
	module *Module
	slots  []int
}

// Run implements [filterd.StageRunner].
func (r *runner) Run(ctx context.Context, batch []*filterd.Message, results []filterd.StageResult) {
	m := r.module
	i, err := m.pool.get(ctx)
	if err != nil {
		failAll(results[:len(batch)], fmt.Errorf("module %q: %w", m.name, err))
		return
	}
	var settled []bool // messages that have a result before their turn; nil: none
	for at := 0; at < len(batch); {
		if settled != nil && settled[at] {
			at++
			continue
		}
		probe, err := m.breaker.allow()
		if err != nil {
			refused := failRest(results[at:len(batch)], settled, at, err)
			m.shared.mu.Lock()
			m.shared.failures.refused += refused
			m.shared.mu.Unlock()
			break
		}
		if i == nil {
			i, err = m.again(ctx)
		}
		done := 1
		if err != nil {
			results[at] = filterd.StageResult{Err: err}
		} else {
			end := len(batch)
			if probe {
				end = at + 1
			} else if settled != nil {
				end = unsettled(settled, at)
			}
			done, err = i.handle(ctx, r.slots, batch[at:end], results[at:end])
		}
		if err == nil {
			m.breaker.success()
			at += done
			if i.worn() {
				i.counters.recycled++
				m.discard(i)
				i = nil
			}
			continue
		}
		if i != nil {
			if done > 1 || len(i.ahead) > 0 {
				m.breaker.success() // of the other messages
			}
			for _, ahead := range i.ahead {
				if settled == nil {
					settled = make([]bool, len(batch))
				}
				settled[at+ahead] = true
			}
			m.discard(i)
			i = nil
		}
		at += done
		if !m.failed(err, probe) {
			failRest(results[at:len(batch)], settled, at, err)
			break
		}
	}
	if i != nil {
		i.ctx = nil
	}
	m.pool.put(i)
}

// unsettled returns the end of the messages from at on that have no result.
func unsettled(settled []bool, at int) int {
	for at < len(settled) && !settled[at] {
		at++
	}
	return at
}

func failAll(results []filterd.StageResult, err error) { failRest(results, nil, 0, err) }

// failRest gives an error to messages that have no result yet, and returns how
// many there were. The first of them is number at in settled.
func failRest(results []filterd.StageResult, settled []bool, at int, err error) (failed uint64) {
	for k := range results {
		if settled == nil || !settled[at+k] {
			results[k] = filterd.StageResult{Err: err}
			failed++
		}
	}
	return failed
}

// failed notes the error that ended an instance, or kept one from starting. It
// reports whether the guest is to blame.
func (m *Module) failed(err error, probe bool) bool {
	var fault *Fault
	if !errors.As(err, &fault) {
		if probe {
			m.breaker.abandon()
		}
		return false
	}
	m.shared.mu.Lock()
	m.shared.failures.fault(fault.Kind)
	m.shared.mu.Unlock()
	m.breaker.fault(fault)
	return true
}

// again starts an instance in place of one that is gone, after a pause if
// others failed before it.
func (m *Module) again(ctx context.Context) (*instance, error) {
	if pause := m.breaker.backoff(); pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("module %q: %w", m.name, ctx.Err())
		}
	}
	i, err := m.start(ctx)
	if err != nil {
		var fault *Fault
		if errors.As(err, &fault) {
			fault.Text = "fresh instance: " + fault.Text
		}
		return nil, err
	}
	i.counters.started++
	return i, nil
}

// discard closes an instance.
func (m *Module) discard(i *instance) {
	m.pool.count(i)
	i.close()
}

// handle treats the first messages of a batch, all of them if it can, and says
// how many. An error ends the instance; the last of these messages has it, or
// none if the guest had decided on all. Messages behind that have a result as
// well are in ahead.
func (i *instance) handle(ctx context.Context, slots []int, batch []*filterd.Message, results []filterd.StageResult) (done int, err error) {
	i.ctx, i.slots, i.ahead = ctx, slots, i.ahead[:0]
	if i.processBatch != nil && len(batch) > 1 {
		for {
			n := batchable(batch, i.batchSize)
			if n < 2 {
				break
			}
			if done, err = i.batch(batch[:n], results[:n]); done > 0 {
				return done, err
			}
		}
	}
	return 1, i.single(batch[:1], &results[0])
}

// begin begins a call about messages.
func (i *instance) begin(messages []*filterd.Message) {
	i.enter(i.module.fuel * int64(len(messages)))
	i.messages, i.phase, i.output = messages, phaseProcess, 0
	for len(i.work) < len(messages) {
		i.work = append(i.work, work{})
	}
}

// end ends a call about messages.
func (i *instance) end() {
	i.leave()
	i.counters.calls++
	i.counters.messages += uint64(len(i.messages))
	i.calls++
	i.messages, i.phase, i.current = nil, phaseStart, -1
	i.ended = ""
}

// single asks about one message.
func (i *instance) single(messages []*filterd.Message, result *filterd.StageResult) error {
	payload := messages[0].Payload
	i.begin(messages)
	i.choose(0)
	if len(payload) > int(i.size) || i.size == 0 {
		if err := i.fit(len(payload)); err != nil {
			i.end()
			*result = filterd.StageResult{Err: err}
			return i.unlessRefused(err)
		}
	}
	i.memory.Write(i.at, payload)
	i.stack[0] = uint64(len(payload))
	if err := i.process.CallWithStack(i, i.stack[:1]); err != nil {
		err = i.fault(err)
		i.end()
		i.work[0] = work{}
		*result = filterd.StageResult{Err: err}
		return err
	}
	i.end()
	return i.conclude(&i.work[0], int32(i.stack[0]), result)
}

// unlessRefused returns the error unless the guest only had no buffer, which
// is an error about the message.
func (i *instance) unlessRefused(err error) error {
	if _, ok := err.(*refusal); ok {
		i.counters.errors++
		return nil
	}
	return err
}

// The verdicts of guests. What is negative is an error.
const (
	verdictDrop    = 0
	verdictPass    = 1
	verdictReplace = 2
)

// conclude makes a result of a verdict and of what the guest asked for. The
// error is a fault: a verdict that makes no sense.
func (i *instance) conclude(w *work, verdict int32, result *filterd.StageResult) error {
	*result = filterd.StageResult{Keep: verdict > verdictDrop, Emitted: w.emitted}
	var err error
	switch {
	case verdict == verdictDrop, verdict == verdictPass:
	case verdict == verdictReplace && w.replaced:
		result.Payload = w.payload
	case verdict == verdictReplace:
		err = i.module.fault(FaultABI, "%s: verdict 2, but replace was not called", exportProcess)
	case verdict < 0:
		i.counters.errors++
		*result = filterd.StageResult{Err: &GuestError{Module: i.module.name, Code: verdict, Text: w.text}}
	default:
		err = i.module.fault(FaultABI, "%s: verdict %d: want 0, 1, 2 or an error below 0", exportProcess, verdict)
	}
	if err != nil {
		*result = filterd.StageResult{Err: err}
	}
	if w.replaced || w.emitted != nil || w.text != "" || w.now != 0 {
		*w = work{}
	}
	return err
}
