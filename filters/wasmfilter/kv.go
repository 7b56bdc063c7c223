package wasmfilter

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// A KV keeps values for a module, between messages and instances. It is safe
// for concurrent use. Keys and values belong to the caller: a KV copies what
// it keeps. Keys have at most 1 KiB. The context of a KV that isn't in memory
// ends after 100 ms. An error is a fault of the guest's call.
type KV interface {
	// Get appends the value of a key to b.
	Get(ctx context.Context, key, b []byte) (value []byte, found bool, err error)
	// Set sets a key's value. It expires after ttl; 0 or less is never. It
	// reports false where there is no room.
	Set(ctx context.Context, key, value []byte, ttl time.Duration) (stored bool, err error)
	// Incr adds delta to the decimal number that is a key's value, 0 for a
	// missing one, and returns the sum. The key expires after ttl, 0 or less
	// being never, if it was missing; otherwise its time stays. A value that
	// is no number, a sum beyond 64 bits, and no room for the key, are errors.
	Incr(ctx context.Context, key []byte, delta int64, ttl time.Duration) (int64, error)
}

const (
	// DefaultKVKeys and DefaultKVBytes bound what a module keeps in memory.
	DefaultKVKeys  = 100_000
	DefaultKVBytes = 16 << 20
	// kvOverhead is what a key costs beside its bytes and those of its value.
	kvOverhead = 128
	// maxKVKey is the longest key, in bytes.
	maxKVKey = 1 << 10
	// kvTimeout bounds a call of a KV that isn't in memory.
	kvTimeout = 100 * time.Millisecond
)

type kvLimits struct{ keys, bytes int }

// A memoryKV is a KV in memory. Nothing gives way to something new but what
// has expired: a value that disappears before its time would be a wrong
// answer, and a refusal is one that can be seen.
type memoryKV struct {
	now     func() time.Time
	mu      sync.Mutex // guards what follows
	limits  kvLimits
	entries map[string]*kvEntry
	bytes   int
	expiry  kvHeap // of the entries that expire
}

type kvEntry struct {
	key     string
	value   []byte
	expires time.Time // zero for never
	at      int       // in the heap, -1 for not there
}

func (e *kvEntry) size() int { return kvOverhead + len(e.key) + len(e.value) }

func newMemoryKV(now func() time.Time) *memoryKV {
	return &memoryKV{now: now, entries: make(map[string]*kvEntry)}
}

// limit sets the limits. What is there already stays.
func (s *memoryKV) limit(l kvLimits) {
	s.mu.Lock()
	s.limits = l
	s.mu.Unlock()
}

func (s *memoryKV) size() (keys, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return len(s.entries), s.bytes
}

// Get implements [KV].
func (s *memoryKV) Get(_ context.Context, key, b []byte) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	e := s.entries[string(key)]
	if e == nil {
		return b, false, nil
	}
	return append(b, e.value...), true, nil
}

// Set implements [KV].
func (s *memoryKV) Set(_ context.Context, key, value []byte, ttl time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	e := s.entries[string(key)]
	if e == nil {
		if e = s.add(key, len(value)); e == nil {
			return false, nil
		}
	} else if s.bytes+len(value)-len(e.value) > s.limits.bytes && len(value) > len(e.value) {
		return false, nil
	}
	s.put(e, append(e.value[:0], value...))
	s.expireAfter(e, ttl)
	return true, nil
}

var errKVFull = errors.New("no room for another key")

// Incr implements [KV].
func (s *memoryKV) Incr(_ context.Context, key []byte, delta int64, ttl time.Duration) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	e := s.entries[string(key)]
	sum := delta
	if e != nil {
		value, err := strconv.ParseInt(string(e.value), 10, 64)
		if err != nil || strconv.FormatInt(value, 10) != string(e.value) { // no 01 and no +1, as in Redis
			return 0, fmt.Errorf("the value of %q is no whole number", escape(key))
		}
		if sum = value + delta; (sum > value) != (delta > 0) && delta != 0 {
			return 0, fmt.Errorf("the value of %q would go beyond 64 bits", escape(key))
		}
	} else {
		if e = s.add(key, maxDecimal); e == nil {
			return 0, errKVFull
		}
		s.expireAfter(e, ttl)
	}
	s.put(e, strconv.AppendInt(e.value[:0], sum, 10))
	return sum, nil
}

// maxDecimal is the length of the longest number.
const maxDecimal = len("-9223372036854775808")

// add adds a key without a value, nil if there is no room for it with one of
// that size.
func (s *memoryKV) add(key []byte, size int) *kvEntry {
	e := &kvEntry{key: string(key), at: -1}
	if len(s.entries) >= s.limits.keys || s.bytes+e.size()+size > s.limits.bytes {
		return nil
	}
	s.entries[e.key] = e
	s.bytes += e.size()
	return e
}

// put sets an entry's value.
func (s *memoryKV) put(e *kvEntry, value []byte) {
	if cap(value) > 2*len(value)+64 { // don't keep the room of what was larger
		value = append([]byte(nil), value...)
	}
	s.bytes += len(value)
	s.bytes -= len(e.value)
	e.value = value
}

// expireAfter sets when an entry expires.
func (s *memoryKV) expireAfter(e *kvEntry, ttl time.Duration) {
	switch {
	case ttl <= 0:
		e.expires = time.Time{}
		if e.at >= 0 {
			heap.Remove(&s.expiry, e.at)
		}
		return
	case e.at < 0:
		e.expires = s.now().Add(ttl)
		heap.Push(&s.expiry, e)
	default:
		e.expires = s.now().Add(ttl)
		heap.Fix(&s.expiry, e.at)
	}
}

// expire removes what has expired.
func (s *memoryKV) expire() {
	if len(s.expiry) == 0 {
		return
	}
	for now := s.now(); len(s.expiry) > 0 && !now.Before(s.expiry[0].expires); {
		e := heap.Pop(&s.expiry).(*kvEntry)
		delete(s.entries, e.key)
		s.bytes -= e.size()
	}
}

// A kvHeap is the entries that expire, the next one first.
type kvHeap []*kvEntry

// Len, Less, Swap, Push and Pop implement [heap.Interface].
func (h kvHeap) Len() int           { return len(h) }
func (h kvHeap) Less(a, b int) bool { return h[a].expires.Before(h[b].expires) }
func (h kvHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].at, h[b].at = a, b
}

func (h *kvHeap) Push(x any) {
	e := x.(*kvEntry)
	e.at = len(*h)
	*h = append(*h, e)
}

func (h *kvHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.at = -1
	return e
}
