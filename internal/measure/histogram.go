package measure

import (
	"math/bits"
	"time"
)

// steps is how many buckets there are for the smallest values, and half of it
// for each power of two above: a value is known to 1 part in 128.
const steps = 256

// A Histogram counts durations in constant memory. It is for one goroutine.
type Histogram struct {
	counts [58 * steps / 2]uint64
	count  uint64
	most   time.Duration
}

// Add counts a duration. A negative one is counted as 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.count++
	h.most = max(h.most, d)
}

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 { return h.count }

// Max returns the longest of them.
func (h *Histogram) Max() time.Duration { return h.most }

// Quantile returns the duration that a part of all, 0.99 for instance, is not
// above; 0 if there is none.
func (h *Histogram) Quantile(part float64) time.Duration {
	rank := uint64(part*float64(h.count) + 0.5)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return min(time.Duration(upper(i)), h.most)
		}
	}
	return 0
}

// bucket returns where a value is counted: values below steps each have their
// own, others share one with what differs in lower bits only.
func bucket(value uint64) int {
	shift := max(0, bits.Len64(value)-bits.Len64(steps-1))
	return shift*steps/2 + int(value>>shift)
}

// upper returns the largest value of a bucket.
func upper(bucket int) uint64 {
	if bucket < steps {
		return uint64(bucket)
	}
	shift := bucket/(steps/2) - 1
	return (uint64(bucket-shift*steps/2)+1)<<shift - 1
}
