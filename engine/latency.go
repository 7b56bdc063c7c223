package engine

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
)

// LatencyBuckets is how many buckets a [Latency] has.
const LatencyBuckets = 22

// firstBound is the binary logarithm of the first bucket's bound in
// nanoseconds.
const firstBound = 14

// A Latency counts how long messages took: from when they were received until
// they were published, logged, or taken by a callback or a webhook.
type Latency struct {
	// Buckets counts by time: Buckets[i] what took longer than the bucket
	// before it allows, but no longer than LatencyBound(i); the last one has
	// no bound.
	Buckets [LatencyBuckets]uint64
	// Sum is the time of all together.
	Sum time.Duration
}

// LatencyBound returns the bound of a bucket: 16.384 µs, and twice that of the
// one before it.
func LatencyBound(bucket int) time.Duration { return 1 << (firstBound + bucket) }

// Count returns how many messages were counted.
func (l *Latency) Count() uint64 {
	var n uint64
	for _, bucket := range l.Buckets {
		n += bucket
	}
	return n
}

// Add returns the sum of l and o.
func (l Latency) Add(o Latency) Latency {
	for i, n := range o.Buckets {
		l.Buckets[i] += n
	}
	l.Sum += o.Sum
	return l
}

// Sub returns what was counted between o and l.
func (l Latency) Sub(o Latency) Latency {
	for i, n := range o.Buckets {
		l.Buckets[i] -= n
	}
	l.Sum -= o.Sum
	return l
}

// Quantile returns a time that a part of the messages, from 0 to 1, did not
// exceed; 0 if there were none. It is exact to the bucket, and a guess within
// it: the largest is twice the bound of the last but one.
func (l *Latency) Quantile(part float64) time.Duration {
	rank := part * float64(l.Count())
	for i, n := range l.Buckets {
		if n > 0 && rank <= float64(n) {
			low := time.Duration(0)
			if i > 0 {
				low = LatencyBound(i - 1)
			}
			return low + time.Duration(rank/float64(n)*float64(LatencyBound(i)-low))
		}
		rank -= float64(n)
	}
	return 0
}

// latencyCounters is a Latency that is counted.
type latencyCounters struct {
	buckets [LatencyBuckets]atomic.Uint64
	sum     atomic.Int64 // in nanoseconds

	exemplars atomic.Pointer[exemplars] // nil until there is one
}

// exemplars are the last ones of each bucket.
type exemplars [LatencyBuckets]atomic.Pointer[Exemplar]

// observe counts a message that was received at some time; the zero time is
// none. The span is that of its delivery; nil if there is none.
func (c *latencyCounters) observe(received, now time.Time, span Span) {
	if received.IsZero() {
		return
	}
	took := max(1, now.Sub(received)) // clocks may be set back
	bucket := min(bits.Len64(uint64(took-1)>>firstBound), LatencyBuckets-1)
	c.buckets[bucket].Add(1)
	c.sum.Add(int64(took))
	if span != nil {
		c.keep(bucket, took, now, span.Context())
	}
}

// keep makes a message the exemplar of its bucket.
func (c *latencyCounters) keep(bucket int, took time.Duration, now time.Time, at filterd.TraceContext) {
	kept := c.exemplars.Load()
	if kept == nil {
		c.exemplars.CompareAndSwap(nil, new(exemplars))
		kept = c.exemplars.Load()
	}
	kept[bucket].Store(&Exemplar{TraceID: at.TraceID, SpanID: at.SpanID, Took: took, Time: now})
}

func (c *latencyCounters) snapshot() (l Latency) {
	for i := range c.buckets {
		l.Buckets[i] = c.buckets[i].Load()
	}
	l.Sum = time.Duration(c.sum.Load())
	return l
}
