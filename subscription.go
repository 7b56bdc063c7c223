package filterd

import "time"

// Subscriptions are what messages are taken from. A source takes what is of its
// kind and leaves the rest to others. The zero value is nothing.
type Subscriptions struct {
	Channels []string // names of channels
	Globs    []string // patterns of channels
	Sharded  []string // names of sharded channels
	Streams  []Stream
}

// Defaults of a [Stream].
const (
	DefaultGroup         = "filterd"
	DefaultField         = "event"
	DefaultClaimIdle     = 15 * time.Second
	DefaultMaxDeliveries = 5
)

// A Stream is a stream that is read as a member of a consumer group. The zero
// value of a field is its documented default.
type Stream struct {
	// Name is the stream's key. Required.
	Name string
	// Group is the consumer group. A new one begins with the oldest entry.
	// Default DefaultGroup.
	Group string
	// Field is the field of an entry that holds the message. Default
	// DefaultField.
	Field string
	// ClaimIdle is after what time an entry that another consumer has not
	// acknowledged is taken over. It should be above what the slowest sink
	// takes for an entry. Default DefaultClaimIdle.
	ClaimIdle time.Duration
	// MaxDeliveries is how often an entry is delivered in vain before it
	// becomes a dead letter. Default DefaultMaxDeliveries.
	MaxDeliveries int
}

// WithDefaults returns s with its defaults filled in.
func (s Stream) WithDefaults() Stream {
	if s.Group == "" {
		s.Group = DefaultGroup
	}
	if s.Field == "" {
		s.Field = DefaultField
	}
	if s.ClaimIdle == 0 {
		s.ClaimIdle = DefaultClaimIdle
	}
	if s.MaxDeliveries == 0 {
		s.MaxDeliveries = DefaultMaxDeliveries
	}
	return s
}
