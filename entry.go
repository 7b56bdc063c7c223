package filterd

import "sync/atomic"

// An Entry is what a stream's message owes its stream: it is pending in its
// group until everybody who holds it has released it. Then its source
// acknowledges it, or sees to it that it is delivered again, if somebody has
// said so meanwhile. Clones of a message share it. Safe for concurrent use.
type Entry struct {
	Stream string // as it was subscribed to
	Group  string
	ID     string
	// Server stands for the server that the stream is on: a sink that
	// acknowledges the entry must write to the same. In package pubsub it is
	// the client that source and sink were made with.
	Server any
	// Fault, if not nil, says why the entry is not to be treated: it holds no
	// message, or was delivered in vain too often. It becomes a dead letter.
	Fault *ValidationError

	settle  func(*Entry)
	holds   atomic.Int32
	outcome atomic.Int32
}

// An EntryOutcome says what is to become of an entry.
type EntryOutcome int32

// The outcomes. A later one replaces an earlier one, but for EntryAcknowledged,
// which is final.
const (
	EntryDone         EntryOutcome = iota // acknowledge it
	EntryPostponed                        // deliver it again: a sink can't be reached, which is not the message's fault
	EntryFailed                           // deliver it again, and count that against the message
	EntryAcknowledged                     // it is not pending any more
)

// Init makes e an entry that is held once. Settle is called when nobody holds
// it any more, by whoever lets go of it last; it must not block.
func (e *Entry) Init(stream, group, id string, settle func(*Entry)) {
	e.Stream, e.Group, e.ID, e.settle = stream, group, id, settle
	e.holds.Store(1)
}

// Hold keeps the entry pending until Release. The caller holds it already, or
// borrows the message from somebody who does.
func (e *Entry) Hold() { e.holds.Add(1) }

// Release ends a Hold.
func (e *Entry) Release() {
	if e.holds.Add(-1) == 0 {
		e.settle(e)
	}
}

// Alone reports whether nobody but the caller holds the entry, and nobody has
// said that it is to be delivered again.
func (e *Entry) Alone() bool { return e.holds.Load() == 1 && e.Outcome() == EntryDone }

// Held reports whether somebody holds the entry.
func (e *Entry) Held() bool { return e.holds.Load() > 0 }

// Outcome returns what is to become of the entry, as far as is known.
func (e *Entry) Outcome() EntryOutcome { return EntryOutcome(e.outcome.Load()) }

// Postpone leaves the entry pending, to be delivered again.
func (e *Entry) Postpone() { e.become(EntryPostponed) }

// Fail leaves the entry pending, to be delivered again as often as its stream's
// MaxDeliveries allows.
func (e *Entry) Fail() { e.become(EntryFailed) }

// Acknowledge says that the entry is not pending any more: a sink has
// acknowledged it together with what it wrote.
func (e *Entry) Acknowledge() { e.become(EntryAcknowledged) }

func (e *Entry) become(next EntryOutcome) {
	for {
		now := e.outcome.Load()
		if int32(next) <= now || e.outcome.CompareAndSwap(now, int32(next)) {
			return
		}
	}
}
