package filterd

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"mime"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/filterd/filterd/internal/projection"
)

// The grammars of CloudEvents' attributes.

// members are the names of an event's members that are no extensions.
var members = [...]string{"specversion", "id", "source", "type", "datacontenttype", "dataschema", "subject", "time", "data", "data_base64"}

func reserved(name string) bool { return slices.Contains(members[:], name) }

// memberName returns a member's name, without a copy if it is one of the usual.
func memberName(payload []byte, m projection.Member) string {
	key := m.Key.Of(payload)
	for i := range members {
		if string(key[1:len(key)-1]) == members[i] {
			return members[i]
		}
	}
	return projection.Unquote(key)
}

// checkName returns what is wrong with an attribute's name, or "".
func checkName(name string) string {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "an attribute's name consists of a-z and 0-9"
		}
	}
	if name == "" {
		return "an attribute's name is not empty"
	}
	return ""
}

// checkText returns what is wrong with a CloudEvents String, or "".
func checkText(text string) string {
	if isPrintableASCII(text) {
		return ""
	}
	if !utf8.ValidString(text) {
		return "invalid UTF-8 is not allowed"
	}
	for _, r := range text {
		switch {
		case r < 0x20 || r >= 0x7f && r <= 0x9f:
			return fmt.Sprintf("control character %U is not allowed", r)
		case r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe:
			return fmt.Sprintf("noncharacter %U is not allowed", r)
		}
	}
	return ""
}

func isPrintableASCII(text string) bool {
	for i := range len(text) {
		if text[i] < 0x20 || text[i] >= 0x7f {
			return false
		}
	}
	return true
}

// checkAttribute returns what is wrong with the value of a string attribute of
// the core specification, or "".
func checkAttribute(name, text string) string {
	if text == "" {
		return "must not be empty"
	}
	if detail := checkText(text); detail != "" {
		return detail
	}
	switch name {
	case "specversion":
		if text != SpecVersion {
			return fmt.Sprintf("want %q, got %q", SpecVersion, text)
		}
	case "source":
		if _, ok := parseURIReference(text); !ok {
			return fmt.Sprintf("%q is not a URI reference (RFC 3986)", text)
		}
	case "dataschema":
		// The specification wants RFC 3986, section 4.3, which has no fragment;
		// its own JSON Schema lets one through, and so do we.
		if absolute, ok := parseURIReference(text); !ok || !absolute {
			return fmt.Sprintf("%q is not an absolute URI (RFC 3986)", text)
		}
	case "datacontenttype":
		if text == "application/json" {
			break
		}
		if kind, _, err := mime.ParseMediaType(text); err != nil || !strings.Contains(kind, "/") {
			return fmt.Sprintf("%q is not a media type (RFC 2046)", text)
		}
	case "time":
		if _, ok := parseTimestamp(text); !ok {
			return fmt.Sprintf("%q is not a timestamp (RFC 3339)", text)
		}
	}
	return ""
}

// The characters of RFC 3986 that stand for themselves in a part of a URI.
var (
	inHost  = newCharacters("")
	inUser  = newCharacters(":")
	inPath  = newCharacters(":@/")
	inQuery = newCharacters(":@/?")
)

// characters is a set of bytes.
type characters [256]bool

// newCharacters returns the characters that may stand in every part of a URI,
// and some more.
func newCharacters(more string) *characters {
	var set characters
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=" + more) {
		set[c] = true
	}
	return &set
}

// parseURIReference reports whether a text is a URI reference of RFC 3986, and
// if so, whether it has a scheme. (url.Parse knows neither the characters that
// RFC 3986 forbids nor all the hosts that it allows.)
func parseURIReference(text string) (absolute, ok bool) {
	rest, fragment, _ := strings.Cut(text, "#")
	rest, query, _ := strings.Cut(rest, "?")
	if scheme, after, found := strings.Cut(rest, ":"); found && isScheme(scheme) {
		absolute, rest = true, after
	}
	if after, found := strings.CutPrefix(rest, "//"); found {
		slash := strings.IndexByte(after+"/", '/')
		if !isAuthority(after[:slash]) {
			return false, false
		}
		rest = after[slash:]
	} else if segment, _, _ := strings.Cut(rest, "/"); !absolute && strings.Contains(segment, ":") {
		return false, false
	}
	return absolute, consistsOf(rest, inPath) && consistsOf(query, inQuery) && consistsOf(fragment, inQuery)
}

func isScheme(text string) bool {
	for i, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return text != ""
}

// isAuthority reports whether a text is [user "@"] host [":" port].
func isAuthority(text string) bool {
	if user, host, found := strings.Cut(text, "@"); found {
		if !consistsOf(user, inUser) {
			return false
		}
		text = host
	}
	host, port := text, ""
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, ']') {
		host, port = text[:i], text[i+1:]
	}
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	literal, bracket := strings.CutPrefix(host, "[")
	if !bracket {
		return consistsOf(host, inHost)
	}
	literal, bracket = strings.CutSuffix(literal, "]")
	if !bracket {
		return false
	}
	if version, address, found := strings.Cut(literal, "."); found && strings.HasPrefix(version, "v") {
		digits := version[1:]
		return digits != "" && strings.Trim(digits, "0123456789abcdefABCDEF") == "" &&
			address != "" && !strings.Contains(address, "%") && consistsOf(address, inUser)
	}
	address, err := netip.ParseAddr(literal)
	return err == nil && address.Is6() && address.Zone() == ""
}

// consistsOf reports whether a text has no other characters than those given
// and percent-encoded bytes.
func consistsOf(text string, set *characters) bool {
	for i := 0; i < len(text); i++ {
		if text[i] == '%' {
			if i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) {
				return false
			}
			i += 2
		} else if !set[text[i]] {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// isDateTime reports whether a text has the form of a date-time of RFC 3339,
// section 5.6, in upper case; time.Parse alone lets a comma, one-digit hours
// and offsets of a day through.
func isDateTime(text string) bool {
	if len(text) < len("2006-01-02T15:04:05Z") || !hasForm(text[:19], "0000-00-00T00:00:00") {
		return false
	}
	zone := text[19:]
	if fraction, found := strings.CutPrefix(zone, "."); found {
		zone = strings.TrimLeft(fraction, "0123456789")
		if len(zone) == len(fraction) {
			return false
		}
	}
	if zone == "Z" {
		return true
	}
	return len(zone) == 6 && (zone[0] == '+' || zone[0] == '-') && hasForm(zone[1:], "00:00") && zone[1:3] < "24" && zone[4:] < "60"
}

// hasForm reports whether a text is as long as the form, has digits where that
// has a 0, and is equal to it elsewhere.
func hasForm(text, form string) bool {
	for i := range len(form) {
		digit := text[i] >= '0' && text[i] <= '9'
		if form[i] == '0' && !digit || form[i] != '0' && text[i] != form[i] {
			return false
		}
	}
	return true
}

func parseTimestamp(text string) (time.Time, bool) {
	text = strings.ToUpper(text) // "T" and "Z" may be lower case
	if !isDateTime(text) {
		return time.Time{}, false
	}
	leap := text[17:19] == "60" // Go's clock has no leap seconds
	if leap {
		text = text[:17] + "59" + text[19:]
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, false
	}
	if leap {
		if !endsMonth(t.UTC()) {
			return time.Time{}, false
		}
		t = t.Add(time.Second)
	}
	return t, t.Year() <= 9999
}

// endsMonth reports whether t, in UTC, is in the last minute of a month: the
// only one that may have a leap second.
func endsMonth(t time.Time) bool {
	return t.Hour() == 23 && t.Minute() == 59 && t.AddDate(0, 0, 1).Day() == 1
}

// zoned returns t in its own zone where RFC 3339 can express that zone's
// offset, else in UTC.
func zoned(t time.Time) time.Time {
	const day = 24 * 60 * 60
	if _, offset := t.Zone(); offset%60 != 0 || offset <= -day || offset >= day {
		return t.UTC()
	}
	return t
}

// decodeBase64 decodes the one encoding of RFC 4648, section 4, that stands
// for some bytes.
func decodeBase64(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") { // which encoding/base64 skips
		return nil, false
	}
	binary, err := base64.StdEncoding.Strict().DecodeString(text)
	return binary, err == nil
}

// checkExtension returns what is wrong with the value of an extension, or "".
func checkExtension(value any) string {
	switch value := value.(type) {
	case string:
		return checkText(value)
	case bool, int32:
	case int:
		if value < math.MinInt32 || value > math.MaxInt32 {
			return fmt.Sprintf("%d does not fit in 32 bits: CloudEvents integers do", value)
		}
	default:
		return fmt.Sprintf("an extension is a string, a bool or an int32, not %T", value)
	}
	return ""
}

// checkData returns what keeps data from being decoded as a member of an
// event, or "".
func checkData(data []byte) string {
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		return malformed(data, err).Failures[0].Detail
	}
	if !json.Valid(slices.Concat([]byte("["), data, []byte("]"))) {
		return "too deep to be a member of an event"
	}
	return ""
}

// decodeExtension decodes the value of an extension attribute.
func decodeExtension(value []byte) (any, string) {
	switch value[0] {
	case '"':
		text := projection.Unquote(value)
		return text, checkText(text)
	case 't', 'f':
		return value[0] == 't', ""
	case '{', '[':
		return nil, "an extension is a string, a boolean or an integer, not " + kindOfRaw(value)
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil {
		return nil, fmt.Sprintf("%s is not an integer of 32 bits", value)
	}
	return int32(n), ""
}

// pointerTo returns the JSON Pointer made of tokens.
func pointerTo(tokens ...string) string {
	var b strings.Builder
	for _, token := range tokens {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1"))
	}
	return b.String()
}

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}

func kindOfRaw(value []byte) string {
	switch value[0] {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '[':
		return "an array"
	case '{':
		return "an object"
	default:
		return "a number"
	}
}
