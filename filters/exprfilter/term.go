package exprfilter

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/filterd/filterd"
)

// A class is what sort of value a term has, as far as expr's operators tell
// values apart.
type class uint8

const (
	classNil class = iota // null, or a member that is missing
	classFalse
	classTrue
	classNumber
	classString
	classArray
	classObject
	classError   // evaluating it fails
	classUnknown // only expr can tell
	classCount
)

func truth(b bool) class {
	if b {
		return classTrue
	}
	return classFalse
}

// A value is what a term evaluates to.
type value struct {
	class  class
	number float64
	text   []byte // what a string says; borrowed
}

// A place is a value of the message that expressions name.
type place struct {
	path    filterd.Path
	name    string // of a root, or of a member; empty for an element
	number  int    // in the set
	parent  *place // nil for a root
	byIndex bool   // it is an element of its parent, not a member
	indexed bool   // it, or a place above it, is an element
}

// An op says what a term makes of its arguments.
type op uint8

const (
	opOpaque     op = iota // only expr knows
	opConstant             // value
	opPlace                // place
	opChain                // place; nil where one of optional is nil
	opNegate               // -a
	opArithmetic           // a operator b
	opCoalesce             // a ?? b
	opChoose               // a ? b : c
	opLet                  // a is evaluated, then b counts

	// From here on: conditions, which are true, false or fail.

	opCompare  // a operator b
	opRange    // a, a number, is in the interval
	opIn       // a is in the list
	opAffix    // a operator value: startsWith, endsWith, contains
	opMatches  // a matches pattern
	opBare     // a is true; anything but a bool fails
	opBareRoot // a is true; nil counts as false, anything but a bool fails
	opNot      // of a condition
	opAnd      // of conditions, evaluated in order until one is false
	opOr       // of conditions, evaluated in order until one is true
)

// A term is what we understand of an expression. It means what expr's
// bytecode for the node that it was made of does; what we don't understand is
// opaque.
type term struct {
	op       op
	operator string
	args     []*term
	place    *place
	optional []*place // of a chain: those before a ?.
	value    value    // of a constant
	interval interval
	list     *list
	pattern  *regexp.Regexp
	// float says that the value, if it is a number, is a float64 for expr,
	// and not an int.
	float bool
	// text is an opaque term's source.
	text string

	nodes int // of the term, once they were counted
}

// maxNodes is how many nodes a term may have. A variable's term counts wherever
// it is used, so that a chain of them could double it with each.
const maxNodes = 1 << 11

// tooLarge reports whether the term has more than maxNodes nodes.
func (t *term) tooLarge() bool { return t.count() > maxNodes }

func (t *term) count() int {
	if t.nodes == 0 {
		t.nodes = 1
		for _, a := range t.args {
			t.nodes = min(t.nodes+a.count(), maxNodes+1)
		}
	}
	return t.nodes
}

func (t *term) isCondition() bool { return t.op >= opCompare || t.op == opOpaque }

// An interval is a set of numbers. NaN is in none.
type interval struct {
	low, high                 float64
	excludesLow, excludesHigh bool
}

func (i interval) contains(x float64) bool {
	return (x > i.low || x == i.low && !i.excludesLow) && (x < i.high || x == i.high && !i.excludesHigh)
}

func (i interval) intersect(j interval) interval {
	if j.low > i.low || j.low == i.low && j.excludesLow {
		i.low, i.excludesLow = j.low, j.excludesLow
	}
	if j.high < i.high || j.high == i.high && j.excludesHigh {
		i.high, i.excludesHigh = j.high, j.excludesHigh
	}
	return i
}

// intervalOf returns the numbers x for which "x operator bound" is true.
func intervalOf(operator string, bound float64) interval {
	i := interval{low: math.Inf(-1), high: math.Inf(1)}
	switch operator {
	case "<":
		i.high, i.excludesHigh = bound, true
	case "<=":
		i.high = bound
	case ">":
		i.low, i.excludesLow = bound, true
	case ">=":
		i.low = bound
	}
	return i
}

// A list is what stands on the right of in, or of several ==.
type list struct {
	// keyed lists are maps of strings for expr: looking for nil finds "", and
	// looking for what is no string fails. Others compare by ==.
	keyed   bool
	classes classSet // of nil, false and true: which are listed
	numbers map[float64]bool
	strings map[string]bool
	// whole holds whole numbers, all those from its low to its high end.
	whole *interval
}

func newList() *list {
	return &list{numbers: make(map[float64]bool), strings: make(map[string]bool)}
}

func (l *list) add(v value) {
	switch v.class {
	case classNumber:
		l.numbers[v.number] = true
	case classString:
		l.strings[string(v.text)] = true
	default:
		l.classes |= setOf(v.class)
	}
}

func (l *list) has(v value) class {
	switch v.class {
	case classString:
		return truth(l.strings[string(v.text)])
	case classError, classUnknown:
		return v.class
	case classNil:
		if l.keyed {
			return truth(l.strings[""])
		}
	}
	switch {
	case l.keyed:
		return classError
	case v.class == classNumber:
		return truth(l.numbers[v.number] || l.whole != nil && l.whole.contains(v.number) && v.number == math.Trunc(v.number))
	}
	return truth(l.classes.has(v.class))
}

// String describes the term, in the same words where it means the same.
func (t *term) String() string {
	var b strings.Builder
	t.describe(&b)
	return b.String()
}

func (t *term) describe(b *strings.Builder) {
	switch t.op {
	case opOpaque:
		b.WriteString(t.text)
	case opConstant:
		b.WriteString(t.value.describe())
	case opPlace:
		b.WriteString(string(t.place.path))
	case opChain:
		b.WriteString(string(t.place.path))
		for _, p := range t.optional {
			fmt.Fprintf(b, "?%s", p.path)
		}
	case opRange:
		t.args[0].describe(b)
		fmt.Fprintf(b, " in %v", t.interval)
	case opIn:
		t.args[0].describe(b)
		b.WriteString(" in ")
		t.list.describe(b)
	case opAffix:
		t.args[0].describe(b)
		fmt.Fprintf(b, " %s %s", t.operator, t.value.describe())
	case opMatches:
		t.args[0].describe(b)
		fmt.Fprintf(b, " matches %q", t.pattern)
	default:
		fmt.Fprintf(b, "%d%s(", t.op, t.operator)
		for i, a := range t.args {
			if i > 0 {
				b.WriteString(", ")
			}
			a.describe(b)
		}
		b.WriteByte(')')
	}
}

func (v value) describe() string {
	switch v.class {
	case classNil:
		return "nil"
	case classFalse, classTrue:
		return fmt.Sprint(v.class == classTrue)
	case classNumber:
		return fmt.Sprint(v.number)
	}
	return fmt.Sprintf("%q", v.text)
}

// String gives the interval in mathematical notation.
func (i interval) String() string {
	open, end := "[", "]"
	if i.excludesLow {
		open = "("
	}
	if i.excludesHigh {
		end = ")"
	}
	return fmt.Sprintf("%s%v, %v%s", open, i.low, i.high, end)
}

func (l *list) describe(b *strings.Builder) {
	fmt.Fprintf(b, "%t%b%q%v", l.keyed, l.classes, slices.Sorted(maps.Keys(l.strings)), slices.Sorted(maps.Keys(l.numbers)))
	if l.whole != nil {
		fmt.Fprintf(b, "%v", *l.whole)
	}
}
