package engine

import (
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/filterd/filterd"
)

// DeadLetterType is the type of the events that dead letters are.
const DeadLetterType = "io.filterd.dead_letter.v1"

// maxOversized is how much of an oversized payload its dead letter keeps.
const maxOversized = 1 << 10

// A DeadLetter is the data of a dead letter event: a message that broke its
// contract, or that a rule failed on, and why.
type DeadLetter struct {
	Channel string `json:"channel"`
	// Sharded says that Channel is a sharded one.
	Sharded bool `json:"sharded,omitempty"`
	// ID is that of the stream's entry; empty for a channel's message.
	ID string `json:"id,omitempty"`
	// Rule is the rule that failed; empty where the contract was broken.
	Rule string `json:"rule,omitempty"`
	// Reason is the error's text.
	Reason string `json:"reason"`
	// Pointer is the JSON Pointer of the first value that broke the contract.
	Pointer string    `json:"pointer,omitempty"`
	Time    time.Time `json:"time"`
	// Payload is the message's payload if that is UTF-8; PayloadBase64
	// holds it otherwise.
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
	// Truncated says that the payload was over its contract's size and only
	// its first 1 KiB is here.
	Truncated bool `json:"truncated,omitempty"`
}

// deadLetter returns the event that tells of a message's failure. Its time is
// when the message was received, if that is known.
func deadLetter(m *filterd.Message, rule string, failure error, fence uint64) []byte {
	d := DeadLetter{Channel: m.Channel, Sharded: m.Sharded, ID: m.ID, Rule: rule, Reason: failure.Error(), Time: m.Received.UTC()}
	if m.Received.IsZero() {
		d.Time = time.Now().UTC()
	}
	payload := m.Payload
	var invalid *filterd.ValidationError
	if errors.As(failure, &invalid) {
		d.Pointer = invalid.Pointer()
		if invalid.Reason == filterd.ReasonSize && rule == "" && len(payload) > maxOversized {
			payload, d.Truncated = payload[:maxOversized], true
			for cut := 1; cut < utf8.UTFMax && !utf8.Valid(payload); cut++ { // not within a character
				if whole := payload[:maxOversized-cut]; utf8.Valid(whole) {
					payload = whole
				}
			}
		}
	}
	if utf8.Valid(payload) {
		text := string(payload)
		d.Payload = &text
	} else {
		d.PayloadBase64 = payload
	}
	data, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings, bytes and a time marshal
	}
	id := newID(d.Time, fence)
	if m.ID != "" { // the same when it is delivered again
		id = m.Channel + "/" + m.ID + "/" + rule
	}
	event := filterd.Event{
		ID:              id,
		Source:          "filterd",
		Type:            DeadLetterType,
		DataContentType: "application/json",
		Time:            d.Time,
		Data:            data,
	}
	return event.AppendJSON(nil)
}
