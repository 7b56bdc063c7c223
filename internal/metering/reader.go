package metering

import (
	"fmt"
	"unicode/utf8"
)

// A reader reads a module's bytes up to end. Its first error sticks: from then
// on every read returns zero and moves nothing, so that callers may check once,
// behind a few reads or in the condition of a loop.
type reader struct {
	data     []byte
	pos, end int
	err      *Error
}

// fail records the error, unless there is one.
func (r *reader) fail(reason Reason, offset int, format string, args ...any) {
	if r.err == nil {
		r.err = &Error{Reason: reason, Offset: offset, Text: fmt.Sprintf(format, args...)}
	}
}

// ok reports whether everything was fine so far.
func (r *reader) ok() bool { return r.err == nil }

// more reports whether there is something left to read.
func (r *reader) more() bool { return r.err == nil && r.pos < r.end }

// skip returns the next n bytes, which alias the module.
func (r *reader) skip(n int, what string) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > r.end-r.pos {
		r.fail(Malformed, r.pos, "%s ends early: %d bytes wanted, %d left", what, n, r.end-r.pos)
		return nil
	}
	r.pos += n
	return r.data[r.pos-n : r.pos]
}

func (r *reader) byte(what string) byte {
	if r.err != nil {
		return 0
	}
	if r.pos >= r.end {
		r.fail(Malformed, r.pos, "%s is missing", what)
		return 0
	}
	r.pos++
	return r.data[r.pos-1]
}

// u32 reads an unsigned LEB128 number of 32 bits.
func (r *reader) u32(what string) uint32 { return uint32(r.leb(what, 32, false)) }

// leb reads a LEB128 number of that many bits, at most ⌈bits/7⌉ bytes of which
// the last may only hold bits that the number has.
func (r *reader) leb(what string, bits uint, signed bool) int64 {
	if r.err != nil {
		return 0
	}
	start := r.pos
	var value int64
	for shift := uint(0); ; shift += 7 {
		if r.pos >= r.end {
			r.fail(Malformed, start, "%s is cut off", what)
			return 0
		}
		b := r.data[r.pos]
		r.pos++
		value |= int64(b&0x7f) << shift
		if left := bits - shift; left <= 7 { // the last byte that there may be
			if b&0x80 != 0 {
				r.fail(Malformed, start, "%s takes more than %d bytes", what, (bits+6)/7)
				return 0
			}
			// The bits behind the number's are zero, or copies of its sign.
			extra := int8(b) >> left
			if signed {
				extra = int8(b<<1) >> left
			}
			if extra != 0 && (!signed || extra != -1) {
				r.fail(Malformed, start, "%s is larger than %d bits", what, bits)
				return 0
			}
		}
		if b&0x80 == 0 {
			if used := shift + 7; signed && b&0x40 != 0 && used < 64 {
				value |= -1 << used
			}
			return value
		}
	}
}

// count reads the length of a vector whose items take a byte each at least.
func (r *reader) count(what string, limit int) int {
	start := r.pos
	n := int(r.u32("number of " + what))
	if n > limit {
		r.fail(TooLarge, start, "%d %s, at most %d are allowed", n, what, limit)
	}
	if n > r.end-r.pos {
		r.fail(Malformed, start, "%d %s announced in %d bytes", n, what, r.end-r.pos)
	}
	if r.err != nil {
		return 0
	}
	return n
}

// name reads a UTF-8 string.
func (r *reader) name(what string) string {
	start := r.pos
	text := r.skip(int(r.u32("length of "+what)), what)
	if !utf8.Valid(text) {
		r.fail(Malformed, start, "%s is not UTF-8", what)
		return ""
	}
	return string(text)
}

// appendU32 appends an unsigned LEB128 number.
func appendU32(b []byte, value uint32) []byte {
	for value >= 0x80 {
		b = append(b, byte(value)|0x80)
		value >>= 7
	}
	return append(b, byte(value))
}

// appendS64 appends a signed LEB128 number.
func appendS64(b []byte, value int64) []byte {
	for value < -64 || value > 63 {
		b = append(b, byte(value)|0x80)
		value >>= 7
	}
	return append(b, byte(value)&0x7f)
}

// appendName appends a string with its length.
func appendName(b []byte, text string) []byte {
	return append(appendU32(b, uint32(len(text))), text...)
}
