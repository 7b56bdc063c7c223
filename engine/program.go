package engine

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/filterd/filterd"
)

// A program is the rules of a route, compiled together.
type program struct {
	rules      []*rule // in the table's order
	always     []int   // indices into rules: those without a condition
	sets       []ruleSet
	projection *filterd.Projection
}

// A ruleSet is rules of a program whose conditions are compiled together.
type ruleSet struct {
	*compiledSet
	rules []int // indices into program.rules, by the set's numbers
}

// A compiledSet is rules whose conditions are of one kind, compiled together.
type compiledSet struct {
	set     filterd.Set
	members []*rule // by the set's numbers
	groups  []failureGroup
	shared  bool // by all programs that have these rules
}

// A crowd is many rules of one kind that take the same messages. They are
// compiled once: where a glob of theirs covers many channels that have rules of
// their own as well, there are many programs.
type crowd struct {
	from string // what they take messages from
	kind filterd.Kind
}

// minCrowd is how many rules make a crowd.
const minCrowd = 32

// findCrowds finds the crowds among the rules.
func findCrowds(rules []*rule) map[crowd]int {
	crowds := make(map[crowd]int)
	for _, r := range rules {
		if r.When != nil {
			crowds[r.crowd()]++
		}
	}
	maps.DeleteFunc(crowds, func(_ crowd, n int) bool { return n < minCrowd })
	return crowds
}

func (r *rule) crowd() crowd { return crowd{r.from, r.When.Kind()} }

// A failureGroup is rules that fail together. Of those with nothing to do then
// but to count, nobody needs to look at each one.
type failureGroup struct {
	all   []int   // by the set's numbers
	loud  []int   // of those, the rules that do something when they fail
	quiet []*rule // the others
	first int     // of the quiet ones, by the set's numbers
}

func newFailureGroup(all []int, rules []*rule) failureGroup {
	g := failureGroup{all: all}
	for _, i := range all {
		if r := rules[i]; r.OnError == OnErrorDrop {
			if g.quiet == nil {
				g.first = i
			}
			g.quiet = append(g.quiet, r)
		} else {
			g.loud = append(g.loud, i)
		}
	}
	return g
}

// program returns the program of rules that are taken together. The caller
// holds t.mu.
func (t *Table) program(rules []*rule) (*program, error) {
	numbers := make([]byte, 0, 4*len(rules))
	for _, r := range rules {
		numbers = binary.BigEndian.AppendUint32(numbers, uint32(r.number))
	}
	if p := t.programs[string(numbers)]; p != nil {
		return p, nil
	}
	p, err := t.compile(rules)
	if err != nil {
		return nil, err
	}
	// Names come from the network: forget rather than grow.
	if len(t.programs) >= t.maxPrograms || t.compiled > maxCompiled+8*len(t.rules) {
		for s := range t.sets() {
			if !s.shared {
				t.forgotten = t.forgotten.Add(s.set.Evaluations())
			}
		}
		clear(t.programs)
		clear(t.routes)
		t.compiled = 0
	}
	t.programs[string(numbers)] = p
	t.compiled += p.weight()
	return p, nil
}

// weight is how many rules a program is worth; those compiled elsewhere hardly
// count.
func (p *program) weight() int {
	n := len(p.rules) / 64
	for _, s := range p.sets {
		if !s.shared {
			n += len(s.rules)
		}
	}
	return n
}

// sets yields every set once. The caller holds t.mu.
func (t *Table) sets() iter.Seq[*compiledSet] {
	return func(yield func(*compiledSet) bool) {
		for _, s := range t.shared {
			if !yield(s) {
				return
			}
		}
		for _, p := range t.programs {
			for _, s := range p.sets {
				if !s.shared && !yield(s.compiledSet) {
					return
				}
			}
		}
	}
}

// evaluated returns how often conditions were evaluated. The caller holds t.mu.
func (t *Table) evaluated() filterd.Evaluations {
	sum := t.forgotten
	for s := range t.sets() {
		sum = sum.Add(s.set.Evaluations())
	}
	return sum
}

// Evaluations returns how often the conditions of the table's rules were
// evaluated.
func (t *Table) Evaluations() filterd.Evaluations {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.evaluated()
}

// Linear returns how many rules are evaluated for every message of some
// channel: what they cost adds up.
func (t *Table) Linear() int {
	t.linearOnce.Do(func() {
		t.mu.RLock()
		sets := slices.Collect(t.sets())
		t.mu.RUnlock()
		linear := make(map[*rule]bool)
		for _, s := range sets {
			for i, r := range s.members {
				if s.set.Access(i).Linear {
					linear[r] = true
				}
			}
		}
		t.linear = len(linear)
	})
	return t.linear
}

// maxCompiled bounds the rules in all programs of a table, a rule counting in
// each, beside what the table's own size accounts for.
const maxCompiled = 1 << 16

// maxPrepared bounds what prepare does: names, each compared with each glob.
const maxPrepared = 1 << 20

// prepare compiles the programs of the channels and globs that rules name, so
// that no message has to wait for that. Where there are very many, it leaves
// the rest to the messages.
func (t *Table) prepare() error {
	enough := func() bool { return t.compiled > maxCompiled/2+4*len(t.rules) || len(t.programs) > t.maxPrograms/2 }
	for i, name := range t.names {
		if enough() || i*(1+len(t.globs)) > maxPrepared {
			return nil
		}
		if _, err := t.newRoute(routeKey{channel: name}); err != nil {
			return err
		}
	}
	for _, name := range t.sharded {
		if enough() {
			return nil
		}
		if _, err := t.newRoute(routeKey{channel: name, sharded: true}); err != nil {
			return err
		}
	}
	for _, s := range t.streams {
		if enough() {
			return nil
		}
		if _, err := t.newRoute(routeKey{channel: s.Name, stream: true, group: s.Group}); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.globs {
		if enough() {
			return nil
		}
		if _, err := t.program(t.byGlob[g]); err != nil {
			return err
		}
	}
	return nil
}

// compile compiles a program. The caller holds t.mu.
func (t *Table) compile(rules []*rule) (*program, error) {
	p := &program{rules: rules}
	together := make(map[crowd][]int) // indices into rules; from is empty but for crowds
	var order []crowd
	var reads [][]filterd.Path
	for i, r := range rules {
		for _, v := range r.values() {
			reads = append(reads, v.Paths())
		}
		if r.Key != nil {
			reads = append(reads, r.Key.Paths())
		}
		if r.Stage != nil {
			reads = append(reads, r.Stage.Paths())
		}
		if r.When == nil {
			p.always = append(p.always, i)
			continue
		}
		c := r.crowd()
		if t.crowds[c] == 0 {
			c.from = ""
		}
		if together[c] == nil {
			order = append(order, c)
		}
		together[c] = append(together[c], i)
	}
	for _, c := range order {
		s, err := t.compileSet(c, rules, together[c])
		if err != nil {
			return nil, err
		}
		p.sets = append(p.sets, ruleSet{s, together[c]})
		reads = append(reads, s.set.Paths())
	}
	p.projection = filterd.NewProjection(reads...)
	return p, nil
}

// compileSet compiles the rules at these indices, unless they are a crowd that
// was compiled before.
func (t *Table) compileSet(c crowd, rules []*rule, at []int) (*compiledSet, error) {
	if s := t.shared[c]; s != nil {
		return s, nil
	}
	s := &compiledSet{members: make([]*rule, len(at)), shared: c.from != ""}
	filters := make([]filterd.Filter, len(at))
	for i, rule := range at {
		s.members[i] = rules[rule]
		filters[i] = rules[rule].When
	}
	var err error
	if s.set, err = c.kind.Compile(filters); err != nil {
		return nil, fmt.Errorf("compile %d %s filters: %w", len(filters), c.kind.Name(), err)
	}
	for _, group := range s.set.Groups() {
		s.groups = append(s.groups, newFailureGroup(group, s.members))
	}
	if s.shared {
		t.shared[c] = s
	}
	return s, nil
}

// values returns the rule's value expressions: those of set, then of to.
func (r *rule) values() []filterd.Value {
	var values []filterd.Value
	for _, m := range r.Set {
		if m.Value != nil {
			values = append(values, m.Value)
		}
	}
	for _, to := range r.To {
		if to.Computed != nil {
			values = append(values, to.Computed)
		}
	}
	return values
}
