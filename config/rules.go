package config

import (
	"bytes"
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
)

// ruleNodes remembers where a rule stands in the file.
type ruleNodes struct {
	key    string
	name   *node
	whole  section
	lists  map[string][]*node // the elements of from, set, to and allow
	faulty []string           // fields that the rule lacks because they are wrong
}

// find returns the place of one of the fields of [engine.RuleError].
func (r *ruleNodes) find(field string, index int) (string, *node) {
	key, n := r.whole.get(field)
	if n == nil {
		return r.key, r.name
	}
	if elements := r.lists[field]; index < len(elements) {
		if n.kind == listNode {
			key = element(key, index)
		}
		n = elements[index]
	}
	if callback := n.get("callback"); field == "to" && callback != nil {
		return key + ".callback", callback
	}
	return key, n
}

func (r *ruleNodes) isFaulty(field string) bool { return contains(r.faulty, field) }

func (l *loader) readRules(key string, n *node) {
	if n.kind != mappingNode {
		l.want(key, n, "write the rule's name before it", "a mapping of rules")
		return
	}
	l.byName = make(map[string]int, len(n.entries))
	for _, e := range n.entries {
		l.rule(below(key, e.key.value), e)
	}
}

// rule reads one rule. What is wrong about it is left out or replaced, so that
// the rules can still be checked against each other.
func (l *loader) rule(key string, e entry) {
	if e.value.blank() {
		l.fail(key, e.key, "add from and to", "the rule is empty")
		return
	}
	s, ok := l.section(key, e.value, ruleKeys)
	if !ok {
		return
	}
	nodes := ruleNodes{key: key, name: e.key, whole: s, lists: make(map[string][]*node, 3)}
	r := engine.Rule{Name: e.key.value}
	var profile []exprfilter.Option
	if key, n := s.get("profile"); n != nil {
		if _, ok := l.oneOf(key, n, profiles...); ok {
			profile = append(profile, exprfilter.Full())
		}
	}
	if key, n := s.get("from"); n != nil {
		r.From = l.channelNames(key, n, &nodes, "from")
	}
	if key, n := s.get("when"); n != nil {
		if source, ok := l.expression(key, n); ok {
			if filter, err := exprfilter.Compile(source, profile...); err != nil {
				l.sourceError(key, n, 0, err)
			} else {
				r.When = filter
			}
		}
	}
	if key, n := s.get("wasm"); n != nil {
		r.Stage = l.stage(key, n)
	}
	if key, n := s.get("key"); n != nil {
		if source, ok := l.expression(key, n); ok {
			if value, err := exprfilter.CompileValue(source, profile...); err != nil {
				l.sourceError(key, n, 0, err)
			} else {
				r.Key = value
			}
		}
		if _, wasm := s.get("wasm"); wasm == nil {
			offset, length := l.problems.text.whole(n)
			l.warnings.add(offset, length, key, "", "key says nothing without wasm: all messages of a channel keep their order")
		}
	}
	if key, n := s.get("set"); n != nil {
		r.Set = l.members(key, n, &nodes, profile)
	}
	if key, n := s.get("to"); n != nil {
		r.To = l.targets(key, n, &nodes, profile)
	}
	if key, n := s.get("allow"); n != nil {
		r.Allow = l.channelNames(key, n, &nodes, "allow")
	}
	if key, n := s.get("on_error"); n != nil {
		if value, ok := l.oneOf(key, n, onErrors...); ok {
			r.OnError = engine.OnError(value)
		} else {
			nodes.faulty = append(nodes.faulty, "dead_letter") // is it wanted? nobody knows
		}
	}
	if key, n := s.get("dead_letter"); n != nil {
		if r.DeadLetter = l.optionalText(s, "dead_letter"); r.DeadLetter == "" || l.refuseReference(key, n) {
			nodes.faulty = append(nodes.faulty, "dead_letter", "on_error")
		}
	}
	if key, n := s.get("overflow"); n != nil {
		value, _ := l.oneOf(key, n, overflows...)
		r.Overflow = engine.Overflow(value)
	}
	if key, n := s.get("on_gap"); n != nil {
		r.OnGap, _ = l.boolean(key, n)
	}
	if key, n := s.get("loop"); n != nil {
		_, r.LoopAllowed = l.oneOf(key, n, loops...)
	}
	l.byName[r.Name] = len(l.rules)
	l.rules = append(l.rules, nodes)
	l.config.Rules = append(l.config.Rules, r)
	l.config.digests = append(l.config.digests, digest(e.value))
	if key, n := s.get("tests"); n != nil {
		l.tests(key, n, r)
	}
}

// channelNames reads a channel, or a list of channels and globs.
func (l *loader) channelNames(key string, n *node, nodes *ruleNodes, field string) []string {
	values, elements, ok := l.texts(key, n, "a channel or a list of channels")
	if ok && len(values) == 0 {
		l.fail(key, n, "", "the list is empty")
		ok = false
	}
	for i, element := range elements {
		if l.refuseReference(key, element) || values[i] == "" && element.tag != tagText {
			ok = false
		}
	}
	if !ok {
		nodes.faulty = append(nodes.faulty, field)
	}
	nodes.lists[field] = elements
	return values
}

// refuseReference refuses ${…} where a rule takes the name of a channel.
func (l *loader) refuseReference(key string, n *node) bool {
	if n.kind != scalarNode || !strings.Contains(n.value, "${") {
		return false
	}
	l.fail(key, n, "write the name itself", "references to variables don't work under rules")
	return true
}

// expression reads the source of an expression.
func (l *loader) expression(key string, n *node) (string, bool) {
	switch {
	case n.kind != scalarNode || n.tag != tagText && n.tag != tagBool:
		hint := ""
		if n.kind != scalarNode && n.style != 0 || n.kind == scalarNode && !n.blank() {
			hint = "quote the expression"
		}
		l.want(key, n, hint, "an expression")
		return "", false
	case strings.TrimSpace(n.value) == "":
		l.fail(key, n, "", "the expression is empty")
		return "", false
	}
	return n.value, true
}

// sourceError reports what is wrong with an expression, which begins base
// bytes into the value of n.
func (l *loader) sourceError(key string, n *node, base int, err error) {
	var source *filterd.SourceError
	if !errors.As(err, &source) {
		l.fail(key, n, "", "%v", err)
		return
	}
	t := l.problems.text
	hint := source.Hint
	if hint == "" && n.plain() {
		// YAML has cut off what it takes for a comment?
		start, length := t.whole(n)
		line, lineStart := t.lineText(t.line(start + length - 1))
		if rest := line[min(len(line), start+length-lineStart):]; strings.HasPrefix(strings.TrimLeft(rest, " \t,"), "#") {
			hint = "quote the expression: # begins a comment in YAML"
		}
	}
	offset, length := t.span(n, base+source.Offset, source.Length)
	l.problems.add(offset, length, key, hint, source.Message)
}

// members reads what set adds to data.
func (l *loader) members(key string, n *node, nodes *ruleNodes, profile []exprfilter.Option) []engine.Member {
	if n.kind != mappingNode {
		l.want(key, n, "write {name: expression}", "a mapping")
		return nil
	}
	if len(n.entries) == 0 {
		l.fail(key, n, "", "there is nothing to set")
	}
	var members []engine.Member
	for _, e := range n.entries {
		nodes.lists["set"] = append(nodes.lists["set"], e.key)
		m := engine.Member{Name: e.key.value}
		memberKey := below(key, m.Name)
		constant := e.value.kind == scalarNode && e.value.tag != tagText && e.value.tag != tagTime && !e.value.blank()
		if constant {
			var buf bytes.Buffer
			l.json(memberKey, e.value, &buf)
			m.Constant = buf.Bytes()
		} else if source, ok := l.expression(memberKey, e.value); ok {
			value, err := exprfilter.CompileValue(source, profile...)
			if err != nil {
				l.sourceError(memberKey, e.value, 0, err)
			} else {
				m.Value = value
			}
		}
		if m.Value == nil && len(m.Constant) == 0 {
			m.Constant = []byte("null")
		}
		members = append(members, m)
	}
	return members
}

// targets reads one target, or a list of targets.
func (l *loader) targets(key string, n *node, nodes *ruleNodes, profile []exprfilter.Option) []engine.Target {
	if n.kind != listNode {
		nodes.lists["to"] = []*node{n}
		return []engine.Target{l.target(key, n, profile)}
	}
	if len(n.items) == 0 {
		l.fail(key, n, "", "the list is empty")
		nodes.faulty = append(nodes.faulty, "to")
	}
	nodes.lists["to"] = n.items
	targets := make([]engine.Target, len(n.items))
	for i, item := range n.items {
		targets[i] = l.target(element(key, i), item, profile)
	}
	return targets
}

// noTarget stands for a target that is wrong, so that the others are counted
// right.
func noTarget() engine.Target {
	level := slog.LevelDebug
	return engine.Target{Log: &level}
}

func (l *loader) target(key string, n *node, profile []exprfilter.Option) engine.Target {
	if n.kind == mappingNode {
		return l.callbackOrLog(key, n)
	}
	if n.kind != scalarNode || n.tag != tagText {
		l.want(key, n, "", "a channel, ${expression}, {callback: name} or {log: level}")
		return noTarget()
	}
	if !strings.Contains(n.value, "${") {
		if n.value == "" {
			l.fail(key, n, "", "the name of a channel is not empty")
			return noTarget()
		}
		return engine.Target{Channel: n.value}
	}
	text := strings.TrimRight(n.value, " \t\r\n")
	parts, fault := targetParts(text)
	switch {
	case fault != "":
		l.fail(key, n, "", "%s", fault)
		return computedAnyhow()
	case len(parts) > 1:
		l.fail(key, n, "write ${"+strings.Join(parts, " + ")+"}", "${…} is the whole target or no part of it")
		return computedAnyhow()
	}
	source := text[len("${") : len(text)-len("}")]
	value, err := exprfilter.CompileValue(source, profile...)
	if err != nil {
		l.sourceError(key, n, len("${"), err)
		return computedAnyhow()
	}
	return engine.Target{Computed: value}
}

// computedAnyhow stands for a computed target that is wrong: it may still be
// part of a cycle.
func computedAnyhow() engine.Target {
	value, err := exprfilter.CompileValue(`""`)
	if err != nil {
		return noTarget()
	}
	return engine.Target{Computed: value}
}

func (l *loader) callbackOrLog(key string, n *node) engine.Target {
	s, ok := l.section(key, n, targetKeys)
	if !ok {
		return noTarget()
	}
	callbackKey, callback := s.get("callback")
	logKey, log := s.get("log")
	switch {
	case callback != nil && log != nil:
		l.fail(key, n, "make two targets of it", "callback and log in one target")
	case callback != nil:
		if name, ok := l.text(callbackKey, callback); ok && name == "" {
			l.fail(callbackKey, callback, "", "a callback has a name")
		} else if ok {
			return engine.Target{Callback: name}
		}
	case log != nil:
		if name, ok := l.oneOf(logKey, log, logLevels...); ok {
			level := new(slog.Level)
			if err := level.UnmarshalText([]byte(name)); err != nil {
				l.fail(logKey, log, "", "%v", err)
			}
			return engine.Target{Log: level}
		}
	case len(n.entries) == 0:
		l.fail(key, n, "", "want a channel, ${expression}, {callback: name} or {log: level}")
	}
	return noTarget()
}

// closingBrace returns the offset of the brace that closes the first ${ of a
// text, or -1.
func closingBrace(text string) int {
	depth := 0
	for i := strings.Index(text, "${") + 1; i < len(text); i++ {
		switch c := text[i]; c {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		case '"', '\'', '`':
			for i++; i < len(text) && text[i] != c; i++ {
				if text[i] == '\\' && c != '`' {
					i++
				}
			}
		}
	}
	return -1
}

// targetParts takes a target apart, a mixture of text and ${…}, into what would
// have to be added up to one expression: "alerts." and data.symbol. Or it says
// why it can't.
func targetParts(text string) (parts []string, fault string) {
	for text != "" {
		start := strings.Index(text, "${")
		if start < 0 {
			return append(parts, strconv.Quote(text)), ""
		}
		if start > 0 {
			parts = append(parts, strconv.Quote(text[:start]))
		}
		end := closingBrace(text)
		if end < 0 {
			return nil, "} is missing"
		}
		source := strings.TrimSpace(text[start+len("${") : end])
		switch {
		case source == "":
			return nil, "the expression is empty"
		case strings.ContainsAny(source, " ?:|&"):
			source = "(" + source + ")"
		}
		parts = append(parts, source)
		text = text[end+1:]
	}
	return parts, ""
}
