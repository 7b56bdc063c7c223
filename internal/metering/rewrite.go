package metering

// What an instrumented module needs from its host, and shows to it.
const (
	// ImportModule is the name of the module from which the two functions
	// below are imported. Modules that import from it themselves are refused.
	ImportModule = "filterd_meter"

	// ImportRefuel, (i64) -> (i64), is called with the fuel when that is below
	// zero, and returns what there is from now on. It must return zero or more,
	// or not return at all (a host function that panics ends the guest). The
	// first call comes with the first instruction that runs: fuel is zero at
	// the beginning.
	ImportRefuel = "refuel"

	// ImportOverflow, () -> (), is called when the stack is too high. It must
	// not return.
	ImportOverflow = "overflow"

	// ExportFuel is a mutable i64 global: the fuel that is left of what the
	// host granted. The host may read and write it between calls and within
	// host functions. It can be below zero when a call returns: not every
	// charge is followed by a check, see the package's documentation.
	ExportFuel = exportPrefix + "fuel"

	// ExportHeight is a mutable i64 global: the bytes of stack that are left.
	// It returns to its first value when a call returns, not when it traps.
	ExportHeight = exportPrefix + "height"

	// ExportStart is the module's start function, () -> (), see [Module].
	ExportStart = exportPrefix + "start"

	exportPrefix = "filterd_meter_"
)

// addedImports is how many functions are imported in addition.
const addedImports = 2

// A Module is an instrumented module.
type Module struct {
	Binary []byte
	// HasStart says that the module had a start function. It does not run by
	// itself any more: the host calls [ExportStart] after instantiation,
	// before anything else.
	HasStart bool
}

// Instrument returns the module with meters for fuel and stack height, or an
// [*Error] that says why it is refused. It does not keep or change data, and
// may be called from several goroutines.
//
// Types are not checked: a module whose instructions have operands of the
// wrong types comes out with the same fault, for the runtime to find.
func Instrument(data []byte, limits Limits) (*Module, error) {
	m, err := readModule(data, limits.orDefaults())
	if err == nil {
		err = m.refused
	}
	if err != nil {
		return nil, err
	}
	w := &rewriter{m: m, blockTypes: make(map[string]uint32)}
	w.addType(unitType)
	w.addType(refuelType)
	w.addType(lengthType)
	code, err := w.code()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(data)+len(code)-len(m.bytes(sectionCode))+1024)
	out = append(out, data[:headerSize]...)
	out = appendSection(out, sectionType, w.types())
	out = appendSection(out, sectionImport, w.imports())
	out = appendSection(out, sectionFunction, w.functions())
	if len(m.tables) > 0 {
		out = appendSection(out, sectionTable, w.tables())
	}
	if len(m.memories) > 0 {
		out = appendSection(out, sectionMemory, w.memories())
	}
	out = appendSection(out, sectionGlobal, w.globals())
	out = appendSection(out, sectionExport, w.exports())
	for _, id := range []int{sectionElement, sectionDataCount, sectionCode, sectionData} {
		switch {
		case id == sectionCode:
			out = appendSection(out, sectionCode, code)
		case m.sections[id].start > 0:
			out = appendSection(out, byte(id), w.relocated(nil, m.sections[id].start, m.sections[id].end))
		}
	}
	out = w.names(out)
	return &Module{Binary: out, HasStart: m.start >= 0}, nil
}

// A rewriter writes a module's sections anew. Added types, imports, globals,
// functions and exports stand behind the module's own, so that only the
// indices of functions behind the imports move.
type rewriter struct {
	m          *module
	added      []byte // types
	addedCount int
	blockTypes map[string]uint32 // by their results
}

const (
	unitType = iota
	refuelType
	lengthType
)

// addType adds one of the types that every instrumented module has.
func (w *rewriter) addType(t int) {
	switch t {
	case unitType:
		w.added = append(w.added, 0x60, 0, 0)
	case refuelType:
		w.added = append(w.added, 0x60, 1, byte(I64), 1, byte(I64))
	case lengthType:
		w.added = append(w.added, 0x60, 1, byte(I32), 1, byte(I32))
	}
	w.addedCount++
}

func (w *rewriter) typeIndex(t int) uint32 { return uint32(len(w.m.types) + t) }

func (w *rewriter) refuel() uint32   { return uint32(w.m.importedFunctions) }
func (w *rewriter) overflow() uint32 { return uint32(w.m.importedFunctions) + 1 }
func (w *rewriter) fuel() uint32     { return uint32(len(w.m.globals)) }
func (w *rewriter) height() uint32   { return uint32(len(w.m.globals)) + 1 }

func (w *rewriter) helperIndex(number int) uint32 {
	return uint32(len(w.m.functions) + addedImports + number)
}

// moved returns where a function of the module is now.
func (w *rewriter) moved(function uint32) uint32 {
	if int(function) < w.m.importedFunctions {
		return function
	}
	return function + addedImports
}

// bytes returns the content of a section.
func (m *module) bytes(id int) []byte {
	return m.data[m.sections[id].start:m.sections[id].end]
}

// items returns a section's content behind the number of its items.
func (m *module) items(id int) part {
	r := &reader{data: m.data, pos: m.sections[id].start, end: m.sections[id].end}
	if m.sections[id].start > 0 {
		r.u32("number of items")
	}
	return part{r.pos, r.end}
}

func appendSection(b []byte, id byte, content []byte) []byte {
	b = appendU32(append(b, id), uint32(len(content)))
	return append(b, content...)
}

// relocated appends the module's bytes from start to end, with the indices of
// functions among them moved.
func (w *rewriter) relocated(b []byte, start, end int) []byte {
	relocations := w.m.relocations
	low, high := 0, len(relocations)
	for low < high {
		if middle := (low + high) / 2; relocations[middle].start < start {
			low = middle + 1
		} else {
			high = middle
		}
	}
	for _, at := range relocations[low:] {
		if at.start >= end {
			break
		}
		b = append(b, w.m.data[start:at.start]...)
		b = appendU32(b, w.moved(at.index))
		start = at.end
	}
	return append(b, w.m.data[start:end]...)
}

// appendItems appends the module's items of a section, and how many there are
// with those that will be added.
func (w *rewriter) appendItems(b []byte, id, count, added int) []byte {
	b = appendU32(b, uint32(count+added))
	items := w.m.items(id)
	return w.relocated(b, items.start, items.end)
}

func (w *rewriter) types() []byte {
	return append(w.appendItems(nil, sectionType, len(w.m.types), w.addedCount), w.added...)
}

func (w *rewriter) imports() []byte {
	b := w.appendItems(nil, sectionImport, len(w.m.imports), addedImports)
	b = append(appendName(appendName(b, ImportModule), ImportRefuel), kindFunction)
	b = appendU32(b, w.typeIndex(refuelType))
	b = append(appendName(appendName(b, ImportModule), ImportOverflow), kindFunction)
	return appendU32(b, w.typeIndex(unitType))
}

func (w *rewriter) functions() []byte {
	b := w.appendItems(nil, sectionFunction, len(w.m.bodies), helperCount)
	b = appendU32(b, w.typeIndex(unitType))
	for range helperCount - 1 {
		b = appendU32(b, w.typeIndex(lengthType))
	}
	return b
}

// tables writes all tables with a maximum, such that together they stay within
// the limit.
func (w *rewriter) tables() []byte {
	b := appendU32(nil, uint32(len(w.m.tables)))
	spare := uint32(w.m.limits.TableEntries)
	for _, t := range w.m.tables {
		spare -= t.min
	}
	spare /= uint32(len(w.m.tables))
	for _, t := range w.m.tables {
		most := t.min + spare
		if t.hasMax {
			most = min(most, t.max)
		}
		b = append(b, byte(t.element), 1)
		b = appendU32(appendU32(b, t.min), most)
	}
	return b
}

func (w *rewriter) memories() []byte {
	b := []byte{1}
	for _, memory := range w.m.memories { // one
		most := uint32(w.m.limits.MemoryPages)
		if memory.hasMax {
			most = min(most, memory.max)
		}
		b = appendU32(appendU32(append(b, 1), memory.min), most)
	}
	return b
}

func (w *rewriter) globals() []byte {
	b := w.appendItems(nil, sectionGlobal, len(w.m.globals), 2)
	b = append(b, byte(I64), 1, opI64Const, 0, opEnd)
	b = append(b, byte(I64), 1, opI64Const)
	b = appendS64(b, int64(w.m.limits.StackBytes))
	return append(b, opEnd)
}

func (w *rewriter) exports() []byte {
	added := 2
	if w.m.start >= 0 {
		added++
	}
	b := w.appendItems(nil, sectionExport, len(w.m.exports), added)
	b = appendU32(append(appendName(b, ExportFuel), kindGlobal), w.fuel())
	b = appendU32(append(appendName(b, ExportHeight), kindGlobal), w.height())
	if w.m.start >= 0 {
		b = appendU32(append(appendName(b, ExportStart), kindFunction), w.moved(uint32(w.m.start)))
	}
	return b
}

// code writes all functions.
func (w *rewriter) code() ([]byte, *Error) {
	m := w.m
	b := appendU32(make([]byte, 0, len(m.bytes(sectionCode))*3/2), uint32(len(m.bodies)+helperCount))
	s := &scanner{m: m}
	var body []byte
	for i := range m.bodies {
		code := s.scan(i)
		if s.r.err != nil {
			return nil, s.r.err
		}
		assign(s.segments)
		body = w.function(body[:0], s, i, code)
		b = append(appendU32(b, uint32(len(body))), body...)
	}
	for i := range helperCount {
		body = w.helper(i)
		b = append(appendU32(b, uint32(len(body))), body...)
	}
	return b, nil
}

// function writes a function whose code begins at the offset code. A metered
// one gets a block around its body, so that every way out of it goes through
// the place where the height is restored.
func (w *rewriter) function(b []byte, s *scanner, number, code int) []byte {
	data, end := w.m.data, w.m.bodies[number].end-1 // the last byte is the end
	metered, size := s.metered(), int64(s.frameSize())
	b = w.appendLocals(b, s, number, code)
	b = w.appendSpend(b, w.fuel(), s.segments[0].charge)
	if metered {
		b = w.appendSpend(b, w.height(), size)
		b = appendU32(append(b, opGlobalGet), w.fuel())
		b = appendU32(append(b, opGlobalGet), w.height())
		b = append(w.appendCheck(append(b, opI64Or)), opEnd, opBlock)
		b = w.appendBlockType(b, w.m.types[w.m.functions[w.m.importedFunctions+number]].Results)
	} else if !s.tiny() {
		b = appendU32(append(b, opGlobalGet), w.fuel())
		b = append(w.appendCheck(b), opEnd)
	}
	at := code
	for _, e := range s.edits {
		b = append(b, data[at:e.at]...)
		at = e.end
		switch e.kind {
		case editCharge:
			if s.segments[e.argument].charge > 0 {
				b = w.appendCharge(b, s, &s.segments[e.argument])
			}
		case editLoop:
			if l := int(e.argument); s.quiet(l) && !s.quiet(s.loops[l].outer) {
				b = appendU32(append(b, opGlobalGet), w.fuel())
				b = appendU32(append(b, opLocalSet), uint32(s.locals))
			}
		case editCall, editRef:
			b = appendU32(b, w.moved(e.argument))
		case editReturn:
			if metered {
				b = appendU32(append(b, opBr), e.argument)
			} else {
				b = append(b, opReturn)
			}
		case editHelper:
			b = appendU32(append(b, opCall), w.helperIndex(int(e.argument)))
		}
	}
	b = append(b, data[at:end]...)
	if metered {
		b = append(b, opEnd)
		b = w.appendSpend(b, w.height(), -size)
	}
	return append(b, opEnd)
}

// appendSpend appends the subtraction of an amount from a global.
func (w *rewriter) appendSpend(b []byte, global uint32, amount int64) []byte {
	b = appendU32(append(b, opGlobalGet), global)
	b = append(appendS64(append(b, opI64Const), amount), opI64Sub)
	return appendU32(append(b, opGlobalSet), global)
}

// appendCheck appends the call of the slow way if the top is below zero, but
// not the end of that. It stands behind an else: wazero's register allocator
// lets the code behind both ways begin with the registers of the first, and on
// the slow one everything is on the stack.
func (w *rewriter) appendCheck(b []byte) []byte {
	b = append(b, opI64Const, 0, opI64GeS, opIf, 0x40, opElse, opCall)
	return appendU32(b, w.helperIndex(helperSlow))
}

// appendBlockType appends the type of a block with these results. Several need
// a type in the module.
func (w *rewriter) appendBlockType(b []byte, results []ValueType) []byte {
	switch len(results) {
	case 0:
		return append(b, 0x40)
	case 1:
		return append(b, byte(results[0]))
	}
	key := make([]byte, len(results))
	for i, t := range results {
		key[i] = byte(t)
	}
	i, ok := w.blockTypes[string(key)]
	if !ok {
		i = uint32(len(w.m.types) + w.addedCount)
		w.added = appendU32(append(w.added, 0x60, 0), uint32(len(key)))
		w.added = append(w.added, key...)
		w.addedCount++
		w.blockTypes[string(key)] = i
	}
	return appendS64(b, int64(i))
}

// appendLocals appends the declarations of locals, with one more where there
// are quiet loops.
func (w *rewriter) appendLocals(b []byte, s *scanner, number, code int) []byte {
	r := &reader{data: w.m.data, pos: w.m.bodies[number].start, end: code}
	n, added := r.u32("number of declarations"), []byte(nil)
	for l := range s.loops {
		if s.quiet(l) {
			n, added = n+1, []byte{1, byte(I64)}
			break
		}
	}
	b = append(appendU32(b, n), w.m.data[r.pos:code]...)
	return append(b, added...)
}

// appendCharge appends the charge of a segment, and the check of a loop's
// header. In a quiet loop the fuel is kept in a local, which need not be read
// back from memory, and stored each time, so that no way out of the loop has to
// care.
func (w *rewriter) appendCharge(b []byte, s *scanner, segment *segment) []byte {
	if !s.quiet(segment.loop) {
		b = w.appendSpend(b, w.fuel(), segment.charge)
		if segment.mandatory {
			b = appendU32(append(b, opGlobalGet), w.fuel())
			b = append(w.appendCheck(b), opEnd)
		}
		return b
	}
	cached := uint32(s.locals)
	b = appendU32(append(b, opLocalGet), cached)
	b = append(appendS64(append(b, opI64Const), segment.charge), opI64Sub, opLocalTee)
	b = appendU32(b, cached)
	b = appendU32(append(b, opGlobalSet), w.fuel())
	if segment.mandatory {
		b = appendU32(append(b, opLocalGet), cached)
		b = appendU32(append(w.appendCheck(b), opGlobalGet), w.fuel())
		b = append(appendU32(append(b, opLocalSet), cached), opEnd)
	}
	return b
}
