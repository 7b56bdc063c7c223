package exprfilter

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/parser/lexer"
)

// An outline is an expression as a tree of its parts, each of which knows
// where in the source it stands. expr tells of a node one token only, an
// operator or a name, so a part reaches from the first token of its operands to
// the last, and as far as that takes to close every bracket.
type outline struct {
	source  string
	offsets []int // of the source's runes in bytes, then its length
	tokens  []lexer.Token
	at      map[int]int // the token that begins at a rune
	partner []int       // by tokens: the other one of a pair of brackets
	lets    []span      // that enclose the node at hand
	depth   int         // of the node at hand
}

// maxPartDepth is how deep parts go. What is deeper is evaluated with the part
// around it only: to evaluate each of thousands of parts within each other
// takes the square of their number.
const maxPartDepth = 32

// A span is some of the tokens.
type span struct{ from, to int } // to is the last one

func (s span) union(o span) span { return span{min(s.from, o.from), max(s.to, o.to)} }

// A part is a sub-expression.
type part struct {
	kind     partKind
	span     span
	text     string
	lets     []span // declarations that it may need
	listed   bool
	constant bool
	root     bool // data, event or channel
	optional bool // a member after ?.
	chain    bool // a member that ends a chain with ?.
	operands []*part

	evaluated bool
	value     any
	err       error
	decided   bool
}

// A partKind says what a part does with its operands.
type partKind uint8

const (
	partPlain partKind = iota // evaluates all, and makes a value of them
	partAnd
	partOr
	partNot
	partChoose   // the first decides which one of two others is evaluated
	partCoalesce // ??
	partMember   // the first is the object
	partPass     // evaluates all, and has the value of the last
)

// newOutline makes the outline of an expression that compiles.
func newOutline(source string) (*outline, *part, error) {
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := lexer.Lex(file.NewSource(source))
	if err != nil {
		return nil, nil, err
	}
	o := &outline{source: source, tokens: tokens, at: make(map[int]int, len(tokens)), partner: make([]int, len(tokens))}
	for offset := range source {
		o.offsets = append(o.offsets, offset)
	}
	o.offsets = append(o.offsets, len(source))
	var open []int
	for i, t := range tokens {
		if t.Kind != lexer.EOF {
			o.at[t.From] = i
		}
		switch {
		case t.Is(lexer.Bracket, "(", "[", "{"):
			open = append(open, i)
		case t.Kind == lexer.Bracket:
			last := len(open) - 1
			o.partner[i], o.partner[open[last]] = open[last], i
			open = open[:last]
		}
	}
	return o, o.part(tree.Node), nil
}

// part makes the part that a node is.
func (o *outline) part(n ast.Node) *part {
	o.depth++
	defer func() { o.depth-- }()
	p := &part{lets: slices.Clip(o.lets), listed: true}
	p.span = span{len(o.tokens), -1}
	if _, ok := n.(*ast.ConditionalNode); !ok { // they have no token
		p.span = o.token(n)
	}
	switch n := n.(type) {
	case *ast.NilNode, *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.StringNode, *ast.BytesNode:
		p.constant = true
	case *ast.IdentifierNode:
		p.root = true
	case *ast.UnaryNode:
		if b, ok := n.Node.(*ast.BinaryNode); ok && n.Location() == b.Location() { // a not in b
			o.operands(p, b.Left, b.Right)
			break
		}
		if n.Operator == "!" || n.Operator == "not" {
			p.kind = partNot
		}
		o.operands(p, n.Node)
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			p.kind = partAnd
		case "or", "||":
			p.kind = partOr
		case "??":
			p.kind = partCoalesce
		}
		if p.kind == partAnd || p.kind == partOr {
			o.joined(p, n, n.Operator)
		} else {
			o.operands(p, n.Left, n.Right)
		}
	case *ast.ConditionalNode:
		p.kind = partChoose
		o.operands(p, n.Cond, n.Exp1, n.Exp2)
	case *ast.ChainNode:
		lets := p.lets
		*p = *o.part(n.Node)
		p.lets, p.chain = lets, true
		return p
	case *ast.MemberNode:
		p.kind, p.optional = partMember, n.Optional
		o.operands(p, n.Node, n.Property)
		if object := p.operands[0]; object.root {
			object.listed = false
		}
	case *ast.SliceNode:
		o.operands(p, n.Node, n.To, n.From)
	case *ast.BuiltinNode:
		o.call(p, n.Arguments...)
	case *ast.CallNode:
		o.call(p, append([]ast.Node{n.Callee}, n.Arguments...)...)
	case *ast.ArrayNode:
		o.operands(p, n.Nodes...)
	case *ast.MapNode:
		for _, pair := range n.Pairs {
			pair := pair.(*ast.PairNode)
			o.operands(p, pair.Key, pair.Value)
		}
	case *ast.SequenceNode:
		p.kind, p.listed = partPass, false
		o.operands(p, n.Nodes...)
	case *ast.VariableDeclaratorNode:
		o.let(p, n)
	}
	o.close(p, n)
	switch {
	case o.depth == maxPartDepth:
		p.kind, p.operands, p.listed = partPlain, nil, true
		fallthrough
	case o.depth < maxPartDepth:
		p.text = o.written(p.span)
	}
	return p
}

// token returns the token that expr knows a node by.
func (o *outline) token(n ast.Node) span {
	i := o.at[n.Location().From]
	return span{i, i}
}

// operands makes parts of what a part consists of. Constants that decide
// nothing by themselves are none.
func (o *outline) operands(p *part, nodes ...ast.Node) {
	p.constant = p.kind == partPlain
	for _, n := range nodes {
		if _, predicate := n.(*ast.PredicateNode); predicate || n == nil { // one is within the call's parentheses
			continue
		}
		operand := o.part(n)
		p.constant = p.constant && operand.constant
		switch {
		case operand.constant && (p.kind == partPlain || p.kind == partMember):
			p.span = p.span.union(operand.span)
			continue
		case operand.constant && p.kind == partCoalesce:
			operand.listed = false
		}
		p.add(operand)
	}
}

// call adds what a function is called with.
func (o *outline) call(p *part, nodes ...ast.Node) {
	p.span.to++ // the parenthesis
	o.operands(p, nodes...)
	p.constant = false
}

func (p *part) add(operand *part) {
	p.span = p.span.union(operand.span)
	p.operands = append(p.operands, operand)
}

// joined adds the operands of a and b and c, or of a or b or c.
func (o *outline) joined(p *part, n ast.Node, operator string) {
	if b, ok := n.(*ast.BinaryNode); ok && sameJoint(b.Operator, operator) {
		o.joined(p, b.Left, operator)
		o.joined(p, b.Right, operator)
		return
	}
	p.add(o.part(n))
}

// let adds a declaration, and what it is declared for.
func (o *outline) let(p *part, n *ast.VariableDeclaratorNode) {
	p.kind, p.listed = partPass, false
	declaration := o.part(n.Value)
	end := declaration.span.to
	for !o.tokens[end].Is(lexer.Operator, ";") { // behind closing parentheses
		end++
	}
	from := p.span.from - 1
	declaration.text, declaration.listed = o.written(span{from, end - 1}), true
	p.add(declaration)
	p.span.from = from
	o.lets = append(o.lets, span{from, end})
	p.add(o.part(n.Expr))
	o.lets = o.lets[:len(o.lets)-1]
}

// close makes a part reach as far as its brackets and keywords.
func (o *outline) close(p *part, n ast.Node) {
	for i := p.span.from; i <= p.span.to; i++ {
		if o.tokens[i].Kind == lexer.Bracket {
			p.span = p.span.union(span{o.partner[i], o.partner[i]})
		}
	}
	if c, ok := n.(*ast.ConditionalNode); ok && !c.Ternary {
		p.span.from-- // if
	}
	if p.span.from > 0 && o.tokens[p.span.from-1].Is(lexer.Operator, "::") {
		p.span.from--
	}
}

// written returns what tokens say, with a space wherever there is some.
func (o *outline) written(s span) string {
	var b strings.Builder
	for i := s.from; i <= s.to; i++ {
		if i > s.from && o.tokens[i].From > o.tokens[i-1].To {
			b.WriteByte(' ')
		}
		b.WriteString(o.source[o.offsets[o.tokens[i].From]:o.offsets[o.tokens[i].To]])
	}
	return b.String()
}

// alone returns the source with nothing left but a part, and the declarations
// around it: what it says of positions holds for the whole.
func (o *outline) alone(p *part) string {
	var b strings.Builder
	at := 0 // in runes
	for _, s := range append(slices.Clip(p.lets), p.span) {
		from, to := o.tokens[s.from].From, o.tokens[s.to].To
		b.WriteString(strings.Repeat(" ", from-at))
		b.WriteString(o.source[o.offsets[from]:o.offsets[to]])
		at = to
	}
	return b.String()
}
