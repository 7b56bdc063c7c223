package exprfilter

import (
	"maps"
	"math"
	"slices"
)

// A classSet is a set of classes.
type classSet uint16

func setOf(classes ...class) classSet {
	var s classSet
	for _, c := range classes {
		s |= 1 << c
	}
	return s
}

func (s classSet) has(c class) bool { return s>>c&1 != 0 }

// everything holds all classes but unknown: where an attribute is unknown,
// every rule under it is a candidate.
const everything = classSet(1<<classUnknown - 1)

// An attribute is something of a message that rules are found by: a place, or
// the value of a term that several rules share.
type attribute struct {
	number int
	term   *term
	place  *place // nil for a term
	parent bool   // places below it are read
}

// A valueSet is a set of values of an attribute.
type valueSet struct {
	classes   classSet // all of these
	numbers   []float64
	strings   []string
	intervals []interval
	prefixes  []string
}

func (s valueSet) union(o valueSet) valueSet {
	return valueSet{
		classes:   s.classes | o.classes,
		numbers:   join(s.numbers, o.numbers),
		strings:   join(s.strings, o.strings),
		intervals: join(s.intervals, o.intervals),
		prefixes:  join(s.prefixes, o.prefixes),
	}
}

func join[T comparable](a, b []T) []T {
	joined := a[:len(a):len(a)]
	for _, x := range b {
		if !slices.Contains(a, x) {
			joined = append(joined, x)
		}
	}
	return joined
}

// keys returns how many entries of an index the set takes.
func (s valueSet) keys() int {
	n := len(s.numbers) + len(s.strings) + len(s.intervals) + len(s.prefixes)
	for c := range classCount {
		if s.classes.has(c) {
			n++
		}
	}
	return n
}

// An atom says that an attribute's value is in a set.
type atom struct {
	attribute *attribute
	set       valueSet
}

// A cover is a condition that must hold for an outcome to be possible: one of
// the atoms holds, no two of which are of one attribute.
type cover struct {
	unknown bool // nothing is known: always possible
	// exact says that the outcome is certain where the cover holds.
	exact bool
	atoms []atom
}

var (
	never    = cover{}
	anything = cover{unknown: true}
)

func (c cover) union(o cover) cover {
	if c.unknown || o.unknown {
		return anything
	}
	if len(c.atoms) == 0 {
		return o
	}
	if len(o.atoms) == 0 {
		return c
	}
	joined := cover{atoms: slices.Clone(c.atoms)}
	for _, a := range o.atoms {
		if i := slices.IndexFunc(joined.atoms, func(b atom) bool { return b.attribute == a.attribute }); i >= 0 {
			joined.atoms[i].set = joined.atoms[i].set.union(a.set)
		} else {
			joined.atoms = append(joined.atoms, a)
		}
	}
	return joined
}

// without returns c without what the atoms cover.
func (c cover) without(certain []atom) cover {
	if c.unknown || len(certain) == 0 {
		return c
	}
	var rest cover
	for _, a := range c.atoms {
		for _, b := range certain {
			if a.attribute == b.attribute {
				a.set.classes &^= b.set.classes
			}
		}
		if a.set.keys() > 0 {
			rest.atoms = append(rest.atoms, a)
		}
	}
	return rest
}

// costs guess how many messages fall under a class, in units of those that are
// equal to a constant.
var costs = [classCount]float64{classNil: 40, classFalse: 100, classTrue: 100, classNumber: 400, classString: 400, classArray: 60, classObject: 1000, classError: 1}

// cost guesses how often a cover holds. Atoms of the preferred attribute cost
// next to nothing.
func (c cover) cost(preferred *attribute) float64 {
	if c.unknown {
		return math.Inf(1)
	}
	var sum float64
	for _, a := range c.atoms {
		cost := float64(len(a.set.numbers)+len(a.set.strings)) + 4*float64(len(a.set.prefixes))
		for _, i := range a.set.intervals {
			if math.IsInf(i.low, 0) || math.IsInf(i.high, 0) {
				cost += 200
			} else {
				cost += 8
			}
		}
		var classes float64
		for c, guess := range costs {
			if a.set.classes.has(class(c)) {
				classes += guess
			}
		}
		if a.attribute.parent && !a.set.classes.has(classObject) {
			classes /= 50 // it is an object nearly always
		}
		if cost += classes; a.attribute == preferred {
			cost /= 1e6
		}
		sum += cost
	}
	return sum
}

// covers are what must hold for each outcome of a condition.
type covers struct{ yes, no, fail cover }

// A coverer finds covers, with a preference for one attribute.
type coverer struct {
	attributes []*attribute
	byPlace    map[*place]*attribute
	byText     map[string]*attribute
	preferred  *attribute
}

func newCoverer() coverer {
	return coverer{byPlace: make(map[*place]*attribute), byText: make(map[string]*attribute)}
}

// attribute returns the attribute for a value's term.
func (b *coverer) attribute(t *term) *attribute {
	a := &attribute{number: len(b.attributes), term: t}
	if t.op == opPlace {
		if known := b.byPlace[t.place]; known != nil {
			return known
		}
		b.byPlace[t.place] = a
		if !t.place.indexed {
			a.place = t.place
		}
	} else {
		text := t.String()
		if known := b.byText[text]; known != nil {
			return known
		}
		b.byText[text] = a
	}
	b.attributes = append(b.attributes, a)
	return a
}

// parent returns the attribute for the place above an attribute's.
func (b *coverer) parent(p *place) *attribute {
	a := b.attribute(&term{op: opPlace, place: p.parent, float: true})
	a.parent = true
	return a
}

func (b *coverer) min(x, y cover) cover {
	if y.cost(b.preferred) < x.cost(b.preferred) {
		return y
	}
	return x
}

// fails returns when evaluating a value fails: as many atoms as there are
// ways, of which no two can hold at once.
func (b *coverer) fails(t *term) []atom {
	switch {
	case t.op == opConstant:
		return nil
	case t.op == opPlace && !t.place.indexed:
		if t.place.parent == nil {
			return nil
		}
		return []atom{{b.parent(t.place), valueSet{classes: everything &^ setOf(classObject)}}}
	}
	return []atom{{b.attribute(t), valueSet{classes: setOf(classError)}}}
}

// test returns the covers of a test of one value, which is in yes, or fails
// where its class is in fail.
func (b *coverer) test(t *term, yes valueSet, exact bool, fail classSet) covers {
	a := b.attribute(t)
	possible := everything &^ setOf(classError)
	failing := cover{exact: true, atoms: b.fails(t)}
	if fail != 0 {
		failing = failing.union(cover{atoms: []atom{{a, valueSet{classes: fail}}}})
		failing.exact = true
	}
	c := covers{fail: failing}
	if yes.keys() > 0 {
		c.yes = cover{exact: exact, atoms: []atom{{a, yes}}}
	}
	no := possible &^ fail
	if exact {
		no &^= yes.classes
	}
	if no != 0 {
		c.no = cover{atoms: []atom{{a, valueSet{classes: no}}}}
	}
	return c
}

const (
	notNumber  = everything &^ (1<<classError | 1<<classNumber)
	noText     = everything &^ (1<<classError | 1<<classString | 1<<classNil)
	notBool    = everything &^ (1<<classError | 1<<classFalse | 1<<classTrue)
	notKeyable = noText
)

// maxJoined is how many conditions of one and, or of one or, are covered: uniting
// covers takes the square of their number.
const maxJoined = 64

// covers returns the covers of a condition.
func (b *coverer) covers(t *term) covers {
	if len(t.args) > maxJoined {
		return covers{anything, anything, anything}
	}
	switch t.op {
	case opOpaque:
		return covers{anything, anything, anything}
	case opConstant:
		switch t.value.class {
		case classTrue:
			return covers{yes: cover{unknown: true, exact: true}}
		case classFalse:
			return covers{no: anything}
		}
		return covers{fail: anything}
	case opRange:
		i := t.interval
		if i.low > i.high {
			return b.test(t.args[0], valueSet{}, true, notNumber)
		}
		if i.low == i.high && !i.excludesLow && !i.excludesHigh {
			return b.test(t.args[0], valueSet{numbers: []float64{i.low}}, true, notNumber)
		}
		return b.test(t.args[0], valueSet{intervals: []interval{i}}, true, notNumber)
	case opIn:
		l := t.list
		yes := valueSet{classes: l.classes, numbers: slices.Sorted(maps.Keys(l.numbers)), strings: slices.Sorted(maps.Keys(l.strings))}
		if l.whole != nil && l.whole.low <= l.whole.high {
			yes.intervals = []interval{*l.whole}
		}
		if !l.keyed {
			return b.test(t.args[0], yes, l.whole == nil, 0)
		}
		if l.strings[""] {
			yes.classes |= setOf(classNil)
		}
		return b.test(t.args[0], yes, true, notKeyable)
	case opAffix:
		if t.operator == "startsWith" && len(t.value.text) > 0 {
			return b.test(t.args[0], valueSet{prefixes: []string{string(t.value.text)}}, true, noText)
		}
		return b.test(t.args[0], valueSet{classes: setOf(classString)}, len(t.value.text) == 0, noText)
	case opMatches:
		return b.test(t.args[0], valueSet{classes: setOf(classString)}, false, noText)
	case opBare:
		return b.test(t.args[0], valueSet{classes: setOf(classTrue)}, true, notBool)
	case opBareRoot:
		return b.test(t.args[0], valueSet{classes: setOf(classTrue)}, true, notBool&^setOf(classNil))
	case opCompare:
		if c := t.args[1]; c.op == opConstant && c.value.class == classString {
			return b.test(t.args[0], valueSet{classes: setOf(classString)}, false, everything&^setOf(classError, classString))
		}
		a := b.attribute(t)
		outcome := func(c class) cover { return cover{exact: true, atoms: []atom{{a, valueSet{classes: setOf(c)}}}} }
		return covers{outcome(classTrue), outcome(classFalse), outcome(classError)}
	case opNot:
		c := b.covers(t.args[0])
		return covers{yes: c.no, no: c.yes, fail: c.fail}
	case opAnd:
		c := b.covers(t.args[0])
		for _, next := range t.args[1:] {
			c = b.and(c, b.covers(next))
		}
		return c
	case opOr: // by De Morgan
		c := b.covers(t.args[0])
		c.yes, c.no = c.no, c.yes
		for _, next := range t.args[1:] {
			n := b.covers(next)
			n.yes, n.no = n.no, n.yes
			c = b.and(c, n)
		}
		return covers{yes: c.no, no: c.yes, fail: c.fail}
	case opChoose:
		c, x, y := b.covers(t.args[0]), b.covers(t.args[1]), b.covers(t.args[2])
		either := func(x, y cover) cover { return b.min(c.yes, x).union(b.min(c.no, y)).inexact() }
		return covers{yes: either(x.yes, y.yes), no: either(x.no, y.no), fail: c.fail.union(either(x.fail, y.fail)).inexact()}
	case opLet:
		c := b.covers(t.args[1])
		return covers{yes: c.yes.inexact(), no: c.no.inexact(), fail: c.fail.union(cover{atoms: b.fails(t.args[0])}).inexact()}
	}
	return covers{anything, anything, anything}
}

func (b *coverer) and(x, y covers) covers {
	return covers{
		yes:  b.min(x.yes, y.yes).inexact(),
		no:   x.no.union(b.min(x.yes, y.no)).inexact(),
		fail: x.fail.union(b.min(x.yes, y.fail)).inexact(),
	}
}

func (c cover) inexact() cover {
	c.exact = false
	return c
}

// certain returns atoms, no two of which can hold at once, under which a
// condition fails for sure: what is wrong with the value that is evaluated
// first.
func (b *coverer) certain(t *term) []atom {
	switch t.op {
	case opOpaque, opConstant:
		return nil
	case opNot, opAnd, opOr, opChoose:
		return b.certain(t.args[0])
	case opLet:
		return b.fails(t.args[0])
	}
	if fail := b.covers(t).fail; fail.exact {
		return fail.atoms
	}
	return nil
}
