package filterd

import (
	"bytes"
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

// The nodes of the members in every plan.
const (
	nodeSpecVersion = 1 + iota
	nodeID
	nodeSource
	nodeType
	nodeDataContentType
	nodeDataSchema
	nodeSubject
	nodeTime
	nodeData
	nodeDataBase64
	commonNodes // how many there are, with the document's
)

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
func checkName[text string | []byte](name text) string {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "an attribute's name consists of a-z and 0-9"
		}
	}
	if len(name) == 0 {
		return "an attribute's name is not empty"
	}
	return ""
}

// checkText returns what is wrong with a CloudEvents String, or "".
func checkText(text []byte) string {
	if isPrintableASCII(text) {
		return ""
	}
	if !utf8.Valid(text) {
		return "invalid UTF-8 is not allowed"
	}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r < 0x20 || r >= 0x7f && r <= 0x9f:
			return fmt.Sprintf("control character %U is not allowed", r)
		case r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe:
			return fmt.Sprintf("noncharacter %U is not allowed", r)
		}
		text = text[size:]
	}
	return ""
}

func isPrintableASCII(text []byte) bool {
	for _, c := range text {
		if c < 0x20 || c >= 0x7f {
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
	if detail := checkText([]byte(text)); detail != "" {
		return detail
	}
	switch name {
	case "specversion":
		if text != SpecVersion {
			return fmt.Sprintf("want %q, got %q", SpecVersion, text)
		}
	case "source":
		if _, ok := parseURIReference([]byte(text)); !ok {
			return fmt.Sprintf("%q is not a URI reference (RFC 3986)", text)
		}
	case "dataschema":
		// The specification wants RFC 3986, section 4.3, which has no fragment;
		// its own JSON Schema lets one through, and so do we.
		if absolute, ok := parseURIReference([]byte(text)); !ok || !absolute {
			return fmt.Sprintf("%q is not an absolute URI (RFC 3986)", text)
		}
	case "datacontenttype":
		if !isMediaType([]byte(text)) {
			return fmt.Sprintf("%q is not a media type (RFC 2046)", text)
		}
	case "time":
		if !isTimestamp([]byte(text)) {
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
	inPlain = newCharacters("@/") // in the path of a relative reference
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

// isMediaType reports whether a text is a media type of RFC 2046.
func isMediaType(text []byte) bool {
	if string(text) == "application/json" {
		return true
	}
	kind, _, err := mime.ParseMediaType(string(text))
	return err == nil && strings.Contains(kind, "/")
}

// parseURIReference reports whether a text is a URI reference of RFC 3986, and
// if so, whether it has a scheme. (url.Parse knows neither the characters that
// RFC 3986 forbids nor all the hosts that it allows.)
func parseURIReference(text []byte) (absolute, ok bool) {
	if !bytes.HasPrefix(text, []byte("//")) && consistsOf(text, inPlain) {
		return false, true
	}
	rest, fragment, _ := bytes.Cut(text, []byte("#"))
	rest, query, _ := bytes.Cut(rest, []byte("?"))
	if scheme, after, found := bytes.Cut(rest, []byte(":")); found && isScheme(scheme) {
		absolute, rest = true, after
	}
	if after, found := bytes.CutPrefix(rest, []byte("//")); found {
		slash := bytes.IndexByte(after, '/')
		if slash < 0 {
			slash = len(after)
		}
		if !isAuthority(after[:slash]) {
			return false, false
		}
		rest = after[slash:]
	} else if segment, _, _ := bytes.Cut(rest, []byte("/")); !absolute && bytes.IndexByte(segment, ':') >= 0 {
		return false, false
	}
	return absolute, consistsOf(rest, inPath) && consistsOf(query, inQuery) && consistsOf(fragment, inQuery)
}

func isScheme(text []byte) bool {
	for i, c := range text {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return len(text) > 0
}

// isAuthority reports whether a text is [user "@"] host [":" port].
func isAuthority(text []byte) bool {
	if user, host, found := bytes.Cut(text, []byte("@")); found {
		if !consistsOf(user, inUser) {
			return false
		}
		text = host
	}
	host, port := text, []byte(nil)
	if i := bytes.LastIndexByte(text, ':'); i > bytes.LastIndexByte(text, ']') {
		host, port = text[:i], text[i+1:]
	}
	if len(bytes.Trim(port, "0123456789")) > 0 {
		return false
	}
	literal, bracket := bytes.CutPrefix(host, []byte("["))
	if !bracket {
		return consistsOf(host, inHost)
	}
	literal, bracket = bytes.CutSuffix(literal, []byte("]"))
	if !bracket {
		return false
	}
	if version, address, found := bytes.Cut(literal, []byte(".")); found && bytes.HasPrefix(version, []byte("v")) {
		digits := version[1:]
		return len(digits) > 0 && len(bytes.Trim(digits, "0123456789abcdefABCDEF")) == 0 &&
			len(address) > 0 && bytes.IndexByte(address, '%') < 0 && consistsOf(address, inUser)
	}
	address, err := netip.ParseAddr(string(literal))
	return err == nil && address.Is6() && address.Zone() == ""
}

// consistsOf reports whether a text has no other characters than those given
// and percent-encoded bytes.
func consistsOf(text []byte, set *characters) bool {
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

// isTimestamp reports whether a text is a timestamp of RFC 3339, as
// parseTimestamp does.
func isTimestamp(text []byte) bool {
	return isUsualTimestamp(text) || isOddTimestamp(text)
}

func isOddTimestamp(text []byte) bool {
	_, ok := parseTimestamp(string(text))
	return ok
}

// isUsualTimestamp is isTimestamp, but says no to what is rare and takes some
// thought: lower case, leap seconds, more than nanoseconds.
func isUsualTimestamp(text []byte) bool {
	if len(text) < len("2006-01-02T15:04:05Z") ||
		text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':' {
		return false
	}
	century, year, month, day := twoDigits(text, 0), twoDigits(text, 2), twoDigits(text, 5), twoDigits(text, 8)
	if century > 99 || year > 99 || month < 1 || month > 12 || day < 1 || day > daysOf(century*100+year, month) ||
		twoDigits(text, 11) > 23 || twoDigits(text, 14) > 59 || twoDigits(text, 17) > 59 {
		return false
	}
	zone := text[19:]
	if zone[0] == '.' {
		digits := 1
		for digits < len(zone) && zone[digits]-'0' < 10 {
			digits++
		}
		if digits == 1 || digits > 10 || digits == len(zone) {
			return false
		}
		zone = zone[digits:]
	}
	switch zone[0] {
	case 'Z':
		return len(zone) == 1
	case '+', '-':
		return len(zone) == 6 && zone[3] == ':' && twoDigits(zone, 1) <= 23 && twoDigits(zone, 4) <= 59
	}
	return false
}

// twoDigits returns the number that two digits say, and more than 99 if they
// are none.
func twoDigits(text []byte, i int) uint {
	tens, units := text[i]-'0', text[i+1]-'0'
	if tens > 9 || units > 9 {
		return 100
	}
	return uint(tens)*10 + uint(units)
}

func daysOf(year, month uint) uint {
	switch {
	case month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0):
		return 29
	case month == 2:
		return 28
	case month == 4 || month == 6 || month == 9 || month == 11:
		return 30
	}
	return 31
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
		return checkText([]byte(value))
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
		return text, checkText([]byte(text))
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
