package metering_test

import (
	"errors"
	"testing"
	"time"

	"github.com/filterd/filterd/internal/metering"
)

const header = "\x00asm\x01\x00\x00\x00"

// module assembles a module by a function.
func module(build func(a *asm)) []byte {
	a := newAsm()
	build(a)
	return a.bytes()
}

// body assembles a module with a memory, a table, an immutable global 0 and a
// function of type () -> () with three i32 locals.
func body(code []byte) []byte {
	return module(func(a *asm) {
		a.memory(1, 1)
		a.table(1, 1)
		a.global(i32, false, i32c(0))
		a.run(ops(1, 3, i32), code)
	})
}

func section(id byte, content ...any) []byte {
	c := cat(content...)
	return cat([]byte(header), id, len(c), c)
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		binary []byte
		reason metering.Reason
		want   string
	}{
		// The header.
		{"empty", nil, metering.Malformed, `byte 0: not a WebAssembly module: it does not begin with \0asm`},
		{"text", []byte("(module)"), metering.Malformed, `byte 0: not a WebAssembly module: it does not begin with \0asm`},
		{"half a header", []byte("\x00asm\x01\x00"), metering.Malformed, "byte 4: the module ends within its version"},
		{"version", []byte("\x00asm\x02\x00\x00\x00"), metering.Malformed, "byte 4: version 2 of the format, only 1 is known"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), metering.Unsupported, "byte 4: this is a component; only core modules are supported"},

		// Sections.
		{"section 14", section(14), metering.Malformed, "byte 8: section 14 is unknown"},
		{"tags", section(13, byte(0)), metering.Unsupported, "byte 8: exception handling is not supported"},
		{"order", append(section(3, byte(0)), 1, 1, 0), metering.Malformed, "byte 11: the type section is out of order or there twice"},
		{"twice", append(section(1, byte(0)), 1, 1, 0), metering.Malformed, "byte 11: the type section is out of order or there twice"},
		{"data count behind code", append(section(10, byte(0)), 12, 1, 0), metering.Malformed, "byte 11: the data count section is out of order or there twice"},
		{"size beyond the module", []byte(header + "\x01\x05\x00"), metering.Malformed, "byte 8: a section of 5 bytes in a module with 1 left"},
		{"size too small", []byte(header + "\x01\x01\x01\x60\x00\x00"), metering.Malformed, "byte 10: 1 types announced in 0 bytes"},
		{"size too large", section(1, byte(0), byte(0)), metering.Malformed, "byte 11: 1 bytes behind the last item of the type section"},
		{"size of 6 bytes", []byte(header + "\x01\x80\x80\x80\x80\x80\x00"), metering.Malformed, "byte 9: size of a section takes more than 5 bytes"},
		{"size of 36 bits", []byte(header + "\x01\x80\x80\x80\x80\x10"), metering.Malformed, "byte 9: size of a section is larger than 32 bits"},
		{"billions of types", section(1, 1<<32-1), metering.TooLarge, "byte 10: 4294967295 types, at most 10000 are allowed"},
		{"custom section's name", section(0, byte(9), "x"), metering.Malformed, "byte 11: name of a custom section ends early: 9 bytes wanted, 2 left"},
		{"custom section's name, not UTF-8", section(0, "\xff"), metering.Malformed, "byte 10: name of a custom section is not UTF-8"},
		{"functions without code", append(section(1, byte(1), byte(0x60), byte(0), byte(0)), 3, 2, 1, 0), metering.Malformed, "byte 0: 1 functions are declared, 0 have code"},

		// Declarations.
		{"imported memory", section(2, 1, "m", "n", byte(2), byte(0), 1), metering.Unsupported, `byte 11: import "n" from "m" is a memory; only functions can be imported`},
		{"imported table", section(2, 1, "m", "n", byte(1), byte(funcref), byte(0), 1), metering.Unsupported, `byte 11: import "n" from "m" is a table; only functions can be imported`},
		{"imported global", section(2, 1, "m", "n", byte(3), byte(i32), byte(0)), metering.Unsupported, `byte 11: import "n" from "m" is a global; only functions can be imported`},
		{"import's type", section(2, 1, "m", "n", byte(0), 0), metering.Malformed, "byte 16: type 0 of 0"},
		{"import's kind", section(2, 1, "m", "n", byte(9)), metering.Malformed, "byte 15: 9 is no kind of an import"},
		{"shared memory", section(5, 1, byte(3), 1, 1), metering.Unsupported, "byte 11: a shared memory (threads) is not supported"},
		{"memory64", section(5, 1, byte(4), 1), metering.Unsupported, "byte 11: a memory with 64-bit addresses (memory64) is not supported"},
		{"two memories", section(5, 2, byte(0), 1, byte(0), 1), metering.Unsupported, "byte 13: more than one memory is not supported"},
		{"memory bomb", section(5, 1, byte(0), 257), metering.TooLarge, "byte 11: a memory of 257 pages, at most 256 are allowed"},
		{"memory beyond the format", section(5, 1, byte(0), 65537), metering.Malformed, "byte 11: a memory has at most 65536 pages"},
		{"maximum below minimum", section(5, 1, byte(1), 2, 1), metering.Malformed, "byte 11: the maximum of a memory, 1, is below its minimum, 2"},
		{"table bomb", section(4, 1, byte(funcref), byte(0), 100_001), metering.TooLarge, "byte 11: tables of 100001 entries, at most 100000 are allowed"},
		{"many tables", section(4, 2, byte(funcref), byte(0), 60_000, byte(funcref), byte(0), 60_000), metering.TooLarge, "byte 16: tables of 120000 entries, at most 100000 are allowed"},
		{"table with an initializer", section(4, 1, byte(0x40), byte(0)), metering.Unsupported, "byte 11: a table with an initializer (typed function references) is not supported"},
		{"table of numbers", section(4, 1, byte(i32), byte(0), 1), metering.Malformed, "byte 11: 0x7f is no reference type"},
		{"typed reference", section(4, 1, byte(0x63), byte(0x70), byte(0), 1), metering.Unsupported, "byte 11: reference type 0x63 is of a proposal that is not supported"},
		{"type of garbage collection", section(1, 1, byte(0x5f), 0), metering.Unsupported, "byte 11: garbage collection is not supported"},
		{"global by a global", section(6, 1, byte(i32), byte(0), byte(0x23), 0, byte(0x0b)), metering.Malformed, "byte 14: imported global 0 of 0"},
		{"extended constant", section(6, 1, byte(i32), byte(0), i32c(1), i32c(1), byte(0x6a), byte(0x0b)), metering.Unsupported, "byte 15: extended constant expressions are not supported"},
		{"global by a call", section(6, 1, byte(i32), byte(0), byte(0x10), 0, byte(0x0b)), metering.Malformed, "byte 13: instruction 0x10 in a constant expression"},
		{"start's type", module(func(a *asm) { a.start = a.fn(a.sig([]byte{i32}, nil), nil, nil) }), metering.Malformed, "byte 21: the start function has type (i32) -> (), it must be () -> ()"},
		{"start's index", module(func(a *asm) { a.start = 1; a.fn(a.unit(), nil, nil) }), metering.Malformed, "byte 20: function 1 of 1"},
		{"export twice", module(func(a *asm) { a.export("a", 0, a.fn(a.unit(), nil, nil)); a.export("a", 0, 0) }), metering.Malformed, `byte 25: export "a" is there twice`},
		{"elements without a table", section(9, 1, byte(0), i32c(0), byte(0x0b), 0), metering.Malformed, "byte 11: table 0 of 0"},
		{"data without a memory", section(11, 1, byte(0), i32c(0), byte(0x0b), 0), metering.Malformed, "byte 11: memory 0 of 0"},
		{"data count", append(section(12, 3), 11, 1, 0), metering.Malformed, "byte 10: 3 data segments are announced, there are 0"},

		// Functions.
		{"50 MB of locals", module(func(a *asm) { a.run(cat(1, 50<<20, byte(i64)), nil) }), metering.TooLarge, "byte 32: a function of 52428800 locals, at most 50000 are allowed"},
		{"locals in pieces", module(func(a *asm) { a.run(cat(3, 1<<31, byte(i64), 1<<31, byte(i64), 2, byte(i64)), nil) }), metering.TooLarge, "byte 32: a function of 2147483648 locals, at most 50000 are allowed"},
		{"20,000 nested blocks", body(cat(repeat(ops(0x02, void), 20_000), repeat([]byte{0x0b}, 20_000))), metering.TooLarge, "byte 2059: blocks nested more than 1000 deep"},
		{"no end", module(func(a *asm) { a.fn(a.unit(), nil, ops(0x02, void)) }), metering.Malformed, "byte 26: the end of a function is missing"},
		{"code behind the end", body(ops(0x0b)), metering.Malformed, "byte 56: 1 bytes behind the end of a function"},
		{"else without if", body(ops(0x05)), metering.Malformed, "byte 55: an else without an if"},
		{"two elses", body(ops(0x41, 0, 0x04, void, 0x05, 0x05, 0x0b)), metering.Malformed, "byte 60: an else without an if"},
		{"label", body(ops(0x0c, 1)), metering.Malformed, "byte 56: label 1 of 1"},
		{"label of a br_table", body(ops(0x41, 0, 0x0e, 1, 0, 7)), metering.Malformed, "byte 60: label 7 of 1"},
		{"br_table of billions", body(cat(ops(0x41, 0, 0x0e), 1<<31)), metering.TooLarge, "byte 58: 2147483648 targets of a br_table, at most 20000 are allowed"},
		{"local", body(ops(0x20, 3, 0x1a)), metering.Malformed, "byte 56: local 3 of 3"},
		{"function", body(ops(0x10, 1)), metering.Malformed, "byte 56: function 1 of 1"},
		{"type of call_indirect", body(ops(0x41, 0, 0x11, 1, 0)), metering.Malformed, "byte 58: type 1 of 1"},
		{"table of call_indirect", body(ops(0x41, 0, 0x11, 0, 1)), metering.Malformed, "byte 59: table 1 of 1"},
		{"type of a block", body(ops(0x02, 1, 0x0b)), metering.Malformed, "byte 56: type 1 of 1"},
		{"type of a block in two bytes", body(ops(0x02, 0xff, 0x7f, 0x0b)), metering.Unsupported, "byte 56: the type of a block in more bytes than it takes"},
		{"data segment", body(cat(i32c(0), i32c(0), i32c(0), bulk(8, 0, 0))), metering.Malformed, "byte 63: a data segment in code, but no data count section"},
		{"element segment", body(bulk(13, 0)), metering.Malformed, "byte 57: element segment 0 of 0"},
		{"operands", body(ops(0x6a)), metering.Malformed, "byte 55: 2 operands wanted, 0 there"},
		{"operands of the outer block", body(ops(0x41, 0, 0x02, void, 0x1a, 0x0b)), metering.Malformed, "byte 59: 1 operands wanted, 0 there"},
		{"operands left", body(ops(0x41, 0)), metering.Malformed, "byte 57: 1 operands at the end of a block with 0 results"},
		{"alignment", body(ops(0x41, 0, 0x28, 5, 0, 0x1a)), metering.Malformed, "byte 58: an alignment of 2^5"},
		{"select of two types", body(ops(0x1c, 2, i32, i32)), metering.Malformed, "byte 56: a select of 2 types"},

		// Instructions.
		{"unknown instruction", body(ops(0x27)), metering.Malformed, "byte 55: instruction 0x27 is unknown"},
		{"threads", body(ops(0xfe, 3, 0)), metering.Unsupported, "byte 55: instruction 0xfe: threads are not supported"},
		{"tail call", body(ops(0x12, 0)), metering.Unsupported, "byte 55: instruction 0x12: tail calls are not supported"},
		{"exceptions", body(ops(0x08, 0)), metering.Unsupported, "byte 55: instruction 0x08: exceptions are not supported"},
		{"typed function references", body(ops(0x14, 0)), metering.Unsupported, "byte 55: instruction 0x14: typed function references are not supported"},
		{"garbage collection", body(ops(0xfb, 0)), metering.Unsupported, "byte 55: instruction 0xfb: types of garbage collection are not supported"},
		{"relaxed vectors", body(ops(0xfd, 0x80, 2)), metering.Unsupported, "byte 55: relaxed vector instruction 256 is not supported"},
		{"gap among vectors", body(ops(0xfd, 0x9a, 1)), metering.Malformed, "byte 55: vector instruction 154 is unknown"},
		{"gap among the others", body(ops(0xfc, 18)), metering.Malformed, "byte 55: instruction 18 is unknown"},
		// wazero takes the byte behind the prefix for the instruction, and the
		// rest for the next ones.
		{"vector instruction in three bytes", body(ops(0xfd, 0x8c, 0x80, 0)), metering.Unsupported, "byte 56: instruction 0xfd 12 in more bytes than it takes"},
		{"bulk instruction in two bytes", body(ops(0xfc, 0x8b, 0)), metering.Unsupported, "byte 56: instruction 0xfc 11 in more bytes than it takes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			_, err := metering.Instrument(c.binary, metering.Limits{})
			if err == nil {
				t.Fatal("taken")
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
			var refusal *metering.Error
			if !errors.As(err, &refusal) || refusal.Reason != c.reason {
				t.Errorf("reason %v, want %v", refusal.Reason, c.reason)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestOutOfReach are attempts to get at what is added: by index, by name, and
// from places that are read before the code.
func TestOutOfReach(t *testing.T) {
	for _, c := range []struct {
		name   string
		binary []byte
		want   string
	}{
		{"global.set 0 without globals", module(func(a *asm) { a.run(nil, cat(i64c(1<<40), byte(0x24), 0)) }), "byte 40: global 0 of 0"},
		{"global.get 0 without globals", module(func(a *asm) { a.run(nil, ops(0x23, 0, 0x1a)) }), "byte 33: global 0 of 0"},
		{"global.set behind the last", body(cat(i64c(1<<40), byte(0x24), 1)), "byte 63: global 1 of 1"},
		{"global.set of the height", body(cat(i64c(1<<40), byte(0x24), 2)), "byte 63: global 2 of 1"},
		{"global.set in code that is never reached", body(cat(ops(0x0c, 0), i64c(1), byte(0x24), 1)), "byte 60: global 1 of 1"},
		{"global.set of an immutable", body(cat(i32c(1), byte(0x24), 0)), "byte 58: global.set of global 0, which is immutable"},
		{"export of the fuel", module(func(a *asm) { a.run(nil, nil); a.export("x", 3, 0) }), "byte 30: global 0 of 0"},
		{"export of a helper", module(func(a *asm) { a.run(nil, nil); a.export("x", 0, 1) }), "byte 30: function 1 of 1"},
		{"export of refuel", module(func(a *asm) { a.export("x", 0, 0) }), "byte 14: function 0 of 0"},
		{"call of a helper", body(ops(0x10, 1)), "byte 56: function 1 of 1"},
		{"call of refuel", module(func(a *asm) { a.run(nil, cat(i64c(0), byte(0x10), 1, byte(0x1a))) }), "byte 35: function 1 of 1"},
		{"ref.func of a helper", body(ops(0xd2, 3, 0x1a)), "byte 56: function 3 of 1"},
		{"a helper among the elements", module(func(a *asm) {
			a.table(1, 1)
			a.run(nil, nil)
			a.elems = append(a.elems, cat(byte(0), i32c(0), byte(0x0b), 1, byte(1)))
		}), "byte 42: function 1 of 1"},
		{"a helper as a start function", module(func(a *asm) { a.start = 2; a.run(nil, nil) }), "byte 29: function 2 of 1"},
		{"the fuel as an element's offset", module(func(a *asm) {
			a.table(1, 1)
			a.run(nil, nil)
			a.elems = append(a.elems, cat(byte(0), byte(0x23), 0, byte(0x0b), 1, byte(0)))
		}), "byte 39: imported global 0 of 0"},
		{"the fuel as data's offset", module(func(a *asm) {
			a.memory(1, 1)
			a.datas = append(a.datas, cat(byte(0), byte(0x23), 0, byte(0x0b), "x"))
		}), "byte 19: imported global 0 of 0"},
		{"a type of ours", body(ops(0x41, 0, 0x11, 1, 0)), "byte 58: type 1 of 1"},
		{"a type of ours for a block", body(ops(0x02, 1, 0x0b)), "byte 56: type 1 of 1"},
		{"a type of ours for a function", module(func(a *asm) { a.fn(0, nil, nil) }), "byte 11: type 0 of 0"},
		{"the local that caches fuel", module(func(a *asm) {
			a.run(nil, cat(endless(nil), i64c(1), byte(0x21), 0))
		}), "byte 40: local 0 of 0"},
		{"the name of the fuel", module(func(a *asm) { a.run(nil, nil); a.export(metering.ExportFuel, 0, 0) }), `byte 27: export "filterd_meter_fuel": names that begin with "filterd_meter_" belong to the meter`},
		{"the name of the start function", module(func(a *asm) { a.run(nil, nil); a.export(metering.ExportStart, 0, 0) }), `byte 27: export "filterd_meter_start": names that begin with "filterd_meter_" belong to the meter`},
		{"the host's refuel", module(func(a *asm) {
			a.importFunc(metering.ImportModule, metering.ImportRefuel, a.sig([]byte{i64}, []byte{i64}))
		}), `byte 19: import "refuel" from "filterd_meter": that module belongs to the meter`},
		{"ref.func of a start function that nothing names", module(func(a *asm) {
			a.start = 0
			a.fn(a.unit(), nil, ops(0xd2, 0, 0x1a))
		}), "byte 27: ref.func of function 0, which no export, global or element names"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := metering.Instrument(c.binary, metering.Limits{})
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
