package wasmfilter

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/filterd/filterd/internal/metering"
)

// RuntimeConfig configures a [Runtime]. The zero value is usable.
type RuntimeConfig struct {
	// CacheDir is a folder for compiled modules, so that they start fast the
	// second time. It holds native code: it is created for its owner alone,
	// and refused if others can write to it. Default: nothing is kept.
	CacheDir string
	// Workers is how many instances a module has at most. Default: as many
	// as goroutines can run at once, and at least 2.
	Workers int
	// Logger takes what modules log, and what happens to them. Default
	// slog.Default().
	Logger *slog.Logger
}

// A Runtime compiles and runs modules. It is safe for concurrent use.
type Runtime struct {
	config RuntimeConfig
	wazero wazero.Runtime
	cache  wazero.CompilationCache // nil: none
	// known holds what guests may import, by module and name.
	known map[string]map[string]metering.Signature

	mu      sync.Mutex // guards what follows
	closed  bool
	names   map[string]*shared
	modules map[*Module]struct{}
}

// errClosed is the error of a runtime, or module, that is closed.
var errClosed = errors.New("closed")

// NewRuntime makes a runtime. It must be closed.
func NewRuntime(ctx context.Context, config RuntimeConfig) (*Runtime, error) {
	if config.Workers < 0 {
		return nil, errors.New("the number of workers is not negative")
	}
	config.Workers = cmp.Or(config.Workers, max(2, runtime.GOMAXPROCS(0)))
	config.Logger = cmp.Or(config.Logger, slog.Default())
	r := &Runtime{
		config:  config,
		known:   make(map[string]map[string]metering.Signature),
		names:   make(map[string]*shared),
		modules: make(map[*Module]struct{}),
	}
	// The features are those that the meter knows. A module's memory is
	// limited by the meter, which lowers its maximum; the runtime's limit is
	// the format's. No WithCloseOnContextDone: fuel is the bound, and that
	// would make a call forty times as slow. This is the compiler wherever
	// wazero has one.
	options := wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2).WithDebugInfoEnabled(false)
	if config.CacheDir != "" {
		cache, err := openCache(config.CacheDir)
		if err != nil {
			return nil, err
		}
		r.cache = cache
		options = options.WithCompilationCache(cache)
	}
	r.wazero = wazero.NewRuntimeWithConfig(ctx, options)
	for _, build := range []func(context.Context) error{r.buildHost, r.buildMeter, r.buildWASI} {
		if err := build(ctx); err != nil {
			return nil, errors.Join(err, r.Close(ctx))
		}
	}
	return r, nil
}

// Close closes the runtime and all of its modules, after the calls that are
// under way. Messages that come later get an error.
func (r *Runtime) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	var modules []*Module
	for m := range r.modules {
		modules = append(modules, m)
	}
	r.mu.Unlock()
	var errs []error
	for _, m := range modules {
		errs = append(errs, m.Close())
	}
	errs = append(errs, r.wazero.Close(ctx))
	if r.cache != nil {
		errs = append(errs, r.cache.Close(ctx))
	}
	return errors.Join(errs...)
}

// A shared is what modules of one name have in common, so that it survives
// the reload of one: the new one is loaded before the old one is closed.
type shared struct {
	modules int // loaded; guarded by Runtime.mu
	kv      *memoryKV

	mu       sync.Mutex // guards what follows
	sha256   string     // of the module that the breaker is about
	breaker  *breaker
	closed   counters // of modules that are closed
	failures failures // of all
}

// enter notes a module that is loaded.
func (r *Runtime) enter(m *Module) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	s := r.names[m.name]
	switch {
	case m.apart != nil:
		s = &shared{kv: newMemoryKV(m.apart)}
	case s == nil:
		s = &shared{kv: newMemoryKV(time.Now)}
		r.names[m.name] = s
	}
	s.modules++
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sha256 != m.info.SHA256 { // other code, another chance
		s.sha256, s.breaker = m.info.SHA256, newBreaker(m.logger, m.apart != nil)
	}
	if m.kv == nil && m.memoryKV {
		s.kv.limit(m.kvLimits)
		m.kv = s.kv
	}
	m.shared, m.breaker = s, s.breaker
	r.modules[m] = struct{}{}
	return nil
}

// leave notes that a module is closed.
func (r *Runtime) leave(m *Module, c counters) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.modules, m)
	m.shared.mu.Lock()
	m.shared.closed.add(&c)
	m.shared.mu.Unlock()
	if m.shared.modules--; m.shared.modules == 0 && m.apart == nil {
		delete(r.names, m.name)
	}
}

// build instantiates a module of host functions and notes their signatures.
func (r *Runtime) build(ctx context.Context, name string, functions []hostFunction) (api.Module, error) {
	builder := r.wazero.NewHostModuleBuilder(name)
	for _, f := range functions {
		builder.NewFunctionBuilder().WithGoFunction(f.function(), f.params, f.results).Export(f.name)
	}
	compiled, err := builder.Compile(ctx)
	if err != nil {
		return nil, err
	}
	return r.wazero.InstantiateModule(ctx, compiled, wazero.NewModuleConfig())
}

// know lets guests import functions from a module.
func (r *Runtime) know(module string, functions []hostFunction) {
	signatures := make(map[string]metering.Signature)
	for _, f := range functions {
		signatures[f.name] = f.signature()
	}
	r.known[module] = signatures
}

// A hostFunction is one function that guests import. It is called with the
// instance that calls it.
type hostFunction struct {
	name            string
	params, results []api.ValueType
	call            func(i *instance, stack []uint64)
}

// function returns the function for wazero. The instance comes as the context,
// so that nothing has to be looked up.
func (f hostFunction) function() api.GoFunc {
	call := f.call
	return func(ctx context.Context, stack []uint64) { call(ctx.(*instance), stack) }
}

func (f hostFunction) signature() metering.Signature {
	return metering.Signature{Params: valueTypes(f.params), Results: valueTypes(f.results)}
}

func valueTypes(types []api.ValueType) []metering.ValueType {
	var all []metering.ValueType
	for _, t := range types {
		all = append(all, metering.ValueType(t))
	}
	return all
}

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
	f64 = api.ValueTypeF64
)
