package pubsub

import (
	"sync"
	"time"
)

// logInterval is how often one kind of event is logged at most.
const logInterval = 10 * time.Second

// A limiter keeps a log readable. The zero limiter is ready.
type limiter struct {
	mu         sync.Mutex // guards what follows
	next       time.Time
	suppressed int
}

// allow reports whether something may be logged now, and how often it was
// suppressed since it last was.
func (l *limiter) allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.suppressed++
		return 0, false
	}
	suppressed, l.suppressed = l.suppressed, 0
	l.next = now.Add(logInterval)
	return suppressed, true
}
