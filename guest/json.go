package guest

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// member returns the JSON of a member of an object. The JSON is the host's and
// so valid; names are compared as they are written.
func member(object []byte, name string) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(space(object), []byte("{"))
	for ok {
		rest = space(rest)
		n := valueLength(rest)
		key := rest[:n]
		if rest, ok = bytes.CutPrefix(space(rest[n:]), []byte(":")); !ok {
			break
		}
		rest = space(rest)
		n = valueLength(rest)
		if string(key) == `"`+name+`"` {
			return rest[:n], true
		}
		rest, ok = bytes.CutPrefix(space(rest[n:]), []byte(","))
	}
	return nil, false
}

func space(json []byte) []byte { return bytes.TrimLeft(json, " \t\r\n") }

// valueLength returns the length of the value that the text begins with.
func valueLength(json []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(json); i++ {
		switch c := json[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
			if !inString && depth == 0 {
				return i + 1
			}
		case inString:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return i
		}
	}
	return len(json)
}

func number(json []byte) (float64, bool) {
	if len(json) == 0 || json[0] != '-' && (json[0] < '0' || json[0] > '9') {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(json), 64)
	return f, err == nil
}

// unquote returns the text of a JSON string.
func unquote(json []byte) (string, bool) {
	if len(json) < 2 || json[0] != '"' {
		return "", false
	}
	text := make([]byte, 0, len(json))
	for json = json[1 : len(json)-1]; len(json) > 0; {
		c := json[0]
		json = json[1:]
		if c != '\\' || len(json) == 0 {
			text = append(text, c)
			continue
		}
		c = json[0]
		json = json[1:]
		switch c {
		case 'n':
			c = '\n'
		case 't':
			c = '\t'
		case 'r':
			c = '\r'
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'u':
			r := unit(json)
			json = json[min(4, len(json)):]
			if utf16.IsSurrogate(r) && bytes.HasPrefix(json, []byte(`\u`)) {
				if whole := utf16.DecodeRune(r, unit(json[2:])); whole != utf8.RuneError {
					r = whole
					json = json[6:]
				}
			}
			text = utf8.AppendRune(text, r)
			continue
		}
		text = append(text, c)
	}
	return string(text), true
}

// unit returns the UTF-16 unit that four hexadecimal digits stand for.
func unit(json []byte) rune {
	n, err := strconv.ParseUint(string(json[:min(4, len(json))]), 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}

// AppendJSON appends text as a JSON string, with its quotes, to dst: for
// building payloads without encoding/json, which is large and slow to start.
func AppendJSON(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range text { // invalid UTF-8 becomes U+FFFD
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
