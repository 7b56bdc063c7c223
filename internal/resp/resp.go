// Package resp reads and writes the part of RESP2, the protocol of Redis, that
// pub/sub needs. It allocates nothing for what it reads: a frame is slices of
// the reader's buffer.
package resp

import (
	"bytes"
	"fmt"
	"io"
)

// A Kind says what a frame is.
type Kind uint8

// The kinds of frames.
const (
	Message      Kind = 1 + iota // a published message
	Confirmation                 // of a subscription, or of its end
	Pong                         // the answer to a PING
	Status                       // another one, such as OK
	Error                        // an error reply
	Integer                      // a number
)

// A Frame is what a server sends at once. Its slices are the reader's: they
// hold until the next Fill.
type Frame struct {
	Kind Kind
	// Verb is the first word of a Message (message, pmessage, smessage) or a
	// Confirmation (subscribe, psubscribe, ssubscribe, and with un).
	Verb    string
	Pattern []byte // of a pmessage
	Channel []byte // of a Message; of a Confirmation the name or glob; nil if it has none
	Payload []byte // of a Message; the text of an Error or a Status
	Number  int64  // of an Integer; how many subscriptions a Confirmation leaves
	// Skipped says that a Message is larger than the reader's limit: it has no
	// Payload, and no names that come after the part that was too large, which
	// has Size bytes.
	Skipped bool
	Size    int64
}

// A ProtocolError says that what came is no RESP2, or none that belongs here.
type ProtocolError struct {
	Want string
	Got  string // the first bytes of it
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("the server does not speak RESP2: want %s, got %q", e.Want, e.Got)
}

// The bounds of what has no length of its own.
const (
	maxLine   = 64 << 10 // an error or a status
	maxHeader = 24       // a length, with its mark and line end
	maxVerb   = 16       // the first string of an array
	maxGot    = 32       // what a ProtocolError shows
)

// known is what arrays may be.
const known = "a message, the answer to a subscription or a pong"

// A Reader finds frames in what it reads. It is for one goroutine.
type Reader struct {
	from  io.Reader
	limit int
	base  []byte // the usual buffer
	buf   []byte // base, or a larger one for a larger frame
	begin int    // of what has not been returned, in buf
	end   int    // of what was read
	need  int    // bytes from begin that there must be room for
	err   error  // of a read that had also read something

	skip     int64 // bytes to drop before the next frame
	elements int   // and then so many strings of unknown length
	entries  int64 // left of a list that was begun
}

// NewReader makes a reader with a buffer of that size, in bytes. A frame that
// is larger gets a larger buffer for as long as it takes; one larger than limit
// is skipped.
func NewReader(from io.Reader, size, limit int) *Reader {
	base := make([]byte, max(size, 2*maxHeader))
	return &Reader{from: from, limit: limit, base: base, buf: base}
}

// Buffered reports whether something was read that has not been returned.
func (r *Reader) Buffered() bool { return r.end > r.begin }

// Fill reads once, as much as there is and fits. It ends the life of the
// frames returned so far. Of an error nothing was read; io.EOF in the middle of
// a frame is io.ErrUnexpectedEOF.
func (r *Reader) Fill() error {
	rest := r.buf[r.begin:r.end]
	switch {
	case r.need > len(r.buf):
		r.buf = make([]byte, max(r.need, 2*len(rest)))
	case len(r.buf) > len(r.base) && max(r.need, len(rest)+1) <= len(r.base):
		r.buf = r.base
	}
	r.begin, r.end = 0, copy(r.buf, rest)
	for range 100 {
		err := r.err
		n := 0
		if err == nil {
			n, err = r.from.Read(r.buf[r.end:])
			r.end += n
		}
		switch {
		case n > 0:
			r.err = err
			return nil
		case err == io.EOF && (r.end > 0 || r.skip > 0 || r.elements > 0 || r.entries > 0):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// Next finds the next frame of what was read. It returns false if there is no
// whole one: then it is time to Fill. The error is a *[ProtocolError], and
// comes again from then on.
func (r *Reader) Next(f *Frame) (bool, error) {
	if ok, err := r.discard(); !ok {
		return false, err
	}
	c := cursor{data: r.buf[r.begin:r.end]}
	*f = Frame{}
	if len(c.data) == 0 {
		r.need = 0
		return false, nil
	}
	switch c.data[0] {
	case '*':
		r.array(&c, f)
	case '+':
		f.Kind, f.Payload = Status, c.line()
		if string(f.Payload) == "PONG" {
			f.Kind = Pong
		}
	case '-':
		f.Kind, f.Payload = Error, c.line()
	case ':':
		f.Kind, f.Number = Integer, c.number(':', "a number")
	default:
		c.refuse("an array, a status, an error or a number")
	}
	r.need = c.need
	if c.need > 0 || c.bad != nil {
		return false, c.failure()
	}
	r.begin += c.pos
	return true, nil
}

// sorts are the arrays that are known, by their first string, the most frequent
// first.
var sorts = [...]struct {
	verb  string
	kind  Kind
	parts int64
}{
	{"message", Message, 3},
	{"pmessage", Message, 4},
	{"smessage", Message, 3},
	{"subscribe", Confirmation, 3},
	{"unsubscribe", Confirmation, 3},
	{"psubscribe", Confirmation, 3},
	{"punsubscribe", Confirmation, 3},
	{"ssubscribe", Confirmation, 3},
	{"sunsubscribe", Confirmation, 3},
	{"pong", Pong, 2},
}

// array reads an array of a known sort.
func (r *Reader) array(c *cursor, f *Frame) {
	count := c.number('*', "an array")
	size := c.number('$', "the array's first string")
	if size > maxVerb {
		c.pos = 0
		c.refuse(known)
	}
	verb := c.text(size)
	if c.stopped() {
		return
	}
	parts := int64(0)
	for i := range sorts {
		if sort := &sorts[i]; string(verb) == sort.verb {
			f.Kind, parts = sort.kind, sort.parts
			if f.Kind != Pong {
				f.Verb = sort.verb
			}
			break
		}
	}
	if parts == 0 || parts != count {
		c.pos = 0
		c.refuse(known)
		return
	}
	if parts == 4 && r.part(c, f, &f.Pattern, 2) {
		return
	}
	switch f.Kind {
	case Message:
		_ = r.part(c, f, &f.Channel, 1) || r.part(c, f, &f.Payload, 0)
	case Confirmation:
		if !r.part(c, f, &f.Channel, 1) {
			f.Number = c.number(':', "a number of subscriptions")
		}
	case Pong:
		r.part(c, f, &f.Payload, 0)
	}
}

// part reads a string into place. If the frame gets too large with it, the rest
// is to be skipped, more strings after it, and part returns true, as it does
// when it can't go on.
func (r *Reader) part(c *cursor, f *Frame, place *[]byte, more int) bool {
	size := c.number('$', "a string")
	if c.stopped() {
		return true
	}
	if size < 0 { // a name that isn't there
		if f.Kind != Confirmation {
			c.refuse("a string")
		}
		return c.stopped()
	}
	if size > int64(r.limit-c.pos-2) {
		if f.Kind != Message {
			c.refuse("a shorter name")
			return true
		}
		f.Skipped, f.Size = true, size
		r.skip, r.elements = size+2, more
		return true
	}
	*place = c.text(size)
	return c.stopped()
}

// discard drops what is to be skipped, and reports whether nothing is left of
// that.
func (r *Reader) discard() (bool, error) {
	for r.skip > 0 || r.elements > 0 {
		if r.skip == 0 {
			c := cursor{data: r.buf[r.begin:r.end]}
			size := c.number('$', "a string")
			if size < 0 {
				c.pos = 0
				c.refuse("a string")
			}
			if r.need = c.need; c.stopped() {
				return false, c.failure()
			}
			r.begin += c.pos
			r.skip, r.elements = size+2, r.elements-1
		}
		n := min(int64(r.end-r.begin), r.skip)
		r.begin += int(n)
		if r.skip -= n; r.skip > 0 {
			r.need = 0
			return false, nil
		}
	}
	return true, nil
}

// A cursor is a place in what was read. After bad, or with a need, it stands
// still.
type cursor struct {
	data []byte
	pos  int
	need int // what there must be room for to go on; 0 if there is enough data
	bad  *ProtocolError
}

func (c *cursor) stopped() bool { return c.need > 0 || c.bad != nil }

// failure returns bad, as an error.
func (c *cursor) failure() error {
	if c.bad == nil {
		return nil
	}
	return c.bad
}

// refuse says what was wanted here.
func (c *cursor) refuse(want string) {
	if !c.stopped() {
		got := c.data[c.pos:]
		c.bad = &ProtocolError{Want: want, Got: string(got[:min(len(got), maxGot)])}
	}
}

// number reads a mark, a number of at most 18 digits, and a line end.
func (c *cursor) number(mark byte, want string) int64 {
	if c.stopped() {
		return 0
	}
	rest := c.data[c.pos:]
	if len(rest) > 0 && rest[0] != mark {
		c.refuse(want)
		return 0
	}
	i, sign := 1, int64(1)
	if len(rest) > 1 && rest[1] == '-' {
		i, sign = 2, -1
	}
	first, n := i, int64(0)
	for i < len(rest) && rest[i]-'0' <= 9 && i-first <= 18 {
		n = n*10 + int64(rest[i]-'0')
		i++
	}
	digits := i - first
	switch {
	case digits > 18, i < len(rest) && (digits == 0 || rest[i] != '\r'), i+1 < len(rest) && rest[i+1] != '\n':
		c.refuse(want)
		return 0
	case i+1 >= len(rest):
		c.need = c.pos + maxHeader
		return 0
	}
	c.pos += i + 2
	return sign * n
}

// text reads so many bytes and a line end.
func (c *cursor) text(size int64) []byte {
	if c.stopped() {
		return nil
	}
	if size < 0 {
		c.refuse("a string")
		return nil
	}
	end := c.pos + int(size)
	if len(c.data) < end+2 {
		c.need = end + 2
		return nil
	}
	text := c.data[c.pos:end:end]
	if c.data[end] != '\r' || c.data[end+1] != '\n' {
		c.pos = end
		c.refuse("the end of a string")
		return nil
	}
	c.pos = end + 2
	return text
}

// line reads what is between a mark and a line end.
func (c *cursor) line() []byte {
	end := bytes.IndexByte(c.data, '\n')
	switch {
	case end < 0 && len(c.data) < maxLine:
		c.need = len(c.data) + 1
		return nil
	case end < 0 || end >= maxLine || c.data[end-1] != '\r':
		c.refuse("a line")
		return nil
	}
	c.pos = end + 1
	return c.data[1 : end-1 : end-1]
}
