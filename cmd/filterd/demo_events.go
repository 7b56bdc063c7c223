package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/filterd/filterd"
)

// The events of a demo.
const (
	demoStarted   = "started"   // everything runs
	demoPublished = "published" // somebody else published a message: the user
	demoMatched   = "matched"   // a rule has sent a message to a channel
	demoLogged    = "logged"    // a rule has sent a message to the log
	demoRejected  = "rejected"  // a message broke its channel's contract
	demoFailed    = "failed"    // a rule failed on a message
	demoRefused   = "refused"   // the publisher did not send what breaks the contract
	demoNote      = "note"      // something else that one should know
	demoSummary   = "summary"   // everything has ended
)

// A demoEvent is one thing that happened, as --output json prints it.
type demoEvent struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`

	Rule    string `json:"rule,omitempty"`
	Channel string `json:"channel,omitempty"` // where the message came from, or should have gone
	To      string `json:"to,omitempty"`
	Bot     string `json:"bot,omitempty"` // who was refused
	Reason  string `json:"reason,omitempty"`
	Pointer string `json:"pointer,omitempty"` // the JSON Pointer of what broke the contract
	// Yours says that the message was not published by the demo's bots.
	Yours bool `json:"yours,omitempty"`

	Payload       string `json:"payload,omitempty"`        // if it is UTF-8
	PayloadBase64 []byte `json:"payload_base64,omitempty"` // if not

	Start   *demoStart  `json:"demo,omitempty"`    // of demoStarted
	Summary *demoTotals `json:"summary,omitempty"` // of demoSummary
}

// with returns the event with a payload, which it copies.
func (e demoEvent) with(payload []byte) demoEvent {
	if utf8.Valid(payload) {
		e.Payload = string(payload)
	} else {
		e.PayloadBase64 = bytes.Clone(payload)
	}
	return e
}

// A demoStart says what a demo is made of.
type demoStart struct {
	Broker string     `json:"broker"`
	URL    string     `json:"url"`
	Rules  []demoRule `json:"rules"`
	Try    []string   `json:"try"` // commands that work against the broker

	Limit time.Duration `json:"-"` // 0: until it is told to end
}

type demoRule struct {
	Name string   `json:"name"`
	From []string `json:"from"`
	When string   `json:"when,omitempty"`
	To   string   `json:"to"`
}

// demoTotals is what a demo has counted in the end.
type demoTotals struct {
	Seconds     float64          `json:"seconds"`
	Received    uint64           `json:"received"`
	Matched     uint64           `json:"matched"`
	Rejected    uint64           `json:"rejected"`
	Failed      uint64           `json:"failed"`
	Refused     uint64           `json:"refused"`
	DeadLetters uint64           `json:"dead_letters"`
	Rules       []demoRuleTotals `json:"rules"`
}

type demoRuleTotals struct {
	Name    string `json:"name"`
	Seen    uint64 `json:"seen"` // valid messages of the rule's channels
	Matched uint64 `json:"matched"`
	Errors  uint64 `json:"errors"`
}

// headline says in a few words what happened, and detail what is to be said of
// it: a reason or an excerpt of the payload. Both are safe for a terminal.
func (e demoEvent) headline() string {
	var text string
	switch e.Event {
	case demoPublished:
		text = "published on " + e.Channel
	case demoMatched:
		text = e.Rule + " → " + e.To
	case demoLogged:
		text = e.Rule + " → " + e.To
	case demoRejected:
		text = "rejected " + e.Channel
	case demoFailed:
		text = "failed " + e.Rule
	case demoRefused:
		text = "not sent " + e.Channel
	case demoNote:
		return oneLine(e.Reason)
	}
	if e.Yours {
		text = "you: " + text
	}
	return oneLine(text)
}

func (e demoEvent) detail() string {
	payload := e.excerpt()
	if e.Reason == "" || e.Event == demoNote {
		return payload
	}
	if payload == "" {
		return oneLine(e.Reason)
	}
	return oneLine(e.Reason) + "  ← " + payload
}

// excerpt returns what the payload says: the data of an event, the whole of
// anything else.
func (e demoEvent) excerpt() string {
	if e.PayloadBase64 != nil {
		return brief(string(e.PayloadBase64))
	}
	if event, err := filterd.DecodeEvent([]byte(e.Payload)); err == nil && event.Data != nil {
		return brief(string(event.Data))
	}
	return brief(e.Payload)
}

// maxBrief is how much of a text brief looks at, in bytes.
const maxBrief = 1 << 10

// brief writes a flat JSON object as name=value, which is easier to read in a
// narrow place, and leaves other texts alone. It returns one line without
// anything that a terminal would obey.
func brief(text string) string {
	if len(text) > maxBrief {
		return oneLine(text[:maxBrief]) + "…"
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return oneLine(text)
	}
	var members []string
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return oneLine(text)
		}
		value, err := d.Token()
		if _, nested := value.(json.Delim); err != nil || nested {
			return oneLine(text)
		}
		if s, ok := value.(string); ok && strings.ContainsAny(s, " \"=") || value == "" {
			value = fmt.Sprintf("%q", value)
		} else if value == nil {
			value = "null"
		}
		members = append(members, fmt.Sprintf("%v=%v", name, value))
	}
	if _, err := d.Token(); err != nil || len(members) == 0 || d.More() {
		return oneLine(text)
	}
	return oneLine(strings.Join(members, " "))
}
