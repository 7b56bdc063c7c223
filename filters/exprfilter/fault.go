package exprfilter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"github.com/filterd/filterd"
)

// What expr says of an evaluation that fails are Go's types and an offset. A
// fault says it in the words of the expression: which part is missing, or of
// what type, and what to write. It is made of expr's error alone, without
// evaluating anything again: a rule may fail on every message.

// faults knows the parts of an expression by where expr finds fault with them.
type faults struct {
	source string
	at     map[int][]ast.Node // by the offset in runes; the outer ones first

	mu   sync.Mutex // guards told
	told map[fault]said
}

// A fault is what expr says, and where.
type fault struct {
	from    int
	message string
}

type said struct{ message, hint string }

// maxTold bounds what is kept of what was said: a rule that fails mostly does so
// in one way.
const maxTold = 16

// failed makes the error of an evaluation that failed one that people read.
func (p *program) failed(err error) *filterd.SourceError {
	p.parse.Do(func() { p.faults = newFaults(p.source) })
	return p.faults.explain(err)
}

func newFaults(source string) *faults {
	f := &faults{source: source, at: make(map[int][]ast.Node), told: make(map[fault]said)}
	if tree, err := parser.Parse(source); err == nil {
		walk(tree.Node, func(n ast.Node) { f.at[n.Location().From] = append(f.at[n.Location().From], n) })
	}
	return f
}

// walk calls visit for a node and then for all that are below it.
func walk(n ast.Node, visit func(ast.Node)) {
	ast.Walk(&n, visitor(func(n ast.Node) { visit(n) }))
}

type visitor func(ast.Node)

// Visit implements [ast.Visitor].
func (v visitor) Visit(n *ast.Node) { v(*n) }

// explain makes an error of expr one that people read.
func (f *faults) explain(err error) *filterd.SourceError {
	e := sourceError(f.source, err)
	positioned, ok := err.(*file.Error)
	if !ok {
		return e
	}
	is := fault{positioned.From, positioned.Message}
	f.mu.Lock()
	defer f.mu.Unlock()
	words, ok := f.told[is]
	if !ok {
		words.message, words.hint = f.say(is)
		if len(f.told) < maxTold {
			f.told[is] = words
		}
	}
	e.Message, e.Hint = words.message, words.hint
	return e
}

// say says in words what expr says.
func (f *faults) say(is fault) (message, hint string) {
	nodes := f.at[is.from]
	for i := len(nodes) - 1; i >= 0; i-- {
		if message, hint := wordsOf(nodes[i], is.message); message != "" {
			return message, hint
		}
	}
	if of, ok := cutBoth(is.message, "invalid operation: bool(", ")"); ok { // at the root
		return fmt.Sprintf("the expression is %s, and not true or false", typeName(of)), "compare it with something"
	} else if of, ok := cutBoth(is.message, "interface conversion: interface {} is ", ", not bool"); ok {
		return fmt.Sprintf("a condition is %s, and not true or false", typeName(of)), ""
	}
	return is.message, ""
}

// wordsOf says in words what expr finds wrong with a node, or nothing.
func wordsOf(n ast.Node, message string) (words, hint string) {
	switch n := n.(type) {
	case *ast.BinaryNode:
		return binaryFault(n, message)
	case *ast.UnaryNode:
		return unaryFault(n, message)
	case *ast.MemberNode:
		return memberFault(n, message)
	case *ast.SliceNode:
		if strings.HasPrefix(message, "cannot slice ") {
			return fmt.Sprintf("%s is neither an array nor a string: there is nothing to slice", show(n.Node)), ""
		}
	case *ast.BuiltinNode:
		return callFault(n, message)
	}
	return "", ""
}

// binaryFault says what is wrong with the operands of an operator.
func binaryFault(n *ast.BinaryNode, message string) (words, hint string) {
	left, right := show(n.Left), show(n.Right)
	if _, types, ok := strings.Cut(message, "invalid operation: "); ok {
		l, r, ok := strings.Cut(types, " "+n.Operator+" ")
		switch a, b := kindsNamed(l), kindsNamed(r); {
		case !ok:
		case a == isNil && b == isNil:
			return fmt.Sprintf("%s and %s are missing or null: %s needs values", left, right, n.Operator), fmt.Sprintf("ask %s != nil first", left)
		case a == isNil:
			return fmt.Sprintf("%s: %s needs a value", isMissing(n.Left), n.Operator), insteadOf(n.Left, b)
		case b == isNil:
			return fmt.Sprintf("%s: %s needs a value", isMissing(n.Right), n.Operator), insteadOf(n.Right, a)
		default:
			l, r = typeName(l), typeName(r)
			if n.Operator == "%" { // which numbers of a message are not
				l, r = precisely(l, a), precisely(r, b)
			}
			hint = conversion(n, typ{kinds: a, values: valuesOf(n.Left)}, typ{kinds: b, values: valuesOf(n.Right)})
			switch {
			case n.Operator == "+" && a == isString && isConstant(n.Left):
				hint = fmt.Sprintf("string(%s) makes a string of it", right)
			case n.Operator == "+" && b == isString && isConstant(n.Right):
				hint = fmt.Sprintf("string(%s) makes a string of it", left)
			}
			return fmt.Sprintf("%s is %s and %s %s: %s", left, l, right, r, wanted(n.Operator)), hint
		}
	}
	if of, ok := cutBoth(message, "invalid operation: float(", ")"); ok { // for **
		return fmt.Sprintf("%s or %s is %s: %s", left, right, typeName(of), wanted(n.Operator)), ""
	}
	if of, ok := strings.CutPrefix(message, `operator "in" not defined on `); ok {
		if of == "string" {
			hint = fmt.Sprintf("write %s contains %s", right, left)
		}
		return fmt.Sprintf("%s is %s: in takes an array or an object", right, typeName(of)), hint
	}
	if strings.HasPrefix(message, "reflect.Value.MapIndex: ") {
		return fmt.Sprintf("%s is no string: an object's members have strings as names", left), fmt.Sprintf("write string(%s)", left)
	}
	if is, ok := converted(message); ok {
		switch n.Operator {
		case "and", "&&", "or", "||":
			return operandFault(n.Left, is, n.Operator, isBool)
		}
		operand := n.Left
		if isConstant(n.Left) {
			operand = n.Right
		} else if !isConstant(n.Right) {
			return fmt.Sprintf("%s or %s is %s: %s takes strings", left, right, typeName(is), n.Operator), ""
		}
		return fmt.Sprintf("%s is %s: %s takes a string", show(operand), typeName(is), n.Operator), fmt.Sprintf("write string(%s)", show(operand))
	}
	return "", ""
}

// valuesOf returns a part's value if that is the same for all messages.
func valuesOf(n ast.Node) []any {
	if isConstant(n) {
		return []any{n}
	}
	return nil
}

// precisely tells kinds of numbers apart.
func precisely(name string, of kinds) string {
	switch of {
	case isFloat:
		return "a float"
	case isInt:
		return "an integer"
	}
	return name
}

// wanted says what an operator takes.
func wanted(operator string) string {
	switch operator {
	case "<", "<=", ">", ">=":
		return operator + " takes two numbers or two strings"
	case "+":
		return "+ takes two numbers or two strings"
	case "%":
		return "% takes two integers"
	}
	return operator + " takes two numbers"
}

// unaryFault says what is wrong with the operand of an operator.
func unaryFault(n *ast.UnaryNode, message string) (words, hint string) {
	is, take := "", kinds(isNumber)
	if of, ok := strings.CutPrefix(message, "invalid operation: "+n.Operator+" "); ok {
		is = of
	} else if is, ok = converted(message); ok {
		take = isBool
	} else {
		return "", ""
	}
	return operandFault(n.Node, is, n.Operator, take)
}

// operandFault says that an operand, or an argument, is of the wrong type.
func operandFault(n ast.Node, is, takes string, kinds kinds) (words, hint string) {
	if kindsNamed(is) == isNil {
		return fmt.Sprintf("%s: %s takes %s", isMissing(n), takes, kinds), insteadOf(n, kinds)
	}
	return fmt.Sprintf("%s is %s: %s takes %s", show(n), typeName(is), takes, kinds), ""
}

// memberFault says why a value has no such member or element.
func memberFault(n *ast.MemberNode, message string) (words, hint string) {
	object, property := show(n.Node), show(n.Property)
	name, named := n.Property.(*ast.StringNode)
	what := "element " + property
	if named {
		what = "member " + name.Value
	}
	if of, ok := cutBoth(message, "invalid operation: int(", ")"); ok {
		switch {
		case named:
			return fmt.Sprintf("%s is an array or a string: it has no %s", object, what), ofObjects(object, n.Property)
		case kindsNamed(of) == isNil:
			return fmt.Sprintf("%s: the elements of %s have numbers", isMissing(n.Property), object), insteadOf(n.Property, isNumber)
		}
		return fmt.Sprintf("%s is %s: the elements of %s have numbers", property, typeName(of), object), ""
	}
	if from := strings.LastIndex(message, " from "); from >= 0 && strings.HasPrefix(message, "cannot fetch ") {
		of := message[from+len(" from "):]
		if kindsNamed(of) != isNil {
			return fmt.Sprintf("%s is %s: it has no %s", object, typeName(of), what), ofObjects(object, n.Property)
		}
		access := "?.[" + property + "]"
		if rest, dotted := strings.CutPrefix(n.String(), n.Node.String()+"."); dotted {
			access = "?." + rest
		}
		return fmt.Sprintf("%s: it has no %s", isMissing(n.Node), what), "write " + object + access
	}
	if strings.HasPrefix(message, "reflect.Value.MapIndex: ") {
		return fmt.Sprintf("%s is an object: its members have strings as names, and %s is none", object, property), ""
	}
	if _, size, ok := strings.Cut(message, " (array length is "); ok && strings.HasPrefix(message, "index out of range: ") {
		return fmt.Sprintf("%s has length %s: it has no %s", object, strings.TrimSuffix(size, ")"), what), fmt.Sprintf("get(%s, %s) is nil then", object, property)
	}
	return "", ""
}

// ofObjects says what stands for a member that values have in other languages.
func ofObjects(object string, property ast.Node) string {
	name, ok := property.(*ast.StringNode)
	if !ok {
		return ""
	}
	switch name.Value {
	case "startsWith", "endsWith", "contains", "matches":
		return fmt.Sprintf("write %s %s …", object, name.Value)
	case "length", "size", "len":
		return fmt.Sprintf("write len(%s)", object)
	}
	return ""
}

// argumentKinds are what functions take that the checker of types knows
// nothing of.
var argumentKinds = map[string]kinds{
	"date": isString, "duration": isString, "fromJSON": isString, "fromBase64": isString, "toBase64": isString,
	"max": isNumber, "min": isNumber, "mean": isNumber, "median": isNumber,
	"any": isArray, "all": isArray, "none": isArray, "one": isArray, "count": isArray, "filter": isArray, "map": isArray, "find": isArray,
	"findIndex": isArray, "findLast": isArray, "findLastIndex": isArray, "groupBy": isArray, "sortBy": isArray, "reduce": isArray, "sum": isArray,
	"sort": isArray, "reverse": isArray, "concat": isArray, "flatten": isArray, "take": isArray,
}

// argumentFaults are what expr says of a function's argument: its type is in
// the only group.
var argumentFaults = regexp.MustCompile(`^(?:interface conversion: interface \{\} is (.+), not .*|` +
	`invalid argument for \w+ \(type (.+)\)|` +
	`reflect: call of reflect\.Value\.(?:Len|Type|Index) on (.+) Value|` +
	`invalid operation: (?:int|float)\((<nil>|bool|\[\]interface \{\}|map\[string\]interface \{\})\)|` +
	`cannot (?:get keys from|get values from|sort|reverse|flatten|take) (\S+))$`)

// callFault says what is wrong with what a function is called with. Which of
// several arguments it is, expr does not say.
func callFault(n *ast.BuiltinNode, message string) (words, hint string) {
	take := argumentKinds[n.Name] | functions[n.Name].takes
	var suspects []ast.Node
	for _, a := range n.Arguments {
		if _, predicate := a.(*ast.PredicateNode); !predicate && !isConstant(a) {
			suspects = append(suspects, a)
		}
	}
	if take == 0 || len(suspects) == 0 {
		return "", ""
	}
	argument := suspects[0]
	found := argumentFaults.FindStringSubmatch(message)
	if found == nil {
		if _, ok := cutBoth(message, "invalid operation: "+n.Name+"(", ")"); ok && len(suspects) == 1 {
			return fmt.Sprintf("%s is a string that %s makes no number of", show(argument), n.Name), ""
		}
		return "", ""
	}
	is := strings.Join(found[1:], "")
	switch {
	case len(suspects) > 1:
		return fmt.Sprintf("an argument of %s is %s: it takes %s", n.Name, typeName(is), take), ""
	case kindsNamed(is) == isNil && slices.Contains([]string{"date", "duration", "fromJSON"}, n.Name): // no empty string
		return fmt.Sprintf("%s: %s takes %s", isMissing(argument), n.Name, take), insteadOf(argument, 0)
	}
	return operandFault(argument, is, n.Name, take)
}

// insteadOf says what to write for a value that may be missing, where one of
// some kinds is wanted.
func insteadOf(missing ast.Node, wanted kinds) string {
	switch missing.(type) {
	case *ast.BinaryNode, *ast.ConditionalNode, *ast.UnaryNode:
		return "" // it is no part that would be written twice
	}
	for _, of := range []struct {
		kinds kinds
		value string
	}{{isNumber, "0"}, {isArray, "[]"}, {isString, `""`}, {isBool, "false"}, {isObject, "{}"}} {
		if wanted&of.kinds != 0 {
			return fmt.Sprintf("write (%s ?? %s), or ask %s != nil first", show(missing), of.value, show(missing))
		}
	}
	return fmt.Sprintf("ask %s != nil first", show(missing))
}

// isMissing says that a part is nil.
func isMissing(n ast.Node) string {
	switch n.(type) {
	case *ast.MemberNode, *ast.IdentifierNode, *ast.ChainNode:
		return show(n) + " is missing or null"
	}
	return show(n) + " is nil"
}

// kindsNamed returns the kind of one of Go's types, as expr names it; 0 is another
// one.
func kindsNamed(goType string) kinds {
	switch goType {
	case "<nil>", "nil", "zero":
		return isNil
	case "string":
		return isString
	case "int":
		return isInt
	case "float64":
		return isFloat
	case "bool":
		return isBool
	case "[]interface {}", "slice":
		return isArray
	case "map[string]interface {}", "map":
		return isObject
	}
	return 0
}

// typeName says in words what one of Go's types is.
func typeName(goType string) string {
	if of := kindsNamed(goType); of != 0 {
		return of.String()
	}
	switch goType {
	case "time.Time":
		return "a time"
	case "time.Duration":
		return "a duration"
	}
	return "a " + goType
}

// converted returns the type of a value that is not of the type that expr needs.
func converted(message string) (goType string, ok bool) {
	rest, ok := strings.CutPrefix(message, "interface conversion: interface {} is ")
	goType, _, _ = strings.Cut(rest, ", not ")
	return goType, ok
}

func cutBoth(text, prefix, suffix string) (string, bool) {
	text, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(text, suffix)
}

// isConstant reports whether a part is the same for all messages.
func isConstant(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NilNode, *ast.ConstantNode, *ast.ArrayNode:
		return true
	}
	return false
}
