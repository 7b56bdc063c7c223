package pubsub

import (
	"context"
	"errors"
	"time"

	"github.com/filterd/filterd/internal/resp"
	"github.com/redis/go-redis/v9"
)

// An entryConn asks for entries of one stream, one command at a time.
type entryConn interface {
	// ask sends a command. The reply must be taken before the next ask.
	ask(name string, args ...string) error
	// asked reports whether a reply has still to be taken, all or in part.
	asked() bool
	// ready reports whether next would not wait. It may say no where it would
	// not.
	ready() bool
	// next takes the next part of the reply. Its fields hold until the next
	// call.
	next(ctx context.Context) (entryPart, error)
	close() error
}

// An entryPart is a part of a list of entries.
type entryPart struct {
	entries []streamEntry
	last    bool
	since   time.Time // when Redis may have replied, at the earliest
}

// isNamed reports whether a command replies entries beside their stream's name.
func isNamed(command string) bool { return command == "XREADGROUP" || command == "XREAD" }

// connectEntries makes a connection for entries of at most maxMessage bytes: one
// of its own from a client of one server. Others choose the server themselves.
func connectEntries(ctx context.Context, rdb redis.UniversalClient, stream string, maxMessage int) (entryConn, error) {
	c, ok := rdb.(*redis.Client)
	if !ok {
		return &lentEntries{rdb: rdb, stream: stream, limit: maxMessage}, nil
	}
	w, err := dial(ctx, c)
	if err != nil {
		return nil, err
	}
	w.Reader = resp.NewReader(w.conn, readBuffer, maxMessage+besides)
	timeout := c.Options().ReadTimeout
	if timeout <= 0 {
		timeout = answerTimeout
	}
	return &wiredEntries{wire: w, timeout: timeout, limit: maxMessage}, nil
}

// wiredEntries reads what comes in place, in one buffer: of a reply there is
// never more in memory than that, and one entry.
type wiredEntries struct {
	*wire
	timeout time.Duration // for a part of a reply
	limit   int           // of an entry, in bytes
	found   resp.Entries
	named   bool // the list comes beside its stream
	since   time.Time
	waiting bool
}

func (w *wiredEntries) ask(name string, args ...string) error {
	w.named, w.since, w.waiting = isNamed(name), time.Now(), true
	return w.send(name, args...)
}

func (w *wiredEntries) asked() bool { return w.waiting }

func (w *wiredEntries) ready() bool { return w.waiting && (w.Buffered() || w.wire.ready()) }

func (w *wiredEntries) next(context.Context) (entryPart, error) {
	var f resp.Frame
	for {
		switch ok, err := w.NextEntries(&w.found, &f, w.named); {
		case err != nil:
			return entryPart{}, err
		case ok && f.Kind == resp.Error:
			w.waiting = false
			return entryPart{}, replyError(f.Payload)
		case ok:
			w.waiting = w.found.Left > 0
			return entryPart{foundEntries(&w.found, w.limit), !w.waiting, w.since}, nil
		}
		if err := w.conn.SetReadDeadline(time.Now().Add(w.timeout)); err != nil {
			return entryPart{}, err
		}
		if err := w.fill(); err != nil {
			return entryPart{}, broken(err)
		}
	}
}

// lentEntries asks through a client that is others', too. A reply is in memory
// as a whole.
type lentEntries struct {
	rdb    redis.UniversalClient
	stream string
	limit  int
	args   []any // of the command to be sent
}

func (l *lentEntries) ask(name string, args ...string) error {
	l.args = append(make([]any, 0, 1+len(args)), name)
	for _, arg := range args {
		l.args = append(l.args, arg)
	}
	return nil
}

func (l *lentEntries) asked() bool { return l.args != nil }

func (l *lentEntries) ready() bool { return false }

func (l *lentEntries) next(ctx context.Context) (entryPart, error) {
	command := newOnce(ctx, l.stream, l.args...)
	named, since := isNamed(l.args[0].(string)), time.Now()
	l.args = nil
	_ = l.rdb.Process(ctx, command) // the command has the error
	reply, err := command.Result()
	var entries []streamEntry
	switch {
	case errors.Is(err, redis.Nil):
		err = nil
	case err != nil:
	case named:
		entries, err = parseStreams(reply)
	default:
		entries, err = parseEntries(reply)
	}
	for i := range entries {
		entries[i].bound(l.limit)
	}
	return entryPart{entries, true, since}, err
}

func (l *lentEntries) close() error { return nil }
