package config

import (
	"fmt"
	"strings"
)

// maxSecret is the largest file that ${file:…} reads, in bytes.
const maxSecret = 64 << 10

// secretKeys are the keys that take ${file:…}. What is wrong with their values
// is said without showing them.
var secretKeys = map[string]bool{"redis.url": true, "redis.password": true, "redis.sentinel_password": true, "server.token": true}

// substitute replaces ${NAME}, ${NAME:-default} and ${file:path} in a scalar's
// value; $${ stands for ${. It reports whether all could be replaced.
func (l *loader) substitute(key string, n *node) (string, bool) {
	rest := n.value
	if !strings.Contains(rest, "${") {
		return rest, true
	}
	var b strings.Builder
	ok := true
	fail := func(from, to int, hint, format string, args ...any) {
		offset, length := l.problems.text.span(n, from, to-from)
		l.problems.add(offset, length, key, hint, fmt.Sprintf(format, args...))
		ok = false
	}
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			b.WriteString(rest)
			break
		}
		start := len(n.value) - len(rest) + i
		if i > 0 && rest[i-1] == '$' {
			b.WriteString(rest[:i] + "{")
			rest = rest[i+2:]
			continue
		}
		b.WriteString(rest[:i])
		end := strings.IndexByte(rest[i:], '}')
		if end < 0 {
			fail(start, len(n.value), "write $${ for the text ${", "} is missing")
			break
		}
		reference := rest[i+2 : i+end]
		rest = rest[i+end+1:]
		stop := start + end + 1
		name, fallback, hasFallback := strings.Cut(reference, ":-")
		file, isFile := strings.CutPrefix(reference, "file:")
		switch {
		case strings.Contains(reference, "${"):
			fail(start, stop, "", "a reference within a reference")
		case isFile && !secretKeys[key] && !webhookSecrets.MatchString(key) && !strings.HasPrefix(key, "traces.headers."):
			fail(start, stop, "use an environment variable", "${file:…} is for passwords, tokens, keys and URLs only")
		case isFile:
			secret, err := l.readSecret(file)
			if err != nil {
				fail(start, stop, "", "%v", err)
			}
			b.WriteString(secret)
		case !variableName(name):
			fail(start, stop, "write ${NAME}, ${NAME:-default} or, for ${ itself, $${", "malformed reference")
		default:
			value, set := l.environment(name)
			switch {
			case value == "" && hasFallback:
				value = fallback
			case !set:
				fail(start, stop, "set it, or give a default: ${"+name+":-…}", "environment variable %s is not set", name)
			}
			b.WriteString(value)
		}
	}
	// A reference that is repeated by aliases could add up.
	if l.substituted += b.Len(); ok && l.substituted > maxSize {
		fail(0, len(n.value), "", "substitution makes the file larger than %d MiB", maxSize>>20)
	}
	return b.String(), ok
}

// variableName reports whether name can be that of an environment variable.
func variableName(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// readSecret reads a secret's file, without the line break at its end.
func (l *loader) readSecret(file string) (string, error) {
	if file == "" {
		return "", fmt.Errorf("${file:} needs the path of a file")
	}
	secret, err := l.readFile(file, maxSecret)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r"), nil
}

// conceal puts references back in a message where it shows what those in a
// node stand for.
func (l *loader) conceal(message string, key string, n *node) string {
	switch n.kind {
	case mappingNode:
		for _, e := range n.entries {
			message = l.conceal(message, key, e.value)
		}
	case listNode:
		for _, item := range n.items {
			message = l.conceal(message, key, item)
		}
	default:
		if value, ok := l.substitute(key, n); ok && value != "" && value != n.value {
			message = strings.ReplaceAll(message, value, n.value)
		}
	}
	return message
}
