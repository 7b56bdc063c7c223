package wasmfilter

import (
	"math"

	"github.com/tetratelabs/wazero/experimental"
)

// pageSize is the unit in which linear memory grows, in bytes.
const pageSize = 1 << 16

// A linearMemory is a guest's memory. Its maximum is reserved from the
// beginning: it grows without being copied, so that a guest never takes more
// than its limit, and it is given back as soon as the instance is closed,
// without waiting for the collector.
type linearMemory struct {
	all      []byte // the maximum
	reserved bool   // not from Go's heap
}

// allocate implements [experimental.MemoryAllocatorFunc].
func allocate(_, most uint64) experimental.LinearMemory {
	size := int(most) // at most 4 GiB; limits below are checked when loading
	if size == 0 {
		return &linearMemory{}
	}
	if all := reserve(size); all != nil {
		return &linearMemory{all: all, reserved: true}
	}
	return &linearMemory{all: make([]byte, size)}
}

// Reallocate implements [experimental.LinearMemory].
func (l *linearMemory) Reallocate(size uint64) []byte {
	if size > uint64(len(l.all)) {
		return nil
	}
	return l.all[:size]
}

// Free implements [experimental.LinearMemory].
func (l *linearMemory) Free() {
	if l.reserved {
		unreserve(l.all)
	}
	*l = linearMemory{}
}

// view returns guest memory. It is valid until the guest runs again. Where it
// reaches beyond memory the guest is trapped, with the function's name.
func (i *instance) view(function string, pointer, length uint64) []byte {
	p, n := uint32(pointer), uint32(length)
	b, ok := i.memory.Read(p, n)
	if !ok {
		i.badPointer(function, p, n)
	}
	return b
}

// give writes as much of b to guest memory as capacity allows, and returns how
// long it is: what a guest that gave too little room should have given.
func (i *instance) give(function string, b []byte, pointer, capacity uint64) uint64 {
	p, n := uint32(pointer), min(uint32(capacity), uint32(len(b)))
	if !i.memory.Write(p, b[:n]) {
		i.badPointer(function, p, n)
	}
	i.charge(costCopy(int(n)))
	return uint64(uint32(min(len(b), math.MaxInt32)))
}

func (i *instance) badPointer(function string, pointer, length uint32) {
	i.trap(FaultABI, "%s: pointer 0x%x with length %d reaches beyond the memory of %d bytes", function, pointer, length, i.memory.Size())
}
