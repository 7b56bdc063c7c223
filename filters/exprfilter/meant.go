package exprfilter

import (
	"regexp"
	"strings"
)

// What people write who come from other languages, and how it is said here.
var meant = map[string]string{
	"=": "compare by ==", "===": "compare by ==", "&": "write and", "~": "write matches",
	"AND": "write and", "And": "write and", "OR": "write or", "Or": "write or", "NOT": "write not", "Not": "write not", "xor": "write !=",
	"like": "write startsWith, endsWith, contains or matches", "LIKE": "write startsWith, endsWith, contains or matches",
	"is": "write == nil or != nil", "IS": "write == nil or != nil", "IN": "write in",
	"if": "write condition ? a : b", "then": "write condition ? a : b", "else": "write condition ? a : b",
	"null": "write nil", "NULL": "write nil", "Null": "write nil", "None": "write nil", "undefined": "write nil",
	"True": "write true", "TRUE": "write true", "False": "write false", "FALSE": "write false",
	"has": `write "name" in data, or data.name != nil`, "exists": `write "name" in data, or data.name != nil`,
	"defined": `write "name" in data, or data.name != nil`, "isNull": "write data.name == nil", "is_null": "write data.name == nil",
	"contains": `it stands between: data.name contains "text"`, "startsWith": `it stands between: data.name startsWith "text"`,
	"endsWith": `it stands between: data.name endsWith "text"`, "matches": `it stands between: data.name matches "pattern"`,
	"regex": "write data.name matches \"pattern\"", "$": "write data", "this": "write data",
}

var (
	wrongToken  = regexp.MustCompile(`^(?:unexpected token \w+\("(.+)"\)|unrecognized character: U\+\w+ '(.+)'|unknown name (.+))$`)
	wrongNumber = regexp.MustCompile(`^bad number syntax: "([0-9.]+(?:ms|s|m|h))"$`)
	inParens    = regexp.MustCompile(`\bin\s*\([^()]*$`)
	thousands   = regexp.MustCompile(`[0-9]$`)
)

// whatWasMeant returns a hint for an expression that does not compile, or
// nothing. The offset is in bytes.
func whatWasMeant(source string, offset int, message string) string {
	if number := wrongNumber.FindStringSubmatch(message); number != nil {
		return `write duration("` + number[1] + `")`
	}
	token := wrongToken.FindStringSubmatch(message)
	if token == nil {
		return ""
	}
	word := strings.Join(token[1:], "")
	before, after := source[:min(offset, len(source))], source[min(offset+1, len(source)):]
	switch {
	case word == "," && inParens.MatchString(before):
		return "a list stands in brackets: in [1, 2]"
	case word == "," && thousands.MatchString(before) && len(after) > 0 && after[0] >= '0' && after[0] <= '9':
		return "a long number is written as 1_000"
	case word == ">" && strings.HasSuffix(before, "<"):
		return "write !="
	case word == "*" && strings.HasSuffix(before, "["):
		return "write any(list, …) with # for the element"
	}
	if hint := meant[word]; hint != "" {
		return hint
	}
	if strings.HasPrefix(message, "unknown name ") {
		return "an expression sees data, event and channel"
	}
	return ""
}
