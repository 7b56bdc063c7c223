package filterd

import "slices"

// A Glob is a compiled Redis pattern: what PSUBSCRIBE takes, where * stands
// for any bytes, ? for one, [a-c] and [^a-c] for one of a class, and \x for x
// itself. Like Redis it works on bytes, not characters. Safe for concurrent
// use.
type Glob struct {
	pattern string
	tokens  []token
}

// A token is one element of a pattern: a run of any bytes, or one byte of a
// class.
type token struct {
	star  bool
	class [256 / 64]uint64
}

func (t *token) add(c byte)      { t.class[c/64] |= 1 << (c % 64) }
func (t *token) has(c byte) bool { return t.class[c/64]&(1<<(c%64)) != 0 }

// never reports whether no byte is in the class, as in [].
func (t token) never() bool { return !t.star && t.class == [4]uint64{} }

func (t *token) meets(u *token) bool {
	for i := range t.class {
		if t.class[i]&u.class[i] != 0 {
			return true
		}
	}
	return false
}

// IsGlob reports whether name is a pattern rather than the name of a channel.
func IsGlob(name string) bool {
	for i := range len(name) {
		switch name[i] {
		case '*', '?', '[', '\\':
			return true
		}
	}
	return false
}

// CompileGlob compiles a pattern. Every string is one: as in Redis, a class
// that isn't closed ends with the pattern, and a last backslash stands for
// itself.
func CompileGlob(pattern string) *Glob {
	g := &Glob{pattern: pattern}
	for i := 0; i < len(pattern); i++ {
		var t token
		switch c := pattern[i]; {
		case c == '*':
			if n := len(g.tokens); n > 0 && g.tokens[n-1].star {
				continue
			}
			t.star = true
		case c == '?':
			t.class = [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		case c == '[':
			i = t.readClass(pattern, i+1)
		case c == '\\' && i+1 < len(pattern):
			i++
			t.add(pattern[i])
		default:
			t.add(c)
		}
		g.tokens = append(g.tokens, t)
	}
	return g
}

// readClass reads the class whose inside starts at i and returns the offset
// of its last byte.
func (t *token) readClass(pattern string, i int) int {
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	for ; i < len(pattern) && pattern[i] != ']'; i++ {
		switch {
		case pattern[i] == '\\' && i+1 < len(pattern):
			i++
			t.add(pattern[i])
		case i+2 < len(pattern) && pattern[i+1] == '-':
			low, high := min(pattern[i], pattern[i+2]), max(pattern[i], pattern[i+2])
			for c := int(low); c <= int(high); c++ {
				t.add(byte(c))
			}
			i += 2
		default:
			t.add(pattern[i])
		}
	}
	if not {
		for j := range t.class {
			t.class[j] = ^t.class[j]
		}
	}
	return i
}

// String returns the pattern.
func (g *Glob) String() string { return g.pattern }

// Match reports whether the pattern matches the whole name, in time
// proportional to the product of their lengths at worst. As in Redis, only the
// empty pattern matches the empty name.
func (g *Glob) Match(name string) bool {
	if name == "" {
		return len(g.tokens) == 0
	}
	t, n := 0, 0
	star, resume := -1, 0 // the last star seen, and where to resume after it
	for n < len(name) {
		switch {
		case t < len(g.tokens) && g.tokens[t].star:
			star, resume = t, n
			t++
		case t < len(g.tokens) && g.tokens[t].has(name[n]):
			t++
			n++
		case star >= 0:
			resume++
			t, n = star+1, resume
		default:
			return false
		}
	}
	for t < len(g.tokens) && g.tokens[t].star {
		t++
	}
	return t == len(g.tokens)
}

// Intersects reports whether some name matches both patterns.
func (g *Glob) Intersects(h *Glob) bool {
	if len(g.tokens) == 0 || len(h.tokens) == 0 {
		return len(g.tokens) == len(h.tokens) // only the empty name matches an empty pattern, and no other
	}
	if slices.ContainsFunc(g.tokens, token.never) || slices.ContainsFunc(h.tokens, token.never) {
		return false
	}
	// reach[j] says whether g's first i tokens and h's first j tokens have a
	// common string; a star may stand for nothing or take what the other
	// pattern's next token takes.
	reach := make([]bool, len(h.tokens)+1)
	for i := 0; i <= len(g.tokens); i++ {
		diagonal := false // reach[j-1] of the row above
		for j := 0; j <= len(h.tokens); j++ {
			above := reach[j] && i > 0
			ok := i == 0 && j == 0
			if i > 0 {
				star := g.tokens[i-1].star
				ok = ok || above && star
				if j > 0 {
					ok = ok || reach[j-1] && star
				}
			}
			if j > 0 {
				star := h.tokens[j-1].star
				ok = ok || reach[j-1] && star
				if i > 0 {
					ok = ok || above && star
					both := g.tokens[i-1].star || h.tokens[j-1].star
					ok = ok || diagonal && (both || g.tokens[i-1].meets(&h.tokens[j-1]))
				}
			}
			diagonal, reach[j] = above, ok
		}
	}
	return reach[len(h.tokens)]
}

// literalPrefix returns how many bytes of every matching name the pattern
// fixes.
func (g *Glob) literalPrefix() int {
	for i, t := range g.tokens {
		if t.star || !t.single() {
			return i
		}
	}
	return len(g.tokens)
}

func (t *token) single() bool {
	n := 0
	for _, word := range t.class {
		for ; word != 0; word &= word - 1 {
			n++
		}
	}
	return n == 1
}
