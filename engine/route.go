package engine

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/filterd/filterd"
)

// A route is what a table does with the messages of one channel that arrive
// through one subscription.
type route struct {
	program *program
	// primary says that this is the copy of the message that counts: a
	// channel that matches several subscriptions arrives once for each.
	primary bool
	// label is the channel or glob, as declared or as rules name it, under
	// which the message is counted; empty if no rule takes messages of the
	// channel. Names from messages never become labels.
	label string
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
	matching := make(map[*filterd.Glob]bool)
	first := "" // of the subscriptions that the channel matches
	if len(t.byName[key.channel]) > 0 {
		first = key.channel
	}
	for _, g := range t.globs {
		if matching[g] = g.Match(key.channel); matching[g] && first == "" {
			first = g.String()
		}
	}
	via := key.pattern
	if via == "" {
		via = key.channel
	}
	var rules []*rule
	for _, r := range t.rules {
		entry := r.entry(key.channel, matching)
		if entry != "" && (key.only || entry == via) {
			rules = append(rules, r)
		}
	}
	r := &route{primary: key.only || first == via, label: first}
	if c := t.registry.Lookup(key.channel); c.Channel != "" && first != "" {
		r.label = c.Channel
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	numbers := make([]byte, 0, 4*len(rules))
	for _, r := range rules {
		numbers = binary.BigEndian.AppendUint32(numbers, uint32(r.number))
	}
	r.program = t.programs[string(numbers)]
	if r.program == nil {
		var err error
		if r.program, err = compileProgram(rules); err != nil {
			return nil, err
		}
		// Names come from the network: forget rather than grow.
		if len(t.programs) >= t.maxPrograms {
			clear(t.programs)
		}
		t.programs[string(numbers)] = r.program
	}
	if len(t.routes) >= t.maxPrograms {
		clear(t.routes)
	}
	t.routes[key] = r
	return r, nil
}

// entry returns the first of the rule's From entries that matches a channel.
func (r *rule) entry(channel string, matching map[*filterd.Glob]bool) string {
	if slices.Contains(r.names, channel) {
		return channel
	}
	for _, g := range r.globs {
		if matching[g] {
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
