package wasmfilter

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/metering"
)

// An instance is one guest that runs: its memory, its budget, and what it has
// asked for during a call. It belongs to one goroutine at a time.
//
// An instance is the context of the calls into it: that is how host functions
// find it, and it keeps what hangs on other contexts away from wazero.
type instance struct {
	module       *Module
	guest        api.Module
	memory       api.Memory
	fuel         api.MutableGlobal
	process      api.Function
	processBatch api.Function // nil: not exported
	buffer       api.Function
	stack        [4]uint64 // parameters and results of calls

	// The guest's input buffer, as filterd_buffer returned it.
	at, size uint32

	// The budget of a call. The guest's own counter holds what it was granted
	// and has not used; that stays there between calls.
	left   int64 // in the guest's counter; below zero at the end of a function that calls nothing
	budget int64 // that may still be granted
	limit  int64 // of the call
	spent  int64 // granted in this call, and had at its beginning
	owed   int64 // for host functions, not yet taken from the counter

	// The call.
	ctx      context.Context // of the runner; for host functions of the user's own
	phase    phase
	slots    []int // of the module's fields
	messages []*filterd.Message
	current  int // which of the messages host functions are about; -1 for none yet
	work     []work
	output   int // bytes that are held for the messages
	declared []filterd.Path

	// Values of the current message, so that a guest that asks again and
	// again costs no more than one that asks once.
	fields  []cachedField
	epoch   uint64 // of the current message
	scratch []byte

	table     []byte // of a batch
	texts     []byte // of a batch
	ahead     []int  // messages of a batch that were decided before the culprit's turn
	batchSize int    // messages that the guest has a buffer for

	random *rand.ChaCha8
	stdout [2]lineBuffer
	ended  string // what the guest wrote about its end

	calls    int      // since it was started
	counters counters // not yet added to the module's
}

// A phase is what an instance is being called for.
type phase byte

const (
	phaseStart phase = iota
	phaseConfigure
	phaseProcess
)

// A work is what a guest has asked for about one message.
type work struct {
	payload  []byte
	replaced bool
	emitted  []filterd.Delivery
	bytes    int // emitted
	text     string
	now      int64 // 0: not asked for
}

type cachedField struct {
	filterd.Field
	epoch uint64
}

// Deadline, Done, Err and Value implement [context.Context]: it never ends and
// holds nothing.
func (i *instance) Deadline() (deadline time.Time, ok bool) { return }
func (i *instance) Done() <-chan struct{}                   { return nil }
func (i *instance) Err() error                              { return nil }
func (i *instance) Value(any) any                           { return nil }

// start makes an instance, and runs what it does before the first message. An
// error that is a [*Fault] is the guest's own.
func (m *Module) start(ctx context.Context) (*instance, error) {
	instantiation := experimental.WithMemoryAllocator(context.Background(), experimental.MemoryAllocatorFunc(allocate))
	if len(m.own) > 0 {
		instantiation = experimental.WithImportResolver(instantiation, func(name string) api.Module { return m.own[name] })
	}
	guest, err := m.runtime.wazero.InstantiateModule(instantiation, m.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, m.fault(FaultTrap, "instantiate: %s", escape(err.Error()))
	}
	i := &instance{
		module:       m,
		guest:        guest,
		memory:       guest.ExportedMemory(exportMemory),
		fuel:         guest.ExportedGlobal(metering.ExportFuel).(api.MutableGlobal),
		process:      guest.ExportedFunction(exportProcess),
		processBatch: guest.ExportedFunction(exportBatch),
		buffer:       guest.ExportedFunction(exportBuffer),
		ctx:          ctx,
		current:      -1,
		batchSize:    maxBatch,
	}
	if err := i.startGuest(); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

func (i *instance) startGuest() error {
	m := i.module
	i.enter(m.startFuel)
	defer i.leave()
	if m.hasStart {
		if err := i.run("start", metering.ExportStart); err != nil {
			return err
		}
	}
	if m.initializes {
		if err := i.run(exportInitialize, exportInitialize); err != nil {
			return err
		}
	}
	if m.configures {
		if err := i.configure(); err != nil {
			return err
		}
	}
	if m.fixed && !slices.Equal(i.declared, m.info.Fields) {
		return m.fault(FaultABI, "%s: declares other fields than the first instance: %q, not %q", exportConfigure, i.declared, m.info.Fields)
	}
	i.fields, i.ended = make([]cachedField, len(i.declared)), ""
	return nil
}

// run calls a function without parameters and results.
func (i *instance) run(what, export string) error {
	if err := i.guest.ExportedFunction(export).CallWithStack(i, nil); err != nil {
		return prefix(what, i.fault(err))
	}
	return nil
}

// prefix says during what a fault happened.
func prefix(what string, err error) error {
	if fault, ok := err.(*Fault); ok {
		fault.Text = what + ": " + fault.Text
		return fault
	}
	return fmt.Errorf("%s: %w", what, err)
}

// configure gives the guest its configuration.
func (i *instance) configure() error {
	config := i.module.config
	if err := i.fit(len(config)); err != nil {
		return prefix(exportConfigure, err)
	}
	i.memory.Write(i.at, config)
	i.phase, i.work = phaseConfigure, append(i.work[:0], work{})
	i.stack[0] = uint64(len(config))
	err := i.guest.ExportedFunction(exportConfigure).CallWithStack(i, i.stack[:])
	i.phase = phaseStart
	if err != nil {
		return prefix(exportConfigure, i.fault(err))
	}
	if code := int32(i.stack[0]); code != 0 {
		text := i.work[0].text
		if text == "" {
			text = fmt.Sprintf("error %d", code)
		}
		return i.module.fault(FaultExit, "%s refuses: %s", exportConfigure, text)
	}
	return nil
}

// refusal is the error about a message that the guest has no buffer for. The
// instance is none the worse for it.
type refusal struct {
	module string
	size   int
}

func (r *refusal) Error() string {
	return fmt.Sprintf("module %q: %s refuses %d bytes", r.module, exportBuffer, r.size)
}

// fit makes the guest's input buffer large enough. The error is a [*refusal]
// or the fault of a call.
func (i *instance) fit(size int) error {
	if size = max(size, 16); size <= int(i.size) {
		return nil
	}
	if size > math.MaxInt32 {
		return &refusal{i.module.name, size}
	}
	i.stack[0] = uint64(size)
	if err := i.buffer.CallWithStack(i, i.stack[:]); err != nil {
		return prefix(exportBuffer, i.fault(err))
	}
	at := uint32(i.stack[0])
	switch {
	case at == 0:
		return &refusal{i.module.name, size}
	case at%16 != 0:
		return i.module.fault(FaultABI, "%s returned 0x%x, which is not a multiple of 16", exportBuffer, at)
	case uint64(at)+uint64(size) > uint64(i.memory.Size()):
		return i.module.fault(FaultABI, "%s returned 0x%x for %d bytes, which reaches beyond the memory of %d bytes", exportBuffer, at, size, i.memory.Size())
	}
	i.at, i.size = at, uint32(size)
	return nil
}

// slice is how much fuel is granted at a time. At its end a guest comes back
// to Go, where the scheduler and the collector can have their way.
const slice = 100_000

// enter begins a call with a budget.
func (i *instance) enter(budget int64) {
	if i.left <= 0 || i.left > budget {
		i.left = min(slice, budget)
		i.fuel.Set(uint64(i.left))
	}
	i.limit, i.spent, i.budget = budget, i.left, budget-i.left
}

// leave ends a call.
func (i *instance) leave() {
	i.left = int64(i.fuel.Get()) - i.owed
	i.counters.fuel += uint64(i.spent - i.left)
	if i.owed != 0 {
		i.owed = 0
		i.fuel.Set(uint64(i.left))
	}
}

// refuel is the meter's host function: the guest has used up its slice.
func (i *instance) refuel(stack []uint64) {
	fuel := int64(stack[0]) - i.owed
	i.owed = 0
	if err := i.ctx.Err(); err != nil {
		panic(interrupted{err})
	}
	for fuel < 0 {
		if i.budget <= 0 {
			i.outOfFuel()
		}
		grant := min(i.budget, max(slice, -fuel))
		i.budget -= grant
		i.spent += grant
		fuel += grant
	}
	stack[0] = uint64(fuel)
}

func (i *instance) outOfFuel() {
	if n := len(i.messages); n > 1 {
		i.trap(FaultFuel, "out of fuel: more than %d instructions for %d messages", i.limit, n)
	}
	i.trap(FaultFuel, "out of fuel: more than %d instructions", i.limit)
}

// charge takes fuel for the work of a host function.
func (i *instance) charge(cost int64) {
	if i.owed += cost; i.owed > slice/10 {
		i.fuel.Set(uint64(int64(i.fuel.Get()) - i.owed))
		i.owed = 0
	}
}

// overflow is the meter's host function: the stack is too high.
func (i *instance) overflow([]uint64) {
	i.trap(FaultStack, "stack overflow: more than %d bytes", metering.DefaultStackBytes)
}

// buildMeter builds what instrumented modules import.
func (r *Runtime) buildMeter(ctx context.Context) error {
	_, err := r.build(ctx, metering.ImportModule, []hostFunction{
		{metering.ImportRefuel, []api.ValueType{i64}, []api.ValueType{i64}, (*instance).refuel},
		{metering.ImportOverflow, nil, nil, (*instance).overflow},
	})
	return err
}

// worn reports whether the instance should give way to a fresh one.
func (i *instance) worn() bool {
	m := i.module
	return i.calls >= m.recycleCalls || i.calls >= minRecycleCalls && int64(i.memory.Size()) > m.recycleMemory
}

// close ends the instance. Nothing may touch its memory any more.
func (i *instance) close() {
	i.flush()
	_ = i.guest.Close(context.Background()) // it has nothing that could fail to close
}
