package exprfilter

import (
	"maps"
	"math"
	"regexp"
	"strconv"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"

	"github.com/filterd/filterd"
)

// exactInt bounds the ints that a float64 holds exactly.
const exactInt int64 = 1 << 53

// A translator makes terms of expressions, with one numbering of the places
// that all of them read.
type translator struct {
	places    []*place
	byPath    map[filterd.Path]*place
	variables map[string]*term // of let; nil for what we don't understand
}

func newTranslator() *translator {
	return &translator{byPath: make(map[filterd.Path]*place), variables: make(map[string]*term)}
}

// condition translates a node whose value decides something: at the root a nil
// counts as false there, anywhere else it fails.
func (t *translator) condition(n ast.Node, root bool) *term {
	if c := t.makeCondition(n, root); !c.tooLarge() {
		return c
	}
	return opaque(n)
}

func opaque(n ast.Node) *term { return &term{op: opOpaque, text: n.String()} }

func (t *translator) makeCondition(n ast.Node, root bool) *term {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator == "!" || n.Operator == "not" {
			return &term{op: opNot, args: []*term{t.condition(n.Node, false)}}
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			return t.joined(opAnd, n, root)
		case "or", "||":
			return t.joined(opOr, n, root)
		}
	case *ast.ConditionalNode:
		return choose(t.condition(n.Cond, false), t.condition(n.Exp1, root), t.condition(n.Exp2, root))
	case *ast.VariableDeclaratorNode:
		if l := t.let(n, func(n ast.Node) *term { return t.condition(n, root) }); l != nil {
			return l
		}
		return opaque(n)
	}
	v := t.value(n)
	switch {
	case v == nil:
		return opaque(n)
	case v.isCondition():
		return v
	case root:
		return &term{op: opBareRoot, args: []*term{v}}
	}
	return &term{op: opBare, args: []*term{v}}
}

// joined translates a and b and c, or a or b or c. Neighbours that say
// something of the same value become one.
func (t *translator) joined(o op, n *ast.BinaryNode, root bool) *term {
	result := &term{op: o}
	var merged *term // the last of the arguments, if it was made here
	add := func(c *term) {
		last := len(result.args) - 1
		if last >= 0 && mergeable(o, result.args[last], c) {
			if result.args[last] != merged {
				merged = result.args[last].copy()
				result.args[last] = merged
			}
			merged.merge(c)
			return
		}
		result.args = append(result.args, c)
	}
	var walk func(n ast.Node, root bool)
	walk = func(node ast.Node, root bool) {
		if b, ok := node.(*ast.BinaryNode); ok && sameJoint(b.Operator, n.Operator) {
			walk(b.Left, false)
			walk(b.Right, root)
			return
		}
		c := t.condition(node, root)
		if c.op == o {
			for _, a := range c.args {
				add(a)
			}
			return
		}
		add(c)
	}
	walk(n, root)
	if len(result.args) == 1 {
		return result.args[0]
	}
	return result
}

func sameJoint(a, b string) bool {
	and := func(s string) bool { return s == "and" || s == "&&" }
	or := func(s string) bool { return s == "or" || s == "||" }
	return and(a) && and(b) || or(a) && or(b)
}

// mergeable reports whether two conditions about one value, joined, are one
// condition.
func mergeable(o op, a, b *term) bool {
	if len(a.args) != 1 || len(b.args) != 1 || !sameValue(a.args[0], b.args[0]) {
		return false
	}
	listed := func(t *term) bool { return t.op == opIn && !t.list.keyed && t.list.whole == nil }
	return o == opAnd && a.op == opRange && b.op == opRange || o == opOr && listed(a) && listed(b)
}

// copy returns a term that merge may change.
func (t *term) copy() *term {
	c := &term{op: t.op, args: t.args, interval: t.interval}
	if t.list != nil {
		c.list = &list{classes: t.list.classes, numbers: maps.Clone(t.list.numbers), strings: maps.Clone(t.list.strings)}
	}
	return c
}

// merge makes t what t joined with b is.
func (t *term) merge(b *term) {
	if t.op == opRange {
		t.interval = t.interval.intersect(b.interval)
		return
	}
	t.list.classes |= b.list.classes
	maps.Copy(t.list.numbers, b.list.numbers)
	maps.Copy(t.list.strings, b.list.strings)
}

// sameValue reports whether two terms are one place.
func sameValue(a, b *term) bool { return a.op == opPlace && b.op == opPlace && a.place == b.place }

func choose(c, x, y *term) *term {
	return &term{op: opChoose, args: []*term{c, x, y}, float: x.float && y.float}
}

// let translates a declaration, or returns nil; rest translates what it is
// declared for.
func (t *translator) let(n *ast.VariableDeclaratorNode, rest func(ast.Node) *term) *term {
	v := t.value(n.Value)
	t.variables[n.Name] = v // expr allows no second one of that name inside
	defer delete(t.variables, n.Name)
	body := rest(n.Expr)
	if v == nil || body == nil {
		return nil
	}
	if v.op == opConstant {
		return body
	}
	return &term{op: opLet, args: []*term{v, body}, float: body.float}
}

// value translates a node, or returns nil for what we don't understand.
func (t *translator) value(n ast.Node) *term {
	if v := t.makeValue(n); v != nil && !v.tooLarge() {
		return v
	}
	return nil
}

func (t *translator) makeValue(n ast.Node) *term {
	switch n := n.(type) {
	case *ast.NilNode:
		return constant(value{class: classNil})
	case *ast.BoolNode:
		return constant(value{class: truth(n.Value)})
	case *ast.StringNode:
		return constant(value{class: classString, text: []byte(n.Value)})
	case *ast.IntegerNode:
		if int64(n.Value) > exactInt || int64(n.Value) < -exactInt {
			return nil
		}
		return constant(value{class: classNumber, number: float64(n.Value)})
	case *ast.FloatNode:
		c := constant(value{class: classNumber, number: n.Value})
		c.float = true
		return c
	case *ast.IdentifierNode, *ast.MemberNode:
		if i, ok := n.(*ast.IdentifierNode); ok {
			if v, declared := t.variables[i.Value]; declared {
				return v
			}
		}
		if p, optional := t.place(n, nil); p != nil && optional == nil {
			return &term{op: opPlace, place: p, float: true}
		}
	case *ast.ChainNode:
		if p, optional := t.place(n.Node, []*place{}); p != nil {
			return &term{op: opChain, place: p, optional: optional, float: true}
		}
	case *ast.UnaryNode:
		return t.unary(n)
	case *ast.BinaryNode:
		return t.binary(n)
	case *ast.ConditionalNode:
		x, y := t.value(n.Exp1), t.value(n.Exp2)
		if x != nil && y != nil {
			return choose(t.condition(n.Cond, false), x, y)
		}
	case *ast.VariableDeclaratorNode:
		return t.let(n, t.value)
	}
	return nil
}

func constant(v value) *term { return &term{op: opConstant, value: v} }

func (t *translator) unary(n *ast.UnaryNode) *term {
	switch n.Operator {
	case "!", "not":
		return t.condition(n, false)
	case "+": // does nothing
		return t.value(n.Node)
	case "-":
		if a := t.value(n.Node); a != nil && a.op != opConstant {
			return &term{op: opNegate, args: []*term{a}, float: a.float}
		}
	}
	return nil
}

func (t *translator) binary(n *ast.BinaryNode) *term {
	switch n.Operator {
	case "and", "&&": // the right side's value, whatever it is
		if b := t.value(n.Right); b != nil {
			return choose(t.condition(n.Left, false), b, constant(value{class: classFalse}))
		}
		return nil
	case "or", "||":
		if b := t.value(n.Right); b != nil {
			return choose(t.condition(n.Left, false), constant(value{class: classTrue}), b)
		}
		return nil
	}
	a := t.value(n.Left)
	if a == nil {
		return t.compareHuge(n)
	}
	switch n.Operator {
	case "in":
		if l := constants(n.Right); l != nil && (a.float || !l.huge()) {
			return &term{op: opIn, args: []*term{a}, list: l}
		}
		return nil
	case "matches":
		if s, ok := n.Right.(*ast.StringNode); ok {
			if pattern, err := regexp.Compile(s.Value); err == nil {
				return &term{op: opMatches, args: []*term{a}, pattern: pattern}
			}
		}
		return nil
	}
	b := t.value(n.Right)
	if b == nil {
		return t.compareHuge(n)
	}
	switch n.Operator {
	case "startsWith", "endsWith", "contains":
		if b.op == opConstant && b.value.class == classString {
			return &term{op: opAffix, operator: n.Operator, args: []*term{a}, value: b.value}
		}
	case "??":
		return &term{op: opCoalesce, args: []*term{a, b}, float: a.float && b.float}
	case "+", "-", "*", "/", "**", "^":
		if !a.float && !b.float { // ints overflow, and exceed what a float64 holds
			return nil
		}
		return &term{op: opArithmetic, operator: n.Operator, args: []*term{a, b}, float: true}
	case "==", "!=", "<", "<=", ">", ">=":
		return compare(n.Operator, a, b)
	}
	return nil
}

// compareHuge translates a comparison with an int that a float64 does not hold
// exactly. Where the other side is a float64, so is the int, for expr.
func (t *translator) compareHuge(n *ast.BinaryNode) *term {
	switch n.Operator {
	case "==", "!=", "<", "<=", ">", ">=":
	default:
		return nil
	}
	left, leftIsInt := n.Left.(*ast.IntegerNode)
	right, rightIsInt := n.Right.(*ast.IntegerNode)
	huge := func(i *ast.IntegerNode) *term {
		return constant(value{class: classNumber, number: float64(i.Value)})
	}
	switch {
	case leftIsInt && !rightIsInt:
		if b := t.value(n.Right); b != nil && b.float {
			return compare(n.Operator, huge(left), b)
		}
	case rightIsInt && !leftIsInt:
		if a := t.value(n.Left); a != nil && a.float {
			return compare(n.Operator, a, huge(right))
		}
	}
	return nil
}

var flipped = map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

// compare makes a comparison. A constant goes to the right: both sides are
// evaluated before they are compared.
func compare(operator string, a, b *term) *term {
	if a.op == opConstant && b.op == opConstant {
		return nil
	}
	if a.op == opConstant {
		operator, a, b = flipped[operator], b, a
	}
	if b.op != opConstant {
		return &term{op: opCompare, operator: operator, args: []*term{a, b}}
	}
	if b.value.class == classNumber && operator != "==" && operator != "!=" {
		return &term{op: opRange, args: []*term{a}, interval: intervalOf(operator, b.value.number)}
	}
	switch operator {
	case "==", "!=":
		l := newList()
		l.add(b.value)
		in := &term{op: opIn, args: []*term{a}, list: l}
		if operator == "!=" {
			return &term{op: opNot, args: []*term{in}}
		}
		return in
	}
	return &term{op: opCompare, operator: operator, args: []*term{a, b}}
}

// constants returns the list that a node is, or nil.
func constants(n ast.Node) *list {
	l := newList()
	switch n := n.(type) {
	case *ast.ConstantNode:
		switch listed := n.Value.(type) {
		case map[string]struct{}:
			l.keyed = true
			for s := range listed {
				l.strings[s] = true
			}
			return l
		case []any:
			for _, v := range listed {
				switch v := v.(type) {
				case string:
					l.strings[v] = true
				case bool:
					l.add(value{class: truth(v)})
				case int:
					l.numbers[float64(v)] = true
				case float64:
					l.numbers[v] = true
				default:
					return nil
				}
			}
			return l
		}
	case *ast.ArrayNode:
		t := newTranslator()
		for _, element := range n.Nodes {
			c := t.value(element)
			if c == nil || c.op != opConstant {
				return nil
			}
			l.add(c.value)
		}
		return l
	case *ast.BinaryNode: // a range; it is bounded, or expr's memory budget is
		from, fromOK := n.Left.(*ast.IntegerNode)
		to, toOK := n.Right.(*ast.IntegerNode)
		if n.Operator == ".." && fromOK && toOK && to.Value-from.Value < maxRange && int64(from.Value) > -exactInt && int64(to.Value) < exactInt {
			l.whole = &interval{low: float64(from.Value), high: float64(to.Value)}
			return l
		}
	}
	return nil
}

// huge reports whether the list has numbers that are not exact as float64,
// which ints are compared with as ints.
func (l *list) huge() bool {
	for x := range l.numbers {
		if math.Abs(x) > float64(exactInt-1) {
			return true
		}
	}
	return false
}

// place returns the place that a node names, or nil. A ?. is allowed if
// optional isn't nil; the places before one are appended to it.
func (t *translator) place(n ast.Node, optional []*place) (*place, []*place) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		if v, declared := t.variables[n.Value]; declared {
			if v == nil || v.op != opPlace {
				return nil, nil
			}
			return v.place, optional
		}
		switch root := filterd.Path(n.Value); root {
		case filterd.PathData, filterd.PathEvent, filterd.PathChannel:
			return t.intern(root, nil, n.Value, false), optional
		}
	case *ast.MemberNode:
		parent, optional := t.place(n.Node, optional)
		if parent == nil || parent.path == filterd.PathChannel || n.Method {
			return nil, nil
		}
		if n.Optional {
			if optional == nil {
				return nil, nil
			}
			optional = append(optional, parent)
		}
		switch property := n.Property.(type) {
		case *ast.StringNode:
			if !utf8.ValidString(property.Value) {
				return nil, nil
			}
			path, err := filterd.ParsePath(string(filterd.AppendString([]byte(parent.path+"["), property.Value)) + "]")
			if err != nil { // too long
				return nil, nil
			}
			return t.intern(path, parent, property.Value, false), optional
		case *ast.IntegerNode:
			path, err := filterd.ParsePath(string(parent.path) + "[" + strconv.Itoa(property.Value) + "]")
			if err != nil { // negative, or too long
				return nil, nil
			}
			return t.intern(path, parent, "", true), optional
		}
	}
	return nil, nil
}

func (t *translator) intern(path filterd.Path, parent *place, name string, byIndex bool) *place {
	if p := t.byPath[path]; p != nil {
		return p
	}
	p := &place{path: path, name: name, number: len(t.places), parent: parent, byIndex: byIndex, indexed: byIndex || parent != nil && parent.indexed}
	t.byPath[path] = p
	t.places = append(t.places, p)
	return p
}
