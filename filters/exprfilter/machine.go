package exprfilter

import (
	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
)

// A machine evaluates terms and programs over one message at a time. It
// belongs to one goroutine.
type machine struct {
	places  []*place
	slots   []int // of the places
	message *filterd.Message
	epoch   uint32 // counts messages; what has another epoch is of another message
	cells   []cell // of the places
	vm      vm.VM

	count  filterd.Evaluations // not yet added to the set's
	pruned *pruned
	oracle struct {
		epoch uint32
		env   map[string]any
		err   error
	}
}

// A cell is a value of the message at hand, once it was read.
type cell struct {
	value
	epoch uint32
}

func newMachine(places []*place, slots []int) machine {
	return machine{places: places, slots: slots, cells: make([]cell, len(places)), pruned: newPruned(len(places))}
}

// load makes message the one at hand.
func (m *machine) load(message *filterd.Message) {
	m.message = message
	m.epoch++
	if m.epoch == 0 { // after 2^32 messages the cells of the first would count again
		clear(m.cells)
		clear(m.pruned.filled)
		m.oracle.epoch = 0
		m.epoch = 1
	}
}

// at returns what the message has at a place.
func (m *machine) at(number int) *cell {
	c := &m.cells[number]
	if c.epoch != m.epoch {
		m.read(number, c)
	}
	return c
}

// read fills in the cell of a place. What its class does not ask for may be
// left of another message.
func (m *machine) read(number int, c *cell) {
	c.epoch = m.epoch
	f := m.message.Lookup(m.slots[number])
	switch f.Kind {
	case filterd.FieldNull:
		c.class = classNil
	case filterd.FieldBool:
		c.class = truth(f.Bool())
	case filterd.FieldNumber:
		c.class, c.number = classNumber, f.Float()
	case filterd.FieldString:
		c.class, c.text = classString, f.Text
		if !f.Plain {
			c.text = f.AppendBytes(nil)
		}
	case filterd.FieldArray:
		c.class = classArray
	case filterd.FieldObject:
		c.class = classObject
	default:
		c.class = m.missing(m.places[number])
	}
}

// missing returns the class of a place where there is nothing.
func (m *machine) missing(p *place) class {
	if p.parent == nil {
		if p.path == filterd.PathEvent {
			return classObject // without attributes
		}
		return classNil
	}
	switch parent := m.at(p.parent.number).class; {
	case parent == classUnknown:
		return classUnknown
	case p.byIndex && parent == classString:
		return classUnknown // expr takes a byte of it
	case !p.byIndex && parent == classObject:
		return classNil
	}
	return classError
}

// run runs a program, on no more than what it reads if that will do.
func (m *machine) run(p *program, reads []*place) (any, error) {
	if m.prune(reads) {
		m.count.Pruned++
		if result, err := m.vm.Run(p.vm, p.withClock(m.pruned.env, m.message)); err == nil {
			return result, nil
		}
		m.vm = vm.VM{} // it may be left in any state
	}
	return m.ask(p)
}

// ask runs a program on the whole message: encoding/json and expr decide.
func (m *machine) ask(p *program) (any, error) {
	m.count.Whole++
	if m.oracle.epoch != m.epoch {
		m.oracle.epoch = m.epoch
		m.oracle.env, m.oracle.err = environmentOf(m.message)
	}
	if m.oracle.err != nil {
		return nil, m.oracle.err
	}
	result, err := m.vm.Run(p.vm, p.withClock(m.oracle.env, m.message))
	if err != nil {
		m.vm = vm.VM{}
		return nil, p.failed(err)
	}
	return result, nil
}

// environmentOf returns all that an expression may see of a message.
func environmentOf(message *filterd.Message) (map[string]any, error) {
	data, err := message.Data()
	if err != nil {
		return nil, err
	}
	attributes, err := message.Attributes()
	if err != nil {
		return nil, err
	}
	return map[string]any{
		string(filterd.PathData):    data,
		string(filterd.PathEvent):   attributes,
		string(filterd.PathChannel): message.Channel,
	}, nil
}

// pruned is a decoded message of which only some places are filled in.
type pruned struct {
	env     map[string]any
	objects []map[string]any // by place: what its members are put into
	filled  []uint32         // by place: the epoch of its value
}

func newPruned(places int) *pruned {
	return &pruned{env: make(map[string]any), objects: make([]map[string]any, places), filled: make([]uint32, places)}
}

// prune fills in what a program reads. It returns false if a place can't be
// filled in, since what is above it is no object.
func (m *machine) prune(reads []*place) bool {
	for _, p := range reads {
		if !m.fill(p) {
			return false
		}
	}
	return true
}

func (m *machine) fill(p *place) bool {
	if m.pruned.filled[p.number] == m.epoch {
		return true
	}
	if p.path == filterd.PathChannel {
		m.pruned.env[string(p.path)] = m.message.Channel
		m.pruned.filled[p.number] = m.epoch
		return true
	}
	into := m.container(p.parent)
	if into == nil {
		return false
	}
	v, err := m.message.Field(m.slots[p.number])
	if err != nil {
		return false
	}
	into[p.name] = v
	m.pruned.filled[p.number] = m.epoch
	return true
}

// container returns the map that a place's members are put into, or nil if
// the message has no object there.
func (m *machine) container(p *place) map[string]any {
	if p == nil {
		return m.pruned.env
	}
	if m.at(p.number).class != classObject {
		return nil
	}
	object := m.pruned.objects[p.number]
	if object == nil {
		object = make(map[string]any)
		m.pruned.objects[p.number] = object
	}
	if m.pruned.filled[p.number] != m.epoch {
		above := m.container(p.parent)
		if above == nil {
			return nil
		}
		above[p.name] = object
		m.pruned.filled[p.number] = m.epoch
	}
	return object
}
