package filterd

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid is what every [*ValidationError] matches with [errors.Is].
var ErrInvalid = errors.New("message breaks its contract")

// ErrTaken is the error of what is not written because another consumer has
// acknowledged the entry that it was made of.
var ErrTaken = errors.New("another consumer has taken the entry")

// ErrRefused is what the error of a delivery matches whose target has said no to
// it, for what it is or where it goes. It is of no use to try again, unlike after
// other errors.
var ErrRefused = errors.New("the target refuses the message")

// A Reason classifies why a message broke its contract. There are few of
// them, so that they can serve as metric labels.
type Reason string

// The reasons, in the order in which a message is checked.
const (
	ReasonSize      Reason = "size"      // larger than the contract's limit
	ReasonMalformed Reason = "malformed" // not JSON where JSON is due
	ReasonEnvelope  Reason = "envelope"  // not a valid CloudEvents 1.0 event
	ReasonSchema    Reason = "schema"    // data does not satisfy the JSON Schema
	ReasonEntry     Reason = "entry"     // a stream's entry that holds no message
	ReasonPoison    Reason = "poison"    // a stream's entry that was delivered in vain too often
)

// Reasons lists every Reason.
var Reasons = [...]Reason{ReasonSize, ReasonMalformed, ReasonEnvelope, ReasonSchema, ReasonEntry, ReasonPoison}

// A Failure is one thing that is wrong with a message.
type Failure struct {
	// Pointer is the JSON Pointer (RFC 6901) of the faulty value in the
	// payload, so "/data/price" in an event and "/price" in a raw message;
	// empty for the payload as a whole.
	Pointer string
	// Detail says what is wrong with the value.
	Detail string
}

func (f Failure) String() string {
	if f.Pointer == "" {
		return f.Detail
	}
	return f.Pointer + ": " + f.Detail
}

// A ValidationError reports everything that is wrong with one message. It
// matches [ErrInvalid].
type ValidationError struct {
	Channel  string    // the channel the message was meant for or came from; may be empty
	Reason   Reason    // the class of all failures
	Failures []Failure // at least one, in the order of the payload's check
}

func (e *ValidationError) Error() string {
	var b strings.Builder
	if e.Channel != "" {
		b.WriteString(e.Channel + ": ")
	}
	b.WriteString(string(e.Reason) + ": ")
	for i, f := range e.Failures {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.String())
	}
	return b.String()
}

// Is reports whether target is [ErrInvalid].
func (e *ValidationError) Is(target error) bool { return target == ErrInvalid }

// Pointer returns the JSON Pointer of the first failure.
func (e *ValidationError) Pointer() string { return e.Failures[0].Pointer }

// A SourceError is a fault in the source text of a filter or a value: a
// syntax error, an unknown name, a forbidden construct.
type SourceError struct {
	Source  string // the whole source text
	Offset  int    // of the fault in Source, in bytes
	Length  int    // of the faulty part, in bytes; at least 1 unless at the end
	Message string // what is wrong, without a position
	Hint    string // what to do about it; may be empty
}

func (e *SourceError) Error() string {
	line, column := e.Position()
	text := fmt.Sprintf("%d:%d: %s", line, column, e.Message)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Position returns the 1-based line and column, counted in characters, of
// the fault within Source.
func (e *SourceError) Position() (line, column int) {
	before := e.Source[:min(e.Offset, len(e.Source))]
	line = 1 + strings.Count(before, "\n")
	column = 1 + len([]rune(before[strings.LastIndexByte(before, '\n')+1:]))
	return line, column
}
