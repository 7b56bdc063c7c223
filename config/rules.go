package config

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
)

// ruleNodes remembers where a rule stands in the file.
type ruleNodes struct {
	key    string
	name   *node
	whole  section
	lists  map[string][]placed // the elements of from, streams, set, to and allow
	faulty []string            // fields that the rule lacks because they are wrong
}

// placed is an element of a list, or what stands for one, and its key.
type placed struct {
	key  string
	node *node
}

// find returns the place of one of the fields of [engine.RuleError].
func (r *ruleNodes) find(field string, index int) (string, *node) {
	key, n := r.whole.get(field)
	if field == "streams" || field == "sharded" {
		key, n = r.whole.get("from")
	}
	if n == nil {
		return r.key, r.name
	}
	if elements := r.lists[field]; index < len(elements) {
		key, n = elements[index].key, elements[index].node
	}
	for _, kind := range targetKinds {
		if name := n.get(kind); (field == "to" || field == "dead_letter") && name != nil {
			return key + "." + kind, name
		}
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
	nodes := ruleNodes{key: key, name: e.key, whole: s, lists: make(map[string][]placed, 3)}
	r := engine.Rule{Name: e.key.value}
	var profile []exprfilter.Option
	if key, n := s.get("profile"); n != nil {
		if _, ok := l.oneOf(key, n, profiles...); ok {
			profile = append(profile, exprfilter.Full())
		}
	}
	if key, n := s.get("from"); n != nil {
		l.sources(key, n, &nodes, &r)
	}
	var in scope
	if !nodes.isFaulty("from") {
		in.typings, in.open = l.typings(&r)
	}
	if key, n := s.get("when"); n != nil {
		if source, ok := l.expression(key, n); ok {
			if filter, err := exprfilter.Compile(source, profile...); err != nil {
				l.sourceError(key, n, 0, err)
			} else {
				r.When = filter
				l.check(key, n, 0, filter, in)
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
				l.check(key, n, 0, value, in) // it is evaluated on the message as it came
			}
		}
	}
	if _, n := s.get("wasm"); n != nil {
		in = scope{open: true} // nobody knows what it makes of data
	}
	if key, n := s.get("set"); n != nil {
		r.Set = l.members(key, n, &nodes, profile, in)
		in = in.after(r.Set)
	}
	if key, n := s.get("to"); n != nil {
		r.To = l.targets(key, n, &nodes, profile, in)
	}
	if key, n := s.get("key"); n != nil && !usesKey(s, r.To) {
		offset, length := l.problems.text.whole(n)
		l.warnings.add(offset, length, key, "", "key says nothing without wasm, a webhook or overflow: conflate: all messages of a channel keep their order")
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
		to := l.deadLetter(key, n)
		r.DeadLetter, r.DeadLetterStream, r.DeadLetterMaxLen = to.Channel+to.Stream, to.Stream != "", to.MaxLen
		if r.DeadLetter == "" {
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
	if key, n := s.get("shadow"); n != nil {
		r.Shadow, _ = l.boolean(key, n)
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

// sources reads where a rule's messages come from: a channel, a glob or a
// stream, or a list of these.
func (l *loader) sources(key string, n *node, nodes *ruleNodes, r *engine.Rule) {
	const what = "a channel, {stream: name}, {sharded: channel} or a list of these"
	items := []placed{{key, n}}
	if n.kind == listNode {
		items = nil
		for i, item := range n.items {
			items = append(items, placed{element(key, i), item})
		}
		if len(items) == 0 {
			l.fail(key, n, "", "the list is empty")
		}
	}
	ok := len(items) > 0
	for _, item := range items {
		switch n := item.node; {
		case n.kind == mappingNode && n.get("sharded") != nil:
			if name := l.shardedChannel(item.key, n); name != "" {
				r.Sharded = append(r.Sharded, name)
				nodes.lists["sharded"] = append(nodes.lists["sharded"], item)
			} else {
				ok = false
			}
			continue
		case n.kind == mappingNode:
			if s, fine := l.streamSource(item.key, n); fine {
				r.Streams = append(r.Streams, s)
				nodes.lists["streams"] = append(nodes.lists["streams"], item)
			} else {
				ok = false
			}
			continue
		case n.kind != scalarNode || n.tag != tagText:
			hint := ""
			if n.kind == scalarNode && !n.blank() {
				hint = "put it in quotes"
			}
			l.want(item.key, n, hint, what)
			ok = false
		case l.refuseReference(item.key, n):
			ok = false
		}
		r.From = append(r.From, item.node.value)
		nodes.lists["from"] = append(nodes.lists["from"], item)
	}
	if !ok {
		nodes.faulty = append(nodes.faulty, "from")
	}
}

// shardedChannel reads {sharded: channel} under from; the name is empty if it
// is wrong.
func (l *loader) shardedChannel(key string, n *node) string {
	s, ok := l.section(key, n, shardedKeys)
	if !ok {
		return ""
	}
	if key, n := s.get("sharded"); l.refuseReference(key, n) {
		return ""
	}
	return l.optionalText(s, "sharded")
}

// streamSource reads {stream: name} under from.
func (l *loader) streamSource(key string, n *node) (stream filterd.Stream, ok bool) {
	s, ok := l.section(key, n, streamSourceKeys)
	if !ok {
		return stream, false
	}
	if stream.Name = l.streamName(s); stream.Name == "" {
		return stream, false
	}
	for name, into := range map[string]*string{"group": &stream.Group, "field": &stream.Field} {
		if _, n := s.get(name); n != nil {
			*into = l.optionalText(s, name)
			ok = *into != "" && ok
		}
	}
	if key, n := s.get("claim_idle"); n != nil {
		var fine bool
		stream.ClaimIdle, fine = l.duration(key, n, minClaimIdle, maxClaimIdle)
		ok = fine && ok
	}
	if key, n := s.get("max_deliveries"); n != nil {
		var fine bool
		stream.MaxDeliveries, fine = l.integer(key, n, 1, maxMaxDeliveries)
		ok = fine && ok
	}
	return stream.WithDefaults(), ok
}

// Bounds of what a stream's settings can be.
const (
	minClaimIdle     = 100 * time.Millisecond
	maxClaimIdle     = 24 * time.Hour
	maxMaxDeliveries = 1_000_000
	maxMaxLen        = 1 << 53
)

// streamName reads the name of a stream; empty if it is wrong.
func (l *loader) streamName(s section) string {
	key, n := s.get("stream")
	if n == nil {
		l.fail(s.key, s.node, "write {stream: name}", "stream is missing")
		return ""
	}
	if l.refuseReference(key, n) {
		return ""
	}
	return l.optionalText(s, "stream")
}

// deadLetter reads where dead letters go: a channel, or {stream: name}. Both names
// are empty if it is wrong.
func (l *loader) deadLetter(key string, n *node) (to engine.Target) {
	if n.kind == mappingNode {
		if s, ok := l.section(key, n, deadLetterKeys); ok {
			if to.MaxLen, to.Stream = l.maxLen(s), l.streamName(s); to.Stream == "" {
				return engine.Target{}
			}
		}
		return to
	}
	value, ok := l.text(key, n)
	if ok && value == "" {
		l.fail(key, n, "give a value or leave the key out", "is empty")
	}
	if !ok || strings.HasPrefix(key, "rules.") && l.refuseReference(key, n) {
		return to
	}
	to.Channel = value
	return to
}

// maxLen reads how many entries a stream keeps; 0 if that is all.
func (l *loader) maxLen(s section) int64 {
	key, n := s.get("maxlen")
	if n == nil {
		return 0
	}
	most, _ := l.integer(key, n, 1, maxMaxLen)
	return int64(most)
}

// usesKey reports whether anything about a rule goes by its key.
func usesKey(s section, to []engine.Target) bool {
	_, wasm := s.get("wasm")
	_, overflow := s.get("overflow")
	return wasm != nil || overflow != nil && overflow.value == string(engine.OverflowConflate) ||
		slices.ContainsFunc(to, func(to engine.Target) bool { return to.Webhook != "" })
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
	for i, e := range elements {
		at := key
		if n.kind == listNode {
			at = element(key, i)
		}
		nodes.lists[field] = append(nodes.lists[field], placed{at, e})
	}
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
func (l *loader) members(key string, n *node, nodes *ruleNodes, profile []exprfilter.Option, in scope) []engine.Member {
	if n.kind != mappingNode {
		l.want(key, n, "write {name: expression}", "a mapping")
		return nil
	}
	if len(n.entries) == 0 {
		l.fail(key, n, "", "there is nothing to set")
	}
	var members []engine.Member
	for _, e := range n.entries {
		m := engine.Member{Name: e.key.value}
		memberKey := below(key, m.Name)
		nodes.lists["set"] = append(nodes.lists["set"], placed{key, e.key})
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
				l.check(memberKey, e.value, 0, value, in)
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
func (l *loader) targets(key string, n *node, nodes *ruleNodes, profile []exprfilter.Option, in scope) []engine.Target {
	if n.kind != listNode {
		nodes.lists["to"] = []placed{{key, n}}
		return []engine.Target{l.target(key, n, profile, in)}
	}
	if len(n.items) == 0 {
		l.fail(key, n, "", "the list is empty")
		nodes.faulty = append(nodes.faulty, "to")
	}
	targets := make([]engine.Target, len(n.items))
	for i, item := range n.items {
		targets[i] = l.target(element(key, i), item, profile, in)
		nodes.lists["to"] = append(nodes.lists["to"], placed{element(key, i), item})
	}
	return targets
}

// noTarget stands for a target that is wrong, so that the others are counted
// right.
func noTarget() engine.Target {
	level := slog.LevelDebug
	return engine.Target{Log: &level}
}

func (l *loader) target(key string, n *node, profile []exprfilter.Option, in scope) engine.Target {
	if n.kind == mappingNode {
		return l.otherTarget(key, n)
	}
	if n.kind != scalarNode || n.tag != tagText {
		l.want(key, n, "", anyTarget)
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
	l.check(key, n, len("${"), value, in)
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

// anyTarget is what can stand under to.
const anyTarget = "a channel, ${expression}, {stream: name}, {sharded: channel}, {webhook: name}, {callback: name} or {log: level}"

// targetKinds are the keys that say what a target is.
var targetKinds = []string{"stream", "sharded", "webhook", "callback", "log"}

// otherTarget reads a target that is no channel.
func (l *loader) otherTarget(key string, n *node) engine.Target {
	s, ok := l.section(key, n, targetKeys)
	if !ok {
		return noTarget()
	}
	var kinds []string
	for _, kind := range targetKinds {
		if n.get(kind) != nil {
			kinds = append(kinds, kind)
		}
	}
	maxKey, maxlen := s.get("maxlen")
	switch {
	case len(kinds) > 1:
		l.fail(key, n, "make two targets of it", "%s in one target", strings.Join(kinds, " and "))
		return noTarget()
	case maxlen != nil && !contains(kinds, "stream"):
		l.fail(maxKey, maxlen, "add stream", "maxlen is a stream's")
		return noTarget()
	case len(kinds) == 0:
		if len(n.entries) == 0 {
			l.fail(key, n, "", "want "+anyTarget)
		}
		return noTarget()
	}
	at, value := s.get(kinds[0])
	switch kinds[0] {
	case "stream":
		if to := (engine.Target{Stream: l.streamName(s), MaxLen: l.maxLen(s)}); to.Stream != "" {
			return to
		}
	case "sharded":
		if name := l.optionalText(s, "sharded"); name != "" && !l.refuseReference(at, value) {
			return engine.Target{Sharded: name}
		}
	case "webhook":
		return l.webhookTarget(at, value)
	case "callback":
		if name, ok := l.text(at, value); ok && name == "" {
			l.fail(at, value, "", "a callback has a name")
		} else if ok {
			return engine.Target{Callback: name}
		}
	case "log":
		if name, ok := l.oneOf(at, value, logLevels...); ok {
			level := new(slog.Level)
			if err := level.UnmarshalText([]byte(name)); err != nil {
				l.fail(at, value, "", "%v", err)
			}
			return engine.Target{Log: level}
		}
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
