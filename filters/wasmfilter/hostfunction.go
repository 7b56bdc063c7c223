package wasmfilter

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/metering"
)

// DefaultHostModule is the module that guests import a program's own host
// functions from.
const DefaultHostModule = "host"

// A ValueType is the type of a parameter or result.
type ValueType = api.ValueType

// The value types.
const (
	I32 = api.ValueTypeI32
	I64 = api.ValueTypeI64
	F32 = api.ValueTypeF32
	F64 = api.ValueTypeF64
)

// A HostFunction is a function of the program's own that a guest may call.
type HostFunction struct {
	// Module is what the guest imports it from. Default DefaultHostModule.
	Module string
	// Name is what the guest imports it as. Required.
	Name string
	// Params and Results are its type.
	Params, Results []ValueType
	// Call is the function. The stack holds the parameters, and takes the
	// results, from index 0; see [api.EncodeI32] and its like for how. An
	// error ends the guest's call. The context is that of the runner. Call
	// may come from several goroutines at once. What it does costs the guest
	// no fuel: bounding it is up to the function. Required.
	Call func(ctx context.Context, guest Guest, stack []uint64) error
}

// A Guest is the instance that calls a [HostFunction], until that returns.
type Guest struct{ instance *instance }

// Bytes returns the guest's memory at a pointer, as a view which is valid
// until the host function returns.
func (g Guest) Bytes(pointer, length uint32) ([]byte, error) {
	b, ok := g.instance.memory.Read(pointer, length)
	if !ok {
		return nil, fmt.Errorf("pointer 0x%x with length %d reaches beyond the memory of %d bytes", pointer, length, g.instance.memory.Size())
	}
	return b, nil
}

// Message returns the message that the guest is being asked about, which the
// caller borrows; nil if there is none. In a batch it is the selected one.
func (g Guest) Message() *filterd.Message {
	if i := g.instance; i.phase == phaseProcess && i.current >= 0 {
		return i.messages[i.current]
	}
	return nil
}

// validateHost reports everything that is wrong with host functions.
func validateHost(functions []HostFunction) error {
	var errs []error
	seen := make(map[string]bool)
	for _, f := range functions {
		module := cmp.Or(f.Module, DefaultHostModule)
		name := module + "." + f.Name
		switch module {
		case hostModule, metering.ImportModule, wasi_snapshot_preview1.ModuleName:
			errs = append(errs, fmt.Errorf("host function %s: the module %s is filterd's", name, module))
		}
		if f.Name == "" || f.Call == nil {
			errs = append(errs, fmt.Errorf("host function %s: a name and a function are required", name))
		}
		if seen[name] {
			errs = append(errs, fmt.Errorf("host function %s: is there twice", name))
		}
		seen[name] = true
		for _, t := range append(append([]ValueType(nil), f.Params...), f.Results...) {
			if t != I32 && t != I64 && t != F32 && t != F64 {
				errs = append(errs, fmt.Errorf("host function %s: unknown type 0x%02x", name, t))
			}
		}
	}
	return errors.Join(errs...)
}

// buildOwn instantiates the program's own host functions. They have no name in
// the runtime: other modules can have others of the same name.
func (m *Module) buildOwn(ctx context.Context) error {
	builders := make(map[string]wazero.HostModuleBuilder)
	for _, f := range m.host {
		module := cmp.Or(f.Module, DefaultHostModule)
		if builders[module] == nil {
			builders[module] = m.runtime.wazero.NewHostModuleBuilder(module)
		}
		wrapped := hostFunction{f.Name, f.Params, f.Results, func(i *instance, stack []uint64) {
			if err := f.Call(i.ctx, Guest{i}, stack); err != nil {
				i.hostFailed(f.Name, err)
			}
		}}
		builders[module].NewFunctionBuilder().WithGoFunction(wrapped.function(), f.Params, f.Results).Export(f.Name)
	}
	m.own = make(map[string]api.Module)
	for name, builder := range builders {
		compiled, err := builder.Compile(ctx)
		if err != nil {
			return fmt.Errorf("host functions of %s: %w", name, err)
		}
		if m.own[name], err = m.runtime.wazero.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("")); err != nil {
			return fmt.Errorf("host functions of %s: %w", name, err)
		}
	}
	return nil
}
