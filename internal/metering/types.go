package metering

import (
	"fmt"
	"strings"
)

// A ValueType is a type of the format, by its byte there.
type ValueType byte

// The value types that are let through.
const (
	I32       ValueType = 0x7f
	I64       ValueType = 0x7e
	F32       ValueType = 0x7d
	F64       ValueType = 0x7c
	V128      ValueType = 0x7b
	FuncRef   ValueType = 0x70
	ExternRef ValueType = 0x6f
)

// String returns the type's name in the text format.
func (t ValueType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return fmt.Sprintf("0x%02x", byte(t))
}

func (t ValueType) isReference() bool { return t == FuncRef || t == ExternRef }

func (t ValueType) isValue() bool {
	return t >= V128 && t <= I32 || t.isReference()
}

// A Signature is the type of a function.
type Signature struct{ Params, Results []ValueType }

// String returns the type as abi texts write it: "(i32, i64) -> i32".
func (s Signature) String() string {
	return list(s.Params, true) + " -> " + list(s.Results, len(s.Results) != 1)
}

func list(types []ValueType, parentheses bool) string {
	texts := make([]string, len(types))
	for i, t := range types {
		texts[i] = t.String()
	}
	text := strings.Join(texts, ", ")
	if parentheses {
		text = "(" + text + ")"
	}
	return text
}

// hasVector reports whether a value of 16 bytes is among the parameters or
// results.
func (s Signature) hasVector() bool {
	for _, t := range s.Params {
		if t == V128 {
			return true
		}
	}
	for _, t := range s.Results {
		if t == V128 {
			return true
		}
	}
	return false
}

func (r *reader) valueType(what string) ValueType {
	start := r.pos
	t := ValueType(r.byte(what))
	if r.ok() && !t.isValue() {
		r.failType(start, t, what)
	}
	return t
}

func (r *reader) failType(offset int, t ValueType, what string) {
	switch {
	case t == 0x63 || t == 0x64 || t == 0x69 || t == 0x74 || t >= 0x6a && t <= 0x73:
		r.fail(Unsupported, offset, "%s 0x%02x is of a proposal that is not supported", what, byte(t))
	default:
		r.fail(Malformed, offset, "0x%02x is no %s", byte(t), what)
	}
}

func (r *reader) referenceType(what string) ValueType {
	start := r.pos
	t := ValueType(r.byte(what))
	if r.ok() && !t.isReference() {
		r.failType(start, t, what)
	}
	return t
}

func (r *reader) valueTypes(what string, limit int) []ValueType {
	n := r.count(what, limit)
	types := make([]ValueType, 0, n)
	for range n {
		types = append(types, r.valueType("value type"))
		if !r.ok() {
			return nil
		}
	}
	return types
}

// A bounds is the size of a memory or table.
type bounds struct {
	min, max uint32
	hasMax   bool
}

func (r *reader) bounds(what string) bounds {
	start := r.pos
	var b bounds
	switch flags := r.byte("limits of " + what); flags {
	case 0:
		b.min = r.u32("minimum of " + what)
	case 1:
		b.min = r.u32("minimum of " + what)
		b.max, b.hasMax = r.u32("maximum of "+what), true
		if r.ok() && b.max < b.min {
			r.fail(Malformed, start, "the maximum of a %s, %d, is below its minimum, %d", what, b.max, b.min)
		}
	case 2, 3:
		r.fail(Unsupported, start, "a shared %s (threads) is not supported", what)
	case 4, 5, 6, 7:
		r.fail(Unsupported, start, "a %s with 64-bit addresses (memory64) is not supported", what)
	default:
		r.fail(Malformed, start, "0x%02x is no kind of limits", flags)
	}
	return b
}
