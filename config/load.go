package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/pubsub"
	"github.com/filterd/filterd/webhook"
)

// A Config is a config file, read and checked as a whole.
type Config struct {
	// Path is the file's name, as it was given.
	Path string
	// Redis says where Redis is. Paths in it are relative to the working
	// directory, or absolute.
	Redis pubsub.Options
	// MaxMessage is for [pubsub.SourceOptions].
	MaxMessage int
	// Server is the section server; nil if there is none.
	Server *Server
	// HA is the section ha; nil if there is none.
	HA *HA
	// Traces is the section traces; nil if there is none.
	Traces *Traces
	// Registry holds the contracts of the channels.
	Registry *filterd.Registry
	// Rules are the rules in the order of the file, and Table is compiled of
	// them.
	Rules []engine.Rule
	Table *engine.Table
	// Webhooks are the endpoints that rules post to, by their names. They
	// connect to nothing before there is a message.
	Webhooks map[string]*webhook.Endpoint
	// Tests are the tests that stand beside the rules, in the order of the
	// file.
	Tests []Test
	// Warnings lists what is suspicious but was accepted, in the order of
	// the file.
	Warnings []Problem
	// Hints lists where rules fail on valid messages of some sort, such as
	// those without an optional member, in the order of the file.
	Hints []Problem
	// Files are the files that the config was made of: its own first, then
	// schemas, modules and secrets in the order of the file. [Parse] has no
	// file of its own.
	Files []File

	loaded     bool     // from the file at Path
	options    []Option // it was loaded with
	definition engine.Definition
	digests    [][sha256.Size]byte  // of the rules' texts, by Rules
	stages     []*wasmfilter.Module // of the rules
	modules    []*wasmfilter.Module // of those, what Close closes
	identities map[*wasmfilter.Module]string
	runtime    *wasmfilter.Runtime // made by Load; nil if there was no need
}

// Engine makes an engine that runs the file's rules. The Table of the given
// config is ignored. If the file has the section ha, the config needs a Lease,
// such as a [pubsub.Lease] of the section's group, which the caller runs. If it has
// the section traces, that says whether traceparents are replaced; the Tracer is
// the caller's.
func (c *Config) Engine(config engine.Config) (*engine.Engine, error) {
	if c.HA != nil && config.Lease == nil {
		return nil, fmt.Errorf("%s has the section ha: the engine needs a lease, as pubsub.NewLease makes one for group %s", c.Path, c.HA.Group)
	}
	if c.Traces != nil {
		config.ReplaceTraceparent = c.Traces.Replace
	}
	config.Table = c.Table
	return engine.New(config)
}

// An Option changes how a config is loaded.
type Option func(*loader)

// Callbacks registers the Go functions that rules can name as {callback: name}.
// By default there are none.
func Callbacks(callbacks map[string]engine.Callback) Option {
	return func(l *loader) { l.callbacks = callbacks }
}

// Folder says where relative paths of the file lead from. The default is the
// file's own folder for [Load], and the working directory for [Parse].
func Folder(folder string) Option {
	return func(l *loader) { l.folder = folder }
}

// Environment looks up the variables that the file refers to as ${NAME}. The
// default is [os.LookupEnv].
func Environment(lookup func(name string) (value string, set bool)) Option {
	return func(l *loader) { l.environment = lookup }
}

// Load reads a config file, and the files it names. Nothing is connected or
// started. The error is an [*Error] with everything that is wrong; it matches
// [fs.ErrNotExist] and the like if the file itself can't be read.
func Load(path string, opts ...Option) (*Config, error) { return load(path, nil, opts) }

// load loads a config, in the place of a former one unless that is nil.
func load(path string, former *Config, opts []Option) (*Config, error) {
	_, src, here, err := openFile(path, former)
	if err != nil {
		return nil, err
	}
	c, err := Parse(path, src, append([]Option{here}, opts...)...)
	if err != nil {
		return nil, err
	}
	c.loaded, c.options = true, opts
	return c, nil
}

// openFile reads the config file itself. The option makes a loader that of the
// file.
func openFile(path string, former *Config) (file File, src []byte, here Option, err error) {
	file = File{Path: path, limit: maxSize}
	if src, err = file.readLimited(); err != nil {
		return file, nil, nil, &Error{Problems: []Problem{{File: path, Message: reason(err)}}, Files: []File{file}, cause: err}
	}
	return file, src, func(l *loader) {
		l.folder, l.former, l.files = filepath.Dir(path), former, []File{file}
	}, nil
}

// reason returns what the operating system says, without what was done and to
// which file.
func reason(err error) string {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err.Error()
	}
	return err.Error()
}

// readLimited reads the file, but not much more than may be in it: it may be a
// pipe.
func (f *File) readLimited() ([]byte, error) {
	opened, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return nil, err
	}
	src, err := io.ReadAll(io.LimitReader(opened, maxSize+1))
	if err == nil && len(src) <= maxSize {
		sum := sha256.Sum256(src)
		f.read(info, sum[:])
	}
	return src, err
}

// Parse is [Load] for a text. The name stands for it in errors.
func Parse(name string, src []byte, opts ...Option) (*Config, error) {
	l, err := newLoader(name, src, opts)
	if err != nil {
		return nil, err
	}
	l.load()
	if found := l.problems.sorted(); len(found) > 0 {
		_ = l.config.Close() // what was loaded is of no use
		return nil, &Error{Problems: found, Files: l.files}
	}
	l.config.Warnings, l.config.Hints, l.config.Files = l.warnings.sorted(), l.hints.sorted(), l.files
	return l.config, nil
}

// newLoader makes the loader of a text.
func newLoader(name string, src []byte, opts []Option) (*loader, error) {
	l := &loader{
		folder:      ".",
		environment: os.LookupEnv,
		config:      &Config{Path: name, MaxMessage: pubsub.DefaultMaxMessage, identities: make(map[*wasmfilter.Module]string)},
		schemas:     make(map[string]loadedSchema),
	}
	for _, option := range opts {
		option(l)
	}
	if len(src) > maxSize {
		return nil, &Error{Problems: []Problem{{File: name, Message: fmt.Sprintf("the file is larger than %d MiB", maxSize>>20)}}, Files: l.files}
	}
	t := newText(name, string(src))
	l.problems = &problems{text: t}
	l.warnings = &problems{text: t}
	l.hints = &problems{text: t}
	return l, nil
}

// A loader reads one config.
type loader struct {
	folder      string
	environment func(string) (string, bool)
	callbacks   map[string]engine.Callback
	runtime     *wasmfilter.Runtime
	stores      func(redis pubsub.Options, module string) (wasmfilter.KV, error)
	former      *Config // whose place the config is to take; or nil

	files       []File
	contracts   [sha256.Size]byte // hash of the channels and what they name
	problems    *problems
	warnings    *problems
	hints       *problems
	config      *Config
	strict      bool // strict_channels
	schemas     map[string]loadedSchema
	substituted int // bytes that references were replaced with
	rules       []ruleNodes
	byName      map[string]int // rule name to index into rules
	byModule    map[string]*moduleNode
	byWebhook   map[string]*webhookNode

	labels        map[string]string // of declared channels: where the schema is
	types         map[typingKey]exprfilter.Typing
	globContracts map[string]globContracts
	compared      int // contracts with globs
}

// root reads the file's tree; nil, with a problem, if there is none.
func (l *loader) root() *node {
	t := l.problems.text
	if offset, message, ok := t.readable(); !ok {
		l.problems.add(offset, 1, "", "", message)
		return nil
	}
	root := readTree(l.problems)
	if root != nil && root.kind == scalarNode && root.tag == tagNull {
		l.problems.add(root.offset, 1, "", "", "the file is empty")
		return nil
	}
	return root
}

func (l *loader) load() {
	root := l.root()
	if root == nil {
		return
	}
	file, ok := l.section("", root, fileKeys)
	if !ok {
		return
	}
	if key, n := file.get("redis"); n != nil {
		l.redis(key, n)
	}
	if key, n := file.get("server"); n != nil {
		l.server(key, n)
	}
	if key, n := file.get("ha"); n != nil {
		l.ha(key, n)
	}
	if key, n := file.get("traces"); n != nil {
		l.traces(key, n)
	}
	if key, n := file.get("strict_channels"); n != nil {
		l.strict, _ = l.boolean(key, n)
	}
	key, n := file.get("channels")
	l.channels(key, n)
	l.contracts = l.hashContracts(n)
	if key, n := file.get("modules"); n != nil {
		l.modules(key, n)
	}
	if key, n := file.get("webhooks"); n != nil {
		l.webhooks(key, n)
	}
	key, n = file.get("rules")
	switch {
	case n == nil:
		l.problems.add(root.offset, 1, key, "add rules", "the file has no rules")
		return
	case n.blank() || n.kind == mappingNode && len(n.entries) == 0:
		l.fail(key, n, "add a rule", "there is no rule")
		return
	}
	l.readRules(key, n)
	l.unusedModules()
	l.useWebhooks()
	l.compile()
}

// compile makes the table. It runs even if there are problems, so that those
// of the rules among each other are reported with the rest.
func (l *loader) compile() {
	if len(l.config.Rules) == 0 {
		return // there was a rule, and what is wrong with it is known
	}
	l.config.definition = engine.Definition{
		Registry:       l.config.Registry,
		Rules:          l.config.Rules,
		Callbacks:      l.callbacks,
		Webhooks:       l.config.hooks(),
		StrictChannels: l.strict,
	}
	table, err := engine.Compile(l.config.definition)
	for _, err := range unjoin(err) {
		l.ruleError(l.problems, err)
	}
	if err == nil {
		l.config.Table = table
		for _, warning := range table.Warnings() {
			l.ruleError(l.warnings, warning)
		}
	}
}

// unjoin returns the errors that were joined to one.
func unjoin(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	var errs []error
	for _, err := range joined.Unwrap() {
		errs = append(errs, unjoin(err)...)
	}
	return errs
}

// ruleError reports what the engine says about a rule.
func (l *loader) ruleError(p *problems, err error) {
	message, hint := err.Error(), ""
	key, offset, length := "rules", 0, 1
	var of *engine.RuleError
	if errors.As(err, &of) {
		message = of.Err.Error()
		if i, ok := l.byName[of.Rule]; ok {
			r := &l.rules[i]
			if r.isFaulty(of.Field) {
				return // this is but a consequence
			}
			field, index := of.Field, of.Index
			if field == "allow" && r.whole.node.get("allow") == nil {
				// It is missing because of a target.
				field = "to"
				index = slices.IndexFunc(l.config.Rules[i].To, func(to engine.Target) bool { return to.Computed != nil })
			}
			var n *node
			key, n = r.find(field, max(index, 0))
			offset, length = p.text.whole(n)
		}
	}
	if i := strings.LastIndex(message, ": did you mean "); i >= 0 {
		message, hint = message[:i], message[i+len(": "):]
	}
	p.add(offset, length, key, hint, message)
}
