package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/filterd/filterd"
)

// findLoops finds the rules through which a message could come back to where
// it was: a fault at the rule's To, or a warning where the rule allows it.
//
// A rule leads to another if something that it may send to can be a channel
// that the other takes messages from. What it may send to are its targets,
// what Allow lets a computed target yield, its dead letter channel, and those
// of the contracts of the channels it reads. The rules on a cycle are those
// in a strongly connected component with a cycle (Tarjan, 1972).
//
// The graph's nodes are the rules, what they send to, and what they take from:
// edges between the rules themselves would be the square of their number where
// many rules share a glob.
func findLoops(t *Table) (faults, warnings []*RuleError) {
	g := newGraph(t)
	for _, component := range g.components() {
		if len(component) == 1 { // a cycle has a rule and two channels at least
			continue
		}
		rules := 0
		for _, node := range component {
			if node < len(t.rules) {
				rules++
			}
		}
		for _, number := range component[:rules] { // rules have the lowest numbers
			r := t.rules[number]
			where, index := fmt.Sprintf("%d rules", rules), 0
			if rules <= maxCycleShown {
				path := g.cycle(number)
				where, index = g.describe(path), g.target(r, path)
			}
			fault := r.fault("to", index, "messages would go round in a cycle: %s", where)
			if r.LoopAllowed {
				warnings = append(warnings, fault)
			} else {
				faults = append(faults, fault)
			}
		}
	}
	return faults, warnings
}

// maxCycleShown is the most rules on a cycle for which the error shows the way.
const maxCycleShown = 64

// A place is a channel, a glob of channels, or a stream.
type place struct {
	name    string
	stream  bool
	sharded bool // a sharded channel
}

func (p place) String() string {
	if p.stream {
		return "stream " + p.name
	}
	if p.sharded {
		return "sharded " + p.name
	}
	return p.name
}

// A graph says where messages can go. Its nodes are the rules, by their
// numbers, then what rules send to or take from. A stream and a channel of the
// same name are different places.
type graph struct {
	table  *Table
	places []place // the nodes behind the rules
	next   [][]int
}

func newGraph(t *Table) *graph {
	g := &graph{table: t, next: make([][]int, len(t.rules))}
	node := func(p place) int {
		g.places = append(g.places, p)
		g.next = append(g.next, nil)
		return len(g.next) - 1
	}
	names, globs := make(map[string]int), make(map[*filterd.Glob]int)
	others := make(map[place]int) // streams and sharded channels
	for _, r := range t.rules {
		for _, name := range r.names {
			if _, ok := names[name]; !ok {
				names[name] = node(place{name: name})
			}
			g.next[names[name]] = append(g.next[names[name]], r.number)
		}
		for _, glob := range r.globs {
			if _, ok := globs[glob]; !ok {
				globs[glob] = node(place{name: glob.String()})
			}
			g.next[globs[glob]] = append(g.next[globs[glob]], r.number)
		}
		for _, p := range r.places() {
			if _, ok := others[p]; !ok {
				others[p] = node(p)
			}
			g.next[others[p]] = append(g.next[others[p]], r.number)
		}
	}
	outputs := make(map[place]int)
	for _, r := range t.rules {
		for _, to := range r.outputs(t.registry) {
			if _, ok := outputs[to]; !ok {
				outputs[to] = node(to)
				if source, read := others[to]; read {
					g.next[outputs[to]] = []int{source}
				} else if !to.stream && !to.sharded {
					g.next[outputs[to]] = sources(to.name, names, globs)
				}
			}
			g.next[r.number] = append(g.next[r.number], outputs[to])
		}
	}
	return g
}

// sources returns the nodes of the names and globs that overlap with an output.
func sources(output string, names map[string]int, globs map[*filterd.Glob]int) []int {
	var nodes []int
	compiled := filterd.CompileGlob(output)
	if node, ok := names[output]; ok {
		nodes = append(nodes, node)
	} else if filterd.IsGlob(output) {
		for name, node := range names {
			if compiled.Match(name) {
				nodes = append(nodes, node)
			}
		}
	}
	for glob, node := range globs {
		if glob.Intersects(compiled) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// outputs returns where the rule may send to.
func (r *rule) outputs(registry *filterd.Registry) []place {
	var outputs []place
	add := func(name string, stream bool) {
		if name != "" {
			outputs = append(outputs, place{name: name, stream: stream})
		}
	}
	for _, to := range r.To {
		add(to.Channel, false)
		add(to.Stream, true)
		if to.Sharded != "" {
			outputs = append(outputs, place{name: to.Sharded, sharded: true})
		}
	}
	for _, allow := range r.Allow {
		add(allow, false)
	}
	add(r.DeadLetter, r.DeadLetterStream)
	for _, from := range r.From {
		if !filterd.IsGlob(from) {
			c := registry.Lookup(from)
			add(c.DeadLetter, c.DeadLetterStream)
			continue
		}
		for _, c := range registry.Contracts() {
			if overlap(c.Channel, from) {
				add(c.DeadLetter, c.DeadLetterStream)
			}
		}
	}
	for _, p := range r.places() {
		c := registry.Lookup(p.name)
		add(c.DeadLetter, c.DeadLetterStream)
	}
	return outputs
}

// components returns the strongly connected components, by Tarjan's algorithm
// without recursion: there may be thousands of rules in a row.
func (g *graph) components() [][]int {
	const unseen = -1
	n := len(g.next)
	index, low, onStack := make([]int, n), make([]int, n), make([]bool, n)
	for i := range index {
		index[i] = unseen
	}
	type frame struct{ node, edge int }
	var components [][]int
	var stack []int
	counter := 0
	for root := range n {
		if index[root] != unseen {
			continue
		}
		work := []frame{{root, 0}}
		for len(work) > 0 {
			f := &work[len(work)-1]
			v := f.node
			if f.edge == 0 {
				index[v], low[v] = counter, counter
				counter++
				stack = append(stack, v)
				onStack[v] = true
			} else if w := g.next[v][f.edge-1]; onStack[w] {
				low[v] = min(low[v], low[w])
			}
			for f.edge < len(g.next[v]) && index[g.next[v][f.edge]] != unseen {
				if w := g.next[v][f.edge]; onStack[w] {
					low[v] = min(low[v], index[w])
				}
				f.edge++
			}
			if f.edge < len(g.next[v]) {
				f.edge++
				work = append(work, frame{g.next[v][f.edge-1], 0})
				continue
			}
			if low[v] == index[v] {
				var component []int
				for onStack[v] {
					w := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					onStack[w] = false
					component = append(component, w)
				}
				slices.Sort(component)
				components = append(components, component)
			}
			work = work[:len(work)-1]
		}
	}
	return components
}

// cycle returns the nodes of a shortest way from a rule back to itself, the
// rule first.
func (g *graph) cycle(start int) []int {
	from := map[int]int{}
	for queue := []int{start}; ; queue = queue[1:] { // the rule is on a cycle
		v := queue[0]
		for _, w := range g.next[v] {
			if w == start {
				path := []int{v}
				for path[0] != start {
					path = slices.Insert(path, 0, from[path[0]])
				}
				return path
			}
			if _, seen := from[w]; !seen {
				from[w] = v
				queue = append(queue, w)
			}
		}
	}
}

// describe writes a cycle as "rule → channel → rule → channel → rule".
func (g *graph) describe(path []int) string {
	var parts []string
	for _, node := range append(path, path[0]) {
		if node < len(g.table.rules) {
			parts = append(parts, g.table.rules[node].Name)
		} else if text := g.places[node-len(g.table.rules)].String(); parts[len(parts)-1] != text {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, " → ")
}

// target returns which of the rule's targets leads on to the cycle; 0 where it
// is not one of those in To.
func (g *graph) target(r *rule, path []int) int {
	output := g.places[path[1]-len(g.table.rules)]
	return max(0, slices.IndexFunc(r.To, func(to Target) bool {
		if output.stream {
			return to.Stream == output.name
		}
		if output.sharded {
			return to.Sharded == output.name
		}
		return to.Channel == output.name || to.Computed != nil && slices.Contains(r.Allow, output.name)
	}))
}
