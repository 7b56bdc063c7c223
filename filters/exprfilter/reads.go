package exprfilter

import (
	"slices"

	"github.com/expr-lang/expr/ast"

	"github.com/filterd/filterd"
)

// reads returns the places that a program reads: what it names by a fixed path,
// as long as that is members only, and all below it.
func (t *translator) reads(n ast.Node) []*place {
	var found []*place
	t.appendReads(&found, n)
	return found
}

func (t *translator) appendReads(found *[]*place, nodes ...ast.Node) {
	for _, n := range nodes {
		optional := []*place{}
		if p, _ := t.place(n, optional); p != nil {
			for p.indexed {
				p = p.parent
			}
			if !slices.Contains(*found, p) {
				*found = append(*found, p)
			}
			continue
		}
		switch n := n.(type) {
		case *ast.IdentifierNode:
			if n.Value == "$env" {
				for _, root := range []filterd.Path{filterd.PathData, filterd.PathEvent, filterd.PathChannel} {
					*found = append(*found, t.intern(root, nil, string(root), false))
				}
			}
		case *ast.UnaryNode:
			t.appendReads(found, n.Node)
		case *ast.BinaryNode:
			t.appendReads(found, n.Left, n.Right)
		case *ast.ChainNode:
			t.appendReads(found, n.Node)
		case *ast.MemberNode:
			t.appendReads(found, n.Node, n.Property)
		case *ast.SliceNode:
			t.appendReads(found, n.Node, n.From, n.To)
		case *ast.CallNode:
			t.appendReads(found, n.Callee)
			t.appendReads(found, n.Arguments...)
		case *ast.BuiltinNode:
			t.appendReads(found, n.Arguments...)
			t.appendReads(found, n.Map)
		case *ast.PredicateNode:
			t.appendReads(found, n.Node)
		case *ast.ConditionalNode:
			t.appendReads(found, n.Cond, n.Exp1, n.Exp2)
		case *ast.VariableDeclaratorNode:
			t.appendReads(found, n.Value, n.Expr)
		case *ast.SequenceNode:
			t.appendReads(found, n.Nodes...)
		case *ast.ArrayNode:
			t.appendReads(found, n.Nodes...)
		case *ast.MapNode:
			t.appendReads(found, n.Pairs...)
		case *ast.PairNode:
			t.appendReads(found, n.Key, n.Value)
		}
	}
}

// settle makes what several programs read disjoint: a place below another one
// that is read gives way to that.
func settle(programs [][]*place) {
	whole := make(map[*place]bool)
	for _, reads := range programs {
		for _, p := range reads {
			whole[p] = true
		}
	}
	for i, reads := range programs {
		var settled []*place
		for _, p := range reads {
			for above := p.parent; above != nil; above = above.parent {
				if whole[above] {
					p = above
				}
			}
			if !slices.Contains(settled, p) {
				settled = append(settled, p)
			}
		}
		programs[i] = settled
	}
}
