package pubsub

import (
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/resp"
)

const (
	// maxBatch is how many messages a handler gets at once.
	maxBatch = 256
	// The names that are kept, so that a message needs no memory for its own:
	// so many, of so many bytes. When there are more they are forgotten.
	maxNames      = 4096
	maxNameLength = 1024
)

// A batch holds the messages that a handler gets at once, and their memory for
// the next ones. Their payloads are the transport's.
type batch struct {
	messages [maxBatch]*filterd.Message // those in use first
	count    int
	names    map[string]string
	channel  string // of the last message
	sharded  bool   // its messages are those of sharded channels
}

// add adds the message of a frame, and reports whether that is all.
func (b *batch) add(f *resp.Frame, received time.Time) (full bool) {
	m := b.messages[b.count]
	if m == nil {
		m = &filterd.Message{}
		b.messages[b.count] = m
	}
	b.count++
	if string(f.Channel) != b.channel {
		b.channel = b.intern(f.Channel)
	}
	if m.Channel != b.channel || m.Pattern != string(f.Pattern) {
		// It has the contract and the binding of another channel.
		*m = filterd.Message{Channel: b.channel, Pattern: b.intern(f.Pattern), Sharded: b.sharded}
	}
	m.Payload, m.Received = f.Payload, received
	return b.count == maxBatch
}

// taken returns the messages that were added.
func (b *batch) taken() []*filterd.Message { return b.messages[:b.count] }

// reset makes the messages those of nothing: what a handler decoded of them may
// be large.
func (b *batch) reset() {
	for _, m := range b.taken() {
		m.Reset(nil)
	}
	b.count = 0
}

// intern returns the string of a name.
func (b *batch) intern(name []byte) string {
	if text, known := b.names[string(name)]; known || len(name) == 0 {
		return text
	}
	text := string(name)
	if len(name) <= maxNameLength {
		if b.names == nil || len(b.names) >= maxNames {
			b.names = make(map[string]string)
		}
		b.names[text] = text
	}
	return text
}

// Losses are messages that were received and not handled.
type losses struct {
	messages int
	from     time.Time             // when the oldest of them was received
	subs     map[subscription]bool // what they came through
}

// add adds the message of a frame.
func (l *losses) add(f *resp.Frame, received time.Time) {
	if l.messages++; l.messages == 1 {
		l.from, l.subs = received, make(map[subscription]bool)
	}
	l.subs[through(f)] = true
}

// through returns the subscription that a message came through.
func through(f *resp.Frame) subscription {
	if f.Verb == "pmessage" {
		return subscription{name: string(f.Pattern), glob: true}
	}
	return subscription{name: string(f.Channel), sharded: f.Verb == "smessage"}
}
