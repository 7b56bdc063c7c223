package metering

import "math"

// A scanner reads one function after another: it checks that every opcode is
// known and every index in range, counts operands (their types are left to the
// runtime, which sees the same instructions in the same places), and notes
// what the rewriter has to change. Its slices are used again for the next
// function.
type scanner struct {
	m *module
	r *reader

	frames   []frame
	height   int // operands
	segments []segment
	current  int // segment, -1 in code that is never reached
	edits    []edit

	loops []loop
	loop  int // innermost open one, -1 for none
	depth int // of open loops

	instructions, calls, accesses int
	merges                        int // places where several ways meet
	chain                         int // ways parted since the last of these, on the way here
	walked                        int // sum of chain over all instructions
	reached                       int // sum of chain over all branches
	values                        int // that are handed over there and at calls
	frameEstimate
}

// A frame is a block that is open; the first is the function itself.
type frame struct {
	op              byte // opBlock for the function
	params, results int
	base            int  // operands below the block's parameters
	unreachable     bool // the rest of the block: operands are there as wanted
	outer           int  // segment in which the block begins, -1 if it is never reached
	head            int  // of a loop: the segment of its header, -1 as above
	lowest          int  // lowest frame that a branch within goes to
	chain           int  // where the block begins
	targeted        bool // by a branch, or by an if's first way falling through
	sets            int  // local.set and local.tee within
}

// An edit replaces the bytes from at to end.
type edit struct {
	at, end  int
	kind     editKind
	argument uint32
}

type editKind byte

const (
	editCharge editKind = iota // insert the charge of a segment
	editCall                   // a call's function
	editRef                    // a ref.func's function
	editReturn                 // into a br with that depth
	editHelper                 // insert a call of a helper
	editLoop                   // insert what stands before a loop with that number
)

// scan reads the function's body up to its last end and returns where its code
// begins, behind the locals.
func (s *scanner) scan(number int) (code int) {
	body := s.m.bodies[number]
	s.r = &reader{data: s.m.data, pos: body.start, end: body.end}
	signature := &s.m.types[s.m.functions[s.m.importedFunctions+number]]
	*s = scanner{
		m: s.m, r: s.r,
		frames: s.frames[:0], segments: s.segments[:0], edits: s.edits[:0], loops: s.loops[:0], loop: -1,
	}
	locals := s.readLocals(len(signature.Params))
	if !s.r.ok() {
		return 0
	}
	s.locals, s.vectors = locals, s.vectors || signature.hasVector()
	code = s.r.pos
	s.segments = append(s.segments, segment{parent: -1, loop: -1, mandatory: true, cost: costEntry})
	s.frames = append(s.frames, frame{op: opBlock, results: len(signature.Results), lowest: math.MaxInt})
	for len(s.frames) > 0 && s.r.ok() {
		s.instruction()
	}
	if s.r.more() {
		s.r.fail(Malformed, s.r.pos, "%d bytes behind the end of a function", s.r.end-s.r.pos)
	}
	complexity := s.complexity()
	if complexity > s.m.limits.Complexity {
		s.r.fail(TooLarge, body.start, "a function of complexity %d, at most %d is allowed", complexity, s.m.limits.Complexity)
	}
	if s.m.totalComplexity += complexity; s.m.totalComplexity > s.m.limits.TotalComplexity {
		s.r.fail(TooLarge, body.start, "functions of complexity %d together, at most %d is allowed", s.m.totalComplexity, s.m.limits.TotalComplexity)
	}
	return code
}

// complexity estimates a compiler's work, in units of a microsecond or two: it
// follows every local through every place where ways meet, and from there on
// for every use; it reloads every mutable global behind a call (and behind
// every check of the fuel, which is one); it moves what blocks and calls hand
// over; and it is quadratic in the number of basic blocks, the depth of loops
// and the size of a br_table.
func (s *scanner) complexity() int {
	blocks := len(s.segments) + s.merges
	return perFunction + s.instructions/4 + s.values + (s.merges+s.reached/128)*min(s.accesses, s.locals) + s.walked/64 +
		blocks*blocks/512 + (s.calls+len(s.loops))*(s.m.mutableGlobals+2)/4
}

// perFunction is the complexity of an empty function.
const perFunction = 20

// readLocals reads the declarations of locals and returns how many there are,
// the parameters included.
func (s *scanner) readLocals(params int) int {
	r := s.r
	total := params
	for range r.count("declarations of locals", s.m.limits.BodyBytes) {
		start := r.pos
		n := int64(r.u32("number of locals"))
		t := r.valueType("type of a local")
		s.vectors = s.vectors || t == V128
		if n+int64(total) > math.MaxUint32 {
			r.fail(Malformed, start, "more than %d locals", uint32(math.MaxUint32))
		}
		if n+int64(total) > int64(s.m.limits.Locals) {
			r.fail(TooLarge, start, "a function of %d locals, at most %d are allowed", n+int64(total), s.m.limits.Locals)
		}
		if !r.ok() {
			return 0
		}
		total += int(n)
	}
	if s.m.totalLocals += total; s.m.totalLocals > s.m.limits.TotalLocals {
		r.fail(TooLarge, r.pos, "functions of more than %d locals together", s.m.limits.TotalLocals)
	}
	return total
}

// instruction reads the next instruction.
func (s *scanner) instruction() {
	r := s.r
	start := r.pos
	op := r.byte("the end of a function")
	if !r.ok() {
		return
	}
	s.instructions++
	s.walked += s.chain
	switch op {
	case opBlock, opLoop, opIf:
		s.open(op, start)
		return
	case opElse:
		s.reachElse(start)
		return
	case opEnd:
		s.close(start)
		return
	case opBr, opBrIf, opBrTable, opReturn, opUnreachable:
		s.branch(op, start)
		return
	case opCall, opCallIndirect:
		s.call(op, start)
		return
	case prefixMisc, prefixVector:
		s.prefixed(op, start)
		return
	}
	i := plain[op]
	if i.immediate == undefined {
		if proposal := foreign(op); proposal != "" {
			r.fail(Unsupported, start, "instruction 0x%02x: %s are not supported", op, proposal)
		}
		r.fail(Malformed, start, "instruction 0x%02x is unknown", op)
		return
	}
	s.simple(i, op, start)
}

// prefixed reads an instruction behind a prefix. Only the shortest encoding of
// its number is let through: wazero takes the byte behind 0xfd for the opcode,
// and what follows for the next instruction.
func (s *scanner) prefixed(prefix byte, start int) {
	r := s.r
	first := r.pos
	op := r.u32("instruction behind a prefix")
	if !r.ok() {
		return
	}
	if size := r.pos - first; size > 1 && op < 1<<(7*(size-1)) {
		r.fail(Unsupported, first, "instruction 0x%02x %d in more bytes than it takes", prefix, op)
		return
	}
	all, what := misc, "instruction"
	if prefix == prefixVector {
		all, what = vector, "vector instruction"
	}
	switch {
	case op < 256 && all[op].immediate != undefined:
		i := all[op]
		if prefix == prefixVector {
			s.vectors = true
		} else if helper := helperOf(i.immediate); helper >= 0 {
			s.edit(edit{start, start, editHelper, uint32(helper)})
		}
		s.simple(i, 0, start)
	case prefix == prefixVector && op >= 0x100 && op < 0x130:
		r.fail(Unsupported, start, "relaxed vector instruction %d is not supported", op)
	default:
		r.fail(Malformed, start, "%s %d is unknown", what, op)
	}
}

// simple reads the immediates of an instruction that does not branch or call.
func (s *scanner) simple(i instruction, op byte, start int) {
	m, r := s.m, s.r
	switch i.immediate {
	case local:
		index(r, "local", s.locals)
		s.accesses++
		if op != opLocalGet {
			s.top().sets++
		}
	case globalGet:
		index(r, "global", len(m.globals))
	case globalSet:
		at := r.pos
		n := index(r, "global", len(m.globals))
		if r.ok() && !m.globals[n].mutable {
			r.fail(Malformed, at, "global.set of global %d, which is immutable", n)
		}
	case table, tableGrow, tableFill:
		index(r, "table", len(m.tables))
		if i.immediate == tableGrow {
			s.edit(edit{start, start, editHelper, helperTableGrow})
		} else if i.immediate == tableFill {
			s.edit(edit{start, start, editHelper, helperEntries})
		}
	case twoTables:
		index(r, "table", len(m.tables))
		index(r, "table", len(m.tables))
	case memoryArgument, memoryArgumentLane:
		s.memoryArgument()
		if i.immediate == memoryArgumentLane {
			r.byte("lane")
		}
	case memoryIndex, memoryFill:
		if op == opMemoryGrow {
			s.edit(edit{start, start, editHelper, helperMemoryGrow})
		}
		s.memoryZero()
	case twoMemories:
		s.memoryZero()
		s.memoryZero()
	case dataInMemory:
		s.dataIndex()
		s.memoryZero()
	case dataSegment:
		s.dataIndex()
	case elementsTable:
		index(r, "element segment", m.elements)
		index(r, "table", len(m.tables))
	case elementDrop:
		index(r, "element segment", m.elements)
	case constI32:
		r.leb("constant", 32, true)
	case constI64:
		r.leb("constant", 64, true)
	case constF32:
		r.skip(4, "constant")
	case constF64:
		r.skip(8, "constant")
	case sixteenBytes, shuffle:
		r.skip(16, "constant")
	case lane:
		r.byte("lane")
	case heapType:
		r.referenceType("reference type")
	case selectTypes:
		at := r.pos
		if n := r.u32("number of types"); r.ok() && n != 1 {
			r.fail(Malformed, at, "a select of %d types", n)
		}
		r.valueType("value type")
	case refFunction:
		at := r.pos
		n := index(r, "function", len(m.functions))
		if r.ok() && (m.declared == nil || !m.declared[n]) {
			// Start becomes an export: it must not become nameable by that.
			r.fail(Malformed, at, "ref.func of function %d, which no export, global or element names", n)
		}
		s.edit(edit{at, r.pos, editRef, n})
	}
	s.spend(int(i.cost))
	s.pop(int(i.pops), start)
	s.push(int(i.pushes))
}

func (s *scanner) edit(e edit) {
	s.edits = append(s.edits, e)
	if s.loop >= 0 && (e.kind == editHelper || e.kind == editCall) {
		s.loops[s.loop].calls = true
	}
}

// spend adds to the cost of the code that is being read.
func (s *scanner) spend(cost int) {
	if s.current >= 0 {
		s.segments[s.current].cost += int64(cost)
	}
}

func (s *scanner) memoryArgument() {
	start := s.r.pos
	align := s.r.u32("alignment")
	s.r.u32("offset")
	if align > 4 {
		s.r.fail(Malformed, start, "an alignment of 2^%d", align)
	}
	s.needMemory(start)
}

func (s *scanner) memoryZero() {
	start := s.r.pos
	if b := s.r.byte("index of a memory"); s.r.ok() && b != 0 {
		s.r.fail(Malformed, start, "memory %d of %d", b, len(s.m.memories))
	}
	s.needMemory(start)
}

func (s *scanner) needMemory(offset int) {
	if len(s.m.memories) == 0 {
		s.r.fail(Malformed, offset, "memory 0 of 0")
	}
}

func (s *scanner) dataIndex() {
	if s.m.dataCount < 0 {
		s.r.fail(Malformed, s.r.pos, "a data segment in code, but no data count section")
	}
	index(s.r, "data segment", s.m.dataCount)
}

// push and pop count operands. Behind an unconditional branch there are as
// many as anyone takes.
func (s *scanner) push(n int) { s.height += n }

func (s *scanner) pop(n, offset int) {
	base := s.top().base
	if s.height-n < base {
		if !s.top().unreachable {
			s.r.fail(Malformed, offset, "%d operands wanted, %d there", n, s.height-base)
		}
		s.height = base
		return
	}
	s.height -= n
}

// A loop is what the rewriter has to know about one.
type loop struct {
	outer int  // the loop around it, -1 for none
	calls bool // something is called within, so that fuel may change
}

// quiet reports whether nothing is called within a loop, -1 standing for none.
func (s *scanner) quiet(loop int) bool { return loop >= 0 && !s.loops[loop].calls }
