package metering

import "fmt"

// The identifiers of sections.
const (
	sectionCustom    = 0
	sectionType      = 1
	sectionImport    = 2
	sectionFunction  = 3
	sectionTable     = 4
	sectionMemory    = 5
	sectionGlobal    = 6
	sectionExport    = 7
	sectionStart     = 8
	sectionElement   = 9
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
	sectionTag       = 13
)

var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag",
}

// sectionOrder is where each section may stand among the others.
var sectionOrder = [...]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 10}

// The kinds of imports and exports.
const (
	kindFunction = 0
	kindTable    = 1
	kindMemory   = 2
	kindGlobal   = 3
	kindTag      = 4
)

var kindNames = [...]string{"function", "table", "memory", "global"}

// A part is a range of the module's bytes.
type part struct{ start, end int }

// A relocation is an index of a function where it stands in a module: all of
// them move when imports are added.
type relocation struct {
	part
	index uint32
}

// A module is a binary module as far as it is read before its functions'
// bodies. What breaks the format stops the reading; what is only refused
// (an imported memory) is kept in refused, so that [Inspect] can still
// describe the module.
type module struct {
	data    []byte
	limits  Limits
	refused *Error

	sections [len(sectionOrder)]part // content; start 0 where there is none
	types    []Signature
	imports  []Import
	// The index spaces: what is imported, then what is defined.
	functions         []uint32 // type indices
	importedFunctions int
	tables            []tableType
	importedTables    int
	memories          []bounds
	importedMemories  int
	globals           []globalType
	importedGlobals   int
	mutableGlobals    int
	exports           []Export
	start             int    // index of the function, -1 for none
	startOffset       int    // of the index
	elements          int    // segments
	elementEntries    int    // in all segments
	declared          []bool // functions that ref.func may name in a body
	dataCount         int    // announced before the code; -1 for not announced
	dataSegments      int
	relocations       []relocation // in the order of their offsets
	bodies            []part       // of the code section, without their size
	custom            []Custom
	names             part // content of the name section
	totalLocals       int  // of the functions read so far
	totalComplexity   int  // likewise
}

type tableType struct {
	element ValueType
	bounds
}

type globalType struct {
	value   ValueType
	mutable bool
}

// refuse keeps the first reason why the module is not let through.
func (m *module) refuse(reason Reason, offset int, format string, args ...any) {
	if m.refused == nil {
		m.refused = &Error{Reason: reason, Offset: offset, Text: fmt.Sprintf(format, args...)}
	}
}

// headerSize is the size of the magic number and the version.
const headerSize = 8

// readModule reads a module up to its functions' bodies.
func readModule(data []byte, limits Limits) (*module, *Error) {
	if len(data) > limits.FileBytes {
		return nil, &Error{TooLarge, limits.FileBytes, fmt.Sprintf("the module has %d bytes, at most %d are allowed", len(data), limits.FileBytes)}
	}
	if err := readHeader(data); err != nil {
		return nil, err
	}
	m := &module{data: data, limits: limits, start: -1, dataCount: -1}
	r := &reader{data: data, pos: headerSize, end: len(data)}
	last := 0
	for r.more() {
		start := r.pos
		id := r.byte("section")
		size := int(r.u32("size of a section"))
		if r.ok() && size > r.end-r.pos {
			r.fail(Malformed, start, "a section of %d bytes in a module with %d left", size, r.end-r.pos)
		}
		if !r.ok() {
			break
		}
		content := part{r.pos, r.pos + size}
		switch {
		case id == sectionTag:
			r.fail(Unsupported, start, "exception handling is not supported")
		case int(id) >= len(sectionOrder):
			r.fail(Malformed, start, "section %d is unknown", id)
		case id == sectionCustom:
			m.readCustom(&reader{data: data, pos: content.start, end: content.end}, r)
		case sectionOrder[id] <= last:
			r.fail(Malformed, start, "the %s section is out of order or there twice", sectionNames[id])
		default:
			last = sectionOrder[id]
			m.sections[id] = content
			inner := &reader{data: data, pos: content.start, end: content.end}
			m.readSection(inner, id)
			if inner.more() {
				inner.fail(Malformed, inner.pos, "%d bytes behind the last item of the %s section", inner.end-inner.pos, sectionNames[id])
			}
			r.err = inner.err
		}
		r.pos = content.end
	}
	if r.ok() {
		m.checkCounts(r)
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

// readHeader tells a core module from a component and from anything else.
func readHeader(data []byte) *Error {
	switch {
	case len(data) < headerSize && len(data) < 4 || string(data[:4]) != "\x00asm":
		return &Error{Malformed, 0, "not a WebAssembly module: it does not begin with \\0asm"}
	case len(data) < headerSize:
		return &Error{Malformed, 4, "the module ends within its version"}
	case isComponent(data):
		return &Error{Unsupported, 4, "this is a component; only core modules are supported"}
	case string(data[4:8]) != "\x01\x00\x00\x00":
		return &Error{Malformed, 4, fmt.Sprintf("version %d of the format, only 1 is known", uint32(data[4])|uint32(data[5])<<8|uint32(data[6])<<16|uint32(data[7])<<24)}
	}
	return nil
}

// isComponent reports whether the header is that of a component: its upper
// half of the version is the layer, 1.
func isComponent(data []byte) bool {
	return len(data) >= headerSize && string(data[:4]) == "\x00asm" && data[6] == 1 && data[7] == 0
}

// checkCounts checks what sections say about each other.
func (m *module) checkCounts(r *reader) {
	if defined := len(m.functions) - m.importedFunctions; defined != len(m.bodies) {
		r.fail(Malformed, m.sections[sectionCode].start, "%d functions are declared, %d have code", defined, len(m.bodies))
	}
	if m.dataCount >= 0 && m.dataCount != m.dataSegments {
		r.fail(Malformed, m.sections[sectionDataCount].start, "%d data segments are announced, there are %d", m.dataCount, m.dataSegments)
	}
}

func (m *module) readSection(r *reader, id byte) {
	switch id {
	case sectionType:
		m.readTypes(r)
	case sectionImport:
		m.readImports(r)
	case sectionFunction:
		m.readFunctions(r)
	case sectionTable:
		m.readTables(r)
	case sectionMemory:
		m.readMemories(r)
	case sectionGlobal:
		m.readGlobals(r)
	case sectionExport:
		m.readExports(r)
	case sectionStart:
		m.readStart(r)
	case sectionElement:
		m.readElements(r)
	case sectionDataCount:
		m.dataCount = int(r.u32("number of data segments"))
	case sectionCode:
		m.readCode(r)
	case sectionData:
		m.readData(r)
	}
}

// readCustom notes a custom section. The name section is kept, if it is the
// first; what is wrong within it is nobody's concern.
func (m *module) readCustom(r, outer *reader) {
	section := Custom{Name: r.name("name of a custom section"), Size: r.end - r.pos}
	if r.err != nil {
		outer.err = r.err
		return
	}
	switch {
	case section.Name == "name" && m.names.start == 0:
		m.names = part{r.pos, r.end}
	case section.Name == "producers":
		section.Producers = readProducers(r)
	}
	m.custom = append(m.custom, section)
}
