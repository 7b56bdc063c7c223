package exprfilter

import (
	"github.com/expr-lang/expr/ast"
)

// A function is what is known of a built-in function: on a first argument of
// another kind it fails.
type function struct{ takes, yields kinds }

var functions = map[string]function{
	"len":         {isString | isArray | isObject, isInt},
	"upper":       {isString, isString},
	"lower":       {isString, isString},
	"trim":        {isString, isString},
	"trimPrefix":  {isString, isString},
	"trimSuffix":  {isString, isString},
	"split":       {isString, isArray},
	"splitAfter":  {isString, isArray},
	"replace":     {isString, isString},
	"repeat":      {isString, isString},
	"hasPrefix":   {isString, isBool},
	"hasSuffix":   {isString, isBool},
	"indexOf":     {isString, isInt},
	"lastIndexOf": {isString, isInt},
	"abs":         {isNumber, isNumber},
	"ceil":        {isNumber, isNumber},
	"floor":       {isNumber, isNumber},
	"round":       {isNumber, isNumber},
	"int":         {isNumber | isString, isInt},
	"float":       {isNumber | isString, isFloat},
	"string":      {isAny, isString},
	"type":        {isAny, isString},
	"toJSON":      {isAny, isString},
	"keys":        {isObject, isArray},
	"values":      {isObject, isArray},
}

// builtin checks a call of a built-in function.
func (c *checker) builtin(n *ast.BuiltinNode) typ {
	switch n.Name {
	case "all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex", "count", "sum", "groupBy", "sortBy", "reduce":
		return c.predicateCall(n)
	}
	f, known := functions[n.Name]
	for i, argument := range n.Arguments {
		t := c.value(argument)
		if i > 0 || !known {
			continue
		}
		if !t.maybe(f.takes) {
			c.report(Fault, n, "", "%s is %s: %s takes %s", text(argument), t, n.Name, f.takes)
			return unknown
		}
		if f.takes&isNil == 0 {
			c.maybeMissing(argument, t, f.takes)
		}
	}
	if !known {
		return unknown
	}
	return typ{kinds: f.yields}
}

// predicateCall checks a built-in that runs a predicate over an array.
func (c *checker) predicateCall(n *ast.BuiltinNode) typ {
	list := c.value(n.Arguments[0])
	if !list.maybe(isArray | isString) { // a string has bytes
		severity := Fault
		if list.kinds&isObject != 0 { // that it has no elements shows only when one is read
			severity = Warning
		}
		c.report(severity, n, "", "%s is %s: %s takes an array", text(n.Arguments[0]), list, n.Name)
		return unknown
	}
	c.maybeMissing(n.Arguments[0], list, isArray)
	element := c.elementOf(list)
	body := element // of the predicate, which some have not
	for _, argument := range n.Arguments[1:] {
		p, ok := argument.(*ast.PredicateNode)
		if !ok {
			c.value(argument)
			continue
		}
		c.elements = append(c.elements, element)
		switch n.Name {
		case "map", "sum", "groupBy", "sortBy", "reduce":
			body = c.value(p.Node)
		default:
			c.condition(p.Node, false)
		}
		c.elements = c.elements[:len(c.elements)-1]
	}
	switch n.Name {
	case "all", "none", "any", "one":
		return typ{kinds: isBool}
	case "count":
		return typ{kinds: isInt}
	case "findIndex", "findLastIndex":
		return typ{kinds: isInt | isNil}
	case "find", "findLast":
		return element.orNil()
	case "filter", "sortBy":
		return typ{kinds: isArray, element: &element}
	case "map":
		return typ{kinds: isArray, element: &body}
	}
	return unknown
}
