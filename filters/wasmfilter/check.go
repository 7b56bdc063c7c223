package wasmfilter

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/filterd/filterd/internal/metering"
)

// What guests export.
const (
	exportMemory     = "memory"
	exportVersion    = "filterd_abi_v1"
	exportInitialize = "_initialize"
	exportBuffer     = "filterd_buffer"
	exportConfigure  = "filterd_configure"
	exportProcess    = "filterd_process"
	exportBatch      = "filterd_process_batch"
)

// exports lists what guests export, with its type.
var exports = []struct {
	name      string
	signature metering.Signature
	required  bool
}{
	{exportVersion, metering.Signature{}, true},
	{exportInitialize, metering.Signature{}, false},
	{exportBuffer, unary, true},
	{exportConfigure, unary, false},
	{exportProcess, unary, true},
	{exportBatch, unary, false},
}

var unary = metering.Signature{Params: []metering.ValueType{metering.I32}, Results: []metering.ValueType{metering.I32}}

// check checks what a module exports and imports. It reports everything that
// is wrong.
func (m *Module) check(info *metering.Info) error {
	switch {
	case info.Component:
		return errors.New("this is a component: filterd runs core modules only")
	case info.Extism:
		return errors.New("made for Extism: filterd has an interface of its own")
	case !info.Exported(exportVersion) && info.Exported("_start"):
		return fmt.Errorf("a WASI command, with a main that runs once: filterd calls a module for each message, and needs the export %s (Go: go build -buildmode=c-shared)", exportVersion)
	case !info.Exported(exportVersion):
		for _, e := range info.Exports {
			if version, ok := strings.CutPrefix(e.Name, "filterd_abi_v"); ok {
				return fmt.Errorf("implements version %s of the interface: this filterd knows version 1", escape(version))
			}
		}
		return fmt.Errorf("no export %s: not a module for filterd", exportVersion)
	}
	errs := append(m.checkExports(info), m.checkImports(info)...)
	if m.configGiven && !info.Exported(exportConfigure) {
		errs = append(errs, fmt.Errorf("a configuration is given, but there is no export %s", exportConfigure))
	}
	return errors.Join(append(errs, info.Refused)...)
}

func (m *Module) checkExports(info *metering.Info) (errs []error) {
	find := func(name string) *metering.Export {
		at := slices.IndexFunc(info.Exports, func(e metering.Export) bool { return e.Name == name })
		if at < 0 {
			return nil
		}
		return &info.Exports[at]
	}
	if memory := find(exportMemory); memory == nil || memory.Kind != "memory" {
		errs = append(errs, fmt.Errorf("no export %s", exportMemory))
	}
	for _, want := range exports {
		switch got := find(want.name); {
		case got == nil && want.required:
			errs = append(errs, fmt.Errorf("no export %s %s", want.name, want.signature))
		case got == nil:
		case got.Kind != "function":
			errs = append(errs, fmt.Errorf("export %s is a %s, want a function %s", want.name, got.Kind, want.signature))
		case !equal(got.Signature, want.signature):
			errs = append(errs, fmt.Errorf("export %s has the type %s, want %s", want.name, got.Signature, want.signature))
		}
	}
	return errs
}

func (m *Module) checkImports(info *metering.Info) (errs []error) {
	for _, got := range info.Imports {
		name := escape(got.Module + "." + got.Name)
		if got.Kind != "function" {
			errs = append(errs, fmt.Errorf("import of a %s: %s", got.Kind, name))
			continue
		}
		want, ok := m.importable(got.Module, got.Name)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("unknown import %s %s%s", name, got.Signature, hint(got)))
		case !equal(got.Signature, want):
			errs = append(errs, fmt.Errorf("import %s has the type %s, want %s", name, got.Signature, want))
		case needsKV(got) && m.kv == nil && !m.memoryKV:
			errs = append(errs, fmt.Errorf("import %s: the module is given no kv", name))
		}
	}
	return errs
}

// needsKV reports whether an import is of no use without a KV.
func needsKV(i metering.Import) bool {
	return i.Module == hostModule && strings.HasPrefix(i.Name, "kv_")
}

// importable returns the type of what a guest may import.
func (m *Module) importable(module, name string) (metering.Signature, bool) {
	for _, f := range m.host {
		if cmp.Or(f.Module, DefaultHostModule) == module && f.Name == name {
			return metering.Signature{Params: valueTypes(f.Params), Results: valueTypes(f.Results)}, true
		}
	}
	signature, ok := m.runtime.known[module][name]
	return signature, ok
}

// hint says what to do about an import that toolchains make by default.
func hint(i metering.Import) string {
	switch {
	case i.Module == "env" && i.Name == "abort":
		return " (AssemblyScript: compile with --use abort=)"
	case i.Module == "env":
		return " (a function that is declared, but defined nowhere?)"
	case strings.HasPrefix(i.Module, "wasi_"):
		return " (of WASI there is wasi_snapshot_preview1)"
	case i.Module == "wbg" || strings.HasPrefix(i.Module, "__wbindgen"):
		return " (wasm-bindgen is for browsers)"
	}
	return ""
}

func equal(a, b metering.Signature) bool {
	return slices.Equal(a.Params, b.Params) && slices.Equal(a.Results, b.Results)
}
