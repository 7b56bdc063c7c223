package config

import (
	"regexp"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSize is the largest file, in bytes, that is read: a config, a schema. It
// is also how much aliases may add to a config.
const maxSize = 16 << 20

// maxExcerpt is the longest excerpt, in characters, and maxMask is how many
// bytes on both sides of it are searched for the passwords that are in it.
const (
	maxExcerpt = 120
	maxMask    = 4 << 10
)

// A text is the config file's text. A place in it is an offset in bytes.
type text struct {
	name  string
	src   string
	lines []int // offset of each line's first byte
}

// newText indexes a text, without its byte order mark. Lines end where YAML
// ends them.
func newText(name, src string) *text {
	t := &text{name: name, src: strings.TrimPrefix(src, "\uFEFF"), lines: []int{0}}
	for i := 0; i < len(t.src); {
		n := lineBreak(t.src[i:])
		if n == 0 {
			i++
			continue
		}
		i += n
		t.lines = append(t.lines, i)
	}
	return t
}

// lineBreak returns the length of the line break that s begins with, or 0.
func lineBreak(s string) int {
	switch {
	case strings.HasPrefix(s, "\r\n"), strings.HasPrefix(s, "\u0085"):
		return 2
	case strings.HasPrefix(s, "\n"), strings.HasPrefix(s, "\r"):
		return 1
	case strings.HasPrefix(s, "\u2028"), strings.HasPrefix(s, "\u2029"):
		return 3
	}
	return 0
}

// line returns the index into lines of the line that holds an offset.
func (t *text) line(offset int) int {
	return sort.Search(len(t.lines), func(i int) bool { return t.lines[i] > offset }) - 1
}

// lineText returns the i-th line, without its break, and its offset.
func (t *text) lineText(i int) (string, int) {
	start, end := t.lines[i], len(t.src)
	if i+1 < len(t.lines) {
		end = t.lines[i+1]
	}
	return strings.TrimRight(t.src[start:end], "\r\n\u0085\u2028\u2029"), start
}

// position returns an offset's line and column, from 1, in characters.
func (t *text) position(offset int) (line, column int) {
	i := t.line(offset)
	return i + 1, 1 + utf8.RuneCountInString(t.src[t.lines[i]:offset])
}

// readable looks for what no YAML file may hold, and returns its offset.
func (t *text) readable() (offset int, message string, ok bool) {
	for i := 0; i < len(t.src); {
		c := t.src[i]
		switch {
		case c >= ' ' && c < 0x7F, c == '\n', c == '\r', c == '\t':
			i++
			continue
		case c < utf8.RuneSelf:
			return i, "control characters are not allowed", false
		}
		r, size := utf8.DecodeRuneInString(t.src[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return i, "the file is not UTF-8", false
		case r < 0xA0 && r != 0x85, r == 0xFFFE, r == 0xFFFF, r == 0xFEFF:
			return i, "control characters are not allowed", false
		}
		i += size
	}
	return 0, "", true
}

// problem makes a problem of length bytes at offset.
func (t *text) problem(offset, length int, key, hint, message string) Problem {
	offset = max(0, min(offset, len(t.src)))
	p := Problem{File: t.name, Key: key, Hint: hint, Message: message, offset: offset}
	p.Line, p.Column = t.position(offset)
	line, start := t.lineText(p.Line - 1)
	within := min(offset-start, len(line)) // offset may be in the line break
	rest := line[within:]
	p.Length = max(1, utf8.RuneCountInString(rest[:max(0, min(length, len(rest)))]))

	// A window around the fault, if the line is long. Secrets are looked for in
	// somewhat more than the window, since a key may lie before it.
	from, to := within, within
	for n := 0; from > 0 && n < maxExcerpt/3; n++ {
		_, size := utf8.DecodeLastRuneInString(line[:from])
		from -= size
	}
	for n := utf8.RuneCountInString(line[from:within]); to < len(line) && n < maxExcerpt; n++ {
		_, size := utf8.DecodeRuneInString(line[to:])
		to += size
	}
	for n := utf8.RuneCountInString(line[from:to]); from > 0 && n < maxExcerpt; n++ {
		_, size := utf8.DecodeLastRuneInString(line[:from])
		from -= size
	}
	p.Length = min(p.Length, max(1, utf8.RuneCountInString(line[within:to])))
	near := max(0, from-maxMask)
	hidden := secretBytes(line[near:min(len(line), to+maxMask)])
	var excerpt, indent strings.Builder
	if from > 0 {
		excerpt.WriteRune('…')
		indent.WriteByte(' ')
	}
	for i, r := range line[from:to] {
		switch {
		case hidden[from+i-near]:
			r = '*'
		case r != '\t' && !unicode.IsPrint(r):
			r = utf8.RuneError
		}
		excerpt.WriteRune(r)
		if from+i < within {
			if r != '\t' {
				r = ' '
			}
			indent.WriteRune(r)
		}
	}
	if to < len(line) {
		excerpt.WriteRune('…')
	}
	p.Excerpt, p.indent = strings.TrimRight(excerpt.String(), " \t"), indent.String()
	return p
}

var (
	passwordKey = regexp.MustCompile(`(?i)(?:password|token)["']?\s*:\s*`)
	urlPassword = regexp.MustCompile(`://[^\s@/]*@`)
)

// secretBytes says which bytes of a line are passwords. It goes by the line's
// looks, since the fault may be that the line is no YAML. References to where
// a password is are none.
func secretBytes(line string) []bool {
	hidden := make([]bool, len(line))
	hide := func(from, to int) {
		for i := from; i < to; i++ {
			hidden[i] = true
		}
	}
	for _, m := range passwordKey.FindAllStringIndex(line, -1) {
		value := line[m[1]:]
		if strings.HasPrefix(strings.TrimLeft(value, `"'`), "${") {
			continue
		}
		end := len(value)
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			if i := strings.IndexByte(value[1:], value[0]); i >= 0 {
				end = i + 2
			}
		} else if i := strings.IndexAny(value, ",} "); i >= 0 {
			end = i
		}
		hide(m[1], m[1]+end)
	}
	for _, m := range urlPassword.FindAllStringIndex(line, -1) {
		user := line[m[0]+len("://") : m[1]-len("@")]
		if i := strings.IndexByte(user, ':'); i >= 0 && !strings.HasPrefix(user[i+1:], "${") {
			hide(m[1]-len("@")-len(user[i+1:]), m[1]-len("@"))
		}
	}
	return hidden
}
