package wasmfilter

import (
	"encoding/binary"
	"math"

	"github.com/filterd/filterd"
)

// The layout of a batch in the guest's buffer: the entries, the cells of each
// message's fields, the payloads, and the strings that stand otherwise in the
// payloads.
const (
	entrySize     = 16
	cellSize      = 16
	entryVerdict  = 8 // offset of the verdict in an entry
	maxBatch      = 64
	maxBatchBytes = 256 << 10 // payloads; a guest's buffer never shrinks
)

// undecided is the verdict that the host writes.
const undecided = math.MinInt32

// aligned returns where what follows n bytes begins.
func aligned(n int) int { return (n + 7) &^ 7 }

// batchable returns how many messages go to the guest at once, most at most. A
// large one goes alone.
func batchable(batch []*filterd.Message, most int) int {
	bytes := 0
	for n, m := range batch {
		if bytes += len(m.Payload); n == most || bytes > maxBatchBytes {
			return n
		}
	}
	return len(batch)
}

// batch asks about several messages at once. The results are those that single
// would give, one by one.
func (i *instance) batch(messages []*filterd.Message, results []filterd.StageResult) (done int, err error) {
	i.begin(messages)
	size := i.layOut(messages)
	if err := i.fit(size); err != nil {
		i.end()
		if _, ok := err.(*refusal); ok { // there may be room for fewer
			i.batchSize = len(messages) / 2
			return 0, nil
		}
		results[0] = filterd.StageResult{Err: err}
		return 1, err
	}
	i.writeBatch(messages, size)
	i.current = -1
	i.stack[0] = uint64(len(messages))
	if err = i.processBatch.CallWithStack(i, i.stack[:1]); err != nil {
		err = i.fault(err)
	} else if code := int32(i.stack[0]); code != 0 {
		err = i.module.fault(FaultABI, "%s returned %d, want 0", exportBatch, code)
	}
	i.end()
	return i.verdicts(len(messages), results, err)
}

// layOut fills the table of entries and cells, and returns the size of the
// whole.
func (i *instance) layOut(messages []*filterd.Message) int {
	cell := len(messages) * entrySize
	at := cell + len(messages)*len(i.slots)*cellSize // of the payload
	if cap(i.table) < at {
		i.table = make([]byte, at)
	}
	i.table, i.texts = i.table[:at], i.texts[:0]
	end := at // of the payloads
	for _, m := range messages {
		end += aligned(len(m.Payload))
	}
	le := binary.LittleEndian
	for n, m := range messages {
		entry := i.table[n*entrySize:][:entrySize]
		le.PutUint32(entry, uint32(at))
		le.PutUint32(entry[4:], uint32(len(m.Payload)))
		le.PutUint32(entry[entryVerdict:], 1<<31)
		le.PutUint32(entry[12:], uint32(cell))
		for _, slot := range i.slots {
			kind, length, bits := i.cell(m, m.Lookup(slot), at, end)
			le.PutUint32(i.table[cell:], kind)
			le.PutUint32(i.table[cell+4:], length)
			le.PutUint64(i.table[cell+8:], bits)
			cell += cellSize
		}
		at += aligned(len(m.Payload))
	}
	return end + len(i.texts)
}

// cell returns what stands in the cell of a field, for a message whose payload
// is at an offset. Texts that aren't part of the payload go behind them all.
func (i *instance) cell(m *filterd.Message, f filterd.Field, at, end int) (kind, length uint32, bits uint64) {
	kind = uint32(f.Kind)
	switch f.Kind {
	case filterd.FieldMissing, filterd.FieldNull:
		return kind, 0, 0
	case filterd.FieldBool:
		return kind, 0, bit(f.Bool())
	case filterd.FieldNumber:
		return kind, 0, math.Float64bits(f.Float())
	}
	begin := len(i.texts)
	if text, plain := plainText(f); !plain {
		i.texts = f.AppendBytes(i.texts)
	} else if offset := offsetIn(m.Payload, text); offset >= 0 {
		return kind, uint32(len(text)), uint64(at + offset)
	} else {
		i.texts = append(i.texts, text...)
	}
	return kind, uint32(len(i.texts) - begin), uint64(end + begin)
}

// offsetIn returns where part is in whole, -1 if it is memory of its own.
func offsetIn(whole, part []byte) int {
	if len(part) == 0 {
		return 0
	}
	// Slices of one array mostly end their capacity at the same place.
	offset := cap(whole) - cap(part)
	if offset < 0 || offset+len(part) > len(whole) || &whole[offset] != &part[0] {
		return -1
	}
	return offset
}

// writeBatch writes the batch to the guest's buffer, which is large enough.
func (i *instance) writeBatch(messages []*filterd.Message, size int) {
	memory, _ := i.memory.Read(i.at, uint32(size)) // fit has checked it
	at := copy(memory, i.table)
	for _, m := range messages {
		at += aligned(copy(memory[at:], m.Payload))
	}
	copy(memory[at:], i.texts)
}

// verdicts reads the guest's verdicts on n messages. After a fault those that
// were written stand, and the first message without one has the error; others
// without one are not done.
func (i *instance) verdicts(n int, results []filterd.StageResult, fault error) (done int, err error) {
	// Memory may have grown and moved, but it has not shrunk.
	entries, _ := i.memory.Read(i.at, uint32(n*entrySize))
	defer clear(i.work[:n])
	culprit, why := -1, fault
	for k := range n {
		verdict := int32(binary.LittleEndian.Uint32(entries[k*entrySize+entryVerdict:]))
		if verdict != undecided {
			if wrong := i.conclude(&i.work[k], verdict, &results[k]); wrong != nil && fault == nil {
				fault = wrong
			}
			if culprit >= 0 {
				i.ahead = append(i.ahead, k)
			}
			continue
		}
		if culprit >= 0 {
			continue
		}
		if culprit = k; why == nil {
			why = i.module.fault(FaultABI, "%s left message %d of %d undecided", exportBatch, k, n)
		}
	}
	if culprit < 0 {
		return n, fault
	}
	results[culprit] = filterd.StageResult{Err: why}
	return culprit + 1, why
}
