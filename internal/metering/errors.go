package metering

import "fmt"

// A Reason says why a module is refused.
type Reason int

const (
	// Malformed modules break the format: no runtime would take them.
	Malformed Reason = iota
	// Unsupported modules may be valid, but use what is not let through:
	// threads, imported memories, names that belong to the meter.
	Unsupported
	// TooLarge modules go over one of the [Limits].
	TooLarge
)

// An Error is a module's refusal.
type Error struct {
	Reason Reason
	Offset int // of the byte in the module where it shows
	Text   string
}

func (e *Error) Error() string { return fmt.Sprintf("byte %d: %s", e.Offset, e.Text) }
