// Package stamps finds the messages that are missing among those that their
// publishers have numbered.
package stamps

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The bounds of what a tracker remembers.
const (
	// maxSeries is how many series a tracker remembers for sure: those seen
	// last. It has room for twice as many.
	maxSeries = 8192
	// maxSpans is how many spans of missing messages a series remembers, in
	// case they are only late.
	maxSpans = 16
	// maxJump is the largest loss that is believed.
	maxJump = 1 << 40
)

// A Tracker follows series: the messages of one producer on one channel. The
// zero Tracker is ready. Safe for concurrent use.
type Tracker struct {
	mu         sync.Mutex // guards what follows
	young, old map[string]map[string]*series
	count      int // of young
	era        uint64
	keep       func(channel string) bool // of the era
}

// A series is what came of one producer on one channel.
type series struct {
	next uint64    // what comes if nothing is lost
	seen time.Time // when the last message came
	late []span    // what is missing; the last spans of it
}

// A span is the numbers from first to last.
type span struct{ first, last uint64 }

// A Loss is what a message tells of those before it.
type Loss struct {
	// Lost is how many of them are missing, as far as it wasn't known; or -1
	// for a message that was taken for lost and is only late.
	Lost int64
	// Since is when the last one before the missing ones came.
	Since time.Time
}

// Take takes the message of a producer with a number, which came in an era. The
// first one of a series tells nothing. It begins none if it came in an era that
// is over, unless that was the last one and its channel was kept: what comes next
// on the channel may come after a time in which nobody listened.
func (t *Tracker) Take(era uint64, channel string, producer []byte, number uint64, now time.Time) Loss {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.find(channel, producer)
	switch {
	case s == nil:
		if era == t.era || era+1 == t.era && t.keep(channel) {
			t.add(channel, string(producer), &series{next: number + 1, seen: now})
		}
		return Loss{}
	case number < s.next:
		return Loss{Lost: -s.arrive(number)}
	}
	return s.reach(number, now, 1)
}

// Reached takes word that a producer has sent all up to a number. It begins no
// series: who hears of the numbers may not yet hear the messages.
func (t *Tracker) Reached(channel, producer string, number uint64, now time.Time) Loss {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.find(channel, []byte(producer))
	if s == nil || number < s.next {
		return Loss{}
	}
	return s.reach(number+1, now, 0)
}

// Keep begins an era, or goes on with it: it forgets the series of all channels
// but those that it is told to keep. Who stops listening to a channel loses
// nothing by that. The first era is 0.
func (t *Tracker) Keep(era uint64, keep func(channel string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.era, t.keep = era, keep
	for channel, of := range t.young {
		if !keep(channel) {
			t.count -= len(of)
			delete(t.young, channel)
		}
	}
	for channel := range t.old {
		if !keep(channel) {
			delete(t.old, channel)
		}
	}
}

// find returns a series that is known, and makes it young again. The caller
// holds mu.
func (t *Tracker) find(channel string, producer []byte) *series {
	if s := t.young[channel][string(producer)]; s != nil {
		return s
	}
	s := t.old[channel][string(producer)]
	if s != nil {
		delete(t.old[channel], string(producer))
		t.add(channel, string(producer), s)
	}
	return s
}

// add adds a series, and forgets those that are old when there are too many.
// The caller holds mu.
func (t *Tracker) add(channel, producer string, s *series) {
	if t.count == maxSeries {
		t.old, t.young, t.count = t.young, nil, 0
	}
	if t.young == nil {
		t.young = make(map[string]map[string]*series)
	}
	of := t.young[channel]
	if of == nil {
		of = make(map[string]*series)
		t.young[channel] = of
	}
	of[producer] = s
	t.count++
}

// reach says what is missing before a number, and goes on behind it by as many
// as came with it.
func (s *series) reach(number uint64, now time.Time, came uint64) Loss {
	var loss Loss
	if missing := number - s.next; missing > 0 && missing <= maxJump {
		loss = Loss{Lost: int64(missing), Since: s.seen}
		if len(s.late) == maxSpans {
			s.late = slices.Delete(s.late, 0, 1)
		}
		s.late = append(s.late, span{s.next, number - 1})
	}
	s.next = number + came
	if came > 0 {
		s.seen = now
	}
	return loss
}

// arrive takes a message that was overtaken, and returns 1 if it was missing.
func (s *series) arrive(number uint64) int64 {
	for i, late := range s.late {
		if number < late.first || number > late.last {
			continue
		}
		var rest []span
		if number > late.first {
			rest = append(rest, span{late.first, number - 1})
		}
		if number < late.last {
			rest = append(rest, span{number + 1, late.last})
		}
		s.late = slices.Replace(s.late, i, i+1, rest...)
		if len(s.late) > maxSpans {
			s.late = slices.Delete(s.late, 0, 1)
		}
		return 1
	}
	return 0 // twice, or forgotten
}

// A Heartbeat says how far a producer has come on some channels.
type Heartbeat struct {
	Producer  string            `json:"producer"`
	Sequences map[string]uint64 `json:"sequences"` // by channels
}

// The bounds of a heartbeat.
const (
	maxHeartbeat = 1 << 20 // bytes
	maxSequence  = 1 << 62
	// MaxChannels is how many channels a heartbeat should have at most: what
	// their names take is bounded then in any sensible case.
	MaxChannels = 500
)

// Append appends the heartbeat's JSON.
func (h *Heartbeat) Append(b []byte) []byte {
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers marshal
	}
	return append(b, text...)
}

// ParseHeartbeat parses the JSON of a heartbeat.
func ParseHeartbeat(text []byte) (*Heartbeat, error) {
	if len(text) > maxHeartbeat {
		return nil, fmt.Errorf("a heartbeat of %d bytes is over the limit of %d", len(text), maxHeartbeat)
	}
	h := &Heartbeat{}
	if err := json.Unmarshal(text, h); err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	if h.Producer == "" {
		return nil, errors.New("heartbeat: no producer")
	}
	for channel, n := range h.Sequences {
		if n > maxSequence {
			return nil, fmt.Errorf("heartbeat: the sequence of %q is over the limit", channel)
		}
	}
	return h, nil
}
