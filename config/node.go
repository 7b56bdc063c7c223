package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A node is one node of the YAML tree. An anchored node stands in the tree as
// often as it is named.
type node struct {
	kind    nodeKind
	style   yaml.Style
	tag     string // of a scalar: what its value is, such as "!!int"
	value   string // of a scalar
	items   []*node
	entries []entry // in the file's order, with << written out
	offset  int     // of the node in the text; of a scalar's own text
	weight  int     // how much it is with its aliases written out, in bytes
	faulty  bool    // something is wrong with it, and that was reported
}

type entry struct{ key, value *node }

type nodeKind int

const (
	scalarNode nodeKind = iota
	listNode
	mappingNode
)

// The tags of scalars.
const (
	tagText  = "!!str"
	tagInt   = "!!int"
	tagFloat = "!!float"
	tagBool  = "!!bool"
	tagNull  = "!!null"
	tagTime  = "!!timestamp"
	tagMerge = "!!merge"
)

// nodeWeight is what a node weighs beside its text.
const nodeWeight = 8

// plain reports whether a scalar is written without quotes and not as a block.
func (n *node) plain() bool {
	return n.style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

// blank reports whether there is nothing where a value should be.
func (n *node) blank() bool {
	return n.kind == scalarNode && n.tag == tagNull && n.value == ""
}

// what names the node's type for a message.
func (n *node) what() string {
	switch {
	case n.kind == mappingNode:
		return "a mapping"
	case n.kind == listNode:
		return "a list"
	case n.blank():
		return "nothing"
	}
	switch n.tag {
	case tagInt, tagFloat:
		return "a number"
	case tagBool:
		return "a boolean"
	case tagNull:
		return "null"
	case tagTime:
		return "a date"
	}
	return "text"
}

// get returns the value of a key, or nil.
func (n *node) get(name string) *node {
	for _, e := range n.entries {
		if e.key.value == name {
			return e.value
		}
	}
	return nil
}

// A treeReader makes nodes of what the YAML library read.
type treeReader struct {
	problems *problems
	anchored map[*yaml.Node]*node // nil while the node is being read
	aliased  int                  // weight of all aliases
	fatal    bool                 // the tree is of no use

	// The text is walked once, since places ascend and a file may have but
	// one line.
	line, column, offset int
}

// readTree parses the text. It returns nil if it can't; what is wrong is among
// the problems then, and may be so otherwise.
func readTree(p *problems) *node {
	d := yaml.NewDecoder(strings.NewReader(p.text.src))
	var document, second yaml.Node
	err := d.Decode(&document)
	if errors.Is(err, io.EOF) {
		p.add(0, 1, "", "", "the file is empty")
		return nil
	}
	if err == nil {
		switch err = d.Decode(&second); {
		case err == nil:
			r := treeReader{problems: p, line: 1, column: 1}
			p.add(r.place(second.Line, second.Column), 3, "", "keep one file for each", "the file holds a second YAML document")
			return nil
		case errors.Is(err, io.EOF):
			err = nil
		}
	}
	if err != nil {
		reportSyntax(p, err)
		return nil
	}
	r := treeReader{problems: p, anchored: make(map[*yaml.Node]*node), line: 1, column: 1}
	root := r.read(document.Content[0], nil)
	if r.fatal {
		return nil
	}
	return root
}

// place converts a place of the library's into an offset.
func (r *treeReader) place(line, column int) int {
	t := r.problems.text
	line = max(1, min(line, len(t.lines)))
	if line != r.line || column < r.column {
		r.line, r.column, r.offset = line, 1, t.lines[line-1]
	}
	for r.column < column && r.offset < len(t.src) {
		r.offset += runeLength(t.src[r.offset])
		r.column++
	}
	r.offset = min(r.offset, len(t.src))
	return r.offset
}

// runeLength returns how many bytes the character takes that begins with c.
func runeLength(c byte) int {
	switch {
	case c < 0xC0:
		return 1
	case c < 0xE0:
		return 2
	case c < 0xF0:
		return 3
	}
	return 4
}

// A path leads to a node. It becomes text only where something is wrong.
type path struct {
	up    *path
	name  string // of a mapping's key; empty for an element
	index int
}

func (p *path) String() string {
	var steps []*path
	for ; p != nil; p = p.up {
		steps = append(steps, p)
	}
	key := ""
	for _, step := range slices.Backward(steps) {
		if step.name != "" {
			key = below(key, step.name)
		} else {
			key = element(key, step.index)
		}
	}
	return key
}

func (r *treeReader) read(y *yaml.Node, key *path) *node {
	if y.Kind == yaml.AliasNode {
		return r.alias(y, key)
	}
	n := &node{style: y.Style, tag: y.Tag, value: y.Value, offset: r.place(y.Line, y.Column), weight: nodeWeight + len(y.Value)}
	if y.Anchor != "" {
		r.anchored[y] = nil
		defer func() { r.anchored[y] = n }()
	}
	switch y.Kind {
	case yaml.ScalarNode:
		n.offset = skipProperties(r.problems.text.src, n.offset)
	case yaml.SequenceNode:
		n.kind = listNode
		n.items = make([]*node, len(y.Content))
		for i, c := range y.Content {
			n.items[i] = r.read(c, &path{up: key, index: i})
			n.weight += n.items[i].weight
		}
	case yaml.MappingNode:
		n.kind = mappingNode
		r.mapping(n, y, key)
	}
	if y.Style&yaml.TaggedStyle != 0 && !standardTag(n) {
		n.faulty = true
		r.problems.add(r.place(y.Line, y.Column), len(y.Tag), key.String(), "if ! is part of an expression, quote the expression", "unknown tag "+quote(y.Tag))
	}
	return n
}

// standardTag reports whether a node's explicit tag says what it is anyway.
func standardTag(n *node) bool {
	switch n.kind {
	case mappingNode:
		return n.tag == "!!map"
	case listNode:
		return n.tag == "!!seq"
	}
	return n.tag == tagText
}

func (r *treeReader) alias(y *yaml.Node, key *path) *node {
	target := r.anchored[y.Alias]
	offset := r.place(y.Line, y.Column)
	nothing := &node{tag: tagNull, offset: offset, weight: nodeWeight}
	if target == nil {
		r.problems.add(offset, 1+len(y.Value), key.String(), "", "anchor "+quote(y.Value)+" stands within itself")
		r.fatal = true
		return nothing
	}
	if r.aliased += target.weight; r.aliased > maxSize {
		if !r.fatal {
			r.problems.add(offset, 1+len(y.Value), key.String(), "", fmt.Sprintf("aliases make the file larger than %d MiB", maxSize>>20))
		}
		r.fatal = true
		return nothing
	}
	return target
}

// mapping reads a mapping's entries. The entries of << stand in its place,
// but for those that the mapping has itself.
func (r *treeReader) mapping(n *node, y *yaml.Node, key *path) {
	first := make(map[string]*node, len(y.Content)/2)
	merges := false
	n.entries = make([]entry, 0, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		k := r.read(y.Content[i], key)
		at := k.offset
		valueKey := key
		if k.kind == scalarNode {
			valueKey = &path{up: key, name: k.value}
		}
		v := r.read(y.Content[i+1], valueKey)
		n.weight += k.weight + v.weight
		switch {
		case k.kind != scalarNode || k.tag == tagNull && k.plain():
			r.problems.add(at, len(k.value), key.String(), "", "a key is text, not "+k.what())
			continue
		case k.tag == tagMerge:
			merges = true
		case first[k.value] != nil:
			line, _ := r.problems.text.position(first[k.value].offset)
			r.problems.add(at, len(k.value), valueKey.String(), fmt.Sprintf("the other one is in line %d", line), "this key is there twice")
			continue
		default:
			first[k.value] = k
		}
		n.entries = append(n.entries, entry{k, v})
	}
	if !merges {
		return
	}
	own := n.entries
	n.entries = nil
	add := func(from *node) {
		for _, e := range from.entries {
			if first[e.key.value] == nil {
				first[e.key.value] = e.key
				n.entries = append(n.entries, e)
			}
		}
	}
	for _, e := range own {
		if e.key.tag != tagMerge {
			n.entries = append(n.entries, e)
			continue
		}
		sources := []*node{e.value}
		if e.value.kind == listNode {
			sources = e.value.items
		}
		for _, source := range sources {
			if source.kind != mappingNode {
				r.problems.add(source.offset, 1, key.String(), "", "<< takes a mapping or a list of mappings, not "+source.what())
				continue
			}
			add(source)
		}
	}
}

// skipProperties skips the anchor and the tag before a scalar.
func skipProperties(src string, offset int) int {
	for i := offset; i < len(src) && (src[i] == '&' || src[i] == '!'); {
		for i < len(src) && !strings.ContainsRune(" \t\r\n,]}", rune(src[i])) {
			i++
		}
		for i < len(src) && (src[i] == ' ' || src[i] == '\t') {
			i++
		}
		if i == len(src) || src[i] == '\r' || src[i] == '\n' || src[i] == '#' {
			return offset // the value is lines away, or nowhere
		}
		offset = i
	}
	return offset
}

// reportSyntax reports a text that is no YAML.
//
// The library names the line where the construct begins that it could not
// finish, which is often the mapping around everything. The line at fault is
// the one that made a prefix of the text unreadable.
func reportSyntax(p *problems, err error) {
	message := err.Error()
	var syntax *yaml.ParserError
	if errors.As(err, &syntax) {
		message = syntax.Message
	}
	message = strings.TrimPrefix(message, "yaml: ")

	// How far did the parser read?
	reached := &byteReader{src: p.text.src}
	d := yaml.NewDecoder(reached)
	for readErr := error(nil); readErr == nil; {
		readErr = d.Decode(new(yaml.Node))
	}
	bad := p.text.line(reached.offset) + 1 // lines in the shortest prefix known to be bad
	good, step := bad-1, 1
	for good > 0 && !parses(p.text.src[:p.text.lines[good]]) {
		bad = good
		good = max(0, good-step)
		step *= 2
	}
	for bad-good > 1 {
		if half := (good + bad) / 2; parses(p.text.src[:p.text.lines[half]]) {
			good = half
		} else {
			bad = half
		}
	}
	line, offset := p.text.lineText(bad - 1)
	from, to := faultInLine(line)
	hint := ""
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	switch value := line[from:to]; {
	case strings.Contains(indent, "\t"):
		from, to = strings.IndexByte(indent, '\t'), len(indent)
		hint = "indent with spaces: YAML takes no tab there"
	case value != "" && (value[0] == '"' || value[0] == '\'') && strings.Count(value, value[:1]) == 1:
		hint = "the quote is not closed"
	case expressionLine.MatchString(line) && strings.Contains("\n"+p.text.src[:offset], "\nrules:"):
		hint = "quote the expression"
	}
	p.add(offset+from, to-from, "", hint, "this is no YAML: "+message)
}

// expressionLine matches the lines of a rule that are likely to hold an
// expression, with one of the signs that YAML takes for its own.
var expressionLine = regexp.MustCompile("^\\s*(when|to|set|[a-z_]+): *[^|>].*[?{}\\[\\]\"'!*&%@`|>#:]|^\\s*(when|to): *[>|{\\[\"'!*&%@`]")

// faultInLine returns what to underline in a line that is no YAML: the value,
// if it has a key, and else all of it.
func faultInLine(line string) (from, to int) {
	to = len(strings.TrimRight(line, " \t"))
	from = to - len(strings.TrimLeft(line[:to], " \t-"))
	if i := strings.Index(line[from:to], ": "); i >= 0 {
		value := from + i + 2
		if value += len(line[value:to]) - len(strings.TrimLeft(line[value:to], " \t")); value < to {
			from = value
		}
	}
	return from, to
}

// parses reports whether a text is YAML.
func parses(src string) bool {
	d := yaml.NewDecoder(bytes.NewReader([]byte(src)))
	for {
		switch err := d.Decode(new(yaml.Node)); {
		case errors.Is(err, io.EOF):
			return true
		case err != nil:
			return false
		}
	}
}

// A byteReader hands out a text byte by byte and knows how many it gave.
type byteReader struct {
	src    string
	offset int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.offset == len(r.src) {
		return 0, io.EOF
	}
	p[0] = r.src[r.offset]
	r.offset++
	return 1, nil
}
