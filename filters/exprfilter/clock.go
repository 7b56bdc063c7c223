package exprfilter

import (
	"maps"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
)

// now() is when the message was received, if that is known, and else the time
// at which it is evaluated. So a test can say what time it is, and a replay tells
// the same as the day that was recorded.

// clockName is where an environment has the time. It is no name that an
// expression could have, but what a part of one is shown as.
const clockName = "now()"

// compileWithClock compiles an expression, and says whether it asks for the time.
func compileWithClock(source string, options ...expr.Option) (compiled *vm.Program, clock bool, err error) {
	options = append(options, environment)
	var c clockPatch
	if strings.Contains(source, "now") { // a walk less for all others
		options = append(options, expr.Patch(&c))
	}
	compiled, err = expr.Compile(source, options...)
	return compiled, c.patched, err
}

// A clockPatch makes now() a value of the environment.
type clockPatch struct{ patched bool }

// Visit implements [ast.Visitor].
func (c *clockPatch) Visit(n *ast.Node) {
	call, ok := (*n).(*ast.BuiltinNode)
	if !ok || call.Name != "now" || len(call.Arguments) > 1 {
		return
	}
	c.patched = true
	var now ast.Node = &ast.IdentifierNode{Value: clockName}
	now.SetLocation(call.Location())
	if len(call.Arguments) == 1 { // a time zone
		in := &ast.MemberNode{Node: now, Property: &ast.StringNode{Value: "In"}, Method: true}
		in.SetLocation(call.Location())
		now = &ast.CallNode{Callee: in, Arguments: call.Arguments}
	}
	ast.Patch(n, now)
}

// withClock returns the environment for a program that is run on a message: env
// itself, but for one that asks for the time.
func (p *program) withClock(env map[string]any, m *filterd.Message) map[string]any {
	if !p.clock {
		return env
	}
	env = maps.Clone(env)
	env[clockName] = m.Received
	if m.Received.IsZero() {
		env[clockName] = time.Now()
	}
	return env
}
