package filterd

import (
	"fmt"
	"maps"
	"math/big"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// FieldKinds is a set of kinds of values.
type FieldKinds uint8

// AnyKind has every kind of value.
const AnyKind FieldKinds = 1<<FieldNull | 1<<FieldBool | 1<<FieldNumber | 1<<FieldString | 1<<FieldArray | 1<<FieldObject

// Has reports whether a kind is in the set.
func (s FieldKinds) Has(k FieldKind) bool { return s>>k&1 != 0 }

// A Membership says what a schema says of a name in an object.
type Membership uint8

// The memberships.
const (
	MemberOpen     Membership = iota // the schema names no members here, or doesn't tell
	MemberKnown                      // it names this one
	MemberUnnamed                    // it names others, and lets others be
	MemberExcluded                   // no valid object has it
)

// A DataType is what a schema says of a value, for those who check expressions
// before there are messages. It errs on one side only: every value that the
// schema accepts is of the type, and what the schema says in ways that are not
// understood here is taken to say nothing.
//
// A DataType remembers what it was asked for: it is not safe for concurrent
// use.
type DataType struct {
	says    claim
	kinds   FieldKinds
	values  []any // nil: any
	members map[string]member
	others  map[string]bool
	any     *DataType
}

type member struct {
	of         *DataType
	membership Membership
	required   bool
}

// A claim is what must hold of a value: what a schema says by itself, not by
// its parts, or all, or at least one of some claims. The zero claim holds of
// everything.
type claim struct {
	excludes FieldKinds // for what the rest says, too

	schema *jsonschema.Schema
	all    []claim
	any    []claim
	sealed *claim // only members that it speaks of are allowed

	unknown bool // there is more to it, that was not read
}

// allOf joins claims, and leaves out what says nothing: what is asked of a path
// of names must not grow with its length.
func allOf(parts ...claim) claim {
	var c claim
	for _, part := range parts {
		c.excludes |= part.excludes
		c.unknown = c.unknown || part.unknown
		if !part.silent() {
			c.all = append(c.all, part)
		}
	}
	if len(c.all) == 1 {
		one := c.all[0]
		one.unknown = c.unknown
		return one
	}
	return c
}

func anyOf(parts ...claim) claim {
	c := claim{excludes: AnyKind}
	silent, said := false, false
	for _, part := range parts {
		c.excludes &= part.excludes
		c.unknown = c.unknown || part.unknown
		if part.silent() {
			if silent {
				continue
			}
			silent = true
		} else {
			said = true
		}
		c.any = append(c.any, part)
	}
	if !said && silent { // then nothing is said
		return claim{unknown: c.unknown}
	}
	return c
}

// allows reports whether a value of a kind can be what the claim holds of.
func (c *claim) allows(k FieldKind) bool { return !c.excludes.Has(k) }

// maxClaims is how many claims a [DataType] is made of, at most; of the rest it
// knows nothing. A schema that is referred to from several places counts for
// each of them.
const maxClaims = 200

// maxValues is how many values a type lists.
const maxValues = 64

// DataType returns the type of the data of valid messages: what the contract's
// schema says, and its envelope. It is nil if they say nothing. Each call
// returns another one.
func (c *Contract) DataType() *DataType {
	var says claim
	if c.Schema != nil {
		says = newClaimReader().read(c.Schema.compiled)
	}
	if c.Envelope == EnvelopeBytes {
		says = allOf(says, claim{excludes: AnyKind &^ (1 << FieldString)})
	}
	if says.silent() {
		return nil
	}
	return typeOf(says)
}

func typeOf(says claim) *DataType {
	t := &DataType{says: says, kinds: AnyKind &^ says.excludes, members: make(map[string]member)}
	if values, ok := says.values(); ok {
		t.values = slices.DeleteFunc(slices.Clone(values), func(v any) bool { return !t.kinds.Has(kindOf(v)) })
	}
	return t
}

// Kinds returns the kinds of values that there can be. None says that no value
// satisfies the schema.
func (t *DataType) Kinds() FieldKinds { return t.kinds }

// Values returns the values that there can be, if the schema lists them and
// they are few: nil, bool, float64 or string. The caller must not modify it.
func (t *DataType) Values() (values []any, ok bool) { return t.values, t.values != nil }

// Member returns the type of an object's member, if it has it, what the schema
// says of the name, and whether every object has the member.
func (t *DataType) Member(name string) (of *DataType, membership Membership, required bool) {
	if t.others[name] {
		return typeOf(claim{}), MemberKnown, true
	}
	m, ok := t.members[name]
	if !ok {
		says, membership := t.says.member(newClaimReader(), name)
		m = member{typeOf(says), membership, t.says.requires(name)}
		t.members[name] = m
	}
	return m.of, m.membership, m.required
}

// Names returns the members that the schema names, in their order.
func (t *DataType) Names() []string {
	names := maps.Clone(t.others)
	if names == nil {
		names = make(map[string]bool)
	}
	t.says.addNames(names)
	return slices.Sorted(maps.Keys(names))
}

// Element returns the type of an array's elements.
func (t *DataType) Element() *DataType {
	if t.any == nil {
		t.any = typeOf(t.says.element(newClaimReader()))
	}
	return t.any
}

// With returns the type of objects of type t that some members were added to,
// of any value, or replaced in.
func (t *DataType) With(names ...string) *DataType {
	u := *t
	u.others = maps.Clone(t.others)
	if u.others == nil {
		u.others = make(map[string]bool)
	}
	for _, name := range names {
		u.others[name] = true
	}
	u.kinds &= 1 << FieldObject
	u.values = nil
	return &u
}

// kindOf returns the kind of a value of a schema's text.
func kindOf(v any) FieldKind {
	switch v.(type) {
	case nil:
		return FieldNull
	case bool:
		return FieldBool
	case string:
		return FieldString
	case []any:
		return FieldArray
	case map[string]any:
		return FieldObject
	}
	return FieldNumber
}

// A claimReader makes claims of schemas.
type claimReader struct {
	left int
	open map[*jsonschema.Schema]bool // that are being read: a schema may refer to itself
}

func newClaimReader() *claimReader {
	return &claimReader{left: maxClaims, open: make(map[*jsonschema.Schema]bool)}
}

func (r *claimReader) read(s *jsonschema.Schema) claim {
	if s == nil {
		return claim{}
	}
	if r.left--; r.left < 0 || r.open[s] {
		return claim{unknown: true}
	}
	r.open[s] = true
	defer delete(r.open, s)
	parts := []claim{{schema: s, excludes: AnyKind &^ schemaKinds(s)}}
	if s.Ref != nil {
		parts = append(parts, r.read(s.Ref))
	}
	for _, part := range s.AllOf {
		parts = append(parts, r.read(part))
	}
	for _, either := range [][]*jsonschema.Schema{s.AnyOf, s.OneOf} {
		if len(either) > 0 {
			parts = append(parts, r.readAny(either))
		}
	}
	if s.If != nil && (s.Then != nil || s.Else != nil) {
		parts = append(parts, anyOf(allOf(r.read(s.If), r.read(s.Then)), r.read(s.Else)))
	}
	c := allOf(parts...)
	if u := s.UnevaluatedProperties; u != nil && u.Bool != nil && !*u.Bool {
		c = allOf(c, claim{sealed: &c})
	}
	return c
}

func (r *claimReader) readAny(schemas []*jsonschema.Schema) claim {
	parts := make([]claim, len(schemas))
	for i, s := range schemas {
		parts[i] = r.read(s)
	}
	return anyOf(parts...)
}

// silent reports whether the claim holds of everything.
func (c *claim) silent() bool {
	return c.excludes == 0 && c.schema == nil && c.all == nil && c.any == nil && c.sealed == nil
}

// schemaKinds returns what a schema by itself says of a value's kind.
func schemaKinds(s *jsonschema.Schema) FieldKinds {
	if s.Bool != nil && !*s.Bool {
		return 0
	}
	kinds := AnyKind
	if s.Types != nil && !s.Types.IsEmpty() {
		kinds = 0
		for _, name := range s.Types.ToStrings() {
			kinds |= 1 << map[string]FieldKind{
				"null": FieldNull, "boolean": FieldBool, "number": FieldNumber, "integer": FieldNumber,
				"string": FieldString, "array": FieldArray, "object": FieldObject,
			}[name]
		}
	}
	for _, values := range listed(s) {
		var these FieldKinds
		for _, v := range values {
			these |= 1 << kindOf(v)
		}
		kinds &= these
	}
	return kinds
}

// listed returns the lists of values that a schema by itself is content with.
func listed(s *jsonschema.Schema) (lists [][]any) {
	if s.Const != nil {
		lists = append(lists, []any{*s.Const})
	}
	if s.Enum != nil {
		lists = append(lists, s.Enum.Values)
	}
	return lists
}

// values returns a list of values of which the value is one, if it is known and
// short.
func (c *claim) values() ([]any, bool) {
	var found []any
	ok := false
	keep := func(values []any, known bool) {
		switch {
		case !known:
		case !ok:
			found, ok = values, true
		default:
			found = slices.DeleteFunc(slices.Clone(found), func(v any) bool { return !slices.Contains(values, v) })
		}
	}
	if c.schema != nil {
		for _, list := range listed(c.schema) {
			keep(scalars(list))
		}
	}
	for i := range c.all {
		keep(c.all[i].values())
	}
	if c.any != nil {
		var union []any
		known := true
		for i := range c.any {
			if c.any[i].excludes == AnyKind {
				continue // no value is of this kind
			}
			values, ok := c.any[i].values()
			known = known && ok && len(union)+len(values) <= maxValues
			if !known {
				break
			}
			union = append(union, values...)
		}
		keep(append([]any{}, union...), known)
	}
	return found, ok
}

// scalars returns the values of an enum as expressions see them.
func scalars(list []any) ([]any, bool) {
	if len(list) > maxValues {
		return nil, false
	}
	values := make([]any, len(list))
	for i, v := range list {
		switch v := v.(type) {
		case nil, bool, string:
			values[i] = v
		default:
			exact, ok := new(big.Rat).SetString(fmt.Sprint(v))
			if !ok { // an object or an array
				return nil, false
			}
			values[i], _ = exact.Float64()
		}
	}
	return values, true
}

// member returns what the claim says of an object's member.
func (c *claim) member(r *claimReader, name string) (claim, Membership) {
	switch {
	case c.schema != nil:
		return schemaMember(r, c.schema, name)
	case c.sealed != nil:
		if !c.sealed.speaksOf(name) {
			return claim{}, MemberExcluded
		}
		return claim{}, MemberOpen
	case c.any != nil:
		return c.memberOfAny(r, name)
	}
	var parts []claim
	membership := MemberOpen
	for i := range c.all {
		part, its := c.all[i].member(r, name)
		parts = append(parts, part)
		switch {
		case its == MemberExcluded || membership == MemberExcluded:
			membership = MemberExcluded
		case its == MemberKnown || membership == MemberOpen:
			membership = its
		case membership == MemberKnown:
		case its == MemberUnnamed:
			membership = its
		}
	}
	return allOf(parts...), membership
}

func (c *claim) memberOfAny(r *claimReader, name string) (claim, Membership) {
	var parts []claim
	membership := MemberExcluded
	known, silent := false, false
	for i := range c.any {
		if !c.any[i].allows(FieldObject) {
			continue
		}
		part, its := c.any[i].member(r, name)
		switch its {
		case MemberExcluded:
			continue // it has no such member, whatever that would be
		case MemberKnown:
			known = true
		case MemberOpen:
			silent = true
		}
		membership = MemberUnnamed
		parts = append(parts, part)
	}
	switch {
	case parts == nil: // each says that there is none; or there are no objects
		return claim{}, membership
	case known:
		membership = MemberKnown
	case silent:
		membership = MemberOpen
	}
	return anyOf(parts...), membership
}

// schemaMember returns what a schema by itself says of an object's member.
func schemaMember(r *claimReader, s *jsonschema.Schema, name string) (claim, Membership) {
	var parts []claim
	known := false
	if of, ok := s.Properties[name]; ok {
		parts = append(parts, r.read(of))
		known = true
	}
	for pattern, of := range s.PatternProperties {
		if pattern.MatchString(name) {
			parts = append(parts, r.read(of))
			known = true
		}
	}
	if known || slices.Contains(s.Required, name) {
		return allOf(parts...), MemberKnown
	}
	switch others := s.AdditionalProperties.(type) {
	case bool:
		if !others {
			return claim{}, MemberExcluded
		}
	case *jsonschema.Schema:
		if others.Bool != nil && !*others.Bool {
			return claim{}, MemberExcluded
		}
		return r.read(others), MemberKnown
	}
	if len(s.Properties)+len(s.Required) > 0 {
		return claim{}, MemberUnnamed
	}
	return claim{}, MemberOpen
}

// speaksOf reports whether the claim may say anything of a member, true or not.
func (c *claim) speaksOf(name string) bool {
	if s := c.schema; s != nil {
		_, named := s.Properties[name]
		for pattern := range s.PatternProperties {
			named = named || pattern.MatchString(name)
		}
		return named || s.AdditionalProperties != nil || s.DependentSchemas != nil || s.DynamicRef != nil || s.RecursiveRef != nil ||
			s.UnevaluatedProperties != nil && (s.UnevaluatedProperties.Bool == nil || *s.UnevaluatedProperties.Bool)
	}
	if c.sealed != nil {
		return false
	}
	speaks := func(part claim) bool { return part.speaksOf(name) }
	return c.unknown || slices.ContainsFunc(c.all, speaks) || slices.ContainsFunc(c.any, speaks)
}

// requires reports whether every object that the claim holds of has a member.
func (c *claim) requires(name string) bool {
	if c.schema != nil && slices.Contains(c.schema.Required, name) {
		return true
	}
	if slices.ContainsFunc(c.all, func(part claim) bool { return part.requires(name) }) {
		return true
	}
	for i := range c.any {
		if c.any[i].allows(FieldObject) && !c.any[i].requires(name) {
			return false
		}
	}
	return len(c.any) > 0
}

func (c *claim) addNames(names map[string]bool) {
	if c.schema != nil {
		for name := range c.schema.Properties {
			names[name] = true
		}
		for _, name := range c.schema.Required {
			names[name] = true
		}
	}
	for _, parts := range [][]claim{c.all, c.any} {
		for i := range parts {
			parts[i].addNames(names)
		}
	}
}

// element returns what the claim says of an array's elements.
func (c *claim) element(r *claimReader) claim {
	if c.schema != nil {
		return schemaElement(r, c.schema)
	}
	var parts []claim
	for i := range c.all {
		parts = append(parts, c.all[i].element(r))
	}
	if c.any != nil {
		var either []claim
		for i := range c.any {
			if c.any[i].allows(FieldArray) {
				either = append(either, c.any[i].element(r))
			}
		}
		parts = append(parts, anyOf(either...))
	}
	return allOf(parts...)
}

// schemaElement returns what a schema by itself says of an array's elements.
func schemaElement(r *claimReader, s *jsonschema.Schema) claim {
	rest := s.Items2020
	if items, ok := s.Items.(*jsonschema.Schema); ok { // before draft 2020-12
		rest = items
	}
	if rest == nil {
		return claim{}
	}
	if len(s.PrefixItems) > 0 {
		return r.readAny(append(slices.Clip(s.PrefixItems), rest))
	}
	return r.read(rest)
}
