package metering

// An immediate says what follows an opcode.
type immediate byte

const (
	undefined immediate = iota // no instruction
	none
	blockType
	label
	labels // br_table
	function
	callIndirect
	local
	globalGet
	globalSet
	table
	memoryArgument
	memoryIndex // a zero byte
	constI32
	constI64
	constF32
	constF64
	heapType
	selectTypes
	refFunction
	dataInMemory  // memory.init: a data segment, a zero byte
	dataSegment   // data.drop
	twoMemories   // memory.copy: two zero bytes
	memoryFill    // a zero byte
	elementsTable // table.init: an element segment, a table
	elementDrop
	twoTables // table.copy
	tableGrow
	tableFill
	lane
	memoryArgumentLane
	sixteenBytes // v128.const
	shuffle      // 16 lanes of 32
)

// An instruction is what is known about an opcode: its immediates, how many
// operands it takes and leaves (those of calls and blocks depend on a type),
// and its cost in fuel, see cost.go.
type instruction struct {
	immediate    immediate
	pops, pushes int8
	cost         int16
}

// Opcodes that the rewriter treats on their own.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32LtU       = 0x49
	opI64LtS       = 0x53
	opI64GeS       = 0x59
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Or        = 0x84
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opI64ExtendU   = 0xad
	opSelect       = 0x1b
	opRefNull      = 0xd0
	opRefFunc      = 0xd2
	prefixMisc     = 0xfc
	prefixVector   = 0xfd
)

// A span gives all opcodes from first to last the same instruction.
type span struct {
	first, last byte
	instruction
}

// plain is the table of one-byte opcodes.
var plain = expand([]span{
	{0x00, 0x00, instruction{none, 0, 0, 1}},                        // unreachable
	{0x01, 0x01, instruction{none, 0, 0, 0}},                        // nop
	{0x02, 0x03, instruction{blockType, 0, 0, 0}},                   // block, loop
	{0x04, 0x04, instruction{blockType, 1, 0, 1}},                   // if
	{0x05, 0x05, instruction{none, 0, 0, 0}},                        // else
	{0x0b, 0x0b, instruction{none, 0, 0, 0}},                        // end
	{0x0c, 0x0c, instruction{label, 0, 0, 1}},                       // br
	{0x0d, 0x0d, instruction{label, 1, 0, 1}},                       // br_if
	{0x0e, 0x0e, instruction{labels, 1, 0, 3}},                      // br_table
	{0x0f, 0x0f, instruction{none, 0, 0, 1}},                        // return
	{0x10, 0x10, instruction{function, 0, 0, costCall}},             // call
	{0x11, 0x11, instruction{callIndirect, 1, 0, costCallIndirect}}, // call_indirect
	{0x1a, 0x1a, instruction{none, 1, 0, 0}},                        // drop
	{0x1b, 0x1b, instruction{none, 3, 1, 1}},                        // select
	{0x1c, 0x1c, instruction{selectTypes, 3, 1, 1}},                 // select t
	{0x20, 0x20, instruction{local, 0, 1, 1}},                       // local.get
	{0x21, 0x21, instruction{local, 1, 0, 1}},                       // local.set
	{0x22, 0x22, instruction{local, 1, 1, 1}},                       // local.tee
	{0x23, 0x23, instruction{globalGet, 0, 1, 1}},                   // global.get
	{0x24, 0x24, instruction{globalSet, 1, 0, 1}},                   // global.set
	{0x25, 0x25, instruction{table, 1, 1, 3}},                       // table.get
	{0x26, 0x26, instruction{table, 2, 0, 3}},                       // table.set
	{0x28, 0x35, instruction{memoryArgument, 1, 1, 1}},              // loads
	{0x36, 0x3e, instruction{memoryArgument, 2, 0, 1}},              // stores
	{0x3f, 0x3f, instruction{memoryIndex, 0, 1, 1}},                 // memory.size
	{0x40, 0x40, instruction{memoryIndex, 1, 1, costGrow}},          // memory.grow
	{0x41, 0x41, instruction{constI32, 0, 1, 1}},
	{0x42, 0x42, instruction{constI64, 0, 1, 1}},
	{0x43, 0x43, instruction{constF32, 0, 1, 1}},
	{0x44, 0x44, instruction{constF64, 0, 1, 1}},
	{0x45, 0x45, instruction{none, 1, 1, 1}},            // i32.eqz
	{0x46, 0x4f, instruction{none, 2, 1, 1}},            // i32 comparisons
	{0x50, 0x50, instruction{none, 1, 1, 1}},            // i64.eqz
	{0x51, 0x5a, instruction{none, 2, 1, 1}},            // i64 comparisons
	{0x5b, 0x66, instruction{none, 2, 1, 2}},            // float comparisons
	{0x67, 0x69, instruction{none, 1, 1, 2}},            // i32.clz, ctz, popcnt
	{0x6a, 0x6c, instruction{none, 2, 1, 1}},            // i32.add, sub, mul
	{0x6d, 0x70, instruction{none, 2, 1, costDivide32}}, // i32.div, rem
	{0x71, 0x78, instruction{none, 2, 1, 1}},            // i32 bits
	{0x79, 0x7b, instruction{none, 1, 1, 2}},            // i64.clz, ctz, popcnt
	{0x7c, 0x7e, instruction{none, 2, 1, 1}},            // i64.add, sub, mul
	{0x7f, 0x82, instruction{none, 2, 1, costDivide64}}, // i64.div, rem
	{0x83, 0x8a, instruction{none, 2, 1, 1}},            // i64 bits
	{0x8b, 0x90, instruction{none, 1, 1, 2}},            // f32.abs … nearest
	{0x91, 0x91, instruction{none, 1, 1, costRoot}},     // f32.sqrt
	{0x92, 0x94, instruction{none, 2, 1, 1}},            // f32.add, sub, mul
	{0x95, 0x95, instruction{none, 2, 1, costDivideFloat}},
	{0x96, 0x98, instruction{none, 2, 1, 4}}, // f32.min, max, copysign
	{0x99, 0x9e, instruction{none, 1, 1, 2}}, // f64.abs … nearest
	{0x9f, 0x9f, instruction{none, 1, 1, costRoot}},
	{0xa0, 0xa2, instruction{none, 2, 1, 1}}, // f64.add, sub, mul
	{0xa3, 0xa3, instruction{none, 2, 1, costDivideFloat}},
	{0xa4, 0xa6, instruction{none, 2, 1, 4}}, // f64.min, max, copysign
	{0xa7, 0xa7, instruction{none, 1, 1, 1}}, // i32.wrap_i64
	{0xa8, 0xab, instruction{none, 1, 1, 5}}, // i32.trunc
	{0xac, 0xad, instruction{none, 1, 1, 1}}, // i64.extend_i32
	{0xae, 0xb1, instruction{none, 1, 1, 5}}, // i64.trunc
	{0xb2, 0xbb, instruction{none, 1, 1, 2}}, // converts
	{0xbc, 0xbf, instruction{none, 1, 1, 1}}, // reinterprets
	{0xc0, 0xc4, instruction{none, 1, 1, 1}}, // sign extension
	{0xd0, 0xd0, instruction{heapType, 0, 1, 1}},
	{0xd1, 0xd1, instruction{none, 1, 1, 1}},        // ref.is_null
	{0xd2, 0xd2, instruction{refFunction, 0, 1, 5}}, // a call into the runtime
})

// misc is the table of opcodes behind the prefix 0xfc.
var misc = expand([]span{
	{0, 7, instruction{none, 1, 1, 6}}, // saturating conversions
	{8, 8, instruction{dataInMemory, 3, 0, costBulk}},
	{9, 9, instruction{dataSegment, 0, 0, 2}},
	{10, 10, instruction{twoMemories, 3, 0, costBulk}},
	{11, 11, instruction{memoryFill, 3, 0, costBulk}},
	{12, 12, instruction{elementsTable, 3, 0, costBulk}},
	{13, 13, instruction{elementDrop, 0, 0, 2}},
	{14, 14, instruction{twoTables, 3, 0, costBulk}},
	{15, 15, instruction{tableGrow, 2, 1, costGrow}},
	{16, 16, instruction{table, 0, 1, 2}}, // table.size
	{17, 17, instruction{tableFill, 3, 0, costBulk}},
})

// vector is the table of opcodes behind the prefix 0xfd: the finished SIMD
// proposal, without the relaxed one.
var vector = expand([]span{
	{0x00, 0x0a, instruction{memoryArgument, 1, 1, 2}}, // loads
	{0x0b, 0x0b, instruction{memoryArgument, 2, 0, 2}}, // v128.store
	{0x0c, 0x0c, instruction{sixteenBytes, 0, 1, 2}},   // v128.const
	{0x0d, 0x0d, instruction{shuffle, 2, 1, 6}},
	{0x0e, 0x0e, instruction{none, 2, 1, 4}}, // i8x16.swizzle
	{0x0f, 0x14, instruction{none, 1, 1, 3}}, // splats
	{0x15, 0x16, instruction{lane, 1, 1, 2}},
	{0x17, 0x17, instruction{lane, 2, 1, 2}},
	{0x18, 0x19, instruction{lane, 1, 1, 2}},
	{0x1a, 0x1a, instruction{lane, 2, 1, 2}},
	{0x1b, 0x1b, instruction{lane, 1, 1, 2}},
	{0x1c, 0x1c, instruction{lane, 2, 1, 2}},
	{0x1d, 0x1d, instruction{lane, 1, 1, 2}},
	{0x1e, 0x1e, instruction{lane, 2, 1, 2}},
	{0x1f, 0x1f, instruction{lane, 1, 1, 2}},
	{0x20, 0x20, instruction{lane, 2, 1, 2}},
	{0x21, 0x21, instruction{lane, 1, 1, 2}},
	{0x22, 0x22, instruction{lane, 2, 1, 2}},
	{0x23, 0x4c, instruction{none, 2, 1, 4}},               // comparisons
	{0x4d, 0x4d, instruction{none, 1, 1, 2}},               // v128.not
	{0x4e, 0x51, instruction{none, 2, 1, 2}},               // and, andnot, or, xor
	{0x52, 0x52, instruction{none, 3, 1, 3}},               // bitselect
	{0x53, 0x53, instruction{none, 1, 1, 3}},               // any_true
	{0x54, 0x57, instruction{memoryArgumentLane, 2, 1, 3}}, // load lanes
	{0x58, 0x5b, instruction{memoryArgumentLane, 2, 0, 3}}, // store lanes
	{0x5c, 0x5d, instruction{memoryArgument, 1, 1, 2}},     // load zero
	{0x5e, 0x61, instruction{none, 1, 1, 3}},
	{0x62, 0x62, instruction{none, 1, 1, 10}}, // i8x16.popcnt
	{0x63, 0x64, instruction{none, 1, 1, 3}},
	{0x65, 0x66, instruction{none, 2, 1, 2}},
	{0x67, 0x6a, instruction{none, 1, 1, 2}},  // f32x4 rounding
	{0x6b, 0x6d, instruction{none, 2, 1, 10}}, // i8x16 shifts
	{0x6e, 0x73, instruction{none, 2, 1, 2}},
	{0x74, 0x75, instruction{none, 1, 1, 2}}, // f64x2.ceil, floor
	{0x76, 0x79, instruction{none, 2, 1, 2}},
	{0x7a, 0x7a, instruction{none, 1, 1, 2}}, // f64x2.trunc
	{0x7b, 0x7b, instruction{none, 2, 1, 2}},
	{0x7c, 0x7f, instruction{none, 1, 1, 6}}, // pairwise additions
	{0x80, 0x81, instruction{none, 1, 1, 3}},
	{0x82, 0x82, instruction{none, 2, 1, 4}},
	{0x83, 0x84, instruction{none, 1, 1, 3}},
	{0x85, 0x86, instruction{none, 2, 1, 2}},
	{0x87, 0x8a, instruction{none, 1, 1, 2}},
	{0x8b, 0x8d, instruction{none, 2, 1, 3}},
	{0x8e, 0x93, instruction{none, 2, 1, 2}},
	{0x94, 0x94, instruction{none, 1, 1, 2}}, // f64x2.nearest
	{0x95, 0x99, instruction{none, 2, 1, 2}},
	{0x9b, 0x9b, instruction{none, 2, 1, 2}},
	{0x9c, 0x9f, instruction{none, 2, 1, 4}},
	{0xa0, 0xa1, instruction{none, 1, 1, 3}},
	{0xa3, 0xa4, instruction{none, 1, 1, 3}},
	{0xa7, 0xaa, instruction{none, 1, 1, 2}},
	{0xab, 0xad, instruction{none, 2, 1, 3}},
	{0xae, 0xae, instruction{none, 2, 1, 2}},
	{0xb1, 0xb1, instruction{none, 2, 1, 2}},
	{0xb5, 0xb9, instruction{none, 2, 1, 3}},
	{0xba, 0xba, instruction{none, 2, 1, 3}},
	{0xbc, 0xbf, instruction{none, 2, 1, 4}},
	{0xc0, 0xc1, instruction{none, 1, 1, 4}},
	{0xc3, 0xc4, instruction{none, 1, 1, 3}},
	{0xc7, 0xca, instruction{none, 1, 1, 2}},
	{0xcb, 0xcd, instruction{none, 2, 1, 8}}, // i64x2 shifts
	{0xce, 0xce, instruction{none, 2, 1, 2}},
	{0xd1, 0xd1, instruction{none, 2, 1, 2}},
	{0xd5, 0xd5, instruction{none, 2, 1, 8}}, // i64x2.mul
	{0xd6, 0xdb, instruction{none, 2, 1, 4}},
	{0xdc, 0xdf, instruction{none, 2, 1, 4}},
	{0xe0, 0xe1, instruction{none, 1, 1, 3}},
	{0xe3, 0xe3, instruction{none, 1, 1, 2 * costRoot}},
	{0xe4, 0xe6, instruction{none, 2, 1, 2}},
	{0xe7, 0xe7, instruction{none, 2, 1, 2 * costDivideFloat}},
	{0xe8, 0xeb, instruction{none, 2, 1, 8}}, // minimum, maximum
	{0xec, 0xed, instruction{none, 1, 1, 3}},
	{0xef, 0xef, instruction{none, 1, 1, 2 * costRoot}},
	{0xf0, 0xf2, instruction{none, 2, 1, 2}},
	{0xf3, 0xf3, instruction{none, 2, 1, 2 * costDivideFloat}},
	{0xf4, 0xf7, instruction{none, 2, 1, 8}},
	{0xf8, 0xff, instruction{none, 1, 1, 10}}, // conversions
})

func expand(spans []span) *[256]instruction {
	var all [256]instruction
	for _, s := range spans {
		for op := int(s.first); op <= int(s.last); op++ {
			all[op] = s.instruction
		}
	}
	return &all
}

// foreign says which proposal a one-byte opcode belongs to that is not let
// through; "" for one that no proposal has.
func foreign(op byte) string {
	switch {
	case op >= 0x06 && op <= 0x0a, op == 0x18, op == 0x19, op == 0x1f:
		return "exceptions"
	case op == 0x12, op == 0x13:
		return "tail calls"
	case op == 0x14, op == 0x15, op >= 0xd3 && op <= 0xd6:
		return "typed function references"
	case op >= 0xe0 && op <= 0xe6:
		return "continuations"
	case op == 0xfb:
		return "types of garbage collection"
	case op == 0xfe:
		return "threads"
	}
	return ""
}
