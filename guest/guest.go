// Package guest is for writing filterd modules in Go: WebAssembly that filters,
// rewrites and emits messages as a stage of a rule.
//
//	package main
//
//	import "github.com/filterd/filterd/guest"
//
//	func init() { guest.Handle(setup) }
//
//	func main() {} // never called: a module is a library
//
//	func setup(c *guest.Config) (guest.Handler, error) {
//		price := c.Field("data.price")
//		min := c.Float("min", 100)
//		return func(m *guest.Message) (guest.Verdict, error) {
//			if m.Float(price) > min {
//				return guest.Pass, nil
//			}
//			return guest.Drop, nil
//		}, nil
//	}
//
// Build it with Go 1.26 or later:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-s -w" -o my.wasm .
//
// # The six things that a module can do
//
//   - handle: [Handle], once, in an init function
//   - field: [Config.Field] declares it, [Message.Float] and its like read it
//   - replace: return m.[Message.Replace](payload), nil
//   - emit: [Message.Emit]
//   - fail, log: return guest.Drop, err; [Message.Log], [Config.Log]
//   - kv: [Message.KVGet], [Message.KVSet], [Message.KVIncr]
//
// Only what is called is imported, so a module that keeps nothing needs no kv
// in its configuration.
//
// # Memory
//
// The host writes each message into a buffer of this package's own. What
// [Message] lends out of it, [Message.Payload], is valid until the handler
// returns; strings are copies. The host copies whatever it is given.
//
// # Limits
//
// An error's and a log line's text has 1 KiB, a KV key too. A message has 32
// emits of 4 MiB together, a module 256 fields. What KV holds, and for how
// long, is said at [Message.KVSet].
//
// Every call has a budget of instructions, fuel. It is charged for each segment
// of code as a whole, from where ways part or meet to where they do again, and
// before the segment runs; what a short branch skips may be charged as well. Work
// of the host is charged by length. A module that overruns its budget, panics
// or exits gets a fresh instance: variables are lost then, and each worker has
// an instance, and so variables, of its own. Keep in KV what must last. A
// panic's text goes to filterd's log. There are no files, no sockets, no
// environment and no real clock; goroutines stand still between calls.
//
// # Tests
//
// Outside of WebAssembly the package compiles too, and [Test] stands for the
// host, so that a handler's test is an ordinary one.
package guest

import (
	"errors"
	"math"
	"time"
)

// A Verdict is what becomes of a message.
type Verdict int32

const (
	Drop     Verdict = 0
	Pass     Verdict = 1 // on, unchanged
	replaced Verdict = 2 // on, with the payload given to the host
	failed   Verdict = -1
)

// A Handler treats one message. An error is a third outcome: the message takes
// its rule's on_error, and what was emitted is discarded. A handler is called
// for one message at a time and must not keep m.
type Handler func(m *Message) (Verdict, error)

// A Setup makes the handler, once per instance, before there is any message.
// It must not keep c. An error keeps the module from loading.
type Setup func(c *Config) (Handler, error)

// Handle makes setup the module's. Call it in an init function: a module's
// main is never called. Outside of WebAssembly it does nothing.
func Handle(setup Setup) { register(setup) }

// configure runs setup, and adds what c has complained of.
func configure(setup Setup, c *Config) (Handler, error) {
	if setup == nil {
		return nil, errors.New("no handler: call guest.Handle in an init function")
	}
	handler, err := setup(c)
	if err = errors.Join(append(c.errs, err)...); err != nil {
		return nil, err
	}
	if handler == nil {
		return nil, errors.New("no handler: the setup function returned nil")
	}
	return handler, nil
}

// A Field is a field of the messages, declared by [Config.Field].
type Field int32

// A Kind is what a field is.
type Kind int32

// Kinds of fields.
const (
	Missing Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

// A Level says how much a log line matters.
type Level int32

// Levels of log lines.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// What [Message.Emit] and [Message.KVSet] return.
var (
	ErrNotAllowed     = errors.New("channel is not in the module's publish list")
	ErrTooMany        = errors.New("more than 32 messages emitted for one")
	ErrBreaksContract = errors.New("message breaks the channel's contract")
	ErrNoRoom         = errors.New("no room for another key or a larger value")
)

// A Config is the module's configuration, and where fields are declared. Its
// methods for single members take the names of top members and a default; a
// member of another type makes the setup fail.
type Config struct {
	json []byte
	host *host
	errs []error
}

// JSON returns the whole configuration, a JSON object. It is the caller's.
func (c *Config) JSON() []byte { return append([]byte(nil), c.json...) }

// Field declares a field that the handler reads: data or event, followed by any
// of .name, ["name"] and [index]. The host finds it while it reads the message
// for its rules, so that the module needs no JSON parser. A text that is no
// path makes the setup fail.
func (c *Config) Field(path string) Field {
	f := c.host.field(path)
	if f < 0 {
		c.errs = append(c.errs, errors.New("not a path: "+path))
	}
	return f
}

// Float returns a number.
func (c *Config) Float(name string, otherwise float64) float64 {
	raw, ok := member(c.json, name)
	if !ok {
		return otherwise
	}
	number, ok := number(raw)
	if !ok {
		c.mistyped(name, "a number")
	}
	return number
}

// Text returns a string.
func (c *Config) Text(name, otherwise string) string {
	raw, ok := member(c.json, name)
	if !ok {
		return otherwise
	}
	text, ok := unquote(raw)
	if !ok {
		c.mistyped(name, "a string")
	}
	return text
}

// Bool returns a bool.
func (c *Config) Bool(name string, otherwise bool) bool {
	raw, ok := member(c.json, name)
	if !ok {
		return otherwise
	}
	if text := string(raw); text != "true" && text != "false" {
		c.mistyped(name, "true or false")
	}
	return string(raw) == "true"
}

// Log writes a line into filterd's log.
func (c *Config) Log(level Level, text string) { c.host.log(level, text) }

func (c *Config) mistyped(name, want string) {
	c.errs = append(c.errs, errors.New("config: "+name+" must be "+want))
}

// A Message is one message, valid until the handler returns.
type Message struct {
	payload []byte
	host    *host

	// In a batch: the whole buffer, the fields, and the message's number until
	// the host has been told which message the calls are about.
	buffer     []byte
	cells      []cell
	unselected int32 // -1: told, or not in a batch
}

// A cell is a field in a batch, as the host writes it.
type cell struct {
	kind   Kind
	length uint32
	bits   uint64 // the float64, the bool, or where in the buffer the text is
}

// selected returns the host after telling it which message this is.
func (m *Message) selected() *host {
	if m.unselected >= 0 {
		m.host.choose(m.unselected)
		m.unselected = -1
	}
	return m.host
}

// Payload returns the payload, an event with its envelope. It is borrowed: don't
// change it, nor keep it after the handler has returned.
func (m *Message) Payload() []byte { return m.payload }

// Channel returns the channel's name.
func (m *Message) Channel() string { return string(m.selected().channel()) }

// Received returns when the message was received, the same at every call. The
// clock of package time stands still in a module.
func (m *Message) Received() time.Time { return time.Unix(0, m.selected().now()) }

// Kind returns what the field is.
func (m *Message) Kind(f Field) Kind {
	if m.cells != nil {
		return m.cells[f].kind
	}
	return m.host.kind(f)
}

// Float returns the field's number, and NaN if it is not a number.
func (m *Message) Float(f Field) float64 {
	if m.cells == nil {
		return m.host.float(f)
	}
	if c := m.cells[f]; c.kind == Number {
		return math.Float64frombits(c.bits)
	}
	return math.NaN()
}

// Bool reports whether the field is true.
func (m *Message) Bool(f Field) bool {
	if m.cells == nil {
		return m.host.bool(f)
	}
	return m.cells[f].kind == Bool && m.cells[f].bits != 0
}

// Text returns a string, the JSON of anything else, and "" for a missing field.
func (m *Message) Text(f Field) string { return string(m.AppendText(nil, f)) }

// AppendText appends what [Message.Text] returns to dst.
func (m *Message) AppendText(dst []byte, f Field) []byte {
	if m.cells != nil {
		switch c := m.cells[f]; {
		case c.kind == Missing:
			return dst
		case c.kind >= String:
			return append(dst, m.buffer[c.bits:c.bits+uint64(c.length)]...)
		}
	}
	return m.selected().appendText(dst, f)
}

// Replace passes the message on with this payload: return m.Replace(payload),
// nil. The payload is copied.
func (m *Message) Replace(payload []byte) Verdict {
	m.selected().replace(payload)
	return replaced
}

// Emit sends one more message when the verdict is in, and not if that is an
// error. The payload must meet the channel's contract; a channel that has none
// takes any JSON, and nothing else. It returns [ErrNotAllowed], [ErrTooMany],
// which is for more than 4 MiB as well, or [ErrBreaksContract]. The payload is
// copied.
func (m *Message) Emit(channel string, payload []byte) error {
	switch m.selected().emit(channel, payload) {
	case 0:
		return nil
	case -1:
		return ErrNotAllowed
	case -2:
		return ErrTooMany
	default:
		return ErrBreaksContract
	}
}

// Log writes a line into filterd's log.
func (m *Message) Log(level Level, text string) { m.selected().log(level, text) }

// KVGet returns the value kept under a key, and false if there is none. KV
// needs kv in the module's configuration; it is shared by the module's
// instances, and outlives them. With kv: redis every process shares it; a call
// costs a round trip then, and one that fails or takes longer than 100 ms ends
// the instance, and is an error for the message.
func (m *Message) KVGet(key string) ([]byte, bool) { return m.selected().kvGet(key) }

// KVSet keeps a value under a key for ttl, in whole milliseconds and for at most
// 24 days, or for good if ttl is 0. It returns [ErrNoRoom] if nothing more can
// be kept: in memory a module has 100,000 keys and 16 MiB, in Redis 16 MiB for
// a value, and the server's maxmemory. The value is copied.
func (m *Message) KVSet(key string, value []byte, ttl time.Duration) error {
	if m.selected().kvSet(key, value, milliseconds(ttl)) != 0 {
		return ErrNoRoom
	}
	return nil
}

// KVIncr adds delta to the counter under a key, which begins at 0, and returns
// its new value. The counter is forgotten ttl after it began, whatever ttl later
// calls give, or never if ttl is 0. A value that is no whole number, and no room for a counter, end the
// instance, and are an error for the message.
func (m *Message) KVIncr(key string, delta int64, ttl time.Duration) int64 {
	return m.selected().kvIncr(key, delta, milliseconds(ttl))
}

func milliseconds(d time.Duration) int32 {
	return int32(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}
