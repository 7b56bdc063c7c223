package projection

import (
	"math"
	"unicode/utf8"
)

// A Kind is the type of a value.
type Kind uint8

// The kinds.
const (
	Missing Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

// Flags tell what is in a string.
type Flags uint8

const (
	// Escaped: there is a backslash.
	Escaped Flags = 1 << iota
	// Beyond: there is a byte beyond printable ASCII, 0x7f or more.
	Beyond
)

// A Value says where a value is in a document, and what it is: its JSON text
// is document[Start:End].
type Value struct {
	Start, End uint32
	Kind       Kind
	Flags      Flags // of a string
}

// Of returns the value's JSON text, which aliases the document.
func (v *Value) Of(document []byte) []byte { return document[v.Start:v.End] }

// Inside returns what is between the quotes of a string.
func (v *Value) Inside(document []byte) []byte { return document[v.Start+1 : v.End-1] }

// MaxDocument is the size of the largest document that Scan takes, in bytes.
const MaxDocument = math.MaxUint32

// maxDepth is how deep encoding/json lets values be nested.
const maxDepth = 10_000

// Others are the members of a document that a plan's common names don't name,
// in the document's order and with duplicates.
type Others struct {
	Count int // may be more than there is room for
	List  [16]Other
}

// An Other is one member: its key's bytes are document[KeyStart:KeyEnd].
type Other struct {
	KeyStart, KeyEnd uint32 // within the quotes
	Value            Value
}

// Scan reads a document in one pass. It reports whether that is what
// encoding/json unmarshals into an any: everything is checked, whether it is
// read or not. If so, values has the value of each node of the plan, and
// others the rest of the document's members. The caller gives values that are
// zero, one for each node. If Scan returns false, what is in values and others
// means nothing.
//
// As in encoding/json the last of several members of one name counts, and all
// that was in an earlier one is gone.
func (p *Plan) Scan(document []byte, values []Value, others *Others) bool {
	if uint64(len(document)) > MaxDocument {
		return false
	}
	s := scanner{plan: p, values: values[:len(p.nodes)], others: others}
	i := space(document, 0)
	if i >= len(document) {
		return false
	}
	i = s.value(document, i, 0, 0)
	return i >= 0 && space(document, i) == len(document)
}

// A scanner is at work on one document. Its methods take the document and an
// offset, and return the offset behind what they read, -1 if that is not JSON.
type scanner struct {
	plan   *Plan
	values []Value
	others *Others
}

// value reads the value of a node, which starts at i, within as many others as
// depth says.
func (s *scanner) value(document []byte, i int, n int32, depth int) int {
	v := &s.values[n]
	if v.Kind != Missing { // a duplicate
		below := &s.plan.nodes[n]
		clear(s.values[below.first:below.end])
		v.Flags = 0
	}
	v.Start = uint32(i)
	switch document[i] {
	case '{':
		v.Kind = Object
		if below := &s.plan.nodes[n]; len(below.members.table)+len(below.members.byName) > 0 {
			i = s.object(document, i+1, n, depth+1)
		} else {
			i = skip(document, i, depth)
		}
	case '[':
		v.Kind = Array
		if len(s.plan.nodes[n].elements) > 0 {
			i = s.array(document, i+1, n, depth+1)
		} else {
			i = skip(document, i, depth)
		}
	default:
		i, v.Kind, v.Flags = scalar(document, i)
	}
	v.End = uint32(i)
	return i
}

// object reads the members of a node's object, from behind its brace.
func (s *scanner) object(document []byte, i int, n int32, depth int) int {
	if depth > maxDepth {
		return -1
	}
	below := &s.plan.nodes[n]
	i = space(document, i)
	if i < len(document) && document[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(document) || document[i] != '"' {
			return -1
		}
		start := i + 1
		end, prefix, flags := key(document, start)
		if end < 0 {
			return -1
		}
		i = space(document, end+1)
		if i >= len(document) || document[i] != ':' {
			return -1
		}
		i = space(document, i+1)
		if i >= len(document) {
			return -1
		}
		var child int32
		if flags == 0 {
			child = below.members.find(prefix, document[start:end])
		} else {
			child = below.members.findDecoded(document[start-1:end+1], prefix, flags)
		}
		v := Value{Start: uint32(i)}
		if child != 0 {
			i = s.value(document, i, child, depth)
		} else {
			i, v.Kind, v.Flags = skipAny(document, i, depth)
			v.End = uint32(i)
		}
		if i < 0 {
			return -1
		}
		if n == 0 && (child == 0 || child > s.plan.common) {
			if child != 0 {
				v = s.values[child]
			}
			s.others.add(Other{uint32(start), uint32(end), v})
		}
		i = space(document, i)
		if i >= len(document) {
			return -1
		}
		switch document[i] {
		case ',':
			i = space(document, i+1)
		case '}':
			return i + 1
		default:
			return -1
		}
	}
}

func (o *Others) add(other Other) {
	if o.Count < len(o.List) {
		o.List[o.Count] = other
	}
	o.Count++
}

// findDecoded is find for a key, with its quotes, that may not stand for
// itself.
func (n *names) findDecoded(key []byte, prefix uint64, flags Flags) int32 {
	if inside := key[1 : len(key)-1]; flags == Beyond && utf8.Valid(inside) {
		return n.find(prefix, inside)
	}
	text := []byte(Unquote(key))
	return n.find(load(text, 0), text)
}

// array reads the elements of a node's array, from behind its bracket.
func (s *scanner) array(document []byte, i int, n int32, depth int) int {
	if depth > maxDepth {
		return -1
	}
	read := s.plan.nodes[n].elements
	i = space(document, i)
	if i < len(document) && document[i] == ']' {
		return i + 1
	}
	for index := 0; ; index++ {
		if i >= len(document) {
			return -1
		}
		if len(read) > 0 && read[0].index == index {
			i = s.value(document, i, read[0].node, depth)
			read = read[1:]
		} else {
			i, _, _ = skipAny(document, i, depth)
		}
		if i < 0 {
			return -1
		}
		i = space(document, i)
		if i >= len(document) {
			return -1
		}
		switch document[i] {
		case ',':
			i = space(document, i+1)
		case ']':
			return i + 1
		default:
			return -1
		}
	}
}
