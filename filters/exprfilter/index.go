package exprfilter

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// maxLeaf is up to how many rules are cheaper to try than to look up.
const maxLeaf = 8

// A node is a part of the index: rules of which nothing more is known than
// what led to the node.
type node struct {
	certain []int // rules that keep the message, for sure
	leaf    []int // rules to try
	isLeaf  bool  // leaf has all rules; the tables only say which fail together
	checks  []check
	tables  []*table
}

// A check is a condition that leads on where it is true: a table of one entry,
// made small, since there may be as many as rules.
type check struct {
	decide func(*machine) class
	yes    *node
	group  int // fails where the condition does; -1 if there is none
}

// A table finds nodes by one attribute's value.
type table struct {
	attribute *attribute
	strings   map[string]*node
	numbers   map[float64]*node
	intervals intervals
	prefixes  []prefixTable
	classes   [classCount]*node
	failing   []failing
	// above is what else there is to be searched if the value can't be read:
	// a table that only says what fails where the place above is no object.
	above *table
}

// nodes yields all nodes that the table leads to.
func (t *table) nodes(yield func(*node) bool) {
	for _, n := range t.strings {
		if !yield(n) {
			return
		}
	}
	for _, n := range t.numbers {
		if !yield(n) {
			return
		}
	}
	for i := range t.intervals {
		if !yield(t.intervals[i].node) {
			return
		}
	}
	for _, p := range t.prefixes {
		for _, n := range p.nodes {
			if !yield(n) {
				return
			}
		}
	}
	for _, n := range t.classes {
		if n != nil && !yield(n) {
			return
		}
	}
}

type prefixTable struct {
	length int
	nodes  map[string]*node
}

// failing says that a group of rules fails on values of these classes.
type failing struct {
	classes classSet
	group   int
}

// An entry is a rule on its way into the index.
type entry struct {
	rule int
	// rest holds the conditions that are not known to be true, in order: the
	// rule is true where all of them are.
	rest []*term
	// grouped says that a group has the rule where the first condition fails
	// for sure; single, that the rule can be in such a group here.
	grouped, single bool
}

func newEntry(rule int, condition *term) entry {
	rest := []*term{condition}
	if condition.op == opAnd {
		rest = condition.args
	}
	if len(rest) > maxJoined {
		rest = append(slices.Clone(rest[:maxJoined]), &term{op: opAnd, args: rest[maxJoined:]})
	}
	return entry{rule: rule, rest: rest, single: true}
}

// A builder builds an index.
type builder struct {
	coverer
	groups [][]int
	// budget bounds the work and the keys below the first level of the index:
	// rules made for it could be found in an exponential number of ways. What
	// is left out is tried where it stands.
	budget int
}

func newBuilder(programs ...*program) *builder {
	b := &builder{coverer: newCoverer(), budget: 1 << 16}
	for _, p := range programs {
		b.budget += len(p.source)
	}
	return b
}

// build makes a node of entries, whose attributes so far are used.
func (b *builder) build(entries []entry, used []*attribute) *node {
	n := &node{isLeaf: len(entries) <= maxLeaf}
	byAttribute := make(map[*attribute]*tableBuilder)
	tableOf := func(a *attribute) *tableBuilder {
		t := byAttribute[a]
		if t == nil {
			t = &tableBuilder{table: &table{attribute: a}, postings: make(map[any][]entry), groups: make(map[classSet][]int)}
			byAttribute[a] = t
		}
		return t
	}
	for _, e := range entries {
		if len(e.rest) == 0 {
			n.certain = append(n.certain, e.rule)
			continue
		}
		var certain []atom
		if (len(used) == 0 || !n.isLeaf) && (e.grouped || e.single) {
			certain = b.certain(e.rest[0])
		}
		if !e.grouped {
			for _, a := range certain {
				t := tableOf(a.attribute)
				t.groups[a.set.classes] = append(t.groups[a.set.classes], e.rule)
			}
			e.grouped = len(certain) > 0
		}
		if n.isLeaf {
			n.leaf = append(n.leaf, e.rule)
			continue
		}
		p, ok := b.post(e, certain, used)
		if !ok {
			n.leaf = append(n.leaf, e.rule)
			continue
		}
		for _, a := range p.yes {
			tableOf(a.attribute).add(a.set, p.known)
		}
		for _, a := range p.fail {
			tableOf(a.attribute).add(a.set, p.unknown)
		}
	}
	builders := slices.SortedFunc(maps.Values(byAttribute), func(x, y *tableBuilder) int {
		return cmp.Compare(x.table.attribute.number, y.table.attribute.number)
	})
	var tables []*table
	for _, t := range builders {
		b.finish(t, append(used[:len(used):len(used)], t.table.attribute))
		if c, ok := t.table.check(); ok {
			n.checks = append(n.checks, c)
		} else {
			tables = append(tables, t.table)
		}
	}
	n.tables = hang(tables)
	return n
}

// hang hangs tables that only say what fails where a place is no object on
// those of places below, where there are any: what can't be read there tells
// as much.
func hang(tables []*table) []*table {
	var rest []*table
	for _, t := range tables {
		below := slices.IndexFunc(tables, func(o *table) bool {
			return t.attribute.place != nil && o.attribute.place != nil && o.attribute.place.parent == t.attribute.place
		})
		if below < 0 || !t.onlyFailsWithoutObject() {
			rest = append(rest, t)
			continue
		}
		tables[below].above = t
	}
	return rest
}

func (t *table) onlyFailsWithoutObject() bool {
	for range t.nodes {
		return false
	}
	return len(t.failing) == 1 && t.failing[0].classes == everything&^setOf(classObject)
}

// check returns what the table of a condition comes to that leads on only where
// it is true.
func (t *table) check() (check, bool) {
	yes := t.classes[classTrue]
	if t.attribute.term.op != opCompare || yes == nil {
		return check{}, false
	}
	for c, n := range t.classes {
		if n != nil && class(c) != classTrue {
			return check{}, false
		}
	}
	c := check{decide: compileCondition(t.attribute.term), yes: yes, group: -1}
	switch {
	case len(t.failing) == 1 && t.failing[0].classes == setOf(classError):
		c.group = t.failing[0].group
	case len(t.failing) > 0:
		return check{}, false
	}
	return c, true
}

// posted is where an entry is found.
type posted struct {
	yes     []atom
	known   entry // for what is found there
	fail    []atom
	unknown entry
}

// post chooses where an entry is found.
func (b *builder) post(e entry, certain []atom, used []*attribute) (posted, bool) {
	if len(used) > 0 {
		if b.budget -= len(e.rest); b.budget < 0 {
			return posted{}, false
		}
	}
	b.preferred = nil
	var yes cover
	best, bestCost := -1, math.Inf(1)
	for i, c := range e.rest {
		covered := b.covers(c).yes
		if cost := covered.cost(nil); usable(covered, used) && cost < bestCost {
			best, bestCost, yes = i, cost, covered
		}
	}
	if best < 0 {
		return b.postUnknown(e, certain, used)
	}
	if len(yes.atoms) == 1 {
		b.preferred = yes.atoms[0].attribute
		defer func() { b.preferred = nil }()
	}
	fail := never
	before := anything // what must hold for the conditions so far to be true
	for i, c := range e.rest {
		covers := b.covers(c)
		if i == 0 {
			covers.fail = covers.fail.without(certain)
		}
		fail = fail.union(b.min(before, covers.fail))
		before = b.min(before, covers.yes)
	}
	if !usable(fail, used) && len(fail.atoms) > 0 || fail.unknown {
		return b.postUnknown(e, certain, used)
	}
	p := posted{yes: yes.atoms, known: e, unknown: e}
	keys := 0 // of the entry
	for _, a := range yes.atoms {
		keys += a.set.keys()
	}
	for _, a := range fail.atoms {
		for _, y := range yes.atoms {
			if y.attribute == a.attribute {
				a.set = a.set.minus(y.set)
			}
		}
		if n := a.set.keys(); n > 0 {
			keys += n
			p.fail = append(p.fail, a)
		}
	}
	b.budget -= keys
	p.known.single = e.single && keys == 1
	p.unknown.single = p.known.single
	if yes.exact {
		p.known.rest = slices.Delete(slices.Clone(e.rest), best, best+1)
		p.known.grouped = e.grouped && best > 0
	}
	return p, true
}

// postUnknown posts an entry of which it is known at most when it fails: then
// it need not be tried.
func (b *builder) postUnknown(e entry, certain []atom, used []*attribute) (posted, bool) {
	if len(certain) == 0 {
		return posted{}, false
	}
	last := certain[len(certain)-1]
	if slices.Contains(used, last.attribute) {
		return posted{}, false
	}
	last.set = valueSet{classes: everything &^ last.set.classes}
	if len(certain) > 1 {
		last.set.classes &^= setOf(classError)
	}
	e.single = false
	return posted{fail: []atom{last}, unknown: e}, true
}

func usable(c cover, used []*attribute) bool {
	return !c.unknown && !slices.ContainsFunc(c.atoms, func(a atom) bool { return slices.Contains(used, a.attribute) })
}

// minus returns the keys of s that aren't in o.
func (s valueSet) minus(o valueSet) valueSet {
	return valueSet{
		classes:   s.classes &^ o.classes,
		numbers:   missing(s.numbers, o.numbers),
		strings:   missing(s.strings, o.strings),
		intervals: missing(s.intervals, o.intervals),
		prefixes:  missing(s.prefixes, o.prefixes),
	}
}

func missing[T comparable](a, b []T) []T {
	return slices.DeleteFunc(slices.Clone(a), func(x T) bool { return slices.Contains(b, x) })
}

// A tableBuilder gathers what is posted in a table.
type tableBuilder struct {
	table    *table
	postings map[any][]entry // by string, float64, interval, prefix or class
	groups   map[classSet][]int
}

type prefix string

func (t *tableBuilder) add(s valueSet, e entry) {
	post := func(key any) { t.postings[key] = append(t.postings[key], e) }
	for _, k := range s.strings {
		post(k)
	}
	for _, k := range s.numbers {
		post(k)
	}
	for _, k := range s.intervals {
		post(k)
	}
	for _, k := range s.prefixes {
		post(prefix(k))
	}
	for c := range classCount {
		if s.classes.has(c) {
			post(c)
		}
	}
}

// finish builds the table of what was posted.
func (b *builder) finish(t *tableBuilder, used []*attribute) {
	for classes, rules := range t.groups {
		t.table.failing = append(t.table.failing, failing{classes, len(b.groups)})
		b.groups = append(b.groups, rules)
	}
	byLength := make(map[int]map[string]*node)
	for key, entries := range t.postings {
		n := b.build(entries, used)
		switch key := key.(type) {
		case string:
			if t.table.strings == nil {
				t.table.strings = make(map[string]*node)
			}
			t.table.strings[key] = n
		case float64:
			if t.table.numbers == nil {
				t.table.numbers = make(map[float64]*node)
			}
			t.table.numbers[key] = n
		case interval:
			t.table.intervals = append(t.table.intervals, tableInterval{interval: key, node: n})
		case prefix:
			if byLength[len(key)] == nil {
				byLength[len(key)] = make(map[string]*node)
			}
			byLength[len(key)][string(key)] = n
		case class:
			t.table.classes[key] = n
		}
	}
	t.table.intervals.sort()
	for length, nodes := range byLength {
		t.table.prefixes = append(t.table.prefixes, prefixTable{length, nodes})
	}
	slices.SortFunc(t.table.prefixes, func(x, y prefixTable) int { return cmp.Compare(x.length, y.length) })
}

// intervals finds the intervals that hold a number. They stand by their lower
// ends, as an implicit balanced tree.
type intervals []tableInterval

type tableInterval struct {
	interval
	node    *node
	highest float64 // of the upper ends in the part of the tree below, and its own
}

func (s intervals) sort() {
	slices.SortFunc(s, func(x, y tableInterval) int { return cmp.Compare(x.low, y.low) })
	s.raise()
}

// raise fills in highest, and returns that of the whole.
func (s intervals) raise() float64 {
	if len(s) == 0 {
		return math.Inf(-1)
	}
	middle := len(s) / 2
	s[middle].highest = max(s[middle].high, s[:middle].raise(), s[middle+1:].raise())
	return s[middle].highest
}

// visit makes m visit the node of every interval that holds x.
func (s intervals) visit(x float64, m *setMatcher) {
	for len(s) > 0 {
		middle := len(s) / 2
		i := &s[middle]
		if i.highest < x {
			return
		}
		s[:middle].visit(x, m)
		if x < i.low {
			return
		}
		if i.contains(x) {
			m.visit(i.node)
		}
		s = s[middle+1:]
	}
}
