package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxProblems is how many problems are collected before the rest is dropped:
// nobody reads more, and each one costs an excerpt.
const maxProblems = 1000

// A Problem is one thing that is wrong, or suspicious, about a config file.
type Problem struct {
	File string `json:"file"`
	// Line and Column say where, from 1, counted in characters. Line is 0
	// where no place in the file is to blame, such as a file that is missing.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Length is how many characters of the line are at fault.
	Length int `json:"length,omitempty"`
	// Key is the key at fault, as in "rules.whales.when"; empty where there
	// is none.
	Key string `json:"key,omitempty"`
	// Message says what is wrong.
	Message string `json:"message"`
	// Hint says what to do about it; may be empty.
	Hint string `json:"hint,omitempty"`
	// Excerpt is the line, or a part of a very long one, with passwords
	// masked.
	Excerpt string `json:"excerpt,omitempty"`

	indent string // what precedes the caret below Excerpt
	offset int
}

// String returns the problem as it is shown to people: the position, key and
// message, and below it the line with a caret under the fault.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	if strings.TrimSpace(p.Excerpt) == "" {
		if p.Hint != "" {
			b.WriteString(": " + p.Hint)
		}
		return b.String()
	}
	fmt.Fprintf(&b, "\n%5d | %s", p.Line, p.Excerpt)
	fmt.Fprintf(&b, "\n      | %s^%s", p.indent, strings.Repeat("~", max(p.Length-1, 0)))
	if p.Hint != "" {
		b.WriteString(" " + p.Hint)
	}
	return b.String()
}

// An Error reports everything that is wrong with a config file.
type Error struct {
	// Problems holds at least one problem, in the order of the file.
	Problems []Problem
	// Files are the files that were read, or tried: what is wrong may be
	// mended in any of them.
	Files []File

	cause error
}

// Error returns every problem as [Problem.String] shows it, a line break
// between them.
func (e *Error) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.String()
	}
	return strings.Join(texts, "\n")
}

// Unwrap returns the error of the operating system if the file itself could
// not be read, and nil if the problems say all.
func (e *Error) Unwrap() error { return e.cause }

// problems collects what is wrong with one text.
type problems struct {
	text *text
	list []Problem
	more int // dropped: over maxProblems
}

// add reports a problem with length bytes of the text.
func (p *problems) add(offset, length int, key, hint, message string) {
	if len(p.list) == maxProblems {
		p.more++
		return
	}
	p.list = append(p.list, p.text.problem(offset, length, key, printable(hint), printable(message)))
}

// printable escapes what would break a line, or a terminal: a message may
// repeat what is in the file.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// sorted returns the problems in the order of the text, each once: a node
// that is used in several places is read several times.
func (p *problems) sorted() []Problem {
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.Key, b.Key))
	})
	list := slices.Compact(p.list)
	if p.more > 0 {
		list = append(list, Problem{File: p.text.name, Message: fmt.Sprintf("and %d more problems", p.more)})
	}
	return list
}

// quote returns a name of the file for a message: shortened, and in quotes
// where it is more than letters, digits and common signs.
func quote(name string) string {
	const limit = 64
	shown := name
	if len(shown) > limit {
		shown = strings.ToValidUTF8(shown[:limit], "") + "…"
	}
	for _, r := range shown {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_-.:/*?+$@…", r):
		default:
			return fmt.Sprintf("%q", shown)
		}
	}
	if shown == "" {
		return `""`
	}
	return shown
}

// below returns the key of a member.
func below(key, name string) string {
	if key == "" {
		return quote(name)
	}
	return key + "." + quote(name)
}

// element returns the key of a list's element.
func element(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
