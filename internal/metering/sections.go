package metering

import "strings"

func (m *module) readTypes(r *reader) {
	total := 0
	for range r.count("types", m.limits.Types) {
		start := r.pos
		switch form := r.byte("type"); {
		case !r.ok():
		case form == 0x5e || form == 0x5f || form == 0x50 || form == 0x4f || form == 0x4e:
			r.fail(Unsupported, start, "garbage collection is not supported")
		case form != 0x60:
			r.fail(Malformed, start, "0x%02x is no function type", form)
		}
		s := Signature{
			Params:  r.valueTypes("parameters", m.limits.Parameters),
			Results: r.valueTypes("results", m.limits.Parameters),
		}
		// A signature costs a runtime much more than its bytes.
		if total += len(s.Params) + len(s.Results); total > maxTypeValues {
			r.fail(TooLarge, start, "more than %d parameters and results in all types", maxTypeValues)
		}
		if !r.ok() {
			return
		}
		m.types = append(m.types, s)
	}
}

// maxTypeValues is the most parameters and results that all types have
// together.
const maxTypeValues = 200_000

// typeIndex reads the index of a type.
func (m *module) typeIndex(r *reader) uint32 {
	return index(r, "type", len(m.types))
}

// index reads an index and checks it against how many there are.
func index(r *reader, what string, count int) uint32 {
	start := r.pos
	i := r.u32("index of a " + what)
	if r.ok() && int64(i) >= int64(count) {
		r.fail(Malformed, start, "%s %d of %d", what, i, count)
		return 0
	}
	return i
}

func (m *module) readImports(r *reader) {
	for range r.count("imports", m.limits.Imports) {
		start := r.pos
		i := Import{Module: r.name("module of an import"), Name: r.name("name of an import")}
		kindOffset := r.pos
		kind := r.byte("kind of an import")
		switch kind {
		case kindFunction:
			t := m.typeIndex(r)
			if r.ok() {
				i.Signature = m.types[t]
				m.functions = append(m.functions, t)
				m.importedFunctions++
			}
		case kindTable:
			m.tables = append(m.tables, readTable(r))
			m.importedTables++
		case kindMemory:
			m.memories = append(m.memories, readMemory(r))
			m.importedMemories++
		case kindGlobal:
			m.globals = append(m.globals, readGlobal(r))
			m.importedGlobals++
		case kindTag:
			r.fail(Unsupported, kindOffset, "exception handling is not supported")
		default:
			r.fail(Malformed, kindOffset, "%d is no kind of an import", kind)
		}
		if !r.ok() {
			return
		}
		i.Kind = kindNames[kind]
		if kind != kindFunction {
			m.refuse(Unsupported, start, "import %q from %q is a %s; only functions can be imported", i.Name, i.Module, i.Kind)
		}
		if i.Module == ImportModule {
			m.refuse(Unsupported, start, "import %q from %q: that module belongs to the meter", i.Name, i.Module)
		}
		m.imports = append(m.imports, i)
	}
}

func (m *module) readFunctions(r *reader) {
	for range r.count("functions", m.limits.Functions) {
		m.functions = append(m.functions, m.typeIndex(r))
		if !r.ok() {
			return
		}
	}
}

func readTable(r *reader) tableType {
	if r.more() && r.data[r.pos] == 0x40 {
		r.fail(Unsupported, r.pos, "a table with an initializer (typed function references) is not supported")
	}
	return tableType{element: r.referenceType("reference type"), bounds: r.bounds("table")}
}

func (m *module) readTables(r *reader) {
	total := uint64(0)
	for range r.count("tables", m.limits.Tables) {
		start := r.pos
		t := readTable(r)
		if total += uint64(t.min); total > uint64(m.limits.TableEntries) {
			r.fail(TooLarge, start, "tables of %d entries, at most %d are allowed", total, m.limits.TableEntries)
		}
		if !r.ok() {
			return
		}
		m.tables = append(m.tables, t)
	}
}

func readMemory(r *reader) bounds {
	start := r.pos
	b := r.bounds("memory")
	if b.min > maxMemoryPages || b.max > maxMemoryPages {
		r.fail(Malformed, start, "a memory has at most %d pages", maxMemoryPages)
	}
	return b
}

func (m *module) readMemories(r *reader) {
	for range r.count("memories", maxMemoryPages) {
		start := r.pos
		b := readMemory(r)
		if !r.ok() {
			return
		}
		if b.min > uint32(m.limits.MemoryPages) {
			m.refuse(TooLarge, start, "a memory of %d pages, at most %d are allowed", b.min, m.limits.MemoryPages)
		}
		m.memories = append(m.memories, b)
		if len(m.memories) > 1 {
			r.fail(Unsupported, start, "more than one memory is not supported")
		}
	}
}

func readGlobal(r *reader) globalType {
	g := globalType{value: r.valueType("value type")}
	start := r.pos
	switch flag := r.byte("mutability"); flag {
	case 0:
	case 1:
		g.mutable = true
	case 2, 3:
		r.fail(Unsupported, start, "a shared global (threads) is not supported")
	default:
		r.fail(Malformed, start, "0x%02x is no mutability", flag)
	}
	return g
}

func (m *module) readGlobals(r *reader) {
	for range r.count("globals", m.limits.Globals) {
		g := readGlobal(r)
		m.readConstant(r)
		if !r.ok() {
			return
		}
		m.globals = append(m.globals, g)
		if g.mutable {
			m.mutableGlobals++
		}
	}
}

// readConstant reads a constant expression: one instruction and an end. Its
// type is left to the runtime, which sees the same one.
func (m *module) readConstant(r *reader) {
	start := r.pos
	switch op := r.byte("constant expression"); op {
	case opI32Const:
		r.leb("constant", 32, true)
	case opI64Const:
		r.leb("constant", 64, true)
	case 0x43:
		r.skip(4, "constant")
	case 0x44:
		r.skip(8, "constant")
	case opRefNull:
		r.referenceType("reference type")
	case opRefFunc:
		m.declare(m.readFunctionIndex(r))
	case opGlobalGet:
		// Only imported globals are constant here. The check is against their
		// number in the original module, and imported ones are refused.
		index(r, "imported global", m.importedGlobals)
	case prefixVector:
		if r.byte("vector instruction") != 0x0c {
			r.fail(Malformed, start, "an instruction that is not constant in a constant expression")
		}
		r.skip(16, "constant")
	default:
		r.fail(Malformed, start, "instruction 0x%02x in a constant expression", op)
	}
	end := r.pos
	if op := r.byte("end of a constant expression"); r.ok() && op != opEnd {
		r.fail(Unsupported, end, "extended constant expressions are not supported")
	}
}

// readFunctionIndex reads the index of a function and notes where it stands.
func (m *module) readFunctionIndex(r *reader) uint32 {
	start := r.pos
	i := index(r, "function", len(m.functions))
	if r.ok() {
		m.relocations = append(m.relocations, relocation{part{start, r.pos}, i})
	}
	return i
}

// declare lets ref.func name the function.
func (m *module) declare(i uint32) {
	if m.declared == nil {
		m.declared = make([]bool, len(m.functions))
	}
	if int(i) < len(m.declared) {
		m.declared[i] = true
	}
}

func (m *module) readExports(r *reader) {
	seen := make(map[string]bool)
	for range r.count("exports", m.limits.Exports) {
		start := r.pos
		e := Export{Name: r.name("name of an export")}
		kindOffset := r.pos
		kind := r.byte("kind of an export")
		switch kind {
		case kindFunction:
			i := m.readFunctionIndex(r)
			if r.ok() {
				m.declare(i)
				e.Signature = m.types[m.functions[i]]
			}
		case kindTable:
			index(r, "table", len(m.tables))
		case kindMemory:
			index(r, "memory", len(m.memories))
		case kindGlobal:
			index(r, "global", len(m.globals))
		case kindTag:
			r.fail(Unsupported, kindOffset, "exception handling is not supported")
		default:
			r.fail(Malformed, kindOffset, "%d is no kind of an export", kind)
		}
		if !r.ok() {
			return
		}
		if seen[e.Name] {
			r.fail(Malformed, start, "export %q is there twice", e.Name)
		}
		if strings.HasPrefix(e.Name, exportPrefix) {
			m.refuse(Unsupported, start, "export %q: names that begin with %q belong to the meter", e.Name, exportPrefix)
		}
		seen[e.Name] = true
		e.Kind = kindNames[kind]
		m.exports = append(m.exports, e)
	}
}

func (m *module) readStart(r *reader) {
	m.startOffset = r.pos
	i := index(r, "function", len(m.functions))
	if !r.ok() {
		return
	}
	if s := m.types[m.functions[i]]; len(s.Params)+len(s.Results) > 0 {
		r.fail(Malformed, m.startOffset, "the start function has type %s, it must be () -> ()", s)
	}
	m.start = int(i)
}

// The forms of element segments are bits.
const (
	elementPassive     = 1 // or declarative, with elementExplicit
	elementExplicit    = 2 // a table index, or declarative
	elementExpressions = 4
)

func (m *module) readElements(r *reader) {
	m.elements = r.count("element segments", m.limits.Segments)
	for range m.elements {
		start := r.pos
		flags := r.u32("form of an element segment")
		if flags > 7 {
			r.fail(Malformed, start, "%d is no form of an element segment", flags)
		}
		if flags&elementPassive == 0 {
			if flags&elementExplicit != 0 {
				index(r, "table", len(m.tables))
			} else if len(m.tables) == 0 {
				r.fail(Malformed, start, "table 0 of 0")
			}
			m.readConstant(r)
		}
		if flags&(elementPassive|elementExplicit) != 0 {
			if flags&elementExpressions != 0 {
				r.referenceType("reference type")
			} else if kind := r.byte("kind of elements"); r.ok() && kind != 0 {
				r.fail(Malformed, r.pos-1, "%d is no kind of elements", kind)
			}
		}
		n := r.count("elements", m.limits.Elements-m.elementEntries)
		m.elementEntries += n
		for range n {
			if flags&elementExpressions != 0 {
				m.readConstant(r)
			} else {
				m.declare(m.readFunctionIndex(r))
			}
			if !r.ok() {
				return
			}
		}
		if !r.ok() {
			return
		}
	}
}

func (m *module) readCode(r *reader) {
	for range r.count("function bodies", m.limits.Functions) {
		start := r.pos
		size := int(r.u32("size of a function"))
		if size > m.limits.BodyBytes {
			r.fail(TooLarge, start, "a function of %d bytes, at most %d are allowed", size, m.limits.BodyBytes)
		}
		body := part{r.pos, r.pos + size}
		r.skip(size, "function")
		if !r.ok() {
			return
		}
		m.bodies = append(m.bodies, body)
	}
}

func (m *module) readData(r *reader) {
	m.dataSegments = r.count("data segments", m.limits.Segments)
	for range m.dataSegments {
		start := r.pos
		form := r.u32("form of a data segment")
		if form > 2 {
			r.fail(Malformed, start, "%d is no form of a data segment", form)
		}
		if form == 2 {
			index(r, "memory", len(m.memories))
		} else if form == 0 && len(m.memories) == 0 {
			r.fail(Malformed, start, "memory 0 of 0")
		}
		if form != 1 {
			m.readConstant(r)
		}
		r.skip(int(r.u32("size of a data segment")), "data segment")
		if !r.ok() {
			return
		}
	}
}
