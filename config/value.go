package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/filterd/filterd/internal/spelling"
)

// fail reports a problem with a node.
func (l *loader) fail(key string, n *node, hint, format string, args ...any) {
	if n.faulty {
		return // it is but a consequence
	}
	offset, length := l.problems.text.whole(n)
	l.problems.add(offset, length, key, hint, fmt.Sprintf(format, args...))
}

// want reports a node of the wrong type.
func (l *loader) want(key string, n *node, hint, what string) {
	l.fail(key, n, hint, "want %s, not %s", what, n.what())
}

// A section is a mapping with known keys.
type section struct {
	key  string
	node *node
}

// section reads a mapping whose keys are those of a spec.
func (l *loader) section(key string, n *node, known []string) (section, bool) {
	if n.kind != mappingNode {
		l.want(key, n, "", "a mapping")
		return section{}, false
	}
	for _, e := range n.entries {
		name := e.key.value
		if !contains(known, name) {
			hint := ""
			if near := spelling.Nearest(name, known); near != "" {
				hint = "did you mean " + near + "?"
			} else if len(known) <= 6 {
				hint = "known here: " + strings.Join(known, ", ")
			}
			l.fail(below(key, name), e.key, hint, "unknown key")
		}
	}
	return section{key, n}, true
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// get returns the value of one of the section's keys, or nil, and the key's
// full name.
func (s section) get(name string) (string, *node) {
	if s.key == "" {
		return name, s.node.get(name)
	}
	return s.key + "." + name, s.node.get(name)
}

// text reads a text. Under rules ${…} is left alone.
func (l *loader) text(key string, n *node) (string, bool) {
	if n.kind != scalarNode || n.tag != tagText {
		hint := ""
		if n.kind == scalarNode && !n.blank() {
			hint = "put it in quotes"
		}
		l.want(key, n, hint, "text")
		return "", false
	}
	if strings.HasPrefix(key, "rules.") {
		return n.value, true
	}
	return l.substitute(key, n)
}

// optionalText reads a text that may be left out, but not be empty.
func (l *loader) optionalText(s section, name string) string {
	key, n := s.get(name)
	if n == nil {
		return ""
	}
	value, ok := l.text(key, n)
	if ok && value == "" {
		l.fail(key, n, "give a value or leave the key out", "is empty")
	}
	return value
}

// texts reads a list of texts, and one text as a list of one.
func (l *loader) texts(key string, n *node, what string) (values []string, nodes []*node, ok bool) {
	if n.kind == scalarNode && n.tag == tagText {
		value, ok := l.text(key, n)
		return []string{value}, []*node{n}, ok
	}
	if n.kind != listNode {
		l.want(key, n, "", what)
		return nil, nil, false
	}
	ok = true
	for i, item := range n.items {
		value, fine := l.text(element(key, i), item)
		ok = ok && fine
		values, nodes = append(values, value), append(nodes, item)
	}
	return values, nodes, ok
}

// scalar reads a scalar that is not text: a reference counts as what it
// stands for.
func (l *loader) scalar(key string, n *node) (value string, ok bool) {
	if n.plain() && strings.Contains(n.value, "${") {
		return l.substitute(key, n)
	}
	return n.value, true
}

// integer reads a whole number.
func (l *loader) integer(key string, n *node, least, most int) (int, bool) {
	value, ok := l.scalar(key, n)
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(strings.ReplaceAll(value, "_", ""))
	if n.kind != scalarNode || n.tag != tagInt && value == n.value || err != nil && value != n.value {
		if value != n.value {
			l.wantReferred(key, n, "a whole number")
		} else {
			l.want(key, n, "", "a whole number")
		}
		return 0, false
	}
	if err != nil || i < least || i > most {
		l.fail(key, n, "", "want a number from %d to %d", least, most)
		return 0, false
	}
	return i, true
}

// duration reads a span of time, such as 15s or 1m30s.
func (l *loader) duration(key string, n *node, least, most time.Duration) (time.Duration, bool) {
	value, ok := l.scalar(key, n)
	if !ok {
		return 0, false
	}
	const what = "a time such as 500ms, 15s or 1m"
	d, err := time.ParseDuration(value)
	switch {
	case (n.kind != scalarNode || err != nil) && value != n.value:
		l.wantReferred(key, n, what)
	case n.kind != scalarNode:
		l.want(key, n, "", what)
	case err != nil:
		l.fail(key, n, "", "want %s, not %s", what, quote(n.value))
	case d < least || d > most:
		l.fail(key, n, "", "want a time from %v to %v", least, most)
	default:
		return d, true
	}
	return 0, false
}

// boolean reads true or false.
func (l *loader) boolean(key string, n *node) (value, ok bool) {
	text, ok := l.scalar(key, n)
	if !ok {
		return false, false
	}
	if n.kind == scalarNode && (n.tag == tagBool || text != n.value) {
		switch text {
		case "true", "True", "TRUE":
			return true, true
		case "false", "False", "FALSE":
			return false, true
		}
	}
	if text != n.value {
		l.wantReferred(key, n, "true or false")
	} else {
		l.want(key, n, "", "true or false")
	}
	return false, false
}

// oneOf reads one of a few words.
func (l *loader) oneOf(key string, n *node, words ...string) (string, bool) {
	if n.kind != scalarNode || n.tag != tagText {
		l.want(key, n, "", alternatives(words))
		return "", false
	}
	value, ok := l.text(key, n)
	if !ok {
		return "", false
	}
	if contains(words, value) {
		return value, true
	}
	l.unknown(key, n, value, words)
	return "", false
}

// unknown reports a value that is none of a few words.
func (l *loader) unknown(key string, n *node, value string, words []string) {
	if value != n.value {
		l.wantReferred(key, n, alternatives(words))
		return
	}
	hint := ""
	if near := spelling.Nearest(value, words); near != "" {
		hint = "did you mean " + near + "?"
	}
	l.fail(key, n, hint, "unknown value %s: want %s", quote(value), alternatives(words))
}

// wantReferred reports a value that came from the environment, without showing
// it: nobody knows what it was meant for.
func (l *loader) wantReferred(key string, n *node, what string) {
	l.fail(key, n, "", "want %s, and that is not what %s stands for", what, quote(n.value))
}

// alternatives joins words: a, b or c.
func alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// file resolves a path of the config, which is relative to the config's
// folder.
func (l *loader) file(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.folder, name)
}

// regularFile describes a file that is to be read. It refuses what has no end
// or doesn't answer: devices, pipes.
func (l *loader) regularFile(name string, limit int64) (fs.FileInfo, error) {
	info, err := os.Stat(l.file(name))
	var of *fs.PathError
	switch {
	case errors.As(err, &of):
		return nil, fmt.Errorf("%s: %w", quote(name), of.Err)
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder", quote(name))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", quote(name))
	case info.Size() > limit:
		return nil, fmt.Errorf("%s is larger than %d KiB", quote(name), limit>>10)
	}
	return info, nil
}

// json appends a node's value as compact JSON. Numbers keep their text where
// it is JSON. It reports whether there was nothing to object to.
func (l *loader) json(key string, n *node, buf *bytes.Buffer) bool {
	ok := true
	switch n.kind {
	case mappingNode:
		buf.WriteByte('{')
		for i, e := range n.entries {
			if i > 0 {
				buf.WriteByte(',')
			}
			writeString(buf, e.key.value)
			buf.WriteByte(':')
			ok = l.json(below(key, e.key.value), e.value, buf) && ok
		}
		buf.WriteByte('}')
	case listNode:
		buf.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				buf.WriteByte(',')
			}
			ok = l.json(element(key, i), item, buf) && ok
		}
		buf.WriteByte(']')
	default:
		return l.jsonScalar(key, n, buf)
	}
	return ok
}

func (l *loader) jsonScalar(key string, n *node, buf *bytes.Buffer) bool {
	switch n.tag {
	case tagNull:
		buf.WriteString("null")
	case tagBool:
		buf.WriteString(strings.ToLower(n.value))
	case tagInt, tagFloat:
		number, ok := jsonNumber(n)
		if !ok {
			l.fail(key, n, "", "%s is no number in JSON", quote(n.value))
			return false
		}
		buf.WriteString(number)
	default:
		value, ok := n.value, true
		if !strings.HasPrefix(key, "rules.") {
			value, ok = l.substitute(key, n)
		}
		writeString(buf, value)
		return ok
	}
	return true
}

// jsonNumber returns the JSON of a number: the number's own text, if it is
// JSON, or what it means in YAML.
func jsonNumber(n *node) (string, bool) {
	if json.Valid([]byte(n.value)) {
		return n.value, true
	}
	digits := strings.TrimPrefix(strings.ReplaceAll(n.value, "_", ""), "+")
	if json.Valid([]byte(digits)) {
		return digits, true
	}
	if n.tag == tagInt {
		i, ok := new(big.Int).SetString(digits, 0)
		if !ok {
			return "", false
		}
		return i.String(), true
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return "", false
	}
	return strconv.FormatFloat(f, 'g', -1, 64), true
}

// writeString writes a JSON string, with <, > and & as they are.
func writeString(buf *bytes.Buffer, s string) {
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	e.Encode(s) // a string always encodes, and a buffer always takes it
	buf.Truncate(buf.Len() - 1)
}
