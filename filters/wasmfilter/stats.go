package wasmfilter

import "maps"

// Stats says what a module has done so far. The counters are those of all
// modules of its name that the runtime has had while there was always one. The
// last calls of an instance that is in use may not be counted yet.
type Stats struct {
	Calls     uint64 // of the guest: a batch is one
	Messages  uint64 // that the guest was asked about
	Errors    uint64 // that the guest reported
	Refused   uint64 // messages that came while the breaker was open
	Fuel      uint64 // used
	Faults    map[FaultKind]uint64
	Started   uint64 // instances
	Recycled  uint64 // instances that were replaced without a fault
	Instances int    // that there are now
	Memory    int64  // of those that are not in use, in bytes
	Breaker   BreakerState
	KVKeys    int // in memory
	KVBytes   int
}

// counters count what instances do. They have no lock of their own.
type counters struct {
	calls, messages, errors, fuel, started, recycled uint64
}

func (c *counters) add(d *counters) {
	c.calls += d.calls
	c.messages += d.messages
	c.errors += d.errors
	c.fuel += d.fuel
	c.started += d.started
	c.recycled += d.recycled
}

// failures count what goes wrong. The zero value is ready; they have no lock
// of their own.
type failures struct {
	refused uint64
	faults  map[FaultKind]uint64
}

func (f *failures) fault(kind FaultKind) {
	if f.faults == nil {
		f.faults = make(map[FaultKind]uint64)
	}
	f.faults[kind]++
}

// Stats returns the module's statistics.
func (m *Module) Stats() Stats {
	c, instances := m.pool.stats()
	m.shared.mu.Lock()
	c.add(&m.shared.closed)
	s := Stats{
		Calls: c.calls, Messages: c.messages, Errors: c.errors, Refused: m.shared.failures.refused, Fuel: c.fuel,
		Faults: maps.Clone(m.shared.failures.faults), Started: c.started, Recycled: c.recycled,
		Instances: instances, Memory: m.pool.memory(), Breaker: m.breaker.state(),
	}
	m.shared.mu.Unlock()
	if m.memoryKV {
		s.KVKeys, s.KVBytes = m.shared.kv.size()
	}
	return s
}
