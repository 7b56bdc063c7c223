// Package exprfilter makes filters and values of expr-lang expressions
// (https://expr-lang.org). It is the only package that knows the library.
//
// An expression sees three names: data, what the message says; event, its
// CloudEvents attributes (an empty object for a message without an envelope);
// and channel, the name of the channel. JSON numbers are float64.
//
// What an expression yields is defined by encoding/json and by expr itself: a
// member that is missing is nil, a member of nil is an error, and an error is
// a third outcome beside true and false.
//
// Expressions may come from people who are not trusted: in the default profile
// the work of one evaluation, and the memory it takes, grow in proportion to
// the message (see [Full]).
package exprfilter

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
)

// MaxSource is the longest expression, in bytes. The parser recurses, and a
// goroutine that runs out of stack takes the process with it.
const MaxSource = 16 << 10

// environment declares what an expression sees.
var environment = expr.Env(types.Map{
	string(filterd.PathData):    types.Any,
	string(filterd.PathEvent):   types.Any,
	string(filterd.PathChannel): types.String,
	clockName:                   types.TypeOf(time.Time{}),
})

// An Option changes how an expression is compiled.
type Option func(*options)

type options struct{ full bool }

// Full lifts the default profile's bounds, for expressions whose authors are
// trusted: all of expr's built-in functions, predicates within predicates,
// computed patterns and ranges, and work that grows faster than the message.
// [MaxSource] and expr's own memory budget still hold.
func Full() Option { return func(o *options) { o.full = true } }

// A Filter keeps the messages for which an expression is true. It implements
// [filterd.Filter].
type Filter struct{ program *program }

// Compile compiles an expression that yields a bool. The error is a
// [*filterd.SourceError].
func Compile(source string, opts ...Option) (*Filter, error) {
	p, err := compile(source, opts, expr.AsBool())
	if err != nil {
		return nil, err
	}
	return &Filter{p}, nil
}

// MustCompile is [Compile] for expressions that are part of a program. It
// panics on an error.
func MustCompile(source string, opts ...Option) *Filter {
	f, err := Compile(source, opts...)
	if err != nil {
		panic(fmt.Sprintf("exprfilter: compile %q: %v", source, err))
	}
	return f
}

// String returns the expression.
func (f *Filter) String() string { return f.program.source }

// Kind implements [filterd.Filter].
func (f *Filter) Kind() filterd.Kind { return Kind{} }

// Value is an expression that yields any value. It implements
// [filterd.Value].
type Value struct {
	program *program
	places  []*place             // that the program and the term read, and what is above them
	reads   []*place             // by the program
	compute func(*machine) value // nil: only expr can
	float   bool                 // its numbers are float64s, as expr's are
}

// CompileValue compiles an expression that yields any value. The error is a
// [*filterd.SourceError].
func CompileValue(source string, opts ...Option) (*Value, error) {
	p, err := compile(source, opts)
	if err != nil {
		return nil, err
	}
	t := newTranslator()
	reads := [][]*place{t.reads(p.vm.Node())}
	settle(reads)
	v := &Value{program: p, reads: reads[0]}
	if term := t.value(p.vm.Node()); term != nil {
		v.compute, v.float = compileValue(term), term.float
	}
	v.places = t.places
	return v, nil
}

// String returns the expression.
func (v *Value) String() string { return v.program.source }

// A program is a compiled expression.
type program struct {
	source string
	vm     *vm.Program
	clock  bool // it asks for the time
	once   sync.Once
	single *set // of this program alone, once it was asked for
	parse  sync.Once
	faults *faults // once it failed
}

func compile(source string, opts []Option, extra ...expr.Option) (*program, error) {
	var o options
	for _, option := range opts {
		option(&o)
	}
	if len(source) > MaxSource {
		return nil, &filterd.SourceError{Source: source, Offset: MaxSource, Length: len(source) - MaxSource,
			Message: fmt.Sprintf("expression of %d bytes is over the limit of %d", len(source), MaxSource)}
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, sourceError(source, err)
	}
	if err := checkBounds(source, tree.Node, o.full); err != nil {
		return nil, err
	}
	compiled, clock, err := compileWithClock(source, extra...)
	if err != nil {
		return nil, sourceError(source, err)
	}
	return &program{source: source, vm: compiled, clock: clock}, nil
}

// sourceError turns an error of expr into one with a position in bytes.
func sourceError(source string, err error) *filterd.SourceError {
	var positioned *file.Error
	if !errors.As(err, &positioned) {
		return &filterd.SourceError{Source: source, Length: len(source), Message: err.Error()}
	}
	from := byteOffset(source, positioned.From)
	return &filterd.SourceError{Source: source, Offset: from, Length: byteOffset(source, positioned.To) - from,
		Message: positioned.Message, Hint: whatWasMeant(source, from, positioned.Message)}
}

// byteOffset converts an offset in runes, as expr counts.
func byteOffset(source string, runes int) int {
	offset := 0
	for ; runes > 0 && offset < len(source); runes-- {
		_, size := utf8.DecodeRuneInString(source[offset:])
		offset += size
	}
	return offset
}
