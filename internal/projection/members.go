// Package projection reads JSON in place: it says where in a document the
// values stand, without building them.
//
// Everything here expects a document that encoding/json accepts (see
// [encoding/json.Valid]); on another one the result is meaningless, but
// nothing reads outside the document.
package projection

import (
	"bytes"
	"encoding/json"
	"iter"
)

// A Span is a part of a document: document[Start:End].
type Span struct{ Start, End int }

// Of returns the bytes of the span. They alias the document, and appending to
// them leaves it alone.
func (s Span) Of(document []byte) []byte { return document[s.Start:s.End:s.End] }

// A Member is one member of a JSON object.
type Member struct {
	Key   Span // with its quotes
	Value Span
}

// Name returns the member's unescaped name.
func (m Member) Name(document []byte) string { return Unquote(m.Key.Of(document)) }

// Named reports whether the member has that name.
func (m Member) Named(document []byte, name string) bool {
	literal := m.Key.Of(document)
	if inside := literal[1 : len(literal)-1]; isPlain(inside) {
		return string(inside) == name
	}
	return Unquote(literal) == name
}

// Members yields the members of the object that starts at the first
// non-space byte from offset at, in the document's order and with
// duplicates. It yields nothing where no object starts there.
func Members(document []byte, at int) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		i := skipSpace(document, at)
		if i >= len(document) || document[i] != '{' {
			return
		}
		i = skipSpace(document, i+1)
		for i < len(document) && document[i] == '"' {
			key := Span{i, skipString(document, i)}
			i = skipSpace(document, key.End)
			if i >= len(document) || document[i] != ':' {
				return
			}
			i = skipSpace(document, i+1)
			value := Span{i, skipValue(document, i)}
			if !yield(Member{Key: key, Value: value}) {
				return
			}
			i = skipSpace(document, value.End)
			if i >= len(document) || document[i] != ',' {
				return
			}
			i = skipSpace(document, i+1)
		}
	}
}

// Elements yields the elements of the array that starts at the first non-space
// byte from offset at. It yields nothing where no array starts there.
func Elements(document []byte, at int) iter.Seq[Span] {
	return func(yield func(Span) bool) {
		i := skipSpace(document, at)
		if i >= len(document) || document[i] != '[' {
			return
		}
		i = skipSpace(document, i+1)
		for i < len(document) && document[i] != ']' {
			value := Span{i, skipValue(document, i)}
			if !yield(value) {
				return
			}
			i = skipSpace(document, value.End)
			if i >= len(document) || document[i] != ',' {
				return
			}
			i = skipSpace(document, i+1)
		}
	}
}

// Unquote returns the string that a JSON string literal stands for, as
// encoding/json decodes it.
func Unquote(literal []byte) string {
	if len(literal) >= 2 && isPlain(literal[1:len(literal)-1]) {
		return string(literal[1 : len(literal)-1])
	}
	var s string
	_ = json.Unmarshal(literal, &s) // a literal of a valid document unmarshals
	return s
}

// isPlain reports whether the inside of a string literal stands for itself.
func isPlain(inside []byte) bool {
	for _, c := range inside {
		if c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

func skipSpace(document []byte, i int) int {
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

// skipString returns the offset behind the string literal at i.
func skipString(document []byte, i int) int {
	for i++; i < len(document); {
		quote := bytes.IndexByte(document[i:], '"')
		if quote < 0 {
			break
		}
		i += quote + 1
		backslashes := 0
		for document[i-2-backslashes] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			return i
		}
	}
	return len(document)
}

// skipValue returns the offset behind the value at i.
func skipValue(document []byte, i int) int {
	for depth := 0; i < len(document); {
		switch c := document[i]; c {
		case '"':
			i = skipString(document, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
			continue
		default:
			i = skipScalar(document, i)
		}
		if depth <= 0 {
			return i
		}
	}
	return len(document)
}

// skipScalar returns the offset behind the number, true, false or null at i.
func skipScalar(document []byte, i int) int {
	for i < len(document) {
		switch document[i] {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return i
		}
		i++
	}
	return i
}
