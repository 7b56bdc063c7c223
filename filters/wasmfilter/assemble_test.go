package wasmfilter_test

import (
	"maps"
	"slices"
)

// A moduleText is a module for tests that need one which no toolchain makes,
// or many that differ a little.
type moduleText struct {
	types   [][]byte // as they are encoded behind 0x60
	imports []importText
	funcs   []funcText
	pages   int // of memory; -1 for none
	exports map[string]int
	start   int // function, -1 for none
}

type importText struct {
	module, name string
	typ          int
}

type funcText struct {
	typ  int
	body []byte // without locals and end
}

// The types of minimalText.
const (
	typeUnit  = iota // () -> ()
	typeUnary        // (i32) -> i32
	typePair         // (i32, i32) -> ()
	typeQuery        // (i32, i32) -> i32
	typeWhole        // () -> i64
)

// minimalText is a module that keeps every message.
func minimalText() *moduleText {
	return &moduleText{
		types: [][]byte{
			{0, 0},
			{1, 0x7f, 1, 0x7f},
			{2, 0x7f, 0x7f, 0},
			{2, 0x7f, 0x7f, 1, 0x7f},
			{0, 1, 0x7e},
		},
		funcs: []funcText{
			{typeUnit, nil},
			{typeUnary, []byte{0x41, 16}},
			{typeUnary, []byte{0x41, 1}},
		},
		pages:   1,
		exports: map[string]int{"filterd_abi_v1": 0, "filterd_buffer": 1, "filterd_process": 2},
		start:   -1,
	}
}

// forever is a body that never ends.
var forever = []byte{0x03, 0x40, 0x0c, 0, 0x0b}

func (m *moduleText) bytes() []byte {
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, count int, content []byte) {
		if count > 0 {
			content = append([]byte{byte(count)}, content...)
			out = append(append(out, id), leb(len(content))...)
			out = append(out, content...)
		}
	}
	var b []byte
	for _, t := range m.types {
		b = append(append(b, 0x60), t...)
	}
	section(1, len(m.types), b)
	b = nil
	for _, i := range m.imports {
		b = append(append(append(append(b, name(i.module)...), name(i.name)...), 0), byte(i.typ))
	}
	section(2, len(m.imports), b)
	b = nil
	for _, f := range m.funcs {
		b = append(b, byte(f.typ))
	}
	section(3, len(m.funcs), b)
	if m.pages >= 0 {
		section(5, 1, append([]byte{0}, leb(m.pages)...))
	}
	b = nil
	count := len(m.exports)
	for _, export := range slices.Sorted(maps.Keys(m.exports)) {
		function := m.exports[export]
		b = append(append(append(b, name(export)...), 0), byte(len(m.imports)+function))
	}
	if m.pages >= 0 {
		b = append(append(b, name("memory")...), 2, 0)
		count++
	}
	section(7, count, b)
	if m.start >= 0 {
		out = append(out, 8, 1, byte(len(m.imports)+m.start))
	}
	b = nil
	for _, f := range m.funcs {
		code := append(append([]byte{0}, f.body...), 0x0b)
		b = append(append(b, leb(len(code))...), code...)
	}
	section(10, len(m.funcs), b)
	return out
}

func leb(v int) []byte {
	var b []byte
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}
