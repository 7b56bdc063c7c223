package exprfilter

import (
	"fmt"

	"github.com/expr-lang/expr/ast"

	"github.com/filterd/filterd"
)

// The default profile's bounds.
const (
	maxRange  = 1000 // elements of a..b
	maxGrowth = 64   // size of any intermediate result, in messages
)

// maxVisits bounds how often the nodes of a tree are visited, in any profile.
// The middle of a < b < c stands in the tree twice, so chains within chains
// double with each level, and everybody who walks the tree takes as long.
const maxVisits = 4 * MaxSource

// checkBounds enforces maxVisits and, unless full is set, the default profile:
// one evaluation does work, and builds results, in proportion to the message.
//
// expr limits neither time nor the length of strings, so the bound must come
// from the expression's shape. Two things break it. A predicate runs once for
// each element; what it does to its element adds up to the message, but what
// it does to something else costs the message's size each time. And a name
// that is used twice can double a value in each let. So every node gets an
// extent: how many times as large as the message its value may be, and whether,
// inside a predicate, it is more than a part of the element.
func checkBounds(source string, root ast.Node, full bool) error {
	c := boundsChecker{source: source, full: full, variables: make(map[string]extent)}
	c.extent(root)
	if c.fault != nil {
		return c.fault
	}
	return nil
}

// An extent bounds the size of a node's value.
type extent struct {
	growth float64 // at most this many times the message; 0 is a constant size
	whole  bool    // may be more than a part of the predicate's element
	number bool    // is a number or a bool, so that adding it joins nothing
}

var scalar = extent{number: true}

type boundsChecker struct {
	source    string
	full      bool // the default profile doesn't hold
	variables map[string]extent
	predicate bool // the node at hand is in a predicate
	visits    int
	fault     *filterd.SourceError
}

func (c *boundsChecker) refuse(n ast.Node, hint, format string, args ...any) {
	if !c.full {
		c.fail(n, hint, format, args...)
	}
}

func (c *boundsChecker) fail(n ast.Node, hint, format string, args ...any) {
	if c.fault != nil {
		return
	}
	from := byteOffset(c.source, n.Location().From)
	to := byteOffset(c.source, n.Location().To)
	c.fault = &filterd.SourceError{Source: c.source, Offset: from, Length: max(to-from, 1), Message: fmt.Sprintf(format, args...), Hint: hint}
}

const orFull = "; profile: full allows it"

func (c *boundsChecker) extent(n ast.Node) extent {
	if c.visits++; c.visits > maxVisits {
		if c.visits == maxVisits+1 {
			c.fail(n, "write a < b and b < c", "too many chains of comparisons, as in a < b < c, stand within each other")
		}
		return scalar
	}
	switch n := n.(type) {
	case nil:
		return scalar
	case *ast.IdentifierNode:
		if e, ok := c.variables[n.Value]; ok {
			return e
		}
		return extent{growth: 1, whole: n.Value != string(filterd.PathChannel)}
	case *ast.PointerNode:
		switch n.Name {
		case "index":
			return scalar
		case "acc":
			return extent{growth: 1, whole: true}
		}
		return extent{growth: 1}
	case *ast.StringNode:
		if c.predicate { // an element takes two bytes of the message at least
			return extent{growth: float64(len(n.Value)) / 2}
		}
		return extent{growth: 1}
	case *ast.BytesNode, *ast.ConstantNode:
		return extent{growth: 1}
	case *ast.NilNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return scalar
	case *ast.UnaryNode:
		c.extent(n.Node)
		return scalar
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ChainNode:
		return c.extent(n.Node)
	case *ast.MemberNode:
		c.extent(n.Property)
		return c.extent(n.Node).value()
	case *ast.SliceNode:
		c.extent(n.From)
		c.extent(n.To)
		return c.extent(n.Node).value()
	case *ast.ConditionalNode:
		c.extent(n.Cond)
		return either(c.extent(n.Exp1), c.extent(n.Exp2))
	case *ast.VariableDeclaratorNode:
		value := c.extent(n.Value)
		outer, shadows := c.variables[n.Name]
		c.variables[n.Name] = value
		result := c.extent(n.Expr)
		if delete(c.variables, n.Name); shadows {
			c.variables[n.Name] = outer
		}
		return result
	case *ast.SequenceNode:
		var last extent
		for _, node := range n.Nodes {
			last = c.extent(node)
		}
		return last
	case *ast.ArrayNode:
		return c.sum(n, n.Nodes)
	case *ast.MapNode:
		return c.sum(n, n.Pairs)
	case *ast.PairNode:
		return both(c.extent(n.Key), c.extent(n.Value))
	case *ast.CallNode:
		c.extent(n.Callee)
		return c.sum(n, n.Arguments)
	case *ast.BuiltinNode:
		return c.builtin(n)
	case *ast.PredicateNode:
		return c.extent(n.Node)
	default:
		c.refuse(n, "", "%T is not known to this version", n)
		return scalar
	}
}

func (c *boundsChecker) binary(n *ast.BinaryNode) extent {
	left, right := c.extent(n.Left), c.extent(n.Right)
	switch n.Operator {
	case "&&", "and", "||", "or", "??":
		return either(left, right)
	case "+":
		if left.number || right.number {
			return scalar
		}
		sum := both(left, right)
		if c.predicate && sum.whole {
			c.refuse(n, "for numbers write float(a) + b"+orFull, "+ may join a string for every element")
		}
		return c.grown(n, sum)
	case "..":
		from, fromOK := n.Left.(*ast.IntegerNode)
		to, toOK := n.Right.(*ast.IntegerNode)
		if !fromOK || !toOK || to.Value-from.Value >= maxRange {
			c.refuse(n, "compare with < and >"+orFull, "a range has constant bounds and at most %d elements", maxRange)
		}
		return extent{growth: 1}
	case "matches":
		if _, ok := n.Right.(*ast.StringNode); !ok {
			c.refuse(n, "write the pattern as a string"+orFull, "matches needs a constant pattern")
		}
		c.refuseWhole(n, left.whole)
	case "contains":
		c.refuseWhole(n, left.whole)
	case "in", "not in":
		c.refuseWhole(n, right.whole)
	case "==", "!=", "<", "<=", ">", ">=", "startsWith", "endsWith":
		c.refuseWhole(n, left.whole && right.whole)
	}
	return scalar
}

// refuseWhole refuses an operation that, in a predicate, would read the whole
// message for every element.
func (c *boundsChecker) refuseWhole(n ast.Node, whole bool) {
	if c.predicate && whole {
		c.refuse(n, "compute it once, before the predicate, with let"+orFull, "this would read the message again for every element")
	}
}

func (c *boundsChecker) builtin(n *ast.BuiltinNode) extent {
	switch n.Name {
	case "repeat", "replace", "join", "split", "splitAfter", "uniq":
		c.refuse(n, "profile: full allows it", "%s is not in the default profile: its work or its result is not bounded by the message", n.Name)
		for _, argument := range n.Arguments {
			c.extent(argument)
		}
		return scalar.value()
	case "all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex", "count", "sum", "groupBy", "sortBy", "reduce":
		return c.predicateCall(n)
	case "get":
		result := c.extent(n.Arguments[0])
		for _, argument := range n.Arguments[1:] {
			c.extent(argument)
		}
		return result.value()
	}
	sum := c.sum(n, n.Arguments)
	c.refuseWhole(n, sum.whole)
	switch n.Name {
	case "len", "abs", "ceil", "floor", "round", "int", "float", "max", "min", "mean", "median",
		"indexOf", "lastIndexOf", "hasPrefix", "hasSuffix", "bitand", "bitor", "bitxor", "bitnand", "bitnot", "bitshl", "bitshr", "bitushr":
		return scalar
	case "type", "now", "duration", "date", "timezone":
		return extent{}
	case "toJSON":
		sum.growth *= 6 // \u0000
	case "string", "toBase64", "keys", "toPairs", "fromJSON":
		sum.growth *= 2
	}
	return c.grown(n, sum)
}

// predicateCall checks a built-in that runs a predicate over a collection.
func (c *boundsChecker) predicateCall(n *ast.BuiltinNode) extent {
	if c.predicate {
		c.refuse(n, "profile: full allows it", "%s within a predicate: its work grows with the square of the message", n.Name)
		defer func() { c.predicate = true }()
	}
	collection := c.extent(n.Arguments[0])
	var body extent
	for _, argument := range n.Arguments[1:] {
		_, c.predicate = argument.(*ast.PredicateNode)
		body = either(body, c.extent(argument))
		c.predicate = false
	}
	collection.whole = true // the predicate is over
	switch n.Name {
	case "all", "none", "any", "one", "count", "findIndex", "findLastIndex", "sum":
		return scalar
	case "map":
		if body.whole {
			c.refuse(n, "map to parts of the element"+orFull, "map would repeat the message for every element")
		}
		collection.growth *= max(body.growth, 1)
	case "reduce":
		collection.growth *= max(body.growth, 1)
	}
	return c.grown(n, collection.value())
}

// sum is the extent of what is built of all the nodes.
func (c *boundsChecker) sum(n ast.Node, nodes []ast.Node) extent {
	var total extent
	for _, node := range nodes {
		total = both(total, c.extent(node))
	}
	if _, literal := n.(*ast.BuiltinNode); !literal {
		c.refuseWhole(n, total.whole)
	}
	return c.grown(n, total)
}

func (c *boundsChecker) grown(n ast.Node, e extent) extent {
	if e.growth > maxGrowth {
		c.refuse(n, "profile: full allows it", "this could grow to more than %d times the message", maxGrowth)
	}
	return e
}

// value is e for a value that may be a string.
func (e extent) value() extent {
	e.number = false
	return e
}

func either(a, b extent) extent {
	return extent{max(a.growth, b.growth), a.whole || b.whole, a.number && b.number}
}

func both(a, b extent) extent {
	return extent{growth: a.growth + b.growth, whole: a.whole || b.whole}
}
