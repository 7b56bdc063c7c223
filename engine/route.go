package engine

import (
	"cmp"
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
	return r.key.channel == m.Channel && r.key.only == only && (only || r.key.pattern == m.Pattern) &&
		r.key.stream == (m.ID != "") && r.key.sharded == m.Sharded && (only || m.Entry == nil || r.key.group == m.Entry.Group)
}

type routeKey struct {
	channel string
	pattern string
	only    bool   // no other copies of the message arrive
	stream  bool   // channel is a stream
	group   string // that it is read in
	sharded bool   // channel is a sharded one
}

// keyOfRoute returns the key of the route that a message takes.
func keyOfRoute(m *filterd.Message, only bool) routeKey {
	key := routeKey{channel: m.Channel, pattern: m.Pattern, only: only, stream: m.ID != "", sharded: m.Sharded}
	if m.Entry != nil {
		key.group = m.Entry.Group
	}
	if only {
		key.pattern, key.group = "", ""
	}
	return key
}

// route finds what is to be done with a message that came through its pattern,
// or through the channel's name where there is none. With only, the message
// is the only copy: it stands for every subscription that it matches.
//
// A rule takes the copy of its first matching From entry: exact names first,
// then the globs in their order. Each group of a stream has a copy of its own.
func (t *Table) route(m *filterd.Message, only bool) (*route, error) {
	key := keyOfRoute(m, only)
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
	r := &route{key: key}
	var rules []*rule
	if key.stream {
		rules = t.fromStream(r)
	} else if key.sharded {
		if rules = t.bySharded[key.channel]; len(rules) > 0 {
			r.primary, r.label = true, key.channel
		}
	} else {
		rules = t.fromChannel(r)
	}
	if c := t.registry.Lookup(key.channel); c.Channel != "" && r.label != "" {
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

// fromStream returns the rules on a route of a stream's entries.
func (t *Table) fromStream(r *route) []*rule {
	var rules []*rule
	for _, s := range t.streams {
		if s.Name != r.key.channel {
			continue
		}
		if r.label == "" { // the first group
			r.label, r.primary = s.Name, r.key.only || s.Group == r.key.group
		}
		if r.key.only || s.Group == r.key.group {
			rules = append(rules, t.byStream[keyOf(s)]...)
		}
	}
	if len(rules) == 0 {
		r.label = ""
	}
	return inOrder(rules)
}

// fromChannel returns the rules on a route of a channel's messages.
func (t *Table) fromChannel(r *route) []*rule {
	key := r.key
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
	r.primary, r.label = key.only || first == via, first
	return rules
}

// taking returns the rules that take messages of a channel, in their order.
func (t *Table) taking(channel string, matching []*filterd.Glob) []*rule {
	rules := slices.Clone(t.byName[channel])
	for _, g := range matching {
		rules = append(rules, t.byGlob[g]...)
	}
	return inOrder(rules)
}

// inOrder returns rules in the table's order, each once.
func inOrder(rules []*rule) []*rule {
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
