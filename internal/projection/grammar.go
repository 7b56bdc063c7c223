package projection

import (
	"encoding/binary"
	"math/bits"
	"strconv"
)

// The grammar of JSON. The functions take a document and an offset in it, and
// return the offset behind what they read, -1 if that is not JSON.

// space skips white space.
func space(document []byte, i int) int {
	if i < len(document) && document[i] > ' ' {
		return i
	}
	return spaces(document, i)
}

func spaces(document []byte, i int) int {
	for i < len(document) {
		switch document[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// skipAny reads the value that starts at i, within as many others as depth
// says.
func skipAny(document []byte, i, depth int) (end int, kind Kind, flags Flags) {
	switch document[i] {
	case '{':
		return skip(document, i, depth), Object, 0
	case '[':
		return skip(document, i, depth), Array, 0
	case '"':
		end, flags = text(document, i+1)
		return end, String, flags
	default:
		end, kind = scalar(document, i)
		return end, kind, 0
	}
}

// skip reads the object or array that starts at i, within as many others as
// depth says.
func skip(document []byte, i, depth int) int {
	const atOnce = 64
	var objects uint64 // a bit for each level, the lowest for the innermost: is it an object?
	levels := 0
	for {
		// A value starts at i, which is within the document.
		switch c := document[i]; {
		case c == '"':
			i, _ = text(document, i+1)
		case c != '{' && c != '[':
			i, _ = scalar(document, i)
		case levels == atOnce:
			i = skip(document, i, depth+levels)
		case depth+levels == maxDepth:
			return -1
		default:
			levels++
			object := c >> 5 & 1
			objects = objects<<1 | uint64(object)
			if i = space(document, i+1); i >= len(document) {
				return -1
			}
			if document[i] != c+2 { // what closes it
				if object != 0 {
					if i = beforeValue(document, i); i < 0 {
						return -1
					}
				}
				continue
			}
		}
		if i < 0 {
			return -1
		}
		for i = space(document, i); ; i = space(document, i) {
			if i >= len(document) {
				return -1
			}
			object := objects & 1
			if document[i] == ',' {
				if i = space(document, i+1); i >= len(document) {
					return -1
				}
				if object != 0 {
					if i = beforeValue(document, i); i < 0 {
						return -1
					}
				}
				break
			}
			if document[i] != ']'+byte(object<<5) {
				return -1
			}
			i++
			objects >>= 1
			if levels--; levels == 0 {
				return i
			}
		}
	}
}

// beforeValue reads a member's key and what is between it and the value.
func beforeValue(document []byte, i int) int {
	if document[i] != '"' {
		return -1
	}
	if i, _ = text(document, i+1); i < 0 {
		return -1
	}
	return colon(document, i)
}

// colon reads what is between a member's key and its value.
func colon(document []byte, i int) int {
	if i = space(document, i); i >= len(document) || document[i] != ':' {
		return -1
	}
	if i = space(document, i+1); i >= len(document) {
		return -1
	}
	return i
}

// scalar reads a number, true, false or null.
func scalar(document []byte, i int) (end int, kind Kind) {
	switch document[i] {
	case 't':
		if len(document)-i >= 4 && string(document[i:i+4]) == "true" {
			return i + 4, Bool
		}
	case 'f':
		if len(document)-i >= 5 && string(document[i:i+5]) == "false" {
			return i + 5, Bool
		}
	case 'n':
		if len(document)-i >= 4 && string(document[i:i+4]) == "null" {
			return i + 4, Null
		}
	default:
		return number(document, i), Number
	}
	return -1, Missing
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// load returns the eight bytes from i on, the first one lowest, and zeros for
// those behind the document.
func load(document []byte, i int) uint64 {
	if i+8 <= len(document) {
		return binary.LittleEndian.Uint64(document[i:])
	}
	return loadEnd(document, i)
}

func loadEnd(document []byte, i int) uint64 {
	var word uint64
	for k := len(document) - 1; k >= i; k-- {
		word = word<<8 | uint64(document[k])
	}
	return word
}

// ends marks, by the highest bit of a byte, where a string literal doesn't just
// go on: quotes, backslashes and control characters. Marks above the lowest
// mean nothing.
func ends(word uint64) uint64 {
	quotes, backslashes := word^'"'*ones, word^'\\'*ones
	return ((quotes - ones) | (backslashes - ones) | (word - ' '*ones)) &^ word & highs
}

// beyond marks, by the highest bit of some byte, that a byte of the word is
// 0x7f or more.
func beyond(word uint64) uint64 { return word + ones | word }

// text reads the rest of a string literal, from behind its first quote.
func text(document []byte, i int) (end int, flags Flags) {
	var over uint64
	for {
		word := load(document, i)
		marks := ends(word)
		if marks == 0 {
			over |= beyond(word)
			i += 8
			continue
		}
		over |= beyond(word & (marks&-marks>>7 - 1)) // what is in front of the first mark
		i += bits.TrailingZeros64(marks) >> 3
		if i >= len(document) {
			return -1, 0
		}
		switch document[i] {
		case '"':
			if over&highs != 0 {
				flags |= Beyond
			}
			return i + 1, flags
		case '\\':
			flags |= Escaped
			if i = escape(document, i+1); i < 0 {
				return -1, 0
			}
		default:
			return -1, 0
		}
	}
}

// escape reads the rest of an escape, from behind its backslash.
func escape(document []byte, i int) int {
	if i >= len(document) {
		return -1
	}
	switch document[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if len(document)-i < 5 {
			return -1
		}
		for _, c := range document[i+1 : i+5] {
			if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
				return -1
			}
		}
		return i + 5
	}
	return -1
}

// maxDigits is how many digits before the point a number may have in any case:
// float64 has none of 310.
const maxDigits = 308

// number reads a number.
func number(document []byte, start int) int {
	i := start
	if document[i] == '-' {
		i++
	}
	whole := i
	if i < len(document) && document[i] == '0' {
		i++
	} else if i = digits(document, i); i == whole {
		return -1
	}
	whole = i - whole
	if i < len(document) && document[i] == '.' {
		fraction := i + 1
		if i = digits(document, fraction); i == fraction {
			return -1
		}
	}
	if i < len(document) && document[i]|0x20 == 'e' {
		exponent, end := exponent(document, i+1)
		if i = end; i < 0 {
			return -1
		}
		whole += exponent
	}
	if whole > maxDigits {
		if _, err := strconv.ParseFloat(string(document[start:i]), 64); err != nil {
			return -1
		}
	}
	return i
}

// exponent reads a number's exponent, from behind the e. Its value is given as
// a million if it is more.
func exponent(document []byte, i int) (value, end int) {
	negative := false
	if i < len(document) && (document[i] == '+' || document[i] == '-') {
		negative = document[i] == '-'
		i++
	}
	end = digits(document, i)
	if end == i {
		return 0, -1
	}
	for _, c := range document[i:end] {
		value = min(10*value+int(c-'0'), 1_000_000)
	}
	if negative {
		value = -value
	}
	return value, end
}

func digits(document []byte, i int) int {
	for i < len(document) && isDigit(document[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c-'0' < 10 }
