package exprfilter

import (
	"fmt"
	"slices"

	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
)

// Kind is the kind of filters that are expressions. It implements
// [filterd.Kind].
type Kind struct{}

// Name implements [filterd.Kind].
func (Kind) Name() string { return "expr" }

// Compile implements [filterd.Kind].
func (Kind) Compile(filters []filterd.Filter) (filterd.Set, error) {
	s := &set{programs: make([]*program, len(filters))}
	for i, f := range filters {
		e, ok := f.(*Filter)
		if !ok {
			return nil, fmt.Errorf("filter %d is a %T, not an expression", i, f)
		}
		s.programs[i] = e.program
		for _, path := range e.program.paths {
			if !slices.Contains(s.paths, path) {
				s.paths = append(s.paths, path)
			}
		}
	}
	return s, nil
}

// A set runs one program after the other, each on the decoded message.
type set struct {
	programs []*program
	paths    []filterd.Path
}

func (s *set) Paths() []filterd.Path { return s.paths }

func (s *set) Bind(slots []int) filterd.SetMatcher {
	return &setMatcher{set: s, machine: newMachine(s.paths, slots)}
}

type setMatcher struct {
	set     *set
	machine machine
}

func (m *setMatcher) Match(batch []*filterd.Message, verdicts []filterd.Verdict) []filterd.Verdict {
	for i, message := range batch {
		err := m.machine.load(message)
		for rule, p := range m.set.programs {
			keep := any(false)
			failure := err
			if failure == nil {
				keep, failure = m.machine.run(p)
			}
			if failure != nil || keep == true {
				verdicts = append(verdicts, filterd.Verdict{Message: i, Rule: rule, Err: failure})
			}
		}
	}
	return verdicts
}

// Matcher implements [filterd.Filter].
func (f *Filter) Matcher() filterd.Matcher { return &matcher{program: f.program} }

// A matcher is one expression on messages that are bound to no projection.
type matcher struct {
	program *program
	machine machine
}

func (m *matcher) Match(message *filterd.Message) (bool, error) {
	if err := m.machine.loadAll(message); err != nil {
		return false, err
	}
	keep, err := m.machine.run(m.program)
	return keep == true, err
}

// Paths implements [filterd.Value].
func (v *Value) Paths() []filterd.Path { return v.program.paths }

// Bind implements [filterd.Value].
func (v *Value) Bind(slots []int) filterd.Evaluator {
	return &evaluator{program: v.program, machine: newMachine(v.program.paths, slots)}
}

type evaluator struct {
	program *program
	machine machine
}

func (e *evaluator) Evaluate(message *filterd.Message) (any, error) {
	if err := e.machine.load(message); err != nil {
		return nil, err
	}
	return e.machine.run(e.program)
}

// A machine runs programs over one message at a time. It belongs to one
// goroutine.
type machine struct {
	paths []filterd.Path
	slots []int // of the paths
	env   map[string]any
	vm    vm.VM
}

func newMachine(paths []filterd.Path, slots []int) machine {
	return machine{paths: paths, slots: slots}
}

// load makes message what the programs see, as far as they read it.
func (m *machine) load(message filterd.Fields) error {
	if m.env == nil {
		m.env = make(map[string]any, len(m.paths))
	}
	for i, path := range m.paths {
		value, err := message.Field(m.slots[i])
		if err != nil {
			return err
		}
		m.env[string(path)] = value
	}
	return nil
}

// loadAll is load without a projection.
func (m *machine) loadAll(message *filterd.Message) error {
	if m.env == nil {
		m.env = make(map[string]any, 3)
	}
	data, err := message.Data()
	if err != nil {
		return err
	}
	attributes, err := message.Attributes()
	if err != nil {
		return err
	}
	m.env[string(filterd.PathData)] = data
	m.env[string(filterd.PathEvent)] = attributes
	m.env[string(filterd.PathChannel)] = message.Channel
	return nil
}

func (m *machine) run(p *program) (any, error) {
	result, err := m.vm.Run(p.vm, m.env)
	if err != nil {
		m.vm = vm.VM{} // it may be left in any state
		return nil, sourceError(p.source, err)
	}
	return result, nil
}
