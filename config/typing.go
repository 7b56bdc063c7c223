package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/internal/spelling"
)

// What the checking of expressions against schemas may take: a rule that can
// take messages of more contracts is not checked, nor are globs after so many
// comparisons.
const (
	maxTypings     = 16
	maxComparisons = 1_000_000
)

// A typing is what is known of the messages of some of a rule's channels.
type typing struct {
	exprfilter.Typing
	channels []string // contracts' names
	lenient  bool     // not every message is held against the schema
}

// A typingKey tells which contracts say the same of messages.
type typingKey struct {
	schema   *filterd.Schema
	envelope filterd.Envelope
	lenient  bool
}

// typings returns what is known of a rule's messages. Nothing is said of
// channels that have no contract, but then open is true.
func (l *loader) typings(r *engine.Rule) (typings []typing, open bool) {
	if len(l.labels) == 0 {
		return nil, true
	}
	var found []typingKey
	add := func(c *filterd.Contract) {
		if c.Channel == "" {
			open = true
			return
		}
		key := typingKey{c.Schema, c.Envelope, c.Validate != filterd.ValidateEnforce}
		at := slices.Index(found, key)
		if at < 0 {
			at = len(found)
			found = append(found, key)
			typings = append(typings, typing{Typing: l.typingOf(c), lenient: key.lenient})
		}
		typings[at].channels = append(typings[at].channels, c.Channel)
	}
	for _, stream := range r.Streams {
		add(l.config.Registry.Lookup(stream.Name))
	}
	for _, from := range r.From {
		if !filterd.IsGlob(from) {
			add(l.config.Registry.Lookup(from))
			continue
		}
		contracts, rest := l.contractsOf(from)
		open = open || rest
		if l.compared += len(contracts); l.compared > maxComparisons {
			return nil, true
		}
		for _, c := range contracts {
			add(c)
		}
	}
	if len(typings) > maxTypings {
		return nil, true
	}
	return typings, open
}

// contractsOf returns the contracts that the channels of a glob can have, and
// whether some may have none.
func (l *loader) contractsOf(glob string) (contracts []*filterd.Contract, open bool) {
	if known, ok := l.globContracts[glob]; ok {
		return known.contracts, known.open
	}
	open = true
	all := l.config.Registry.Contracts()
	if l.compared += len(all); l.compared <= maxComparisons {
		compiled := filterd.CompileGlob(glob)
		for _, c := range all {
			if filterd.IsGlob(c.Channel) && compiled.Intersects(filterd.CompileGlob(c.Channel)) || !filterd.IsGlob(c.Channel) && compiled.Match(c.Channel) {
				contracts = append(contracts, c)
			}
			open = open && c.Channel != glob && c.Channel != "*"
		}
	}
	if l.globContracts == nil {
		l.globContracts = make(map[string]globContracts)
	}
	l.globContracts[glob] = globContracts{contracts, open}
	return contracts, open
}

type globContracts struct {
	contracts []*filterd.Contract
	open      bool
}

// typingOf returns what a contract says of messages.
func (l *loader) typingOf(c *filterd.Contract) exprfilter.Typing {
	key := typingKey{schema: c.Schema, envelope: c.Envelope}
	t, ok := l.types[key]
	if !ok {
		t = exprfilter.Typing{Data: c.DataType(), Schema: l.labels[c.Channel], Envelope: c.Envelope}
		if l.types == nil {
			l.types = make(map[typingKey]exprfilter.Typing)
		}
		l.types[key] = t
	}
	return t
}

// checked is an expression that can be checked against what is known of
// messages.
type checked interface {
	Check(...exprfilter.Typing) [][]exprfilter.Finding
}

// check holds an expression, which begins base bytes into the value of n,
// against all that is known of the rule's messages. A fault is an error where
// every message of the rule has it, and a warning where some have.
func (l *loader) check(key string, n *node, base int, e checked, in scope) {
	if len(in.typings) == 0 {
		return
	}
	known := make([]exprfilter.Typing, len(in.typings))
	for i := range in.typings {
		known[i] = in.typings[i].Typing
	}
	var findings []spread
	for i, found := range e.Check(known...) {
		for _, f := range found {
			at := slices.IndexFunc(findings, func(s spread) bool { return s.Offset == f.Offset && s.Length == f.Length })
			if at < 0 {
				at = len(findings)
				findings = append(findings, spread{f, make([]exprfilter.Severity, len(in.typings))})
			}
			s := &findings[at]
			if f.Severity > s.Severity {
				s.Finding = f
			}
			s.of[i] = max(s.of[i], 1+f.Severity)
		}
	}
	for i := range findings {
		s := &findings[i]
		offset, length := l.problems.text.span(n, base+s.Offset, s.Length)
		everywhere, faulty, lenient := !in.open, !in.open, false
		var channels []string // with messages that are at fault
		for i, severity := range s.of {
			everywhere = everywhere && severity > 0
			if severity != 1+exprfilter.Fault {
				faulty = false
				continue
			}
			channels = append(channels, in.typings[i].channels...)
			lenient = lenient || in.typings[i].lenient
		}
		switch {
		case s.Severity == exprfilter.Hint:
			l.hints.add(offset, length, key, s.SourceError.Hint, s.Message)
		case s.Severity == exprfilter.Warning && !everywhere:
			// Other channels may know better.
		case s.Severity == exprfilter.Warning, faulty && lenient:
			l.warnings.add(offset, length, key, s.SourceError.Hint, s.Message)
		case faulty:
			l.problems.add(offset, length, key, s.SourceError.Hint, s.Message)
		default:
			l.warnings.add(offset, length, key, s.SourceError.Hint, "with messages of "+someOf(channels)+": "+s.Message)
		}
	}
}

// A spread is a finding, and for each typing what is found there: 0 for
// nothing, or a severity and 1.
type spread struct {
	exprfilter.Finding
	of []exprfilter.Severity
}

// someOf lists channels, but not many.
func someOf(channels []string) string {
	const most = 3
	slices.Sort(channels)
	channels = slices.Compact(channels)
	var names []string
	for _, name := range channels[:min(most, len(channels))] {
		names = append(names, quote(name))
	}
	if more := len(channels) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// A scope is what is known where an expression of a rule is evaluated.
type scope struct {
	typings []typing
	open    bool // there may be messages of which nothing is known
}

// after returns the scope behind set.
func (s scope) after(members []engine.Member) scope {
	if len(members) == 0 {
		return s
	}
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.Name
	}
	typings := slices.Clone(s.typings)
	for i := range typings {
		if t := &typings[i]; t.Data != nil {
			t.Data = t.Data.With(names...)
		}
	}
	return scope{typings, s.open}
}

// checkInput warns of members of a test's data that the schema excludes, or
// names otherwise.
func (l *loader) checkInput(key string, n *node, channel string) {
	c := l.config.Registry.Lookup(channel)
	if c.Channel == "" || c.Schema == nil || c.Envelope == filterd.EnvelopeBytes {
		return
	}
	t := l.typingOf(c)
	l.checkMembers(key, n, t.Data, t.Schema)
}

func (l *loader) checkMembers(key string, n *node, t *filterd.DataType, schema string) {
	for i, item := range n.items {
		l.checkMembers(element(key, i), item, t.Element(), schema)
	}
	for _, e := range n.entries {
		name := e.key.value
		of, membership, _ := t.Member(name)
		switch {
		case membership == filterd.MemberKnown && e.value.kind != scalarNode:
			l.checkMembers(below(key, name), e.value, of, schema)
			continue
		case membership == filterd.MemberKnown, membership == filterd.MemberOpen:
			continue
		}
		hint := ""
		if near := spelling.Nearest(name, t.Names()); near != "" {
			hint = "did you mean " + near + "?"
		}
		if membership == filterd.MemberUnnamed && hint == "" {
			continue // it is a test of what the schema doesn't name
		}
		offset, length := l.problems.text.whole(e.key)
		l.warnings.add(offset, length, below(key, name), hint, fmt.Sprintf("unknown field %s (%s)", quote(name), schema))
	}
}

// label says in messages where a contract's schema is.
func label(name string, schema, contract *node) string {
	switch {
	case contract != nil:
		return "schema of " + quote(name)
	case schema == nil:
		return ""
	case schema.kind == mappingNode:
		return "schema of " + quote(name)
	}
	return "schema " + cmp.Or(schema.value, name)
}
