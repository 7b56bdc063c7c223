package filterd

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// An Envelope says how a channel's payloads carry their data.
type Envelope string

// The envelopes.
const (
	// EnvelopeAuto takes an object with a member specversion for a
	// CloudEvents event, other JSON as raw, and refuses the rest.
	EnvelopeAuto        Envelope = "auto"
	EnvelopeCloudEvents Envelope = "cloudevents" // a CloudEvents 1.0 event in structured JSON
	EnvelopeRaw         Envelope = "raw"         // any JSON document: it is the data
	EnvelopeBytes       Envelope = "bytes"       // anything; the data is the payload as a string
)

// A Validation says which messages are held against the contract's schema.
// Size and envelope are always checked.
type Validation string

// The validation modes.
const (
	ValidateEnforce Validation = "enforce" // every message
	ValidateSample  Validation = "sample"  // a random part: Contract.SampleRate
	ValidateOff     Validation = "off"     // none
)

// DefaultMaxSize is the largest payload a contract accepts by default, in
// bytes.
const DefaultMaxSize = 1 << 20

// A Contract is what the messages of a channel must be. The zero value of a
// field is its documented default. A Contract belongs to the registry it was
// given to and must not be modified after that.
type Contract struct {
	// Channel is the name of a channel or stream, or a glob of names.
	Channel string
	// Envelope is the payloads' form. Default EnvelopeAuto.
	Envelope Envelope
	// Schema is what the data must satisfy. Default: anything.
	Schema *Schema
	// Validate says how often Schema is asked. Default ValidateEnforce.
	Validate Validation
	// SampleRate is the part of the messages that ValidateSample checks,
	// above 0 and at most 1.
	SampleRate float64
	// MaxSize is the largest payload, in bytes. Default DefaultMaxSize.
	MaxSize int
	// DeadLetter is the channel where messages go that break the contract.
	// Default: they are counted and dropped.
	DeadLetter string
	// DeadLetterStream says that DeadLetter is a stream.
	DeadLetterStream bool
	// DeadLetterMaxLen is about how many entries that stream keeps: when there
	// are more, the oldest are gone. Default 0: all.
	DeadLetterMaxLen int64
	// Stamped says that a Publisher stamps the channel's events, and that who
	// takes them looks for stamps that are missing: what was lost is counted
	// exactly. Events without a stamp are as good as others. It needs
	// EnvelopeAuto or EnvelopeCloudEvents.
	Stamped bool
}

// A Registry holds the contracts of all channels of a program. It is
// immutable and safe for concurrent use. The zero Registry, and a nil one,
// declare no channel.
type Registry struct {
	exact map[string]*Contract
	globs []globContract // in the order of Lookup
}

type globContract struct {
	glob     *Glob
	contract *Contract
}

// undeclared is the contract of channels that have none.
var undeclared = &Contract{Envelope: EnvelopeAuto, Validate: ValidateOff, MaxSize: DefaultMaxSize}

// NewRegistry makes a registry of contracts. It reports all faulty contracts
// at once.
func NewRegistry(contracts ...Contract) (*Registry, error) {
	r := &Registry{exact: make(map[string]*Contract)}
	var errs []error
	seen := make(map[string]bool)
	for _, given := range contracts {
		c := given
		if err := c.complete(); err != nil {
			errs = append(errs, fmt.Errorf("contract %q: %w", c.Channel, err))
		}
		if seen[c.Channel] {
			errs = append(errs, fmt.Errorf("contract %q: declared twice", c.Channel))
		}
		seen[c.Channel] = true
		if IsGlob(c.Channel) {
			r.globs = append(r.globs, globContract{CompileGlob(c.Channel), &c})
		} else {
			r.exact[c.Channel] = &c
		}
	}
	slices.SortStableFunc(r.globs, func(a, b globContract) int {
		return cmp.Compare(b.glob.literalPrefix(), a.glob.literalPrefix())
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}

// complete fills in defaults and checks the contract.
func (c *Contract) complete() error {
	c.Envelope = cmp.Or(c.Envelope, EnvelopeAuto)
	c.Validate = cmp.Or(c.Validate, ValidateEnforce)
	c.MaxSize = cmp.Or(c.MaxSize, DefaultMaxSize)
	var errs []error
	if c.Channel == "" {
		errs = append(errs, errors.New("a contract needs a channel"))
	}
	switch c.Envelope {
	case EnvelopeAuto, EnvelopeCloudEvents, EnvelopeRaw, EnvelopeBytes:
	default:
		errs = append(errs, fmt.Errorf("unknown envelope %q: want auto, cloudevents, raw or bytes", c.Envelope))
	}
	switch c.Validate {
	case ValidateEnforce, ValidateOff:
	case ValidateSample:
		if !(c.SampleRate > 0 && c.SampleRate <= 1) {
			errs = append(errs, fmt.Errorf("sample rate %v: want more than 0 and at most 1", c.SampleRate))
		}
	default:
		errs = append(errs, fmt.Errorf("unknown validation mode %q: want enforce, sample or off", c.Validate))
	}
	if c.MaxSize < 0 {
		errs = append(errs, fmt.Errorf("maximum size %d: want more than 0 bytes", c.MaxSize))
	}
	if c.Stamped && c.Envelope != EnvelopeAuto && c.Envelope != EnvelopeCloudEvents {
		errs = append(errs, fmt.Errorf("stamped: envelope %s has no events, which stamps are a part of", c.Envelope))
	}
	if IsGlob(c.DeadLetter) && !c.DeadLetterStream {
		errs = append(errs, fmt.Errorf("dead letter %q: want a channel, not a pattern", c.DeadLetter))
	}
	if n := c.DeadLetterMaxLen; n < 0 || n > 0 && !c.DeadLetterStream {
		errs = append(errs, fmt.Errorf("dead letter: maxlen %d: want 1 or more, and a stream", n))
	}
	return errors.Join(errs...)
}

// Lookup returns the contract of a channel: the one of exactly that name,
// else that of the matching glob with the longest literal prefix, else the
// contract of undeclared channels, whose Channel is empty: envelope auto, no
// schema, the default size.
func (r *Registry) Lookup(channel string) *Contract {
	if r == nil {
		return undeclared
	}
	if c, ok := r.exact[channel]; ok {
		return c
	}
	for _, g := range r.globs {
		if g.glob.Match(channel) {
			return g.contract
		}
	}
	return undeclared
}

// Contracts returns every declared contract, names before globs, each in the
// order of their names.
func (r *Registry) Contracts() []*Contract {
	if r == nil {
		return nil
	}
	var contracts []*Contract
	for _, c := range r.exact {
		contracts = append(contracts, c)
	}
	slices.SortFunc(contracts, func(a, b *Contract) int { return strings.Compare(a.Channel, b.Channel) })
	names := len(contracts)
	for _, g := range r.globs {
		contracts = append(contracts, g.contract)
	}
	slices.SortFunc(contracts[names:], func(a, b *Contract) int { return strings.Compare(a.Channel, b.Channel) })
	return contracts
}

// Check checks m against its channel's contract: size, then envelope, then as
// the validation mode says the schema. The error is a [*ValidationError] with
// every failure of the first of these that fails. From then on m's Data, Event
// and Attributes follow the contract's envelope.
func (r *Registry) Check(m *Message) error {
	c := r.Lookup(m.Channel)
	validate := c.Schema != nil && (c.Validate == ValidateEnforce || c.Validate == ValidateSample && rand.Float64() < c.SampleRate)
	return c.check(m, validate)
}

// CheckWhole is Check with the schema enforced whatever the validation mode:
// what publishers and tests ask for.
func (r *Registry) CheckWhole(m *Message) error {
	c := r.Lookup(m.Channel)
	return c.check(m, c.Schema != nil)
}

func (c *Contract) check(m *Message, validate bool) error {
	if m.contract != c {
		if m.envelope() != c.Envelope || c.Stamped {
			m.view.forget()
		}
		m.contract = c
	}
	if len(m.Payload) > c.MaxSize {
		return &ValidationError{Channel: m.Channel, Reason: ReasonSize, Failures: []Failure{{
			Detail: fmt.Sprintf("%d bytes are over the limit of %d", len(m.Payload), c.MaxSize),
		}}}
	}
	if err := m.read(); err != nil {
		return err
	}
	if !validate {
		if c.Schema == nil {
			m.checked = c
		}
		return nil
	}
	if !c.Schema.satisfiedBy(&m.view) {
		if failures := c.Schema.check(m.view.decodeData(), m.view.pointer()); failures != nil {
			return &ValidationError{Channel: m.Channel, Reason: ReasonSchema, Failures: failures}
		}
	}
	m.checked = c
	return nil
}
