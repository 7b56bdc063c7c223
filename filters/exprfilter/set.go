package exprfilter

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/filterd/filterd"
)

// Kind is the kind of filters that are expressions. It implements
// [filterd.Kind].
type Kind struct{}

// Name implements [filterd.Kind].
func (Kind) Name() string { return "expr" }

// Compile implements [filterd.Kind].
func (Kind) Compile(filters []filterd.Filter) (filterd.Set, error) {
	programs := make([]*program, len(filters))
	for i, f := range filters {
		e, ok := f.(*Filter)
		if !ok {
			return nil, fmt.Errorf("filter %d is a %T, not an expression", i, f)
		}
		programs[i] = e.program
	}
	return newSet(programs), nil
}

// A set is the rules of one channel, with an index that finds those which can
// match a message, or fail on it.
type set struct {
	rules  []rule
	places []*place
	paths  []filterd.Path // of the places
	// attributes are what the index looks at.
	attributes []func(*machine) value
	root       *node
	groups     [][]int

	compiled, pruned, whole atomic.Uint64 // evaluations
}

// A rule is one expression, made ready to run.
type rule struct {
	program *program
	decide  func(*machine) class
	reads   []*place
}

func newSet(programs []*program) *set {
	t := newTranslator()
	b := newBuilder(programs...)
	s := &set{rules: make([]rule, len(programs))}
	entries := make([]entry, len(programs))
	reads := make([][]*place, len(programs))
	for i, p := range programs {
		condition := t.condition(p.vm.Node(), true)
		s.rules[i] = rule{program: p, decide: compileCondition(condition)}
		entries[i] = newEntry(i, condition)
		reads[i] = t.reads(p.vm.Node())
	}
	settle(reads)
	for i := range s.rules {
		s.rules[i].reads = reads[i]
	}
	s.root = b.build(entries, nil)
	s.groups = b.groups
	for _, a := range b.attributes {
		s.attributes = append(s.attributes, compileValue(a.term))
	}
	s.places = t.places
	s.paths = paths(t.places)
	return s
}

func paths(places []*place) []filterd.Path {
	paths := make([]filterd.Path, len(places))
	for i, p := range places {
		paths[i] = p.path
	}
	return paths
}

// Paths implements [filterd.Set].
func (s *set) Paths() []filterd.Path { return s.paths }

// Groups implements [filterd.Set].
func (s *set) Groups() [][]int { return s.groups }

// Evaluations implements [filterd.Set].
func (s *set) Evaluations() filterd.Evaluations {
	return filterd.Evaluations{Compiled: s.compiled.Load(), Pruned: s.pruned.Load(), Whole: s.whole.Load()}
}

// Bind implements [filterd.Set].
func (s *set) Bind(slots []int) filterd.SetMatcher { return s.bind(slots) }

func (s *set) bind(slots []int) *setMatcher {
	return &setMatcher{
		set:     s,
		machine: newMachine(s.places, slots),
		derived: make([]cell, len(s.attributes)),
		tried:   make([]uint32, len(s.rules)),
		grouped: make([]uint32, len(s.rules)),
	}
}

// A setMatcher finds the rules of a set that keep a message, or fail on it.
type setMatcher struct {
	set *set
	machine
	derived []cell   // by attributes
	tried   []uint32 // by rules: the epoch of the message on which it was tried last

	kept    []int
	failed  []int    // rules that fail, unless one of the groups has them
	fired   []int    // groups all of whose rules fail
	grouped []uint32 // by rules: the epoch of the message on which a fired group had it
}

// Match implements [filterd.SetMatcher].
func (m *setMatcher) Match(batch []*filterd.Message, verdicts []filterd.Verdict) []filterd.Verdict {
	for i, message := range batch {
		m.match(message)
		start := len(verdicts)
		for _, r := range m.kept {
			verdicts = append(verdicts, filterd.Verdict{Message: i, Rule: r})
		}
		m.group()
		for _, r := range m.failed {
			if m.grouped[r] == m.epoch {
				continue // its group tells
			}
			if verdict, ok := m.verdict(r); ok {
				verdict.Message = i
				verdicts = append(verdicts, verdict)
			}
		}
		if len(verdicts)-start > 1 {
			slices.SortFunc(verdicts[start:], func(a, b filterd.Verdict) int { return a.Rule - b.Rule })
		}
		for _, g := range m.fired {
			verdicts = append(verdicts, filterd.Verdict{Message: i, Group: g + 1})
		}
	}
	m.tell()
	return verdicts
}

// tell adds to what the set has counted.
func (m *setMatcher) tell() {
	for _, c := range []struct {
		n  *uint64
		to *atomic.Uint64
	}{{&m.count.Compiled, &m.set.compiled}, {&m.count.Pruned, &m.set.pruned}, {&m.count.Whole, &m.set.whole}} {
		if *c.n > 0 {
			c.to.Add(*c.n)
			*c.n = 0
		}
	}
}

// Failure implements [filterd.SetMatcher].
func (m *setMatcher) Failure(message *filterd.Message, rule int) error {
	if m.message != message {
		m.load(message)
	}
	_, err := m.ask(m.set.rules[rule].program)
	return err
}

// match fills in kept, failed and fired.
func (m *setMatcher) match(message *filterd.Message) {
	m.kept, m.failed, m.fired = m.kept[:0], m.failed[:0], m.fired[:0]
	m.load(message)
	m.visit(m.set.root)
}

// group marks the rules of the groups that fired, if rules failed beside.
func (m *setMatcher) group() {
	if len(m.failed) == 0 {
		return
	}
	for _, g := range m.fired {
		for _, r := range m.set.groups[g] {
			m.grouped[r] = m.epoch
		}
	}
}

// verdict asks expr for the verdict of a rule.
func (m *setMatcher) verdict(r int) (filterd.Verdict, bool) {
	keep, err := m.ask(m.set.rules[r].program)
	return filterd.Verdict{Rule: r, Err: err}, err != nil || keep == true
}

// load makes message the one at hand.
func (m *setMatcher) load(message *filterd.Message) {
	m.machine.load(message)
	if m.epoch == 1 {
		clear(m.derived)
		clear(m.tried)
		clear(m.grouped)
	}
}

// attribute returns the value of an attribute.
func (m *setMatcher) attribute(a *attribute) *value {
	if a.place != nil {
		return &m.at(a.place.number).value
	}
	c := &m.derived[a.number]
	if c.epoch != m.epoch {
		c.value = m.set.attributes[a.number](&m.machine)
		c.epoch = m.epoch
	}
	return &c.value
}

// visit goes through the part of the index below a node.
func (m *setMatcher) visit(n *node) {
	for _, r := range n.certain {
		if m.tried[r] != m.epoch {
			m.tried[r] = m.epoch
			m.kept = append(m.kept, r)
		}
	}
	failed := len(m.failed)
	for _, r := range n.leaf {
		m.try(r)
	}
	if n.isLeaf && len(m.failed) == failed {
		return // the tables only tell which rules fail
	}
	for i := range n.checks {
		c := &n.checks[i]
		switch c.decide(&m.machine) {
		case classTrue:
			m.visit(c.yes)
		case classError:
			if c.group >= 0 {
				m.fired = append(m.fired, c.group)
			}
		case classUnknown:
			m.tryAll(c.yes)
			if c.group >= 0 {
				m.tryGroup(c.group)
			}
		}
	}
	for _, t := range n.tables {
		m.search(t)
	}
}

// tryAll tries every rule below a node.
func (m *setMatcher) tryAll(n *node) {
	for _, r := range n.certain {
		m.try(r)
	}
	for _, r := range n.leaf {
		m.try(r)
	}
	for i := range n.checks {
		m.tryAll(n.checks[i].yes)
	}
	for _, t := range n.tables {
		for below := range t.nodes {
			m.tryAll(below)
		}
	}
}

func (m *setMatcher) tryGroup(g int) {
	for _, r := range m.set.groups[g] {
		m.try(r)
	}
}

func (m *setMatcher) search(t *table) {
	v := m.attribute(t.attribute)
	for _, f := range t.failing {
		if f.classes.has(v.class) {
			m.fired = append(m.fired, f.group)
		}
	}
	if v.class == classError && t.above != nil {
		m.search(t.above)
	}
	switch v.class {
	case classString:
		if n := t.strings[string(v.text)]; n != nil {
			m.visit(n)
		}
		for i := range t.prefixes {
			p := &t.prefixes[i]
			if p.length > len(v.text) {
				break
			}
			if n := p.nodes[string(v.text[:p.length])]; n != nil {
				m.visit(n)
			}
		}
	case classNumber:
		if n := t.numbers[v.number]; n != nil {
			m.visit(n)
		}
		if v.number == v.number { // NaN is in no interval
			t.intervals.visit(v.number, m)
		}
	case classUnknown:
		for n := range t.nodes {
			m.tryAll(n)
		}
		for _, f := range t.failing {
			m.tryGroup(f.group)
		}
		return
	}
	if n := t.classes[v.class]; n != nil {
		m.visit(n)
	}
}

// try evaluates a rule.
func (m *setMatcher) try(r int) {
	if m.tried[r] == m.epoch {
		return
	}
	m.tried[r] = m.epoch
	m.count.Compiled++
	rule := &m.set.rules[r]
	switch rule.decide(&m.machine) {
	case classTrue:
		m.kept = append(m.kept, r)
	case classError:
		m.failed = append(m.failed, r)
	case classUnknown:
		switch keep, err := m.run(rule.program, rule.reads); {
		case err != nil:
			m.failed = append(m.failed, r)
		case keep == true:
			m.kept = append(m.kept, r)
		}
	}
}

// alone returns the filter as a set of its own.
func (p *program) alone() *set {
	p.once.Do(func() { p.single = newSet([]*program{p}) })
	return p.single
}

// Matcher implements [filterd.Filter].
func (f *Filter) Matcher() filterd.Matcher {
	s := f.program.alone()
	projection := filterd.NewProjection(s.paths)
	return &matcher{projection: projection, setMatcher: s.bind(projection.Slots(s.paths))}
}

// A matcher is one expression on messages that are bound to anything.
type matcher struct {
	projection *filterd.Projection
	setMatcher *setMatcher
}

func (m *matcher) Match(message *filterd.Message) (bool, error) {
	defer message.Bind(message.Bind(m.projection))
	if err := message.Err(); err != nil {
		return false, err
	}
	m.setMatcher.match(message)
	switch {
	case len(m.setMatcher.kept) > 0:
		return true, nil
	case len(m.setMatcher.failed)+len(m.setMatcher.fired) == 0:
		return false, nil
	}
	verdict, ok := m.setMatcher.verdict(0)
	return ok && verdict.Err == nil, verdict.Err
}

// Paths implements [filterd.Value].
func (v *Value) Paths() []filterd.Path { return paths(v.places) }

// Bind implements [filterd.Value].
func (v *Value) Bind(slots []int) filterd.Evaluator {
	return &evaluator{value: v, machine: newMachine(v.places, slots)}
}

type evaluator struct {
	value   *Value
	machine machine
}

func (e *evaluator) Evaluate(message *filterd.Message) (any, error) {
	e.machine.load(message)
	if e.value.compute != nil {
		switch v := e.value.compute(&e.machine); {
		case v.class == classTrue || v.class == classFalse:
			return v.class == classTrue, nil
		case v.class == classNil:
			return nil, nil
		case v.class == classNumber && e.value.float:
			return v.number, nil
		case v.class == classString:
			return string(v.text), nil
		}
	}
	return e.machine.run(e.value.program, e.value.reads)
}
