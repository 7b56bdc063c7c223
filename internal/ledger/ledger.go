// Package ledger accounts for messages from outside: it numbers those that are
// published, and says of those that come out which are missing, there twice, or
// out of order.
package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
)

// member is the member of a message's data that the ledger knows it by.
const member = "ledger"

// A Mark is what a message carries: the run it belongs to, and its number, from
// 1, among those of its key.
type Mark struct {
	Run string `json:"run"`
	Key int    `json:"key"`
	N   int    `json:"n"`
}

// A Ledger numbers messages and takes note of what comes out. It is safe for
// concurrent use.
type Ledger struct {
	run  string
	data []byte // what messages have beside the mark: the rest of an object

	mu     sync.Mutex // guards what follows
	next   int        // key of the next message
	keys   []account
	report Report
}

// An account is that of one key.
type account struct {
	numbers int          // given out
	void    map[int]bool // of these, those that were not published, or maybe not
	seen    map[int]bool // those that came out
	most    int          // the largest of these
}

// A Report says what became of the messages.
type Report struct {
	Published  int    `json:"published"`         // messages that the server has acknowledged
	Unsure     int    `json:"unsure"`            // messages whose acknowledgement got lost: they may come out or not
	Received   int    `json:"received"`          // messages that came out, each counted once
	Lost       int    `json:"lost"`              // published messages that did not come out
	Duplicated int    `json:"duplicated"`        // how often a message came out again
	Reordered  int    `json:"reordered"`         // messages that came out, for the first time, after a later one of their key
	Foreign    int    `json:"foreign"`           // what came out and is of no run, or of another
	Missing    []Mark `json:"missing,omitempty"` // the first of those lost
}

// Clean reports whether every message came out once and in order.
func (r Report) Clean() bool { return r.Lost+r.Duplicated+r.Reordered == 0 }

// maxMissing bounds Report.Missing.
const maxMissing = 10

// New makes the ledger of a run. Its messages go by turns to so many keys. Data
// is a JSON object that messages have beside their mark; nil is none.
func New(run string, keys int, data []byte) (*Ledger, error) {
	l := &Ledger{run: run, keys: make([]account, max(keys, 1))}
	for i := range l.keys {
		l.keys[i] = account{void: make(map[int]bool), seen: make(map[int]bool)}
	}
	if len(data) > 0 {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil || object == nil {
			return nil, fmt.Errorf("the data is no JSON object: %s", data)
		}
		if _, taken := object[member]; taken {
			return nil, fmt.Errorf("the data has a member %s: that is where the number goes", member)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, data); err != nil {
			return nil, err
		}
		if l.data = compact.Bytes()[1:]; len(object) > 0 {
			l.data = append([]byte{','}, l.data...)
		}
	} else {
		l.data = []byte("}")
	}
	return l, nil
}

// Next numbers a message and returns its data. Then Refuse or Doubt may say that
// it has not been published, or maybe not.
func (l *Ledger) Next() ([]byte, Mark) {
	l.mu.Lock()
	m := Mark{Run: l.run, Key: l.next}
	a := &l.keys[m.Key]
	a.numbers++
	m.N = a.numbers
	l.next = (l.next + 1) % len(l.keys)
	l.mu.Unlock()
	return append(fmt.Appendf(nil, `{"%s":{"run":%q,"key":%d,"n":%d}`, member, m.Run, m.Key, m.N), l.data...), m
}

// Refuse says that a message was not published.
func (l *Ledger) Refuse(m Mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[m.Key].void[m.N] = true
}

// Doubt says that nobody knows whether a message was published.
func (l *Ledger) Doubt(m Mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[m.Key].void[m.N] = true
	l.report.Unsure++
}

// Receive takes note of what came out: data, or an event around it.
func (l *Ledger) Receive(payload []byte) {
	var received struct {
		Ledger *Mark
		Data   struct{ Ledger *Mark }
	}
	err := json.Unmarshal(payload, &received)
	m := received.Ledger
	if m == nil {
		m = received.Data.Ledger
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || m == nil || m.Run != l.run || m.Key < 0 || m.Key >= len(l.keys) || m.N < 1 || m.N > l.keys[m.Key].numbers {
		l.report.Foreign++
		return
	}
	a := &l.keys[m.Key]
	switch {
	case a.seen[m.N]:
		l.report.Duplicated++
		return
	case m.N < a.most:
		l.report.Reordered++
	}
	a.seen[m.N], a.most = true, max(a.most, m.N)
	l.report.Received++
}

// Report says what became of the messages so far.
func (l *Ledger) Report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.report
	for key := range l.keys {
		a := &l.keys[key]
		r.Published += a.numbers - len(a.void)
		for n := 1; n <= a.numbers; n++ {
			if a.seen[n] || a.void[n] {
				continue
			}
			if r.Lost++; len(r.Missing) < maxMissing {
				r.Missing = append(r.Missing, Mark{l.run, key, n})
			}
		}
	}
	return r
}

// Left returns how many messages have not come out yet, roughly: it is quick.
func (l *Ledger) Left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := -l.report.Received
	for i := range l.keys {
		left += l.keys[i].numbers - len(l.keys[i].void)
	}
	return left
}
