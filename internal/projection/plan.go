package projection

import (
	"cmp"
	"math/bits"
	"slices"
)

// A Step leads from a value to one in it: to the element at Index, or to the
// member of that name if Index is negative.
type Step struct {
	Name  string
	Index int
}

// A Plan says which values of a document are read. It is a tree: node 0 is the
// document, and below a node are the parts of its value that are read, or that
// lead to some that are. Nodes are numbered so that all nodes below a node
// follow each other. It is safe for concurrent use, and nothing about it changes
// but what it remembers of the documents that it has read.
type Plan struct {
	nodes  []node
	common int32 // nodes up to this one are those of the common names
	shapes shapes
}

type node struct {
	first, end int32 // the nodes below it
	members    names
	elements   []element // by index
}

type element struct {
	index int
	node  int32
}

// NewPlan makes a plan of paths, and returns the node of each. The members of
// the document that are named in common are read in any case: they have the
// nodes 1, 2, and so on.
func NewPlan(common []string, paths [][]Step) (*Plan, []int) {
	root := &branch{}
	for _, name := range common {
		root.below(Step{Name: name, Index: -1})
	}
	p := &Plan{common: int32(len(root.children))}
	ends := make([]*branch, len(paths))
	for i, path := range paths {
		ends[i] = root
		for _, step := range path {
			ends[i] = ends[i].below(step)
		}
	}
	p.nodes = make([]node, 1)
	p.grow(root)
	nodes := make([]int, len(paths))
	for i, end := range ends {
		nodes[i] = end.node
	}
	return p, nodes
}

// Nodes returns how many nodes the plan has: at least 1.
func (p *Plan) Nodes() int { return len(p.nodes) }

// A branch is a node of a plan in the making.
type branch struct {
	node     int
	children []*branch
	steps    []Step // to the children
	byStep   map[Step]*branch
}

func (b *branch) below(step Step) *branch {
	if b.byStep == nil {
		b.byStep = make(map[Step]*branch)
	}
	child := b.byStep[step]
	if child == nil {
		child = &branch{}
		b.byStep[step] = child
		b.children = append(b.children, child)
		b.steps = append(b.steps, step)
	}
	return child
}

// grow numbers what is below a branch that has its number.
func (p *Plan) grow(b *branch) {
	first := len(p.nodes)
	p.nodes = append(p.nodes, make([]node, len(b.children))...)
	n := node{first: int32(first)}
	var members []name
	for i, step := range b.steps {
		b.children[i].node = first + i
		if step.Index < 0 {
			members = append(members, name{load([]byte(step.Name), 0), step.Name, int32(first + i)})
		} else {
			n.elements = append(n.elements, element{step.Index, int32(first + i)})
		}
	}
	n.members = newNames(members)
	slices.SortFunc(n.elements, func(a, b element) int { return cmp.Compare(a.index, b.index) })
	for _, child := range b.children {
		p.grow(child)
	}
	n.end = int32(len(p.nodes))
	p.nodes[b.node] = n
}

// names finds the nodes of an object's members: a hash table that is at most
// half full.
type names struct {
	table []name
	shift uint8 // makes an index of a hash
	// byName takes over where hashes coincide: names are written by people
	// who need not be friendly.
	byName map[string]int32
}

// A name is a place in the table; no name leads to node 0.
type name struct {
	prefix uint64 // the first eight bytes of text
	text   string
	node   int32
}

// maxProbes is how many places of the table a search looks at.
const maxProbes = 8

func newNames(all []name) names {
	if len(all) == 0 {
		return names{}
	}
	size := bits.Len(uint(2*len(all) - 1))
	n := names{table: make([]name, 1<<size), shift: uint8(64 - size)}
	for _, add := range all {
		at := n.start(add.prefix)
		for tried := 1; n.table[at].node != 0; tried++ {
			if tried == maxProbes {
				return namesInMap(all)
			}
			at = n.next(at)
		}
		n.table[at] = add
	}
	return n
}

func namesInMap(all []name) names {
	byName := make(map[string]int32, len(all))
	for _, add := range all {
		byName[add.text] = add.node
	}
	return names{byName: byName}
}

func (n *names) empty() bool { return n.table == nil && n.byName == nil }

// start returns where the search for a name starts, next where it goes on.
func (n *names) start(prefix uint64) uint64 { return prefix * 0x9e3779b97f4a7c15 >> (n.shift & 63) }
func (n *names) next(at uint64) uint64      { return (at + 1) & uint64(len(n.table)-1) }

// find returns the node of a name, whose first eight bytes are the prefix, and
// 0 if nobody reads it.
func (n *names) find(prefix uint64, text []byte) int32 {
	if n.byName != nil {
		return n.byName[string(text)]
	}
	for at := n.start(prefix); at < uint64(len(n.table)); at = n.next(at) {
		place := &n.table[at]
		if place.prefix == prefix && len(place.text) == len(text) && (len(text) <= 8 || place.text[8:] == string(text[8:])) || place.node == 0 {
			return place.node
		}
	}
	return 0
}
