package metering

import (
	"slices"
	"strings"
)

// Info describes a module as it is in its file.
type Info struct {
	Size int // in bytes
	// Component: not a core module but a component; nothing else is known.
	Component bool
	// Extism: made for the Extism host functions.
	Extism bool
	// Command: a program with main under WASI, to be run once to its end.
	Command   bool
	Imports   []Import
	Exports   []Export
	Memories  []Memory
	Tables    []Table
	Functions int // with code
	HasStart  bool
	Custom    []Custom
	// Refused is why [Instrument] would not take the module, as far as its
	// functions' bodies have no say in it.
	Refused error
}

// An Import is something that the module wants from its host.
type Import struct {
	Module, Name string
	Kind         string // "function", "table", "memory", "global"
	Signature    Signature
}

// An Export is something that the module shows.
type Export struct {
	Name      string
	Kind      string // as in Import
	Signature Signature
}

// A Memory is a linear memory; sizes are in pages of 64 KiB.
type Memory struct {
	Min, Max uint32
	HasMax   bool
	Imported bool
}

// A Table is a table; sizes are in entries.
type Table struct {
	Element  ValueType
	Min, Max uint32
	HasMax   bool
	Imported bool
}

// A Custom is a custom section.
type Custom struct {
	Name      string
	Size      int        // of its content, in bytes
	Producers []Producer // of the section "producers"
}

// A Producer is a tool or language that took part in making the module.
type Producer struct{ Field, Name, Version string }

// Inspect describes a module without its functions' bodies. The error is an
// [*Error]: the module breaks the format, or is too large to read on. A
// component is no error.
func Inspect(data []byte, limits Limits) (*Info, error) {
	if isComponent(data) {
		return &Info{Size: len(data), Component: true}, nil
	}
	m, err := readModule(data, limits.orDefaults())
	if err != nil {
		return nil, err
	}
	info := &Info{
		Size: len(data), Imports: m.imports, Exports: m.exports, Custom: m.custom,
		Functions: len(m.bodies), HasStart: m.start >= 0,
	}
	if m.refused != nil { // a nil *Error in an error is not nil
		info.Refused = m.refused
	}
	for i, b := range m.memories {
		info.Memories = append(info.Memories, Memory{Min: b.min, Max: b.max, HasMax: b.hasMax, Imported: i < m.importedMemories})
	}
	for i, t := range m.tables {
		info.Tables = append(info.Tables, Table{Element: t.element, Min: t.min, Max: t.max, HasMax: t.hasMax, Imported: i < m.importedTables})
	}
	wasi := false
	for _, i := range m.imports {
		wasi = wasi || strings.HasPrefix(i.Module, "wasi_")
		info.Extism = info.Extism || strings.HasPrefix(i.Module, "extism:")
	}
	for _, e := range m.exports {
		info.Extism = info.Extism || strings.HasPrefix(e.Name, "extism_")
	}
	info.Command = wasi && info.Exported("_start")
	return info, nil
}

// Exported reports whether the module exports a function of that name.
func (i *Info) Exported(name string) bool {
	return slices.ContainsFunc(i.Exports, func(e Export) bool {
		return e.Name == name && e.Kind == kindNames[kindFunction]
	})
}

// readProducers reads the content of a producers section; nil if it makes no
// sense, which is nobody's concern.
func readProducers(r *reader) []Producer {
	var all []Producer
	for range r.count("fields", maxProducers) {
		field := r.name("field")
		for range r.count("producers", maxProducers) {
			p := Producer{Field: field, Name: r.name("name"), Version: r.name("version")}
			if !r.ok() {
				return nil
			}
			all = append(all, p)
		}
	}
	if !r.ok() || len(all) > maxProducers {
		return nil
	}
	return all
}

// maxProducers is the most producers that are shown.
const maxProducers = 64
