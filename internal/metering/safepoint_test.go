package metering_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// TestSafepoints collects garbage while guests run endless loops. The
// collector has to stop them, and all goroutines wait meanwhile; it can at the
// end of a slice only. On a busy machine single stops wait for a core, so the
// test looks at the median.
func TestSafepoints(t *testing.T) {
	modules := hostile()
	for _, name := range []string{
		"empty loop", "nested loops", "loop with a huge body", "loop of divisions",
		"loop of memory.copy", "loop of table.fill", "loop of memory.grow", "doubling calls",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.instantiate(t, instrument(t, modules[name]))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- h.runUntil(ctx, m) }()
			before := stops()
			for range 30 {
				runtime.GC() // stops the world twice
			}
			after := stops()
			cancel()
			if err := <-done; !errors.Is(err, errFuel) {
				t.Errorf("got %v", err)
			}
			median, most := quantiles(before, after)
			t.Logf("stopped within %v, %v at most", median, most)
			if median > 10*time.Millisecond {
				t.Errorf("goroutines stalled for %v, %v at most", median, most)
			}
		})
	}
}

// stops is how long it took to stop all goroutines for the collector, since
// the process began.
func stops() *metrics.Float64Histogram {
	sample := []metrics.Sample{{Name: "/sched/pauses/stopping/gc:seconds"}}
	metrics.Read(sample)
	h := sample[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: append([]uint64(nil), h.Counts...), Buckets: h.Buckets}
}

// quantiles returns the upper bounds of the median and of the longest of the
// stops between two moments.
func quantiles(before, after *metrics.Float64Histogram) (median, most time.Duration) {
	total, seen := uint64(0), uint64(0)
	for i := range after.Counts {
		total += after.Counts[i] - before.Counts[i]
	}
	for i := range after.Counts {
		n := after.Counts[i] - before.Counts[i]
		if n == 0 {
			continue
		}
		upper := after.Buckets[i+1]
		if math.IsInf(upper, 1) {
			upper = after.Buckets[i]
		}
		most = time.Duration(upper * 1e9)
		if seen <= total/2 && seen+n > total/2 {
			median = most
		}
		seen += n
	}
	return median, most
}

// runUntil calls "run" with one slice after another until ctx is done.
func (h *host) runUntil(ctx context.Context, m api.Module) error {
	h.budget, h.stop = 1<<60, ctx
	defer func() { h.stop = nil }()
	_, err := m.ExportedFunction("run").Call(context.Background())
	return err
}
