package projection

import (
	"math"
	"math/bits"
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
//
// The shape is that of the document, if the plan knows it; it may be nil.
func (p *Plan) Scan(document []byte, values []Value, others *Others) (shape *Shape, ok bool) {
	if uint64(len(document)) > MaxDocument {
		return nil, false
	}
	values = values[:len(p.nodes)]
	if shape := p.shapes.read(document, values, others); shape != nil {
		return shape, true
	}
	if !p.scan(document, values, others) {
		return nil, false
	}
	p.shapes.learn(document, values, p.common, others)
	return nil, true
}

// scan is Scan without any knowledge of other documents.
func (p *Plan) scan(document []byte, values []Value, others *Others) bool {
	s := scanner{nodes: p.nodes, common: p.common, values: values, others: others}
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
	nodes  []node
	common int32
	values []Value
	others *Others
}

// value reads the value of a node, which starts at i, within as many others as
// depth says.
func (s *scanner) value(document []byte, i int, n int32, depth int) int {
	v := &s.values[n]
	if v.Kind >= Array { // a duplicate; nothing was below another one
		node := &s.nodes[n]
		clear(s.values[node.first:node.end])
	}
	start := i
	kind, flags := Array, Flags(0)
	switch c := document[i]; {
	case c == '"':
		kind = String
		i, flags = text(document, i+1)
	case c == '{':
		kind = Object
		if n == 0 || !s.nodes[n].members.empty() {
			i = s.object(document, i+1, n, depth+1)
		} else {
			i = skip(document, i, depth)
		}
	case c != '[':
		i, kind = scalar(document, i)
	default:
		if len(s.nodes[n].elements) > 0 {
			i = s.array(document, i+1, n, depth+1)
		} else {
			i = skip(document, i, depth)
		}
	}
	*v = Value{uint32(start), uint32(i), kind, flags}
	return i
}

// object reads the members of a node's object, from behind its brace.
func (s *scanner) object(document []byte, i int, n int32, depth int) int {
	if depth > maxDepth {
		return -1
	}
	members := &s.nodes[n].members
	if i = space(document, i); i < len(document) && document[i] == '}' {
		return i + 1
	}
	for {
		// What is most likely to come is asked for first, here and below.
		if i >= len(document) || document[i] != '"' {
			if i = space(document, i); i >= len(document) || document[i] != '"' {
				return -1
			}
		}
		key := i + 1
		prefix := load(document, key)
		marks := ends(prefix)
		end := key + bits.TrailingZeros64(marks)>>3 // 8 further if there is no mark
		var flags Flags
		if marks != 0 && end < len(document) && document[end] == '"' {
			prefix &= marks&-marks>>7 - 1
			if beyond(prefix)&highs != 0 {
				flags = Beyond
			}
		} else {
			if end, flags = text(document, key); end < 0 {
				return -1
			}
			end--
		}
		if i = end + 2; i >= len(document) || document[end+1] != ':' || document[i] <= ' ' {
			if i = colon(document, end+1); i < 0 {
				return -1
			}
		}
		var child int32
		if flags == 0 {
			child = members.find(prefix, document[key:end])
		} else {
			child = members.findDecoded(document[key-1:end+1], prefix, flags)
		}
		var other Value
		if child != 0 {
			i = s.value(document, i, child, depth)
		} else {
			other.Start = uint32(i)
			i, other.Kind, other.Flags = skipAny(document, i, depth)
			other.End = uint32(i)
		}
		if i < 0 {
			return -1
		}
		if n == 0 && (child == 0 || child > s.common) {
			if child != 0 {
				other = s.values[child]
			}
			s.others.add(Other{uint32(key), uint32(end), other})
		}
		if i >= len(document) || document[i] != ',' {
			if i = space(document, i); i >= len(document) {
				return -1
			}
			if document[i] == '}' {
				return i + 1
			}
			if document[i] != ',' {
				return -1
			}
		}
		i++
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
	read := s.nodes[n].elements
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
