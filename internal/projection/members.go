// Package projection reads JSON in place: it says where in a document the
// values stand, without building them.
//
// A [Plan] reads many values in one pass, and checks the whole document.
// [Members] walks through one object of a document that encoding/json accepts;
// in another one it ends where it can't go on.
// Nothing reads outside the document.
package projection

import (
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
	Value Value
}

// Name returns the member's unescaped name.
func (m Member) Name(document []byte) string { return Unquote(m.Key.Of(document)) }

// Is reports whether the member has a name.
func (m Member) Is(document []byte, name string) bool {
	if inside := document[m.Key.Start+1 : m.Key.End-1]; isPlain(inside) {
		return string(inside) == name
	}
	return m.Name(document) == name
}

// Members yields the members of the object that starts at the first
// non-space byte from offset at, in the document's order and with
// duplicates. It yields nothing where no object starts there.
func Members(document []byte, at int) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		i := space(document, at)
		if i >= len(document) || document[i] != '{' {
			return
		}
		i = space(document, i+1)
		for i < len(document) && document[i] == '"' {
			end, _ := text(document, i+1)
			if end < 0 {
				return
			}
			key := Span{i, end}
			i = space(document, end)
			if i >= len(document) || document[i] != ':' {
				return
			}
			i = space(document, i+1)
			if i >= len(document) {
				return
			}
			end, kind, flags := skipAny(document, i, 0)
			if end < 0 {
				return
			}
			if !yield(Member{Key: key, Value: Value{uint32(i), uint32(end), kind, flags}}) {
				return
			}
			i = space(document, end)
			if i >= len(document) || document[i] != ',' {
				return
			}
			i = space(document, i+1)
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
