package wasmfilter

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFaults is how many faults in a row open a breaker.
	maxFaults = 5
	// A breaker that opens again pauses twice as long, up to maxPause.
	minPause = time.Second
	maxPause = time.Minute
	// firstBackoff is how long the second fault in a row delays the next
	// instance; each one after it twice as long.
	firstBackoff = 5 * time.Millisecond
)

// A BreakerState says whether a module is being called.
type BreakerState string

// The states of a breaker.
const (
	BreakerClosed   BreakerState = "closed"    // the module is called
	BreakerOpen     BreakerState = "open"      // it is not: it failed too often in a row
	BreakerHalfOpen BreakerState = "half_open" // one call shows whether it still fails
)

// A BreakerError is the error of messages that come while a module's breaker
// is open.
type BreakerError struct {
	Module string
	Faults int   // in a row, when it opened
	Last   error // of them
}

func (e *BreakerError) Error() string {
	return fmt.Sprintf("module %q is not called after %d faults in a row, the last: %v", e.Module, e.Faults, e.Last)
}

// A breaker stops calling a module that fails each time. It is safe for
// concurrent use. The usual case, a closed breaker and no fault, is two loads:
// a call takes less than the lock and the clock of a general breaker.
type breaker struct {
	logger *slog.Logger
	never  bool         // it stays closed, and delays nothing
	faults atomic.Int32 // in a row; from maxFaults on the breaker is not closed

	mu      sync.Mutex // guards what follows, and writing to faults
	until   time.Time  // when open: of the next probe
	pause   time.Duration
	probing bool
	err     *BreakerError // when open
}

func newBreaker(logger *slog.Logger, never bool) *breaker {
	return &breaker{logger: logger, never: never}
}

// allow says whether the module may be called, and whether that is a probe: a
// single call that must be followed by success, fault or abandon.
func (b *breaker) allow() (probe bool, err error) {
	if b.faults.Load() < maxFaults {
		return false, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.faults.Load() < maxFaults:
		return false, nil
	case b.probing || time.Now().Before(b.until):
		return false, b.err
	}
	b.probing = true
	return true, nil
}

// success notes a call that ended well.
func (b *breaker) success() {
	if b.faults.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults.Swap(0) >= maxFaults {
		b.logger.Info("module works again")
	}
	b.probing, b.pause, b.err = false, 0, nil
}

// fault notes a call that ended the instance.
func (b *breaker) fault(f *Fault) {
	if b.never {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	faults := b.faults.Load() + 1
	if faults > maxFaults {
		faults = maxFaults // so that it never comes round
	}
	b.faults.Store(faults)
	if faults < maxFaults {
		return
	}
	b.pause = min(max(2*b.pause, minPause), maxPause)
	b.until = time.Now().Add(b.pause)
	b.err = &BreakerError{Module: f.Module, Faults: maxFaults, Last: f}
	b.logger.Error("module is not called for a while", "faults", maxFaults, "pause", b.pause, "error", f)
}

// abandon ends a probe that says nothing.
func (b *breaker) abandon() {
	b.mu.Lock()
	b.probing = false
	b.mu.Unlock()
}

// backoff returns how long the next instance should wait.
func (b *breaker) backoff() time.Duration {
	faults := b.faults.Load()
	if faults < 2 || faults >= maxFaults {
		return 0
	}
	return firstBackoff << (faults - 2)
}

func (b *breaker) state() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.faults.Load() < maxFaults:
		return BreakerClosed
	case b.probing || !time.Now().Before(b.until):
		return BreakerHalfOpen
	}
	return BreakerOpen
}
