package filterd

import (
	"fmt"
	"math"
	"math/big"
	"reflect"
	"unicode/utf8"

	"github.com/filterd/filterd/internal/projection"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A quick is the part of a schema that can be checked on the bytes of the data,
// without decoding them: nearly all of what schemas of messages say. It never
// contradicts the library, which is asked where a quick is unsure, and for the
// words of a failure.
type quick struct {
	types  kindSet // that are allowed
	whole  bool    // a number must be whole
	enum   []constant
	limits []limit

	minLength, maxLength int // in characters; -1: any
	pattern              jsonschema.Regexp
	format               func(any) error

	names      map[string]int // of properties
	properties []*quick       // nil for those that are required only
	required   uint64         // a bit for each of the properties
	closed     bool           // others than the declared properties are refused

	all                               []*quick
	condition, consequence, otherwise *quick

	unsure bool // there is more to the schema
}

// A kindSet is a set of kinds of values.
type kindSet uint8

const anyKind kindSet = math.MaxUint8

func (s kindSet) has(k projection.Kind) bool { return s>>k&1 != 0 }

// A constant is what a value may be equal to.
type constant struct {
	kind   projection.Kind
	truth  bool
	number float64
	text   string
}

// A limit is one that numbers are held against. The library compares numbers by
// their shortest decimal form. So on which side of the limit a number is shows
// in the float64s, but for the one that is nearest to the limit; and of that
// one it is known beforehand.
type limit struct {
	least bool // numbers must be at least this, or greater
	near  float64
	equal bool // the nearest number itself is within the limit
}

func (l limit) holds(x float64) bool {
	switch {
	case x == l.near:
		return l.equal
	case l.least:
		return x > l.near
	}
	return x < l.near
}

// A verdict says whether a value satisfies a schema, as far as is known.
type verdict int8

const (
	unsure verdict = iota
	satisfied
	violated
)

// and is the verdict where both must be satisfied.
func (v verdict) and(o verdict) verdict {
	if v == violated || o == violated {
		return violated
	}
	return min(v, o)
}

// maxQuickParts is how many parts of a schema are taken over, a part counting
// wherever it is referred to: schemas may refer to themselves.
const maxQuickParts = 500

// newQuick returns the quick form of a schema.
func newQuick(s *jsonschema.Schema) *quick {
	left := maxQuickParts
	return quickPart(s, &left)
}

// anything is satisfied by every value.
func anything() *quick {
	return &quick{types: anyKind, minLength: -1, maxLength: -1, names: make(map[string]int)}
}

func quickPart(s *jsonschema.Schema, left *int) *quick {
	q := anything()
	*left--
	switch {
	case *left < 0, s.DraftVersion < 2019:
		q.unsure = true
	case s.Bool != nil:
		if !*s.Bool {
			q.types = 0
		}
	default:
		rest := *s // what is not taken over below
		q.takeScalars(&rest)
		q.takeObject(&rest, left)
		q.takeParts(&rest, left)
		q.unsure = q.unsure || !onlyAnnotations(rest)
	}
	return q
}

// onlyAnnotations reports whether nothing of a schema says what values must be.
func onlyAnnotations(s jsonschema.Schema) bool {
	s.DraftVersion, s.Location, s.ID, s.Anchor = 0, "", "", ""
	s.Title, s.Description, s.Comment, s.Default, s.Examples = "", "", "", nil, nil
	s.ReadOnly, s.WriteOnly, s.Deprecated = false, false, false
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		field := v.Field(i)
		switch {
		case !v.Type().Field(i).IsExported():
		case field.Kind() == reflect.Map, field.Kind() == reflect.Slice:
			if field.Len() > 0 {
				return false
			}
		case !field.IsZero():
			return false
		}
	}
	return true
}

func (q *quick) takeScalars(s *jsonschema.Schema) {
	if s.Types != nil && !s.Types.IsEmpty() {
		q.types, q.whole = 0, true
		for _, name := range s.Types.ToStrings() {
			q.types |= 1 << map[string]projection.Kind{
				"null": projection.Null, "boolean": projection.Bool, "number": projection.Number, "integer": projection.Number,
				"string": projection.String, "array": projection.Array, "object": projection.Object,
			}[name]
			q.whole = q.whole && name != "number"
		}
	}
	if s.Const != nil {
		q.allow([]any{*s.Const})
	}
	if s.Enum != nil {
		q.unsure = q.unsure || s.Const != nil
		q.allow(s.Enum.Values)
	}
	q.limit(s.Minimum, true, func(order int) bool { return order >= 0 })
	q.limit(s.ExclusiveMinimum, true, func(order int) bool { return order > 0 })
	q.limit(s.Maximum, false, func(order int) bool { return order <= 0 })
	q.limit(s.ExclusiveMaximum, false, func(order int) bool { return order < 0 })
	if s.MinLength != nil {
		q.minLength = *s.MinLength
	}
	if s.MaxLength != nil {
		q.maxLength = *s.MaxLength
	}
	q.pattern = s.Pattern
	if s.Format != nil {
		q.format = s.Format.Validate
	}
	s.Types, s.Const, s.Enum, s.Minimum, s.ExclusiveMinimum, s.Maximum, s.ExclusiveMaximum = nil, nil, nil, nil, nil, nil, nil
	s.MinLength, s.MaxLength, s.Pattern, s.Format = nil, nil, nil, nil
}

// allow takes the values of an enum.
func (q *quick) allow(values []any) {
	q.enum = []constant{}
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			q.enum = append(q.enum, constant{kind: projection.Null})
		case bool:
			q.enum = append(q.enum, constant{kind: projection.Bool, truth: v})
		case string:
			q.enum = append(q.enum, constant{kind: projection.String, text: v})
		default:
			exact, ok := new(big.Rat).SetString(fmt.Sprint(v))
			if !ok { // an object or an array
				q.unsure, q.enum = true, nil
				return
			}
			near, shortest := nearest(exact)
			if shortest == nil {
				q.unsure, q.enum = true, nil
				return
			}
			if shortest.Cmp(exact) == 0 {
				q.enum = append(q.enum, constant{kind: projection.Number, number: near})
			}
		}
	}
}

// nearest returns the float64 nearest to a number, and the value of that one's
// shortest decimal form; nil if there is none.
func nearest(exact *big.Rat) (near float64, shortest *big.Rat) {
	near, _ = exact.Float64()
	shortest, _ = new(big.Rat).SetString(fmt.Sprint(near))
	return near, shortest
}

func (q *quick) limit(exact *big.Rat, least bool, within func(order int) bool) {
	if exact == nil {
		return
	}
	near, shortest := nearest(exact)
	if shortest == nil { // beyond all float64s
		q.unsure = true
		return
	}
	q.limits = append(q.limits, limit{least: least, near: near, equal: within(shortest.Cmp(exact))})
}

func (q *quick) takeObject(s *jsonschema.Schema, left *int) {
	name := func(name string) int {
		i, known := q.names[name]
		if !known {
			i = len(q.properties)
			q.names[name] = i
			q.properties = append(q.properties, nil)
		}
		return i
	}
	for n, schema := range s.Properties {
		at := name(n)
		q.properties[at] = quickPart(schema, left)
	}
	for _, n := range s.Required {
		q.required |= 1 << name(n)
	}
	q.unsure = q.unsure || len(q.properties) > 64
	// What patterns name is not additional: then the schema stays unsure.
	if additional, ok := s.AdditionalProperties.(bool); ok && len(s.PatternProperties) == 0 {
		q.closed = !additional
		s.AdditionalProperties = nil
	}
	s.Properties, s.Required = nil, nil
}

func (q *quick) takeParts(s *jsonschema.Schema, left *int) {
	for _, part := range s.AllOf {
		q.all = append(q.all, quickPart(part, left))
	}
	if s.Ref != nil {
		q.all = append(q.all, quickPart(s.Ref, left))
	}
	if s.If != nil {
		q.condition = quickPart(s.If, left)
		q.consequence, q.otherwise = anything(), anything()
		if s.Then != nil {
			q.consequence = quickPart(s.Then, left)
		}
		if s.Else != nil {
			q.otherwise = quickPart(s.Else, left)
		}
	}
	s.AllOf, s.Ref, s.If, s.Then, s.Else = nil, nil, nil, nil, nil
}

// A quickCheck is the check of one document, which has been scanned.
type quickCheck struct {
	document []byte
	left     int // bytes that may still be walked: parts of a schema walk again
}

// check checks a value of a document that has been scanned.
func (q *quick) check(document []byte, v projection.Value) verdict {
	return q.checkValue(&quickCheck{document, 8*len(document) + 1024}, v)
}

func (q *quick) checkValue(c *quickCheck, v projection.Value) verdict {
	document := c.document
	result := satisfied
	if q.unsure {
		result = unsure
	}
	if !q.types.has(v.Kind) {
		return violated
	}
	if q.enum != nil {
		result = result.and(q.checkEnum(document, v))
	}
	switch v.Kind {
	case projection.Number:
		result = result.and(q.checkNumber(document, v))
	case projection.String:
		result = result.and(q.checkString(document, v))
	case projection.Object:
		result = result.and(q.checkObject(c, v))
	}
	if q.format != nil && v.Kind != projection.String {
		result = result.and(unsure)
	}
	for _, part := range q.all {
		result = result.and(part.checkValue(c, v))
	}
	if q.condition != nil && result != violated {
		switch q.condition.checkValue(c, v) {
		case satisfied:
			result = result.and(q.consequence.checkValue(c, v))
		case violated:
			result = result.and(q.otherwise.checkValue(c, v))
		default:
			result = unsure
		}
	}
	return result
}

func (q *quick) checkEnum(document []byte, v projection.Value) verdict {
	if v.Kind == projection.String && v.Flags != 0 {
		return unsure // it may be written in several ways
	}
	for i := range q.enum {
		c := &q.enum[i]
		if c.kind != v.Kind {
			continue
		}
		equal := true
		switch v.Kind {
		case projection.Bool:
			equal = c.truth == (document[v.Start] == 't')
		case projection.Number:
			equal = c.number == projection.Float(v.Of(document))
		case projection.String:
			equal = c.text == string(v.Inside(document))
		}
		if equal {
			return satisfied
		}
	}
	if v.Kind >= projection.Array {
		return unsure
	}
	return violated
}

func (q *quick) checkNumber(document []byte, v projection.Value) verdict {
	if !q.whole && q.limits == nil {
		return satisfied
	}
	x := projection.Float(v.Of(document))
	if q.whole && x != math.Trunc(x) {
		return violated
	}
	for _, l := range q.limits {
		if !l.holds(x) {
			return violated
		}
	}
	return satisfied
}

func (q *quick) checkString(document []byte, v projection.Value) verdict {
	if q.minLength < 0 && q.maxLength < 0 && q.pattern == nil && q.format == nil {
		return satisfied
	}
	text := v.Inside(document)
	if v.Flags&projection.Escaped != 0 || v.Flags != 0 && !utf8.Valid(text) {
		return unsure
	}
	if length := utf8.RuneCount(text); length < q.minLength || q.maxLength >= 0 && length > q.maxLength {
		return violated
	}
	if q.pattern != nil && !q.pattern.MatchString(string(text)) || q.format != nil && q.format(string(text)) != nil {
		return violated
	}
	return satisfied
}

func (q *quick) checkObject(c *quickCheck, v projection.Value) verdict {
	document := c.document
	if len(q.properties) == 0 && !q.closed {
		return satisfied
	}
	if c.left -= int(v.End - v.Start); c.left < 0 || len(q.properties) > 64 {
		return unsure
	}
	result := satisfied
	var seen uint64
	for m := range projection.Members(document, int(v.Start)) {
		name := document[m.Key.Start+1 : m.Key.End-1]
		for _, b := range name {
			if b == '\\' || b >= utf8.RuneSelf {
				return unsure
			}
		}
		i, known := q.names[string(name)]
		switch {
		case !known && q.closed:
			return violated
		case !known:
			continue
		case seen>>i&1 != 0: // the last one counts
			return unsure
		}
		seen |= 1 << i
		if p := q.properties[i]; p != nil {
			result = result.and(p.checkValue(c, m.Value))
		} else if q.closed {
			return violated
		}
	}
	if q.required&^seen != 0 {
		return violated
	}
	return result
}

// satisfiedBy reports whether the data of a view satisfies the schema, as far
// as that shows without decoding it.
func (s *Schema) satisfiedBy(v *view) bool {
	var data projection.Value
	switch v.reading {
	case readRaw:
		data = v.values()[0]
	case readEvent:
		data = v.values()[nodeData]
	}
	return data.Kind != projection.Missing && shallowText(data.Of(v.document)) && s.quick.check(v.document, data) == satisfied
}

// shallowText reports whether a JSON text is nested no deeper than a schema
// checks.
func shallowText(text []byte) bool {
	if len(text) <= 2*maxSchemaDepth {
		return true
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxSchemaDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}
