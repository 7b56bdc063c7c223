package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/internal/spelling"
	"github.com/filterd/filterd/pubsub"
)

// The most that a module may be given.
const (
	maxModuleFile   = 64 << 20
	maxModuleMemory = 4 << 30
	maxModuleFuel   = 1 << 50
)

// Runtime makes the file's modules run in a runtime of the program's: with its
// cache, and with what its modules of the same names keep in memory. By default
// a file with modules gets one of its own.
func Runtime(runtime *wasmfilter.Runtime) Option {
	return func(l *loader) { l.runtime = runtime }
}

// Stores opens the store of each module with kv: redis, given the file's section
// redis and the module's name. By default such modules keep their values in
// memory: a dry run does not touch what the daemon has.
func Stores(open func(redis pubsub.Options, module string) (wasmfilter.KV, error)) Option {
	return func(l *loader) { l.stores = open }
}

// Close closes the file's modules, the runtime that Load made for them, if it
// did, and the webhooks' connections. An engine that uses them must be closed before. A config that another
// one has replaced by [Config.Reload] needs no Close.
func (c *Config) Close() error {
	var errs []error
	for _, m := range c.modules {
		errs = append(errs, m.Close())
	}
	for _, endpoint := range c.Webhooks {
		endpoint.Close()
	}
	if c.runtime != nil {
		errs = append(errs, c.runtime.Close(context.Background()))
	}
	return errors.Join(errs...)
}

// A moduleNode is a module, and where it stands in the file.
type moduleNode struct {
	module *wasmfilter.Module // nil if something is wrong with it
	key    string
	name   *node
	used   bool // by a rule
}

// modules reads the section modules and loads what it names.
func (l *loader) modules(key string, n *node) {
	if n.kind != mappingNode {
		l.want(key, n, "", "a mapping of modules")
		return
	}
	l.byModule = make(map[string]*moduleNode, len(n.entries))
	for _, e := range n.entries {
		name := e.key.value
		key := below(key, name)
		node := &moduleNode{key: key, name: e.key}
		l.byModule[name] = node
		if name == "" {
			l.fail(key, e.key, "", "a module needs a name")
			continue
		}
		s, ok := l.section(key, e.value, moduleKeys)
		if !ok {
			continue
		}
		if module, ok := l.module(s, e.key); ok {
			module.Name = name
			node.module = l.loadModule(s, module)
		}
	}
}

// module reads what is said of one module.
func (l *loader) module(s section, name *node) (wasmfilter.ModuleConfig, bool) {
	c := wasmfilter.ModuleConfig{Registry: l.config.Registry}
	before := len(l.problems.list)
	if key, n := s.get("path"); n == nil {
		l.fail(s.key, name, "add path, the module's file", "path is missing")
	} else if path := l.optionalText(s, "path"); path != "" {
		var err error
		c.Code, err = l.readFile(path, maxModuleFile)
		switch {
		case err != nil && path != n.value:
			l.wantReferred(key, n, "the path of a module's file")
		case err != nil:
			l.fail(key, n, "", "%v", err)
		}
	}
	c.SHA256 = l.optionalText(s, "sha256")
	if key, n := s.get("memory"); n != nil {
		c.Memory = int64(l.byteSize(key, n))
	}
	if key, n := s.get("fuel"); n != nil {
		fuel, _ := l.integer(key, n, 1, maxModuleFuel)
		c.Fuel = int64(fuel)
	}
	if key, n := s.get("config"); n != nil {
		var text bytes.Buffer
		if l.json(key, n, &text) {
			c.Config = text.Bytes()
		}
	}
	if key, n := s.get("publish"); n != nil {
		c.Publish, _, _ = l.texts(key, n, "a channel or a list of channels")
	}
	if key, n := s.get("kv"); n != nil {
		c.KV, _ = l.oneOf(key, n, kvs...)
	}
	return c, len(l.problems.list) == before
}

// loadModule compiles a module and starts it.
func (l *loader) loadModule(s section, c wasmfilter.ModuleConfig) *wasmfilter.Module {
	key, n := s.get("path")
	if c.SHA256 != "" {
		if pinKey, pin := s.get("sha256"); pin != nil {
			if got := sha256.Sum256(c.Code); hex.EncodeToString(got[:]) != c.SHA256 {
				l.fail(pinKey, pin, "", "the file's hash is %x", got)
				return nil
			}
		}
	}
	identity := l.identity(c)
	if module := l.former.stage(identity); module != nil {
		l.config.identities[module] = identity
		return module
	}
	ctx := context.Background()
	if l.runtime == nil && l.former != nil {
		l.runtime = l.former.runtime
	}
	if l.runtime == nil {
		runtime, err := wasmfilter.NewRuntime(ctx, wasmfilter.RuntimeConfig{CacheDir: cacheDir()})
		if err != nil { // a read-only file system, for instance
			offset, length := l.problems.text.whole(n)
			l.warnings.add(offset, length, key, "", "compiled modules are not kept for the next start: "+err.Error())
			runtime, err = wasmfilter.NewRuntime(ctx, wasmfilter.RuntimeConfig{})
		}
		if err != nil {
			l.fail(key, n, "", "%v", err)
			return nil
		}
		l.runtime, l.config.runtime = runtime, runtime
	}
	if c.KV == kvRedis {
		c.KV = kvMemory
		if l.stores != nil && len(l.problems.list) == 0 { // such as in the section redis
			var err error
			if c.Store, err = l.stores(l.config.Redis, c.Name); err != nil {
				key, n := s.get("kv")
				l.fail(key, n, "", "%v", err)
				return nil
			}
			c.KV = ""
		}
	}
	module, err := l.runtime.Load(ctx, c)
	if err != nil {
		l.fail(key, n, "", "%v", err)
		return nil
	}
	l.config.modules = append(l.config.modules, module)
	l.config.identities[module] = identity
	return module
}

// identity says what a module is made of: where it is the same in the next
// version of the file, so is the module. Contracts bind what a module emits.
func (l *loader) identity(c wasmfilter.ModuleConfig) string {
	text := fmt.Sprintf("%q %x %d %d %q %q %q", c.Name, sha256.Sum256(c.Code), c.Memory, c.Fuel, c.Config, c.Publish, c.KV)
	if len(c.Publish) > 0 {
		text += fmt.Sprintf(" %x", l.contracts)
	}
	return text
}

// stage returns the module with an identity that a rule of c, if that is not
// nil, has; or nil.
func (c *Config) stage(identity string) *wasmfilter.Module {
	if c != nil {
		for _, module := range c.stages {
			if c.identities[module] == identity {
				return module
			}
		}
	}
	return nil
}

// cacheDir is where compiled modules are kept: none where the user has no
// folder for such things.
func cacheDir() string {
	folder, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return folder + "/filterd/wasm"
}

// stage finds the module that a rule names.
func (l *loader) stage(key string, n *node) filterd.Stage {
	name, ok := l.text(key, n)
	if !ok {
		return nil
	}
	m := l.byModule[name]
	if m == nil {
		var known []string
		for name := range l.byModule {
			known = append(known, name)
		}
		hint := "declare it under modules"
		if near := spelling.Nearest(name, known); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		l.fail(key, n, hint, "there is no module %s", quote(name))
		return nil
	}
	m.used = true
	if m.module == nil {
		return nil // what is wrong with it is known
	}
	return m.module
}

// unusedModules warns of modules that no rule names, and closes them: they have
// been checked.
func (l *loader) unusedModules() {
	for _, m := range l.byModule {
		switch {
		case m.used && m.module != nil:
			l.config.stages = append(l.config.stages, m.module)
		case !m.used:
			offset, length := l.problems.text.whole(m.name)
			l.warnings.add(offset, length, m.key, "", "no rule has this module")
			if i := slices.Index(l.config.modules, m.module); i >= 0 { // it is not a former config's
				l.config.modules = slices.Delete(l.config.modules, i, i+1)
				_ = m.module.Close() // nothing runs that could fail to close
			}
		}
	}
}

// Modules returns the modules that rules have, in the order of their names. They
// belong to c.
func (c *Config) Modules() []*wasmfilter.Module {
	modules := slices.Clone(c.stages)
	slices.SortFunc(modules, func(a, b *wasmfilter.Module) int { return strings.Compare(a.Info().Name, b.Info().Name) })
	return modules
}
