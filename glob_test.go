package filterd_test

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/filterd/filterd"
)

func TestIsGlob(t *testing.T) {
	for name, want := range map[string]bool{
		"": false, "prices": false, "a]b": false, "a-^b": false, "ü": false,
		"*": true, "a?": true, "[a]": true, "a[": true, `a\*`: true, `a\`: true,
	} {
		same(t, name, filterd.IsGlob(name), want)
	}
}

func TestGlobMatch(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{""}, []string{"a"}},
		{"a", []string{"a"}, []string{"", "A", "aa"}},
		{"*", []string{"a", "a.b", "\x00", "\xff"}, []string{""}}, // as in Redis: nothing but "" matches ""
		{"**", []string{"a"}, []string{""}},
		{"?", []string{"a", "\xff"}, []string{"", "ab", "é"}}, // bytes, not characters
		{"??", []string{"é"}, []string{"a"}},
		{"prices.*", []string{"prices.", "prices.btc", "prices.a.b"}, []string{"prices", "xprices.a"}},
		{"*.usd", []string{".usd", "btc.usd", "a.usd.usd"}, []string{"usd", "btc.usd.x"}},
		{"a*b*c", []string{"abc", "aXbYc", "abbcc"}, []string{"acb", "ab"}},
		{"[ab]", []string{"a", "b"}, []string{"", "c", "ab"}},
		{"[^ab]", []string{"c", "^"}, []string{"a", "b", ""}},
		{"[a-c]x", []string{"ax", "cx"}, []string{"dx", "-x"}},
		{"[c-a]x", []string{"ax", "bx"}, []string{"dx"}},      // Redis turns the range round
		{"[a-]", []string{"a", "]", "^"}, []string{"b", "-"}}, // a range from ] to a, and nothing closes the class
		{"[a-]]", []string{"a", "]", "^"}, []string{"b", "-"}},
		{"[-a]", []string{"-", "a"}, []string{"b"}},
		{`[\]]`, []string{"]"}, []string{`\`, "a"}},
		{`[\a-c]`, []string{"a", "-", "c"}, []string{"b", `\`}},
		{`[a-\]`, []string{"a", `\`, "]"}, []string{"b", "-"}},
		{"[^]", []string{"a", "]"}, []string{""}},
		{"[^", []string{"a"}, []string{"", "ab"}},
		{"[]", nil, []string{"", "[", "]", "a"}},
		{"[]a]", nil, []string{"]", "a", "a]"}},
		{"[", nil, []string{"", "["}},
		{"[ab", []string{"a", "b"}, []string{"", "[ab"}},
		{`[\`, []string{`\`}, []string{"[", ""}},
		{`\*`, []string{"*"}, []string{"a", `\*`}},
		{`\a`, []string{"a"}, []string{`\a`}},
		{`a\`, []string{`a\`}, []string{"a"}},
		{"a*[b]*", []string{"ab", "axbx"}, []string{"a", "ax"}},
	} {
		g := filterd.CompileGlob(c.pattern)
		same(t, "text", g.String(), c.pattern)
		for _, name := range c.yes {
			if !g.Match(name) {
				t.Errorf("%q should match %q", c.pattern, name)
			}
		}
		for _, name := range c.no {
			if g.Match(name) {
				t.Errorf("%q should not match %q", c.pattern, name)
			}
		}
	}
}

// redisMatch is Redis' stringmatchlen, statement by statement: slow where
// there are many stars, and right by definition. It is given the pattern
// without the NUL byte that follows it in Redis.
func redisMatch(pattern, name string) bool {
	for len(pattern) > 0 && len(name) > 0 {
		switch {
		case pattern[0] == '*':
			pattern = strings.TrimLeft(pattern, "*")
			if pattern == "" {
				return true
			}
			for ; len(name) > 0; name = name[1:] {
				if redisMatch(pattern, name) {
					return true
				}
			}
			return false
		case pattern[0] == '?':
			pattern = pattern[1:]
		case pattern[0] == '[':
			var in bool
			if in, pattern = redisClass(pattern[1:], name[0]); !in {
				return false
			}
		default:
			if pattern[0] == '\\' && len(pattern) >= 2 {
				pattern = pattern[1:]
			}
			if pattern[0] != name[0] {
				return false
			}
			pattern = pattern[1:]
		}
		name = name[1:]
		if name == "" {
			pattern = strings.TrimLeft(pattern, "*")
		}
	}
	return pattern == "" && name == ""
}

// redisClass reads the inside of a class and returns what follows it.
func redisClass(pattern string, c byte) (in bool, rest string) {
	pattern, not := strings.CutPrefix(pattern, "^")
	for {
		switch {
		case len(pattern) >= 2 && pattern[0] == '\\':
			in = in || pattern[1] == c
			pattern = pattern[2:]
		case pattern == "":
			return in != not, ""
		case pattern[0] == ']':
			return in != not, pattern[1:]
		case len(pattern) >= 3 && pattern[1] == '-':
			in = in || min(pattern[0], pattern[2]) <= c && c <= max(pattern[0], pattern[2])
			pattern = pattern[3:]
		default:
			in = in || pattern[0] == c
			pattern = pattern[1:]
		}
	}
}

// anyGlob generates patterns over an alphabet that has all that is special.
func anyGlob(longest int) *rapid.Generator[string] {
	return rapid.StringOfN(rapid.RuneFrom([]rune(`ab[]^-\*?`)), 0, longest, -1)
}

func TestGlobMatchesReference(t *testing.T) {
	names := allNames("ab]-", 3)
	rapid.Check(t, func(t *rapid.T) {
		pattern := anyGlob(8).Draw(t, "pattern")
		g := filterd.CompileGlob(pattern)
		for _, name := range names {
			if got, want := g.Match(name), redisMatch(pattern, name); got != want {
				t.Fatalf("%q matches %q: %v, want %v", pattern, name, got, want)
			}
		}
	})
}

// allNames returns every name of up to n of the characters.
func allNames(characters string, n int) []string {
	return allPatterns(strings.Split(characters, ""), n)
}

func TestGlobIntersects(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", "*", false},
		{"", "a", false},
		{"*", "*", true},
		{"a", "a", true},
		{"a", "b", false},
		{"a*", "*b", true},
		{"a*", "b*", false},
		{"prices.*", "*.usd", true},
		{"prices.*", "prices", false},
		{"*a*", "*b*", true},
		{"[ab]", "[bc]", true},
		{"[ab]", "[cd]", false},
		{"[^a]", "a", false},
		{"?", "*", true},
		{"??", "a", false},
		{"*", "[", false}, // nothing matches [
		{"*", "a[]b", false},
		{"[", "[", false},
		{"a*c", "a[b]*", true},
		{`\*`, "a", false},
		{"a*b*c", "a??", true},
	} {
		a, b := filterd.CompileGlob(c.a), filterd.CompileGlob(c.b)
		same(t, fmt.Sprintf("%q and %q", c.a, c.b), a.Intersects(b), c.want)
		same(t, fmt.Sprintf("%q and %q", c.b, c.a), b.Intersects(a), c.want)
	}
}

// TestGlobIntersectsCompletely compares Intersects with trying every name, for
// every pair of patterns of up to three elements: the shortest name that
// matches both, if there is one, has no more than six bytes.
func TestGlobIntersectsCompletely(t *testing.T) {
	names := allNames("abc", 6) // c is a character that no pattern names
	patterns := allPatterns([]string{"a", "b", "?", "*", "[ab]", "[^a]", "[]", "[^]"}, 3)
	globs := make([]*filterd.Glob, len(patterns))
	matches := make([]big.Int, len(patterns)) // a bit for each name
	for i, pattern := range patterns {
		globs[i] = filterd.CompileGlob(pattern)
		for j, name := range names {
			if globs[i].Match(name) {
				matches[i].SetBit(&matches[i], j, 1)
			}
		}
	}
	var common big.Int
	for i, p := range patterns {
		for j, q := range patterns {
			want := common.And(&matches[i], &matches[j]).Sign() > 0
			if got := globs[i].Intersects(globs[j]); got != want {
				t.Fatalf("%q intersects %q: %v, want %v", p, q, got, want)
			}
		}
	}
}

// allPatterns returns every pattern of up to n of the elements.
func allPatterns(elements []string, n int) []string {
	patterns := []string{""}
	for start := 0; n > 0; n-- {
		end := len(patterns)
		for _, pattern := range patterns[start:end] {
			for _, e := range elements {
				patterns = append(patterns, pattern+e)
			}
		}
		start = end
	}
	return patterns
}

// TestGlobHostile checks that a pattern which is exponential in a naive
// matcher ends.
func TestGlobHostile(t *testing.T) {
	g := filterd.CompileGlob(strings.Repeat("a*", 200) + "b")
	if g.Match(strings.Repeat("a", 2_000)) {
		t.Error("matches a name without b")
	}
	if h := filterd.CompileGlob(strings.Repeat("*a", 200)); !g.Intersects(filterd.CompileGlob("*b")) || g.Intersects(h) {
		t.Error("wrong about common names")
	}
}

// FuzzGlob compares Match with the reference, and Intersects with a name that
// both patterns match.
func FuzzGlob(f *testing.F) {
	f.Add("a*", "*b", "ab")
	f.Add("[^a-c]?", `\[*`, "[x")
	f.Add("[a-", "[]", "-")
	f.Add("[^", "**", "\xff")
	f.Add(`[\]-a]`, "a**?*b", "aab")
	f.Fuzz(func(t *testing.T, p, q, name string) {
		if strings.Count(p, "*")+strings.Count(q, "*") > 12 || len(name) > 64 {
			return // the reference is exponential
		}
		g, h := filterd.CompileGlob(p), filterd.CompileGlob(q)
		if got, want := g.Match(name), redisMatch(p, name); got != want {
			t.Fatalf("%q matches %q: %v, want %v", p, name, got, want)
		}
		if g.Match(name) && h.Match(name) && !g.Intersects(h) {
			t.Fatalf("%q matches both %q and %q, which do not intersect", name, p, q)
		}
		if g.Intersects(h) != h.Intersects(g) {
			t.Fatalf("%q and %q: not symmetric", p, q)
		}
		if !filterd.IsGlob(p) && !g.Match(p) {
			t.Fatalf("%q is no pattern, but does not match itself", p)
		}
	})
}
