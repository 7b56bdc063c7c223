package wasmfilter

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/filterd/filterd/internal/lograte"
)

// burst is how many lines of one level a guest may log in an interval. Every
// line of a guest is another, so the first one does not stand for the rest.
const burst = 20

// A logLimiter bounds what a guest logs. It is safe for concurrent use.
type logLimiter struct {
	mu         sync.Mutex // guards what follows
	until      time.Time  // end of the interval
	lines      int
	suppressed int
}

// allow reports whether a line may be logged now, and how many were
// suppressed in the last interval.
func (l *logLimiter) allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); !now.Before(l.until) {
		l.until, l.lines = now.Add(lograte.Interval), 0
	}
	if l.lines++; l.lines > burst {
		l.suppressed++
		return 0, false
	}
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}

// guestLog logs what a guest says.
func (m *Module) guestLog(level slog.Level, text []byte) {
	if !m.logger.Enabled(context.Background(), level) {
		return
	}
	suppressed, ok := m.logs[(level-slog.LevelDebug)/4].allow()
	if !ok {
		return
	}
	attributes := []slog.Attr{slog.String("text", escape(text))}
	if suppressed > 0 {
		attributes = append(attributes, slog.Int("suppressed", suppressed))
	}
	m.logger.LogAttrs(context.Background(), level, "guest", attributes...)
}

// warn tells a guest's author why a host function refuses something. The
// arguments are names and values of attributes.
func (m *Module) warn(text string, attributes ...any) {
	suppressed, ok := m.warnings.Allow()
	if !ok {
		return
	}
	if suppressed > 0 {
		attributes = append(attributes, "suppressed", suppressed)
	}
	m.logger.Warn(text, attributes...)
}

// A lineBuffer gathers what a guest writes to a stream, until the line is
// complete or too long.
type lineBuffer struct{ line []byte }

// write adds to the stream and calls take for each complete line.
func (l *lineBuffer) write(b []byte, take func(line []byte)) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		part := b
		if end >= 0 {
			part = b[:end]
		}
		if room := maxText - len(l.line); room > 0 {
			l.line = append(l.line, part[:min(room, len(part))]...)
		}
		if end < 0 {
			return
		}
		l.flush(take)
		b = b[end+1:]
	}
}

// flush ends the line.
func (l *lineBuffer) flush(take func(line []byte)) {
	if len(l.line) > 0 {
		take(l.line)
	}
	l.line = l.line[:0]
}
