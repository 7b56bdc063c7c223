package measure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A Report is what filterd says of itself in its log, as JSON, when it ends:
// what it received and did, and what it could not do.
type Report struct {
	Received uint64 // messages, of all channels
	Invalid  uint64 // of those, messages that break their contract
	Rules    map[string]RuleReport
	// Heap is what was on the heap in bytes, and Allocations how often
	// there was one, when it was ready and at the end; with --log-memory.
	Heap, Allocations []uint64
	// Losses says what was lost, and why, in words.
	Losses []string
	// Dropped says which rules' messages gave way in a queue.
	Dropped []string
}

// A RuleReport is what one rule did.
type RuleReport struct {
	Matched     uint64 `json:"matched"`
	Filtered    uint64 `json:"filtered"`
	Delivered   uint64 `json:"delivered"`
	NoReceivers uint64 `json:"no_receivers"`
	Errors      uint64 `json:"errors"`
	Undelivered uint64 `json:"undelivered"`
	Dropped     uint64 `json:"dropped"`
}

// reports are the messages of the log that say something for a Report.
var reports = [...][]byte{[]byte(`"msg":"channel"`), []byte(`"msg":"rule"`), []byte(`"msg":"memory"`), []byte(`"msg":"stopped"`)}

// Line takes a line of the log: a Relay's Log.
func (r *Report) Line(line []byte) {
	if !slices.ContainsFunc(reports[:], func(msg []byte) bool { return bytes.Contains(line, msg) }) {
		return
	}
	var l struct {
		Msg             string
		Rule            string
		Received        uint64
		Heap            uint64
		Allocations     uint64
		Gaps            uint64
		DeadLettersLost uint64 `json:"dead_letters_lost"`
		Refused         uint64
		RuleReport
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return // no line of a log
	}
	lost := func(n uint64, what string) {
		if n > 0 {
			r.Losses = append(r.Losses, fmt.Sprintf(what, n))
		}
	}
	switch l.Msg {
	case "channel":
		r.Received += l.Received
		r.Invalid += invalid(line)
	case "rule":
		if r.Rules == nil {
			r.Rules = make(map[string]RuleReport)
		}
		r.Rules[l.Rule] = l.RuleReport
		lost(l.Undelivered, "rule "+strings.ReplaceAll(l.Rule, "%", "%%")+" could not deliver %d")
		if l.Dropped > 0 {
			r.Dropped = append(r.Dropped, l.Rule)
		}
	case "memory":
		r.Heap = append(r.Heap, l.Heap)
		r.Allocations = append(r.Allocations, l.Allocations)
	case "stopped":
		lost(l.Gaps, "%d times the connection to Redis broke")
		lost(l.DeadLettersLost, "%d dead letters could not be published")
		lost(l.Refused, "%d came when filterd had halted")
	}
}

// invalid returns how many messages of a channel's line were invalid, for
// whatever reason.
func invalid(line []byte) (n uint64) {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(line, &all) // it has been read before
	for key, value := range all {
		var of uint64
		if strings.HasPrefix(key, "invalid_") && json.Unmarshal(value, &of) == nil {
			n += of
		}
	}
	return n
}
