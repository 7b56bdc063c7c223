package measure

import (
	"errors"

	"github.com/filterd/filterd/internal/resp"
)

// A Message is one that is published again and again.
type Message struct {
	Channel string
	Payload []byte
	Matched bool // some rule keeps it
	Outputs []Output
}

// An Output is what comes out of a message.
type Output struct {
	Channel string
	// Payload is nil if it is another one each time.
	Payload []byte
	// Vague says that it may come or not: it depends on more than the message.
	Vague bool
}

// A Load is a list of messages that are published in turn. It does not change.
type Load struct {
	messages []Message
	frames   []byte // the PUBLISH commands
	ends     []int  // of each message's, in frames
	outputs  []int  // that come out of all messages before, and at the end of all
	channels map[string]*target
}

// A target is a channel that something comes out to.
type target struct {
	exact   bool
	each    uint64 // outputs in one turn
	known   map[string][]int
	unknown []int // whose payload is not known
	before  []int // outputs of all messages before, and at the end of all
}

// minLoad is how many bytes a load has at least: short lists are repeated, so
// that many messages can be written at once.
const minLoad = 256 << 10

// NewLoad makes a load. It keeps the messages.
func NewLoad(messages []Message) (*Load, error) {
	if len(messages) == 0 {
		return nil, errors.New("a load needs a message")
	}
	l := &Load{outputs: []int{0}, channels: make(map[string]*target)}
	for len(l.frames) < minLoad {
		for _, m := range messages {
			l.add(m)
		}
	}
	for _, t := range l.channels {
		count := 0
		for _, m := range l.messages {
			t.before = append(t.before, count)
			for _, o := range m.Outputs {
				if l.channels[o.Channel] == t {
					count++
				}
			}
		}
		t.before = append(t.before, count)
		t.each = uint64(count)
	}
	return l, nil
}

func (l *Load) add(m Message) {
	at := len(l.messages)
	l.messages = append(l.messages, m)
	l.frames = resp.AppendPublish(l.frames, m.Channel, m.Payload)
	l.ends = append(l.ends, len(l.frames))
	for _, o := range m.Outputs {
		t := l.channels[o.Channel]
		if t == nil {
			t = &target{exact: true, known: make(map[string][]int)}
			l.channels[o.Channel] = t
		}
		t.exact = t.exact && !o.Vague
		if o.Payload == nil {
			t.unknown = append(t.unknown, at)
		} else {
			t.known[string(o.Payload)] = append(t.known[string(o.Payload)], at)
		}
	}
	l.outputs = append(l.outputs, l.outputs[at]+len(m.Outputs))
}

// Matched returns how many of the first n messages a rule keeps.
func (l *Load) Matched(n uint64) (matched uint64) {
	each := uint64(0)
	rest := n % uint64(len(l.messages))
	for i, m := range l.messages {
		if m.Matched {
			each++
			if uint64(i) < rest {
				matched++
			}
		}
	}
	return matched + n/uint64(len(l.messages))*each
}

// expected returns how many outputs the first n messages have, given how many
// there are before each, and at the end.
func expected(before []int, n uint64) uint64 {
	turn := uint64(len(before) - 1)
	return n/turn*uint64(before[turn]) + uint64(before[n%turn])
}

// exact reports whether all that comes out is known.
func (l *Load) exact() bool {
	for _, t := range l.channels {
		if !t.exact {
			return false
		}
	}
	return true
}

// Raw returns the same load for the raw relay: all from one channel, and what
// comes out is what went in. Plan says what the relay is to do with it.
func (l *Load) Raw(channel, word string) (*Load, RawPlan, error) {
	plan := RawPlan{Channel: channel, Word: word}
	messages := make([]Message, len(l.messages))
	for i, m := range l.messages {
		messages[i] = Message{Channel: channel, Payload: m.Payload, Matched: m.Matched}
		to := []string{}
		for _, o := range m.Outputs {
			to = append(to, o.Channel)
			messages[i].Outputs = append(messages[i].Outputs, Output{Channel: o.Channel, Payload: m.Payload})
		}
		plan.To = append(plan.To, to)
	}
	raw, err := NewLoad(messages)
	return raw, plan, err
}
