package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxKVValue is the largest value, in bytes: all that a KV in memory holds by
// default, so that dry runs keep whatever is kept in earnest.
const maxKVValue = 16 << 20

// A KV keeps values for a WebAssembly module in Redis, where every process
// that runs the module finds them, and where they outlive it. It is a
// wasmfilter.KV, which bounds keys, and the time of a call. Safe for concurrent
// use.
//
// A key is kept as filterd:kv:MODULE:KEY, with %3A for a colon in the module's
// name and %25 for a percent sign, so that no module's keys are another's.
// Values have at most 16 MiB. How many there are is not bounded but by Redis'
// maxmemory: without a policy of eviction Redis refuses what is too much, and
// with one values may be gone before their time.
type KV struct {
	rdb    redis.UniversalClient
	prefix string
}

// NewKV makes a KV for the module of that name. The client stays the caller's;
// its ContextTimeoutEnabled must be set, as [Options.Client] does, or a call
// takes as long as the client's timeouts allow.
func NewKV(rdb redis.UniversalClient, module string) *KV {
	escaped := strings.NewReplacer("%", "%25", ":", "%3A").Replace(module)
	return &KV{rdb: rdb, prefix: "filterd:kv:" + escaped + ":"}
}

// Get appends the value of a key to b.
func (s *KV) Get(ctx context.Context, key, b []byte) (value []byte, found bool, err error) {
	kept, err := s.rdb.Get(ctx, s.key(key)).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return b, false, nil
	case err != nil:
		return b, false, s.failed(err)
	}
	return append(b, kept...), true, nil
}

// Set sets a key's value. It expires after ttl, in whole milliseconds; 0 or
// less is never. It reports false for a value that is too large, and where
// Redis has reached its maxmemory.
func (s *KV) Set(ctx context.Context, key, value []byte, ttl time.Duration) (stored bool, err error) {
	if len(value) > maxKVValue {
		return false, nil
	}
	err = s.rdb.Set(ctx, s.key(key), value, max(ttl, 0)).Err()
	switch {
	case redis.IsOOMError(err):
		return false, nil
	case err != nil:
		return false, s.failed(err)
	}
	return true, nil
}

// Incr adds delta to the decimal number that is a key's value, 0 for a missing
// one, and returns the sum. A key that was missing expires after ttl, in whole
// milliseconds, 0 or less being never; the time of another one stays. A value
// that is no number, a sum beyond 64 bits, and Redis' maxmemory are errors. So
// is a lost reply: then delta may have been added. It is never added twice.
func (s *KV) Incr(ctx context.Context, key []byte, delta int64, ttl time.Duration) (int64, error) {
	// A transaction, so that a counter is never there without its time, nor
	// expires between the two commands, and because go-redis never sends one
	// again. Not a script, which not every user may run.
	transaction := s.rdb.TxPipeline()
	if ttl > 0 {
		transaction.SetNX(ctx, s.key(key), 0, ttl) // only queued
	}
	add := transaction.IncrBy(ctx, s.key(key), delta)
	_, err := transaction.Exec(ctx)
	if err = cmp.Or(add.Err(), err); err != nil {
		return 0, s.failed(err)
	}
	return add.Val(), nil
}

func (s *KV) key(key []byte) string { return s.prefix + string(key) }

func (s *KV) failed(err error) error { return fmt.Errorf("redis at %s: %w", address(s.rdb), err) }
