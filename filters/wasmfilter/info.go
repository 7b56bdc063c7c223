package wasmfilter

import (
	"fmt"
	"strings"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/metering"
)

// Info describes a module, for those who look at one before they use it. Sizes
// are in bytes, durations in nanoseconds where it is JSON.
type Info struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // of the code, in hexadecimal
	Size   int    `json:"size"`   // of the code
	// Metered is the size with meters for fuel and stack.
	Metered int `json:"metered_size"`
	// ABI is the version of the interface for guests that the module
	// implements.
	ABI       int `json:"abi"`
	Functions int `json:"functions"`
	// Imports and Exports are functions with their types.
	Imports   []string `json:"imports,omitempty"`
	Exports   []string `json:"exports"`
	Producers []string `json:"producers,omitempty"` // toolchains, as they name themselves
	Configure bool     `json:"configure"`           // exports filterd_configure
	Batch     bool     `json:"batch"`               // exports filterd_process_batch
	WASI      bool     `json:"wasi"`                // imports functions of WASI
	KV        bool     `json:"kv"`                  // imports functions that need a KV
	// Fields are what the module declares, in its order.
	Fields []filterd.Path `json:"fields,omitempty"`
	// MemoryMin and MemoryMax are what the module says of its memory;
	// MemoryMax is 0 if it says nothing. MemoryLimit is what it gets at most.
	MemoryMin   int64 `json:"memory_min"`
	MemoryMax   int64 `json:"memory_max,omitempty"`
	MemoryLimit int64 `json:"memory_limit"`
	// Fuel and StartFuelLimit bound the instructions for a message, and those
	// before the first one.
	Fuel           int64         `json:"fuel_limit"`
	StartFuelLimit int64         `json:"start_fuel_limit"`
	CompileTime    time.Duration `json:"compile_ns"`
	// Of the first instance, before its first message:
	StartTime time.Duration `json:"start_ns"`
	StartFuel uint64        `json:"start_fuel"`
	Memory    int           `json:"memory"`
}

// Info returns the module's description. The caller must not modify it.
func (m *Module) Info() *Info { return &m.info }

func (i *Info) String() string {
	return fmt.Sprintf("%s (sha256 %s, %d bytes)", i.Name, i.SHA256, i.Size)
}

// describe fills in what the code says of itself.
func (m *Module) describe(info *metering.Info, limits metering.Limits) {
	m.info.ABI = 1
	m.info.Functions = info.Functions
	m.info.Configure, m.info.Batch = info.Exported(exportConfigure), info.Exported(exportBatch)
	for _, i := range info.Imports {
		m.info.Imports = append(m.info.Imports, escape(fmt.Sprintf("%s.%s %s", i.Module, i.Name, i.Signature)))
		m.info.WASI = m.info.WASI || strings.HasPrefix(i.Module, "wasi_")
		m.info.KV = m.info.KV || needsKV(i)
	}
	for _, e := range info.Exports {
		if e.Kind == "function" {
			m.info.Exports = append(m.info.Exports, escape(fmt.Sprintf("%s %s", e.Name, e.Signature)))
		}
	}
	for _, c := range info.Custom {
		for _, p := range c.Producers {
			m.info.Producers = append(m.info.Producers, escape(strings.TrimSpace(p.Name+" "+p.Version)))
		}
	}
	m.info.MemoryLimit = int64(limits.MemoryPages) * pageSize
	memory := info.Memories[0] // check has seen that there is one
	m.info.MemoryMin = int64(memory.Min) * pageSize
	if memory.HasMax {
		m.info.MemoryMax = int64(memory.Max) * pageSize
	}
}
