// Package lograte keeps a log readable where the same line may come with every
// message.
package lograte

import (
	"sync"
	"time"
)

// Interval is how often one kind of line is logged at most.
const Interval = 10 * time.Second

// A Limiter limits one kind of line. The zero Limiter is ready. Safe for
// concurrent use.
type Limiter struct {
	mu         sync.Mutex // guards what follows
	next       time.Time
	suppressed int
}

// Allow reports whether the line may be logged now, and how many were
// suppressed since it last was.
func (l *Limiter) Allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.suppressed++
		return 0, false
	}
	suppressed, l.suppressed = l.suppressed, 0
	l.next = now.Add(Interval)
	return suppressed, true
}
