package exprfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/filterd/filterd"
)

// A kinds is a set of kinds of values in an expression.
type kinds uint16

const (
	isNil kinds = 1 << iota
	isBool
	isInt
	isFloat // every number of JSON is one
	isString
	isArray
	isObject
	isOther // times, durations, what functions yield

	isNumber = isInt | isFloat
	isAny    = isOther<<1 - 1
)

// A typ is what is known of the values of a part of an expression. That it has
// a kind says only that there may be such a value.
type typ struct {
	kinds   kinds
	missing bool              // nil is one of the kinds since a member may be missing
	short   bool              // a ?. may end the chain here
	values  []any             // the only values that there can be, but for nil; nil: any
	data    *filterd.DataType // what members and elements are; nil: unknown
	element *typ              // what elements are, of an array that is no part of data
	event   bool              // it is the event's attributes
}

var unknown = typ{kinds: isAny}

var kindsOfFields = [...]kinds{
	filterd.FieldNull: isNil, filterd.FieldBool: isBool, filterd.FieldNumber: isFloat,
	filterd.FieldString: isString, filterd.FieldArray: isArray, filterd.FieldObject: isObject,
}

// typeOf returns the type of a part of the data.
func typeOf(t *filterd.DataType) typ {
	if t == nil || t.Kinds() == 0 { // no message is valid: let it be
		return unknown
	}
	var of kinds
	for kind, is := range kindsOfFields {
		if t.Kinds().Has(filterd.FieldKind(kind)) {
			of |= is
		}
	}
	values, _ := t.Values()
	return typ{kinds: of, data: t, values: values}
}

func constantType(k kinds, value any) typ { return typ{kinds: k, values: []any{value}} }

// maybe reports whether there may be a value of one of some kinds, or one that
// nobody knows.
func (t typ) maybe(k kinds) bool { return t.kinds&(k|isOther) != 0 }

// orNil is t where there may be nothing.
func (t typ) orNil() typ {
	t.missing = t.missing || t.kinds&isNil == 0
	t.kinds |= isNil
	return t
}

// oneOf is what is t or u.
func oneOf(t, u typ) typ {
	both := typ{kinds: t.kinds | u.kinds, missing: t.missing || u.missing}
	switch {
	case t.kinds == isNil:
		both.data, both.element, both.values = u.data, u.element, u.values
	case u.kinds == isNil, t.data == u.data && t.element == nil && u.element == nil && t.data != nil:
		both.data, both.element, both.values = t.data, t.element, t.values
	}
	return both
}

// loose has both kinds of numbers where k has one: they compare with each other.
func (k kinds) loose() kinds {
	if k&isNumber != 0 {
		k |= isNumber
	}
	return k
}

// neverEqual reports whether no value of t equals one of u, by their kinds.
func neverEqual(t, u typ) bool {
	switch {
	case (t.kinds|u.kinds)&isOther != 0, t.kinds == isNil, u.kinds == isNil:
		return false // to ask for nil is never wrong
	}
	return t.kinds.loose()&u.kinds.loose() == 0
}

// noneIn reports whether the values of t, which are known, have none of u's,
// which are so too.
func noneIn(t, u typ) bool {
	if t.values == nil || u.values == nil || t.kinds&u.kinds&isNil != 0 || (t.kinds|u.kinds)&isOther != 0 {
		return false
	}
	return !slices.ContainsFunc(u.values, func(v any) bool { return slices.Contains(t.values, v) })
}

// String names the kinds, as in "a string or null".
func (k kinds) String() string {
	var names []string
	for _, named := range []struct {
		kinds kinds
		name  string
	}{
		{isBool, "a boolean"}, {isNumber, "a number"}, {isString, "a string"}, {isArray, "an array"}, {isObject, "an object"}, {isNil, "null"},
	} {
		if k&named.kinds != 0 {
			names = append(names, named.name)
		}
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// String names the kinds, as in "a string or missing".
func (t typ) String() string {
	if t.missing {
		return strings.Replace(t.kinds.String(), "null", "missing", 1)
	}
	return t.kinds.String()
}

// listValues lists values for people: "buy", "sell" or 3.
func listValues(values []any) string {
	const most = 6
	var texts []string
	for i, v := range values {
		if i == most {
			texts = append(texts, fmt.Sprintf("%d more", len(values)-most))
			break
		}
		if text, ok := v.(string); ok {
			v = fmt.Sprintf("%q", text)
		} else if v == nil {
			v = "null"
		}
		texts = append(texts, fmt.Sprint(v))
	}
	if len(texts) < 2 {
		return strings.Join(texts, "")
	}
	return strings.Join(texts[:len(texts)-1], ", ") + " or " + texts[len(texts)-1]
}
