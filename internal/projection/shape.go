package projection

import (
	"slices"
	"sync"
	"sync/atomic"
)

// The messages of a channel mostly differ in a few values: their members, and
// the order of these, are those of the program that wrote them. A Shape is a
// document that Scan has read, cut at the values that are known to differ. What
// is in between is only compared, and found where it was; so a document of a
// known shape costs little more than its differing values.
//
// A document that is equal to another one but for scalar values in the same
// places is JSON if those are, and has all its values in the same places. So a
// shape never changes a result.
//
// A shape is learned from misses: at first nothing differs; with every document
// of the same structure that doesn't fit, what differs in it is cut out.
type Shape struct {
	template []byte
	cuts     []cut
	fixes    []fix
	count    int // of the document's other members

	// Varies has a bit for each of the common nodes whose value may be another
	// one in another document of the shape, and OtherVaries for each of Others.
	Varies, OtherVaries uint32
	// Vetted is the caller's, for what it knows about all documents of the
	// shape.
	Vetted atomic.Bool

	tokens []token // all scalar values
}

// A token is a scalar value in a template.
type token struct {
	start, end int
	differs    bool
}

// A cut is a part of the template that doesn't differ, and the value behind it.
type cut struct {
	from, to    uint32
	first, last int32 // fixes[first:last] are in it
	node, other int32 // what the value is, and -1: nobody reads it
	end         bool  // there is no value behind it
}

// A fix is a value, or one end of it, that stands in a cut: so far from the
// begin of the template.
type fix struct {
	to   int32 // a node, or the complement of the index of another member
	what fixed
	Value
}

type fixed uint8

const (
	fixWhole fixed = iota
	fixStart
	fixEnd
	fixKey
)

// The bounds of what is remembered, so that it is a few kilobytes for a plan.
const (
	maxShapes   = 4
	maxTemplate = 2 << 10 // bytes
	maxTokens   = 96
	// maxPause bounds how many misses go by before another shape is learned:
	// one more after the first, then twice as many each time. So documents
	// that have nothing in common cost next to nothing.
	maxPause = 1 << 10
	// maxWaste is how many bytes may be read in vain, beyond those of documents
	// of known shapes, until the shapes are left alone for the next rest
	// documents. So comparing costs at most about as much again as it spares,
	// whatever the documents are made to be like.
	maxWaste = 64 << 10
	rest     = 1024
)

// shapes are what a plan has learned. Safe for concurrent use.
type shapes struct {
	known   atomic.Pointer[[]*Shape] // the newest first; what it leads to doesn't change
	waste   atomic.Int64             // bytes read in vain, less those that were not
	resting atomic.Int32             // documents that nobody compares

	mu          sync.Mutex // guards what follows
	pause, wait int        // misses
}

// read reads a document of a known shape, and returns nil if it is none.
func (s *shapes) read(document []byte, values []Value, others *Others) *Shape {
	known := s.known.Load()
	if known == nil || len(document) > 2*maxTemplate {
		return nil
	}
	if s.resting.Load() > 0 {
		s.resting.Add(-1)
		return nil
	}
	waste := s.waste.Load()
	for _, shape := range *known {
		n, ok := shape.read(document, values, others)
		if ok {
			if waste != 0 {
				s.waste.Store(max(0, waste-int64(n)))
			}
			return shape
		}
		clear(values)
		waste += int64(n)
	}
	if waste > maxWaste {
		waste = 0
		s.resting.Store(rest)
	}
	s.waste.Store(waste)
	return nil
}

// read reads a document, and reports whether it is of the shape, and how far it
// has read.
func (s *Shape) read(document []byte, values []Value, others *Others) (int, bool) {
	shift := 0 // of what is read against the template
	for k := range s.cuts {
		c := &s.cuts[k]
		begin, i := int(c.from)+shift, int(c.to)+shift
		if i > len(document) || string(document[begin:i]) != string(s.template[c.from:c.to]) {
			return min(i, len(document)), false
		}
		for f := c.first; f < c.last; f++ {
			s.fixes[f].apply(values, others, uint32(shift))
		}
		switch {
		case c.end && i == len(document):
			others.Count = s.count
			return i, true
		case c.end || i == len(document):
			return i, false
		}
		v := Value{Start: uint32(i)}
		if document[i] == '"' {
			v.Kind = String
			i, v.Flags = text(document, i+1)
		} else {
			i, v.Kind = scalar(document, i)
		}
		if i < 0 {
			return int(v.Start), false
		}
		v.End = uint32(i)
		if c.node >= 0 {
			values[c.node] = v
		}
		if c.other >= 0 {
			others.List[c.other].Value = v
		}
		shift = i - int(s.cuts[k+1].from)
	}
	return 0, false // there is a cut that is the end
}

func (f *fix) apply(values []Value, others *Others, shift uint32) {
	var v *Value
	if f.to >= 0 {
		v = &values[f.to]
	} else {
		other := &others.List[^f.to]
		if f.what == fixKey {
			other.KeyStart, other.KeyEnd = f.Start+shift, f.End+shift
			return
		}
		v = &other.Value
	}
	switch f.what {
	case fixWhole:
		*v = Value{f.Start + shift, f.End + shift, f.Kind, f.Flags}
	case fixStart:
		v.Start, v.Kind, v.Flags = f.Start+shift, f.Kind, 0
	case fixEnd:
		v.End = f.End + shift
	}
}

// learn makes a shape of a document that Scan has read, or corrects the one it
// should have had.
func (s *shapes) learn(document []byte, values []Value, common int32, others *Others) {
	if len(document) > maxTemplate || s.resting.Load() > 0 || !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if s.wait > 0 {
		s.wait--
		return
	}
	tokens := tokensOf(document)
	if len(tokens) > maxTokens {
		s.delay()
		return
	}
	var known []*Shape
	if old := s.known.Load(); old != nil {
		known = *old
	}
	at := slices.IndexFunc(known, func(old *Shape) bool { return old.differ(document, tokens) })
	if at < 0 {
		s.delay()
		at = min(len(known), maxShapes-1)
	}
	next := []*Shape{newShape(document, tokens, values, common, others)}
	for i, old := range known {
		if i != at {
			next = append(next, old)
		}
	}
	s.known.Store(&next)
}

func (s *shapes) delay() {
	s.wait = s.pause
	s.pause = min(2*s.pause+1, maxPause)
}

// differ reports whether a document has the structure of the shape, and says
// which of its tokens differ, or did before.
func (s *Shape) differ(document []byte, tokens []token) bool {
	if len(tokens) != len(s.tokens) {
		return false
	}
	old, now := 0, 0
	for i, t := range s.tokens {
		if string(s.template[old:t.start]) != string(document[now:tokens[i].start]) {
			return false
		}
		old, now = t.end, tokens[i].end
	}
	if string(s.template[old:]) != string(document[now:]) {
		return false
	}
	for i, t := range s.tokens {
		tokens[i].differs = t.differs || string(s.template[t.start:t.end]) != string(document[tokens[i].start:tokens[i].end])
	}
	return true
}

// tokensOf returns the scalar values of a valid document, one more than
// maxTokens at most.
func tokensOf(document []byte) []token {
	var tokens []token
	for i := 0; i < len(document) && len(tokens) <= maxTokens; {
		end := i
		switch c := document[i]; {
		case c == '"':
			end, _ = text(document, i+1)
			if after := space(document, end); after < len(document) && document[after] == ':' {
				i = after // that was a key
				continue
			}
		case c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z':
			end, _ = scalar(document, i)
		default:
			i++
			continue
		}
		tokens = append(tokens, token{start: i, end: end})
		i = end
	}
	return tokens
}

// newShape makes a shape of a document that Scan has read.
func newShape(document []byte, tokens []token, values []Value, common int32, others *Others) *Shape {
	s := &Shape{template: slices.Clone(document), tokens: tokens, count: others.Count}
	from := 0
	for _, t := range tokens {
		if t.differs {
			s.cuts = append(s.cuts, cut{from: uint32(from), to: uint32(t.start), node: -1, other: -1})
			from = t.end
		}
	}
	s.cuts = append(s.cuts, cut{from: uint32(from), to: uint32(len(document)), node: -1, other: -1, end: true})

	fixes := make([][]fix, len(s.cuts))
	// place says which cut a value, or one end of it, is in, and puts it there.
	place := func(to int32, v Value) (differs bool) {
		if v.Kind == Missing {
			return false
		}
		start := s.cutWith(v.Start)
		if s.cuts[start].to == v.Start {
			if to >= 0 {
				s.cuts[start].node = to
			} else {
				s.cuts[start].other = ^to
			}
			return true
		}
		end := s.cutWith(v.End - 1)
		if start == end {
			fixes[start] = append(fixes[start], fix{to, fixWhole, v})
		} else {
			fixes[start] = append(fixes[start], fix{to, fixStart, v})
			fixes[end] = append(fixes[end], fix{to, fixEnd, v})
		}
		return false
	}
	for n, v := range values {
		if place(int32(n), v) && int32(n) <= common {
			s.Varies |= 1 << n
		}
	}
	for k := range min(others.Count, len(others.List)) {
		other := &others.List[k]
		in := s.cutWith(other.KeyStart - 1) // its quote: the key may be empty
		fixes[in] = append(fixes[in], fix{^int32(k), fixKey, Value{Start: other.KeyStart, End: other.KeyEnd}})
		if place(^int32(k), other.Value) {
			s.OtherVaries |= 1 << k
		}
	}
	for k := range s.cuts {
		s.cuts[k].first = int32(len(s.fixes))
		s.fixes = append(s.fixes, fixes[k]...)
		s.cuts[k].last = int32(len(s.fixes))
	}
	return s
}

// cutWith returns the index of the first cut that ends behind an offset, or at
// it where a value follows.
func (s *Shape) cutWith(offset uint32) int {
	return slices.IndexFunc(s.cuts, func(c cut) bool { return offset < c.to || offset == c.to && !c.end })
}
