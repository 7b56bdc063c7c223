package exprfilter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/spelling"
)

// A Typing says what is known of a channel's messages, for checking expressions
// before there are any. The zero Typing knows nothing.
type Typing struct {
	// Data is the type of data; nil: any value.
	Data *filterd.DataType
	// Schema says in messages where Data is from, as in "schema price.json".
	Schema string
	// Envelope says which attributes there are. "": not known.
	Envelope filterd.Envelope
}

// A Severity says what a [Finding] is worth.
type Severity uint8

// The severities.
const (
	// Hint: the expression is right, but fails on valid messages of some sort.
	Hint Severity = iota
	// Warning: it is likely to be wrong.
	Warning
	// Fault: a part of the expression fails on every valid message on which
	// it is evaluated, or has one value, whatever the message says.
	Fault
)

// A Finding is what [Filter.Check] and [Value.Check] find about a part of an
// expression.
type Finding struct {
	Severity Severity
	filterd.SourceError

	node      ast.Node
	condition bool // the fault is that the node is no condition
}

// Check holds the expression against what is known of messages, for each typing
// by itself. What a typing doesn't tell is accepted, and so is whatever is read
// as data["name"]. The findings are in the order of the source. Checking
// changes nothing about what the filter does. Not safe for concurrent use with
// one [filterd.DataType].
func (f *Filter) Check(typings ...Typing) [][]Finding {
	return findingsOf(f.program.source, typings, true)
}

// Check is [Filter.Check] for a value.
func (v *Value) Check(typings ...Typing) [][]Finding {
	return findingsOf(v.program.source, typings, false)
}

// findingsOf checks an expression that compiles, of a condition or a value.
func findingsOf(source string, typings []Typing, condition bool) [][]Finding {
	findings := make([][]Finding, len(typings))
	var root ast.Node
	for i, t := range typings {
		if t.Data == nil && (t.Envelope == "" || !strings.Contains(source, string(filterd.PathEvent))) {
			continue // nothing is known of what it reads
		}
		if root == nil {
			tree, err := parser.Parse(source)
			if err != nil { // it was parsed before
				return findings
			}
			root = tree.Node
		}
		findings[i] = findingsIn(source, root, t, condition)
	}
	return findings
}

func findingsIn(source string, root ast.Node, t Typing, condition bool) []Finding {
	c := &checker{source: source, typing: t, data: typeOf(t.Data), variables: make(map[string]typ), root: root}
	if condition {
		c.condition(root, true)
	} else {
		c.value(root)
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
	})
	// The middle of a < b < c is two nodes.
	return slices.CompactFunc(c.findings, func(a, b Finding) bool { return a.SourceError == b.SourceError })
}

// A checker finds out what the parts of an expression can be, and what is wrong
// with them. It errs on one side: what it calls a fault is one.
type checker struct {
	source    string
	typing    Typing
	data      typ
	root      ast.Node
	variables map[string]typ
	elements  []typ           // of the arrays whose predicates the node at hand is in
	guarded   map[string]bool // what the expression asks for nil; nil: not yet known
	findings  []Finding
}

// report adds a finding about a node.
func (c *checker) report(s Severity, n ast.Node, hint, format string, args ...any) {
	from, to := c.span(n)
	from, to = byteOffset(c.source, from), byteOffset(c.source, to)
	message := fmt.Sprintf(format, args...)
	if c.typing.Schema != "" && s != Hint && !aboutEvent(n) {
		message += " (" + c.typing.Schema + ")"
	}
	c.findings = append(c.findings, Finding{s, filterd.SourceError{Source: c.source, Offset: from, Length: max(to-from, 1), Message: message, Hint: hint}, n, false})
}

// span returns where a node is in the source, in characters. expr tells of a
// node one token only, an operator or a name.
func (c *checker) span(n ast.Node) (from, to int) {
	from, to = n.Location().From, n.Location().To
	var parts []ast.Node
	switch n := n.(type) {
	case *ast.MemberNode:
		parts = []ast.Node{n.Node, n.Property}
	case *ast.ChainNode:
		return c.span(n.Node)
	case *ast.BinaryNode:
		parts = []ast.Node{n.Left, n.Right}
	case *ast.UnaryNode:
		parts = []ast.Node{n.Node}
	case *ast.ConditionalNode:
		from, to = c.span(n.Cond)
		parts = []ast.Node{n.Exp2}
	case *ast.BuiltinNode:
		parts = n.Arguments
	case *ast.PredicateNode:
		return c.span(n.Node)
	case *ast.ArrayNode:
		parts = n.Nodes
	case *ast.SliceNode:
		parts = []ast.Node{n.Node, n.From, n.To}
	}
	for _, part := range parts {
		if part == nil {
			continue
		}
		first, last := c.span(part)
		from, to = min(from, first), max(to, last)
	}
	switch n.(type) {
	case *ast.MemberNode, *ast.BuiltinNode, *ast.ArrayNode, *ast.SliceNode:
		if at := byteOffset(c.source, to); at < len(c.source) && strings.IndexByte("])", c.source[at]) >= 0 && !c.isDotted(n) {
			to++
		}
	}
	return from, to
}

// isDotted reports whether a node is a member that is named behind a dot.
func (c *checker) isDotted(n ast.Node) bool {
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return false
	}
	_, isName := m.Property.(*ast.StringNode)
	at := byteOffset(c.source, m.Property.Location().From)
	return isName && (at >= len(c.source) || strings.IndexByte("\"'`", c.source[at]) < 0)
}

// aboutEvent reports whether a node reads attributes, and no data.
func aboutEvent(n ast.Node) bool {
	reads := make(roots)
	ast.Walk(&n, reads)
	return reads[string(filterd.PathEvent)] && !reads[string(filterd.PathData)]
}

// roots collects the names that an expression begins to read at.
type roots map[string]bool

// Visit implements [ast.Visitor].
func (r roots) Visit(node *ast.Node) {
	if i, ok := (*node).(*ast.IdentifierNode); ok {
		r[i.Value] = true
	}
}

// text is how a node is named in messages.
func text(n ast.Node) string {
	switch n.(type) {
	case *ast.BinaryNode, *ast.ConditionalNode:
		return "this"
	}
	return show(n)
}

// show writes a node as an expression has it, in short.
func show(n ast.Node) string {
	const most = 60
	s := n.String()
	switch n := n.(type) {
	case *ast.PointerNode:
		return "#" + n.Name
	case *ast.BinaryNode, *ast.ConditionalNode:
		s = "(" + s + ")"
	}
	if utf8.RuneCountInString(s) > most {
		return string([]rune(s)[:most]) + "…"
	}
	return s
}

// condition checks a node whose value decides something: at the root a nil
// counts as false there. It returns the type that the node has as a value.
func (c *checker) condition(n ast.Node, root bool) typ {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator == "!" || n.Operator == "not" {
			c.condition(n.Node, false)
			return typ{kinds: isBool}
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			left := c.condition(n.Left, false)
			return joined(left, c.condition(n.Right, root))
		}
	case *ast.ConditionalNode:
		c.condition(n.Cond, false)
		first := c.condition(n.Exp1, root)
		return oneOf(first, c.condition(n.Exp2, root))
	case *ast.VariableDeclaratorNode:
		return c.let(n, func(n ast.Node) typ { return c.condition(n, root) })
	}
	t := c.value(n)
	switch {
	case !t.maybe(isBool):
		c.report(Fault, n, "", "%s is %s, not a condition", text(n), t)
		c.findings[len(c.findings)-1].condition = true
	case !root:
		c.maybeMissing(n, t, isBool)
	}
	return t
}

// joined is the type of a and b, and of a or b: that of b, whatever it is, where
// a doesn't decide; and that of a, where expr drops a b that is constant.
func joined(a, b typ) typ { return oneOf(typ{kinds: isBool}, oneOf(a, b)) }

// let checks a declaration, and by rest what it is for.
func (c *checker) let(n *ast.VariableDeclaratorNode, rest func(ast.Node) typ) typ {
	v := c.value(n.Value)
	v.short = false
	outer, shadows := c.variables[n.Name]
	c.variables[n.Name] = v
	t := rest(n.Expr)
	if delete(c.variables, n.Name); shadows {
		c.variables[n.Name] = outer
	}
	return t
}

// value checks a node and returns its type.
func (c *checker) value(n ast.Node) typ {
	switch n := n.(type) {
	case *ast.NilNode:
		return typ{kinds: isNil}
	case *ast.BoolNode:
		return constantType(isBool, n.Value)
	case *ast.IntegerNode:
		return constantType(isInt, float64(n.Value))
	case *ast.FloatNode:
		return constantType(isFloat, n.Value)
	case *ast.StringNode:
		return constantType(isString, n.Value)
	case *ast.IdentifierNode:
		if v, ok := c.variables[n.Value]; ok {
			return v
		}
		switch filterd.Path(n.Value) {
		case filterd.PathData:
			return c.data
		case filterd.PathEvent:
			return typ{kinds: isObject, event: true}
		case filterd.PathChannel:
			return typ{kinds: isString}
		}
	case *ast.PointerNode:
		switch last := len(c.elements) - 1; {
		case n.Name == "index":
			return typ{kinds: isInt}
		case n.Name == "" && last >= 0:
			return c.elements[last]
		}
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ChainNode:
		t := c.value(n.Node)
		if t.short {
			t = t.orNil()
			t.missing = true
		}
		t.short = false
		return t
	case *ast.MemberNode:
		return c.member(n)
	case *ast.SliceNode:
		t := c.value(n.Node)
		c.values(n.From, n.To)
		if !t.maybe(isString | isArray) {
			c.report(Fault, n, "", "%s is %s: it has no slices", text(n.Node), t)
			return unknown
		}
		t.kinds &= isString | isArray | isOther
		t.values, t.missing = nil, false
		return t
	case *ast.ConditionalNode:
		c.condition(n.Cond, false)
		return oneOf(c.value(n.Exp1), c.value(n.Exp2))
	case *ast.VariableDeclaratorNode:
		return c.let(n, c.value)
	case *ast.SequenceNode:
		last := unknown
		for _, node := range n.Nodes {
			last = c.value(node)
		}
		return last
	case *ast.ArrayNode:
		var element *typ
		for _, node := range n.Nodes {
			t := c.value(node)
			if element != nil {
				t = oneOf(*element, t)
			}
			element = &t
		}
		return typ{kinds: isArray, element: element}
	case *ast.MapNode:
		for _, pair := range n.Pairs {
			pair := pair.(*ast.PairNode)
			c.values(pair.Key, pair.Value)
		}
		return typ{kinds: isObject}
	case *ast.CallNode:
		if m, ok := n.Callee.(*ast.MemberNode); ok {
			c.value(m.Node)
		}
		c.values(n.Arguments...)
	case *ast.BuiltinNode:
		return c.builtin(n)
	}
	return unknown
}

// values checks nodes that may be nil.
func (c *checker) values(nodes ...ast.Node) {
	for _, n := range nodes {
		if n != nil {
			c.value(n)
		}
	}
}

func (c *checker) unary(n *ast.UnaryNode) typ {
	switch n.Operator {
	case "!", "not":
		c.condition(n.Node, false)
		return typ{kinds: isBool}
	case "-":
		t := c.value(n.Node)
		if !t.maybe(isNumber) {
			c.report(Fault, n, "", "%s is %s: - takes a number", text(n.Node), t)
			return unknown
		}
		c.maybeMissing(n.Node, t, isNumber)
		if len(t.values) == 1 {
			if x, ok := t.values[0].(float64); ok {
				return constantType(t.kinds, -x)
			}
		}
		return typ{kinds: t.kinds & (isNumber | isOther)}
	}
	return c.value(n.Node) // + does nothing
}

func (c *checker) binary(n *ast.BinaryNode) typ {
	switch n.Operator {
	case "and", "&&", "or", "||":
		left := c.condition(n.Left, false)
		return joined(left, c.value(n.Right))
	}
	l, r := c.value(n.Left), c.value(n.Right)
	switch n.Operator {
	case "??":
		if l.kinds&(isNil|isOther) == 0 {
			return l
		}
		l.kinds &^= isNil
		l.missing = false
		if l.kinds == 0 {
			return r
		}
		return oneOf(l, r)
	case "==", "!=":
		c.equality(n, l, r)
		return typ{kinds: isBool}
	case "<", "<=", ">", ">=":
		c.operands(n, l, r, "they can't be compared", isNumber, isString)
		return typ{kinds: isBool}
	case "in":
		c.membership(n, l, r)
		return typ{kinds: isBool}
	case "startsWith", "endsWith", "contains", "matches": // nil is no failure
		for _, side := range []struct {
			node ast.Node
			typ  typ
		}{{n.Left, l}, {n.Right, r}} {
			if !side.typ.maybe(isString) {
				c.report(Fault, n, "", "%s is %s: %s takes strings", text(side.node), side.typ, n.Operator)
				break
			}
		}
		return typ{kinds: isBool}
	case "+":
		c.operands(n, l, r, "they can't be added", isNumber, isString)
		return typ{kinds: (l.kinds.loose() | r.kinds.loose()) & (isNumber | isString | isOther)}
	case "-", "*", "/", "**", "^":
		c.operands(n, l, r, n.Operator+" takes numbers", isNumber)
		return typ{kinds: isNumber | (l.kinds|r.kinds)&isOther}
	case "%":
		if !c.operands(n, l, r, "% takes integers", isInt) {
			return unknown
		}
		return typ{kinds: isInt | (l.kinds|r.kinds)&isOther}
	case "..":
		return typ{kinds: isArray, element: &typ{kinds: isInt}}
	}
	return unknown
}

// equality checks == and !=.
func (c *checker) equality(n *ast.BinaryNode, l, r typ) {
	if neverEqual(l, r) {
		c.report(Fault, n, conversion(n, l, r), "%s is %s and %s %s: they are never equal", show(n.Left), l, show(n.Right), r)
		return
	}
	if len(l.values) == 1 && len(r.values) != 1 {
		c.neverOneOf(n, n.Right, r, l)
	} else {
		c.neverOneOf(n, n.Left, l, r)
	}
}

// neverOneOf warns of a comparison with a value that the schema doesn't list.
func (c *checker) neverOneOf(at, n ast.Node, t, u typ) {
	if t.data == nil || !noneIn(t, u) {
		return
	}
	hint := ""
	if word, ok := u.values[0].(string); ok && len(u.values) == 1 {
		var words []string
		for _, v := range t.values {
			if s, ok := v.(string); ok {
				words = append(words, s)
			}
		}
		if near := spelling.Nearest(word, words); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
	}
	c.report(Warning, at, hint, "%s is never %s, but %s", text(n), listValues(u.values), listValues(t.values))
}

// operands checks an operator that takes two values of one of some kinds, and
// reports whether it may.
func (c *checker) operands(n *ast.BinaryNode, l, r typ, why string, take ...kinds) bool {
	fine := l.kinds&r.kinds&isOther != 0
	var all kinds
	for _, k := range take {
		fine = fine || l.maybe(k) && r.maybe(k)
		all |= k
	}
	if fine {
		c.maybeMissing(n.Left, l, all)
		c.maybeMissing(n.Right, r, all)
		return true
	}
	c.report(Fault, n, conversion(n, l, r), "%s is %s and %s %s: %s", show(n.Left), c.nameOf(n, l), show(n.Right), c.nameOf(n, r), why)
	return false
}

// nameOf names the kinds of an operand.
func (c *checker) nameOf(n *ast.BinaryNode, t typ) string {
	if n.Operator == "%" && t.kinds&isNumber == isFloat {
		return strings.Replace(t.String(), "a number", "a float", 1)
	}
	return t.String()
}

// conversion says how to make the operands of an operator alike.
func conversion(n *ast.BinaryNode, l, r typ) string {
	of := func(k kinds) kinds { return k &^ isNil }
	switch {
	case n.Operator == "%":
		for _, side := range []struct {
			node ast.Node
			typ  typ
		}{{n.Left, l}, {n.Right, r}} {
			if of(side.typ.kinds) == isFloat {
				return fmt.Sprintf("int(%s) makes an integer of it", text(side.node))
			}
		}
	case of(l.kinds) == isString && r.kinds&isNumber != 0 && of(r.kinds)&^isNumber == 0 && l.values == nil:
		return fmt.Sprintf("float(%s) makes a number of it", text(n.Left))
	case of(r.kinds) == isString && l.kinds&isNumber != 0 && of(l.kinds)&^isNumber == 0 && r.values == nil:
		return fmt.Sprintf("float(%s) makes a number of it", text(n.Right))
	}
	return ""
}

// membership checks in.
func (c *checker) membership(n *ast.BinaryNode, l, r typ) {
	switch {
	case r.kinds&^isNil == isString:
		c.report(Fault, n, fmt.Sprintf("write %s contains %s", text(n.Right), text(n.Left)), "%s is %s: in takes an array or an object", text(n.Right), r)
		return
	case !r.maybe(isArray | isObject | isNil):
		c.report(Fault, n, "", "%s is %s: in takes an array or an object", text(n.Right), r)
		return
	case r.kinds&^isNil == isObject && !l.maybe(isString|isNil) && !r.event:
		c.report(Fault, n, "", "%s is %s: an object's members have strings as names", text(n.Left), l)
		return
	case r.kinds&^isNil != isArray:
		return
	}
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		if e := c.elementOf(r); neverEqual(l, e) {
			c.report(Fault, n, "", "%s is %s, and each element of %s is %s: it is never in there", text(n.Left), l, text(n.Right), e)
		}
		return
	}
	element := func(n ast.Node) typ { // its findings were reported
		before := c.findings
		defer func() { c.findings = before }()
		return c.value(n)
	}
	if e := r.element; e != nil && neverEqual(l, *e) {
		c.report(Fault, n, "", "%s is %s, and each element of the list is %s: it is never in there", text(n.Left), l, e)
		return
	}
	for _, node := range list.Nodes {
		c.neverOneOf(node, n.Left, l, element(node))
	}
}

// elementOf returns the type of an array's elements.
func (c *checker) elementOf(t typ) typ {
	switch {
	case t.kinds&^isNil != isArray:
	case t.element != nil:
		return *t.element
	case t.data != nil:
		return typeOf(t.data.Element())
	}
	return unknown
}

// member checks a.b, a["b"] and a[0].
func (c *checker) member(n *ast.MemberNode) typ {
	if i, ok := n.Node.(*ast.IdentifierNode); ok && i.Value == "$env" {
		return unknown
	}
	of := c.value(n.Node)
	result := c.part(n, of)
	result.short = of.short || n.Optional && of.kinds&isNil != 0
	if n.Optional && of.kinds == isNil {
		return typ{kinds: isAny, short: true}
	}
	return result
}

// part returns the type of a member of a value of some type.
func (c *checker) part(n *ast.MemberNode, of typ) typ {
	name, named := n.Property.(*ast.StringNode)
	switch {
	case named && of.event:
		return c.attribute(n, name.Value)
	case named && !c.isDotted(n), n.Method:
		return unknown
	case named && !of.maybe(isObject):
		c.report(Fault, n, "", "%s is %s: it has no members", text(n.Node), of)
		return unknown
	case named && of.data != nil && of.kinds&isOther == 0:
		if !n.Optional && !of.short {
			c.maybeMissing(n.Node, of, isObject)
		}
		return c.field(n, name.Value, of.data)
	case named:
		return unknown
	}
	index := c.value(n.Property)
	if !of.maybe(isArray|isString) && index.kinds&^isNumber == 0 {
		c.report(Fault, n, "", "%s is %s: it has no elements", text(n.Node), of)
		return unknown
	}
	return c.elementOf(of)
}

// field returns the type of a member of data.
func (c *checker) field(n *ast.MemberNode, name string, of *filterd.DataType) typ {
	t, membership, required := of.Member(name)
	switch membership {
	case filterd.MemberKnown:
		field := typeOf(t)
		if !required {
			field = field.orNil()
		}
		return field
	case filterd.MemberUnnamed, filterd.MemberExcluded:
		severity := Warning
		if membership == filterd.MemberExcluded {
			severity = Fault
		}
		hint := ""
		if near := spelling.Nearest(name, of.Names()); near != "" && near != name {
			hint = fmt.Sprintf("did you mean %s?", sibling(n, near))
		}
		c.report(severity, n, hint, "unknown field %s", text(n))
	}
	return unknown
}

// sibling writes a member as n is written, with another name.
func sibling(n *ast.MemberNode, name string) string {
	other := *n
	other.Property = &ast.StringNode{Value: name}
	return other.String()
}

// The attributes that every event has, and those that it may have.
var (
	requiredAttributes = []string{"id", "source", "specversion", "type"}
	optionalAttributes = []string{"datacontenttype", "dataschema", "subject", "time"}
)

// attribute returns the type of an attribute of the event. Other names than
// the usual may be those of extensions.
func (c *checker) attribute(n *ast.MemberNode, name string) typ {
	envelope := c.typing.Envelope
	if envelope == "" || !c.isDotted(n) {
		return unknown
	}
	required := slices.Contains(requiredAttributes, name)
	switch {
	case envelope == filterd.EnvelopeRaw, envelope == filterd.EnvelopeBytes:
		c.report(Warning, n, "", "%s is always nil: the channel's envelope is %s, its messages are no events", text(n), envelope)
		return unknown
	case required && envelope == filterd.EnvelopeCloudEvents:
		return typ{kinds: isString}
	case required, slices.Contains(optionalAttributes, name):
		return typ{kinds: isString | isNil}
	case name == "data":
		c.report(Warning, n, "write data", "event.data is always nil: event has the attributes only")
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "":
		c.report(Warning, n, nearAttribute(n, name), "%s is always nil: an attribute's name consists of a-z and 0-9", text(n))
	default:
		if hint := nearAttribute(n, name); hint != "" {
			c.report(Warning, n, hint, "%s is no attribute of CloudEvents, unless it is an extension", text(n))
		}
	}
	return unknown
}

func nearAttribute(n *ast.MemberNode, name string) string {
	if near := spelling.Nearest(name, append(slices.Clone(requiredAttributes), optionalAttributes...)); near != "" {
		return fmt.Sprintf("did you mean %s?", sibling(n, near))
	}
	return ""
}

// maybeMissing hints at a value that is asked for one of some kinds, and may be
// missing in a valid message.
func (c *checker) maybeMissing(n ast.Node, t typ, wanted kinds) {
	if !t.missing || t.kinds&(wanted|isOther) == 0 || c.isGuarded(n) {
		return
	}
	hint := fmt.Sprintf("write %s?.", text(n))
	for kind, instead := range map[kinds]string{isBool: "false", isNumber: "0", isString: `""`} {
		if t.kinds&^(isNil|isNumber) == kind&^isNumber && t.kinds&kind != 0 {
			hint = fmt.Sprintf("write (%s ?? %s)", text(n), instead)
		}
	}
	c.report(Hint, n, hint, "%s may be missing: the rule fails on such a message", text(n))
}

// isGuarded reports whether the expression asks somewhere whether a value is
// there.
func (c *checker) isGuarded(n ast.Node) bool {
	if c.guarded == nil {
		c.guarded = make(map[string]bool)
		ast.Walk(&c.root, guards(c.guarded))
	}
	return c.guarded[n.String()]
}

// guards collects what an expression compares with nil, or asks for by in.
type guards map[string]bool

// Visit implements [ast.Visitor].
func (g guards) Visit(node *ast.Node) {
	b, ok := (*node).(*ast.BinaryNode)
	if !ok {
		return
	}
	_, leftIsNil := b.Left.(*ast.NilNode)
	_, rightIsNil := b.Right.(*ast.NilNode)
	name, named := b.Left.(*ast.StringNode)
	switch {
	case b.Operator == "==" || b.Operator == "!=":
		if leftIsNil {
			g[b.Right.String()] = true
		}
		if rightIsNil {
			g[b.Left.String()] = true
		}
	case b.Operator == "in" && named:
		g[(&ast.MemberNode{Node: b.Right, Property: name}).String()] = true
	}
}
