package filterd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/filterd/filterd/internal/projection"
)

// A Path names a value of a message: a root, then members and elements, as in
//
//	data.items[0]["odd key"]
//
// Use [ParsePath] for a text that comes from elsewhere: equal paths have equal
// texts then.
type Path string

// The roots: what an expression calls data, event and channel.
const (
	PathData    Path = "data"
	PathEvent   Path = "event"
	PathChannel Path = "channel"
)

// maxPath is the longest path, in bytes.
const maxPath = 1 << 10

// ParsePath parses data or event, followed by any of .name, ["name"] (a JSON
// string) and [index]. Names after a dot are identifiers.
func ParsePath(text string) (Path, error) {
	path, _, err := parsePath(text)
	return path, err
}

func parsePath(text string) (Path, []projection.Step, error) {
	if len(text) > maxPath {
		return "", nil, fmt.Errorf("path of %d bytes is over the limit of %d", len(text), maxPath)
	}
	fail := func(rest, format string, args ...any) (Path, []projection.Step, error) {
		return "", nil, fmt.Errorf("path %q, byte %d: %s", text, len(text)-len(rest)+1, fmt.Sprintf(format, args...))
	}
	end := strings.IndexAny(text+".", ".[")
	root, rest := Path(text[:end]), text[end:]
	if root != PathData && root != PathEvent {
		return fail(text, "want data or event")
	}
	var steps []projection.Step
	canonical := string(root)
	for rest != "" {
		if rest[0] == '.' {
			n := identifier(rest[1:])
			if n == 0 {
				return fail(rest[1:], "want a name after the dot")
			}
			steps = append(steps, projection.Step{Name: rest[1 : 1+n], Index: -1})
			canonical += rest[:1+n]
			rest = rest[1+n:]
			continue
		}
		if rest[0] != '[' {
			return fail(rest, "want . or [")
		}
		d := json.NewDecoder(strings.NewReader(rest[1:]))
		d.UseNumber()
		var key any
		if err := d.Decode(&key); err != nil {
			return fail(rest[1:], "want a string or an index")
		}
		after := 1 + int(d.InputOffset())
		if after >= len(rest) || rest[after] != ']' {
			return fail(rest[min(after, len(rest)):], "want ]")
		}
		switch key := key.(type) {
		case string:
			steps = append(steps, projection.Step{Name: key, Index: -1})
			if n := identifier(key); n == len(key) && n > 0 {
				canonical += "." + key
			} else {
				canonical = string(AppendString([]byte(canonical+"["), key)) + "]"
			}
		case json.Number:
			index, err := strconv.Atoi(key.String())
			if err != nil || index < 0 {
				return fail(rest[1:], "want an index from 0")
			}
			steps = append(steps, projection.Step{Index: index})
			canonical += "[" + strconv.Itoa(index) + "]"
		default:
			return fail(rest[1:], "want a string or an index")
		}
		rest = rest[after+1:]
	}
	return Path(canonical), steps, nil
}

// identifier returns the length of the identifier that a text starts with.
func identifier(text string) int {
	for i, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '$':
		case i > 0 && c >= '0' && c <= '9':
		default:
			return i
		}
	}
	return len(text)
}

// A Projection numbers the paths that are read from a channel's messages, so
// that one pass over a payload finds the values of all. It is immutable.
type Projection struct {
	paths []Path
	slots map[Path]int
	plan  *projection.Plan
	nodes [][readings]int32 // of the plan, by slots
	// attributes are the nodes of an event's attributes that are read.
	attributes []int32
}

// What stands for a node where there is none.
const (
	missingNode int32 = -1 - iota
	textNode          // the data, which is a text and not JSON
	channelNode
)

// noPaths is what is read of a message that isn't bound.
var noPaths = NewProjection()

// NewProjection unites the paths of all readers. It panics on a path that
// [ParsePath] refuses and that is not [PathChannel].
func NewProjection(readers ...[]Path) *Projection {
	p := &Projection{slots: make(map[Path]int)}
	var plan planBuilder
	for _, paths := range readers {
		for _, path := range paths {
			if _, ok := p.slots[path]; !ok {
				p.slots[path] = len(p.paths)
				p.paths = append(p.paths, path)
				p.nodes = append(p.nodes, plan.add(len(p.paths)-1, path))
			}
		}
	}
	var nodes []int
	p.plan, nodes = projection.NewPlan(members[:], plan.paths)
	for i, n := range nodes {
		p.nodes[plan.slots[i]][plan.readings[i]] = int32(n)
		if plan.readings[i] == readBinary {
			p.attributes = append(p.attributes, int32(n))
		}
	}
	return p
}

// A planBuilder collects where in a document the slots are to be read, for
// every reading in which they are there.
type planBuilder struct {
	paths    [][]projection.Step
	slots    []int
	readings []reading
}

// add adds a slot, and returns its nodes as far as they don't depend on the
// plan.
func (b *planBuilder) add(slot int, path Path) (nodes [readings]int32) {
	fill := func(n int32) {
		for r := range nodes {
			nodes[r] = n
		}
	}
	if path == PathChannel {
		fill(channelNode)
		return nodes
	}
	_, steps, err := parsePath(string(path))
	if err != nil {
		panic("filterd: " + err.Error())
	}
	fill(missingNode)
	read := func(r reading, steps []projection.Step) {
		b.paths, b.slots, b.readings = append(b.paths, steps), append(b.slots, slot), append(b.readings, r)
	}
	switch {
	case path[0] == PathData[0]:
		read(readRaw, steps)
		read(readEvent, slices.Concat([]projection.Step{{Name: "data", Index: -1}}, steps))
		if len(steps) == 0 {
			nodes[readBinary], nodes[readBytes] = textNode, textNode
		}
	case len(steps) == 0:
		nodes[readEvent], nodes[readBinary] = 0, 0 // the document
	case len(steps) == 1 && steps[0].Index < 0 && steps[0].Name != "data" && steps[0].Name != "data_base64":
		read(readEvent, steps)
		read(readBinary, steps)
	}
	return nodes // an attribute has no members
}

// Slots returns the slot of each path, which must be among those that the
// projection was made of.
func (p *Projection) Slots(paths []Path) []int {
	slots := make([]int, len(paths))
	for i, path := range paths {
		slot, ok := p.slots[path]
		if !ok {
			panic("filterd: path " + string(path) + " is not in the projection")
		}
		slots[i] = slot
	}
	return slots
}
