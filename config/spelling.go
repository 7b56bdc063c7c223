package config

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// spelling says where each byte of a scalar's value stands in the text, and at
// the end where the value ends. It returns nil if it can't tell.
//
// The value is known, so that the text is not parsed a second time but walked
// beside it: where they differ, it must be for quoting, indentation or folding.
func (t *text) spelling(n *node) []int {
	s := speller{src: t.src, at: n.offset, value: n.value, offsets: make([]int, 0, len(n.value)+1)}
	switch {
	case n.style&yaml.DoubleQuotedStyle != 0:
		s.at++
		s.walk(s.doubleQuoted)
	case n.style&yaml.SingleQuotedStyle != 0:
		s.at++
		s.walk(s.singleQuoted)
	case n.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		if !s.blockHeader() {
			return nil
		}
		s.walk(s.verbatim)
	default:
		s.walk(s.verbatim)
	}
	if len(s.offsets) != len(n.value)+1 {
		return nil
	}
	return s.offsets
}

type speller struct {
	src     string
	at      int // offset of what is next in src
	value   string
	offsets []int // of what is done of the value
	block   bool
	indent  int // of a block's lines
}

// walk walks along the value. The function take matches what is next in the
// text with a beginning of the value's rest, and returns the lengths of both,
// or a negative length.
func (s *speller) walk(take func(rest string) (src, value int)) {
	for len(s.offsets) < len(s.value) {
		if s.at >= len(s.src) {
			return
		}
		rest := s.value[len(s.offsets):]
		if size := lineBreak(s.src[s.at:]); size > 0 {
			// A line break is a break, or a space, or was dropped.
			if rest[0] == ' ' || rest[0] == '\n' {
				s.offsets = append(s.offsets, s.at)
			}
			s.at += size
			s.newLine()
			continue
		}
		src, value := take(rest)
		if src < 0 {
			// Spaces at the end of a folded line, and lines joined by \.
			if c := s.src[s.at]; c == ' ' || c == '\t' {
				s.at++
				continue
			}
			return
		}
		for range value {
			s.offsets = append(s.offsets, s.at)
		}
		s.at += src
	}
	s.offsets = append(s.offsets, s.at)
}

// newLine skips a line's indentation.
func (s *speller) newLine() {
	for i := 0; s.at < len(s.src) && (s.src[s.at] == ' ' || s.src[s.at] == '\t'); i++ {
		if s.block && i == s.indent {
			return
		}
		s.at++
	}
}

func (s *speller) verbatim(rest string) (int, int) {
	if s.src[s.at] == rest[0] {
		return 1, 1
	}
	return -1, 0
}

func (s *speller) singleQuoted(rest string) (int, int) {
	if rest[0] == '\'' {
		if strings.HasPrefix(s.src[s.at:], "''") {
			return 2, 1
		}
		return -1, 0
	}
	return s.verbatim(rest)
}

func (s *speller) doubleQuoted(rest string) (int, int) {
	if s.src[s.at] != '\\' {
		return s.verbatim(rest)
	}
	if s.at+1 == len(s.src) {
		return -1, 0
	}
	size := 2
	switch c := s.src[s.at+1]; c {
	case 'x':
		size = 4
	case 'u':
		size = 6
	case 'U':
		size = 10
	case '\r', '\n':
		// The lines are joined: no byte of the value stands here.
		s.at += 1 + lineBreak(s.src[s.at+1:])
		s.newLine()
		return 0, 0
	}
	_, value := utf8.DecodeRuneInString(rest)
	return size, value
}

// blockHeader skips the header of a block scalar and finds its indentation.
func (s *speller) blockHeader() bool {
	s.block = true
	next := strings.IndexAny(s.src[s.at:], "\r\n")
	if next < 0 {
		return false
	}
	s.at += next
	s.at += lineBreak(s.src[s.at:])

	// The first line that is more than spaces tells: it has its indentation
	// in the text, and what is left of it in the value.
	inValue := strings.TrimLeft(s.value, "\n")
	inText := s.src[s.at:]
	for {
		blank := strings.TrimLeft(inText, " ")
		size := lineBreak(blank)
		if size == 0 {
			break
		}
		inText = blank[size:]
	}
	spaces := func(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
	s.indent = spaces(inText) - spaces(inValue)
	if s.indent < 0 {
		return false
	}
	s.newLine()
	return true
}

// span returns the offset and length in the text of length bytes, from
// offset, of a scalar's value. Where that is not known it is the scalar's
// first byte.
func (t *text) span(n *node, offset, length int) (int, int) {
	offsets := t.spelling(n)
	if offsets == nil || offset < 0 || length < 0 {
		return n.offset, 1
	}
	// A fault at the end is shown right behind the text, not on the next line.
	if end := len(strings.TrimRight(n.value, " \t\r\n")); offset > end {
		offset, length = end, 0
	}
	offset = min(offset, len(n.value))
	end := min(offset+length, len(n.value))
	if end > offset && end < len(offsets) {
		return offsets[offset], offsets[end-1] + 1 - offsets[offset]
	}
	if offset == len(n.value) || offset > 0 && lineBreak(t.src[offsets[offset]:]) > 0 {
		if offset == 0 {
			return n.offset, 1
		}
		return offsets[offset-1] + 1, 1
	}
	return offsets[offset], 1
}

// whole returns the offset and length of a node, for a caret below it.
func (t *text) whole(n *node) (int, int) {
	if n.kind != scalarNode || n.blank() {
		return n.offset, 1
	}
	offsets := t.spelling(n)
	if offsets == nil || n.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return n.offset, 1
	}
	end := offsets[len(n.value)]
	if !n.plain() {
		end++ // the closing quote
	}
	return n.offset, end - n.offset
}
