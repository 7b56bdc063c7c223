package engine

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/filterd/filterd"
)

// A route is what a table does with the messages of one channel that arrive
// through one subscription.
type route struct {
	key     routeKey
	program *program
	// primary says that this is the copy of the message that counts: a
	// channel that matches several subscriptions arrives once for each.
	primary bool
	// label is the channel or glob, as declared or as rules name it, under
	// which the message is counted; empty if no rule takes messages of the
	// channel. Names from messages never become labels.
	label string
}

// takes reports whether a message is on the route.
func (r *route) takes(m *filterd.Message, only bool) bool {
	return r.key.channel == m.Channel && r.key.only == only && (only || r.key.pattern == m.Pattern)
}

type routeKey struct {
	channel string
	pattern string
	only    bool // no other copies of the message arrive
}

// A program is the rules of a route, compiled together.
type program struct {
	rules      []*rule // in the table's order
	always     []int   // indices into rules: those without a condition
	sets       []ruleSet
	projection *filterd.Projection
}

// A ruleSet is the rules of a program whose conditions are of one kind.
type ruleSet struct {
	set    filterd.Set
	rules  []int // indices into program.rules, by the set's numbers
	groups []failureGroup
}

// A failureGroup is rules that fail together. Of those with nothing to do then
// but to count, nobody needs to look at each one.
type failureGroup struct {
	all   []int   // by the set's numbers
	loud  []int   // of those, the rules that do something when they fail
	quiet []*rule // the others
	first int     // of the quiet ones, by the set's numbers
}

func newFailureGroup(all []int, rules func(int) *rule) failureGroup {
	g := failureGroup{all: all}
	for _, i := range all {
		if r := rules(i); r.OnError == OnErrorDrop {
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

// route finds what is to be done with a message that came through the pattern,
// or through the channel's name where pattern is empty. With only, the message
// is the only copy: it stands for every subscription that it matches.
//
// A rule takes the copy of its first matching From entry: exact names first,
// then the globs in their order.
func (t *Table) route(channel, pattern string, only bool) (*route, error) {
	if only {
		pattern = ""
	}
	key := routeKey{channel, pattern, only}
	t.mu.RLock()
	r := t.routes[key]
	t.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	return t.newRoute(key)
}

func (t *Table) newRoute(key routeKey) (*route, error) {
	key.channel, key.pattern = strings.Clone(key.channel), strings.Clone(key.pattern) // they are a message's
	var matching []*filterd.Glob
	first := "" // of the subscriptions that the channel matches
	if len(t.byName[key.channel]) > 0 {
		first = key.channel
	}
	for _, g := range t.globs {
		if g.Match(key.channel) {
			matching = append(matching, g)
			first = cmp.Or(first, g.String())
		}
	}
	via := key.pattern
	if via == "" {
		via = key.channel
	}
	var rules []*rule
	for _, r := range t.taking(key.channel, matching) {
		if key.only || r.entry(key.channel, matching) == via {
			rules = append(rules, r)
		}
	}
	r := &route{key: key, primary: key.only || first == via, label: first}
	if c := t.registry.Lookup(key.channel); c.Channel != "" && first != "" {
		r.label = c.Channel
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if r.program, err = t.program(rules); err != nil {
		return nil, err
	}
	if len(t.routes) >= t.maxPrograms {
		clear(t.routes)
	}
	t.routes[key] = r
	return r, nil
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
	p, err := compileProgram(rules)
	if err != nil {
		return nil, err
	}
	// Names come from the network: forget rather than grow.
	if len(t.programs) >= t.maxPrograms || t.compiled > maxCompiled+8*len(t.rules) {
		t.forgotten = t.evaluated()
		clear(t.programs)
		clear(t.routes)
		t.compiled = 0
	}
	t.programs[string(numbers)] = p
	t.compiled += len(rules)
	return p, nil
}

// evaluated returns how often conditions were evaluated. The caller holds t.mu.
func (t *Table) evaluated() filterd.Evaluations {
	sum := t.forgotten
	for _, p := range t.programs {
		for _, s := range p.sets {
			sum = sum.Add(s.set.Evaluations())
		}
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
		programs := slices.Collect(maps.Values(t.programs))
		t.mu.RUnlock()
		linear := make(map[*rule]bool)
		for _, p := range programs {
			for _, s := range p.sets {
				for i, at := range s.rules {
					if s.set.Access(i).Linear {
						linear[p.rules[at]] = true
					}
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

// taking returns the rules that take messages of a channel, in their order.
func (t *Table) taking(channel string, matching []*filterd.Glob) []*rule {
	rules := slices.Clone(t.byName[channel])
	for _, g := range matching {
		rules = append(rules, t.byGlob[g]...)
	}
	slices.SortFunc(rules, func(a, b *rule) int { return a.number - b.number })
	return slices.Compact(rules)
}

// entry returns the first of the rule's From entries that matches a channel.
func (r *rule) entry(channel string, matching []*filterd.Glob) string {
	if slices.Contains(r.names, channel) {
		return channel
	}
	for _, g := range r.globs {
		if slices.Contains(matching, g) {
			return g.String()
		}
	}
	return ""
}

func compileProgram(rules []*rule) (*program, error) {
	p := &program{rules: rules}
	byKind := make(map[filterd.Kind][]int)
	var kinds []filterd.Kind
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
		kind := r.When.Kind()
		if byKind[kind] == nil {
			kinds = append(kinds, kind)
		}
		byKind[kind] = append(byKind[kind], i)
	}
	for _, kind := range kinds {
		filters := make([]filterd.Filter, len(byKind[kind]))
		for i, at := range byKind[kind] {
			filters[i] = rules[at].When
		}
		set, err := kind.Compile(filters)
		if err != nil {
			return nil, fmt.Errorf("compile %d %s filters: %w", len(filters), kind.Name(), err)
		}
		s := ruleSet{set: set, rules: byKind[kind]}
		for _, group := range set.Groups() {
			s.groups = append(s.groups, newFailureGroup(group, func(i int) *rule { return rules[s.rules[i]] }))
		}
		p.sets = append(p.sets, s)
		reads = append(reads, set.Paths())
	}
	p.projection = filterd.NewProjection(reads...)
	return p, nil
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
