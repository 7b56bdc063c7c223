package wasmfilter

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/filterd/filterd/internal/metering"
)

// The bounds of a module that says nothing else.
const (
	DefaultMemory       = 16 << 20      // bytes
	DefaultFuel         = 100_000_000   // instructions a message
	DefaultStartFuel    = 1_000_000_000 // instructions before the first message
	DefaultRecycleCalls = 10_000_000

	// minRecycleCalls is how many calls an instance serves before its memory
	// can be a reason to replace it, so that one which needs that much from
	// the beginning is not replaced all the time.
	minRecycleCalls = 1000
)

// ModuleConfig says what to load, and what the module may do. The zero value
// of a field is its documented default.
type ModuleConfig struct {
	// Name names the module in errors, statistics and logs. Required. Modules
	// of one name share their KV in memory.
	Name string
	// Code is the module's binary. Required.
	Code []byte
	// SHA256, if not empty, is the hash that Code must have, in hexadecimal.
	SHA256 string
	// Memory is the most linear memory of an instance, in bytes; at most
	// 4 GiB. Default DefaultMemory.
	Memory int64
	// Fuel is how many instructions a message may take. Default DefaultFuel.
	Fuel int64
	// StartFuel is how many instructions an instance may take before its
	// first message. Default DefaultStartFuel.
	StartFuel int64
	// Config is given to the guest's filterd_configure: a JSON value. Default
	// {}.
	Config json.RawMessage
	// Publish lists the channels, and globs of channels, that the module may
	// emit to. Default: none.
	Publish []string
	// Registry holds the contracts that emitted messages are checked against.
	// Default: none are declared.
	Registry *filterd.Registry
	// KV is "memory" for a KV in memory, which is kept for modules of this
	// name as long as there is one. Default: none.
	KV string
	// KVKeys and KVBytes bound the KV in memory: its keys; and its keys and
	// values with 128 bytes for each. Defaults DefaultKVKeys and
	// DefaultKVBytes.
	KVKeys, KVBytes int
	// Store, if not nil, is the module's KV, in place of one in memory.
	Store KV
	// HostFunctions are functions of the program's own that the module may
	// import.
	HostFunctions []HostFunction
	// RecycleCalls is after how many calls an instance is replaced. Default
	// DefaultRecycleCalls.
	RecycleCalls int
	// RecycleMemory is from how many bytes of memory on an instance is
	// replaced, since memory never shrinks. Default: three quarters of
	// Memory.
	RecycleMemory int64
}

// validate reports everything that is wrong with the configuration.
func (c *ModuleConfig) validate() error {
	var errs []error
	for _, bound := range []struct {
		name  string
		value int64
	}{
		{"memory", c.Memory}, {"fuel", c.Fuel}, {"start fuel", c.StartFuel}, {"kv keys", int64(c.KVKeys)}, {"kv bytes", int64(c.KVBytes)},
		{"recycle calls", int64(c.RecycleCalls)}, {"recycle memory", c.RecycleMemory},
	} {
		if bound.value < 0 {
			errs = append(errs, fmt.Errorf("%s %d: a bound is not negative", bound.name, bound.value))
		}
	}
	if c.Name == "" {
		errs = append(errs, errors.New("a module needs a name"))
	}
	if c.Memory > 4<<30 || c.Memory > 0 && c.Memory < pageSize {
		errs = append(errs, fmt.Errorf("memory %d: want %d to %d bytes", c.Memory, pageSize, int64(4<<30)))
	}
	if c.Fuel > maxFuel || c.StartFuel > maxFuel {
		errs = append(errs, fmt.Errorf("fuel: want at most %d", int64(maxFuel)))
	}
	if len(c.Config) > 0 && !json.Valid(c.Config) {
		errs = append(errs, errors.New("the configuration is not JSON"))
	}
	if c.KV != "" && c.KV != "memory" {
		errs = append(errs, fmt.Errorf("unknown kv %q: want memory", c.KV))
	}
	if c.KV != "" && c.Store != nil {
		errs = append(errs, errors.New("a kv in memory and a store are given"))
	}
	return errors.Join(append(errs, validateHost(c.HostFunctions))...)
}

// maxFuel leaves room for a batch, and for arithmetic.
const maxFuel = 1 << 50

// A Module is a module that is loaded. It implements [filterd.Stage], and can
// be closed once nothing uses it. It is safe for concurrent use.
type Module struct {
	settings
	pool     pool
	shared   *shared // with others of this name
	breaker  *breaker
	warnings lograte.Limiter
	logs     [len(levels)]logLimiter
	apart    func() time.Time // if compiled and own are another module's: the clock of its KV

	closing sync.Once
	closed  error // set by closing
}

// settings are what a module is loaded with and made into. They don't change
// after that.
type settings struct {
	runtime *Runtime
	name    string
	info    Info
	logger  *slog.Logger

	fuel, startFuel int64
	config          []byte // for filterd_configure
	configGiven     bool
	exact           map[string]struct{} // channels that may be emitted to
	globs           []*filterd.Glob
	registry        *filterd.Registry
	kv              KV // nil: none
	memoryKV        bool
	kvLimits        kvLimits
	host            []HostFunction
	own             map[string]api.Module // instances of host
	recycleCalls    int
	recycleMemory   int64

	compiled    wazero.CompiledModule
	imports     int // functions
	hasStart    bool
	initializes bool
	configures  bool
	fixed       bool // the first instance has declared its fields: info.Fields
}

// Load compiles a module and starts its first instance. An error says which
// module, and everything that is wrong with it.
func (r *Runtime) Load(ctx context.Context, config ModuleConfig) (*Module, error) {
	m, err := r.load(ctx, config)
	if fault, ok := err.(*Fault); ok {
		return nil, fault // it names the module
	}
	if err != nil {
		return nil, fmt.Errorf("module %q: %w", config.Name, err)
	}
	return m, nil
}

func (r *Runtime) load(ctx context.Context, c ModuleConfig) (_ *Module, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(c.Code)
	hash := hex.EncodeToString(sum[:])
	if c.SHA256 != "" && !strings.EqualFold(c.SHA256, hash) {
		return nil, fmt.Errorf("its sha256 is %s, pinned is %s", hash, escape(c.SHA256))
	}
	memory := cmp.Or(c.Memory, DefaultMemory)
	m := &Module{settings: settings{
		runtime:       r,
		name:          c.Name,
		logger:        r.config.Logger.With("module", c.Name),
		fuel:          cmp.Or(c.Fuel, DefaultFuel),
		startFuel:     cmp.Or(c.StartFuel, DefaultStartFuel),
		config:        []byte("{}"),
		configGiven:   len(c.Config) > 0 && !bytes.Equal(bytes.TrimSpace(c.Config), []byte("{}")),
		exact:         make(map[string]struct{}),
		registry:      c.Registry,
		kv:            c.Store,
		memoryKV:      c.KV == "memory",
		host:          c.HostFunctions,
		recycleCalls:  cmp.Or(c.RecycleCalls, DefaultRecycleCalls),
		recycleMemory: cmp.Or(c.RecycleMemory, memory/4*3),
		kvLimits:      kvLimits{cmp.Or(c.KVKeys, DefaultKVKeys), cmp.Or(c.KVBytes, DefaultKVBytes)},
	}}
	m.info = Info{Name: c.Name, SHA256: hash, Size: len(c.Code), Fuel: m.fuel, StartFuelLimit: m.startFuel}
	m.pool.limit = r.config.Workers
	if m.configGiven {
		m.config = bytes.Clone(c.Config)
	}
	for _, channel := range c.Publish {
		if filterd.IsGlob(channel) {
			m.globs = append(m.globs, filterd.CompileGlob(channel))
		} else {
			m.exact[channel] = struct{}{}
		}
	}
	limits := metering.Limits{MemoryPages: int(memory / pageSize)}
	if err := m.compile(ctx, c.Code, limits); err != nil {
		return nil, err
	}
	if err := r.enter(m); err != nil {
		return nil, errors.Join(err, m.compiled.Close(ctx))
	}
	if err := m.first(ctx); err != nil {
		_ = m.Close() // nothing runs that could fail to close
		return nil, err
	}
	return m, nil
}

// Apart returns a module of the same code and configuration that shares
// nothing else: it has instances and counters of its own, and in place of the
// KV, if there is one, an empty one in memory, in which values expire by clock.
// It has no breaker: it is called however often it fails. So a dry run leaves
// nothing behind, can be at any time, and shows what each message does. It must be
// closed, and before m is.
func (m *Module) Apart(clock func() time.Time) (*Module, error) {
	a := &Module{settings: m.settings, apart: clock}
	a.logger = m.logger.With("dry_run", true)
	a.pool.limit = m.pool.limit
	a.kv, a.memoryKV = nil, m.kv != nil
	if err := m.runtime.enter(a); err != nil {
		return nil, fmt.Errorf("module %q: %w", m.name, err)
	}
	return a, nil
}

// compile checks, instruments and compiles the code.
func (m *Module) compile(ctx context.Context, code []byte, limits metering.Limits) error {
	begin := time.Now()
	info, err := metering.Inspect(code, limits)
	if err != nil {
		return err
	}
	if err := m.check(info); err != nil {
		return err
	}
	metered, err := metering.Instrument(code, limits)
	if err != nil {
		return err
	}
	m.hasStart, m.initializes, m.configures = metered.HasStart, info.Exported(exportInitialize), info.Exported(exportConfigure)
	if m.compiled, err = m.runtime.compile(ctx, metered.Binary); err != nil {
		return fmt.Errorf("compile: %s", escape(err.Error()))
	}
	m.imports = len(info.Imports) // all of them are functions
	m.info.CompileTime = time.Since(begin)
	m.info.Metered = len(metered.Binary)
	m.describe(info, limits)
	return nil
}

// first starts the first instance, which fixes the fields.
func (m *Module) first(ctx context.Context) error {
	if err := m.buildOwn(ctx); err != nil {
		return err
	}
	if _, err := m.pool.get(ctx); err != nil { // the permission to make one
		return err
	}
	begin := time.Now()
	i, err := m.start(ctx)
	if err != nil {
		m.pool.put(nil)
		return err
	}
	m.info.Fields, m.fixed = i.declared, true
	m.info.StartTime, m.info.StartFuel, m.info.Memory = time.Since(begin), i.counters.fuel, int(i.memory.Size())
	i.counters.started++
	m.pool.put(i)
	return nil
}

// Paths implements [filterd.Stage]: the fields that the guest declared.
func (m *Module) Paths() []filterd.Path { return m.info.Fields }

// Bind implements [filterd.Stage].
func (m *Module) Bind(slots []int) filterd.StageRunner {
	return &runner{module: m, slots: append([]int(nil), slots...)}
}

// publishes reports whether the guest may emit to a channel.
func (m *Module) publishes(channel []byte) bool {
	if _, ok := m.exact[string(channel)]; ok {
		return true
	}
	for _, glob := range m.globs {
		if glob.Match(string(channel)) {
			return true
		}
	}
	return false
}

// Close closes the module after the calls that are under way. Messages that
// come later get an error. It may be called again.
func (m *Module) Close() error {
	m.closing.Do(func() {
		m.pool.close()
		if m.apart == nil {
			ctx := context.Background()
			errs := []error{m.compiled.Close(ctx)}
			for _, own := range m.own {
				errs = append(errs, own.Close(ctx))
			}
			m.closed = errors.Join(errs...)
		}
		counters, _ := m.pool.stats()
		m.runtime.leave(m, counters)
	})
	return m.closed
}
