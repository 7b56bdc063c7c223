package filterd

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
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

// A step leads from a value to a member of it, or to an element.
type step struct {
	name  string
	index int // used if it is not -1
}

func parsePath(text string) (Path, []step, error) {
	if len(text) > maxPath {
		return "", nil, fmt.Errorf("path of %d bytes is over the limit of %d", len(text), maxPath)
	}
	fail := func(rest, format string, args ...any) (Path, []step, error) {
		return "", nil, fmt.Errorf("path %q, byte %d: %s", text, len(text)-len(rest)+1, fmt.Sprintf(format, args...))
	}
	end := strings.IndexAny(text+".", ".[")
	root, rest := Path(text[:end]), text[end:]
	if root != PathData && root != PathEvent {
		return fail(text, "want data or event")
	}
	var steps []step
	canonical := string(root)
	for rest != "" {
		if rest[0] == '.' {
			n := identifier(rest[1:])
			if n == 0 {
				return fail(rest[1:], "want a name after the dot")
			}
			steps = append(steps, step{name: rest[1 : 1+n], index: -1})
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
			steps = append(steps, step{name: key, index: -1})
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
			steps = append(steps, step{index: index})
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
// that each is looked up once for all its readers. It is immutable.
type Projection struct {
	paths []Path
	steps [][]step // of the paths
	slots map[Path]int
}

// NewProjection unites the paths of all readers. It panics on a path that
// [ParsePath] refuses and that is not [PathChannel].
func NewProjection(readers ...[]Path) *Projection {
	p := &Projection{slots: make(map[Path]int)}
	for _, paths := range readers {
		for _, path := range paths {
			if _, ok := p.slots[path]; ok {
				continue
			}
			var steps []step
			if path != PathChannel {
				var err error
				if _, steps, err = parsePath(string(path)); err != nil {
					panic("filterd: " + err.Error())
				}
			}
			p.slots[path] = len(p.paths)
			p.paths = append(p.paths, path)
			p.steps = append(p.steps, steps)
		}
	}
	return p
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
