package metering

// The helpers are functions added behind the module's own. They keep what is
// inserted into code short.
const (
	helperSlow = iota // out of fuel, or of stack
	helperBytes
	helperEntries
	helperMemoryGrow
	helperTableGrow
	helperCount
)

var helperNames = [helperCount]string{"slow", "bytes", "entries", "memory_grow", "table_grow"}

// helperOf returns the helper that a bulk instruction's length goes through,
// -1 if there is none; those of tables and memory.grow are found with their
// immediates.
func helperOf(i immediate) int {
	switch i {
	case dataInMemory, twoMemories, memoryFill:
		return helperBytes
	case elementsTable, twoTables:
		return helperEntries
	}
	return -1
}

// helper returns the body of a helper, locals included. All but the first
// take a length and return it, so that they can stand before the instruction
// that takes it.
func (w *rewriter) helper(number int) []byte {
	b := []byte{0} // no locals
	if number == helperSlow {
		b = append(b, opGlobalGet)
		b = appendU32(b, w.height())
		b = append(b, opI64Const, 0, opI64LtS, opIf, 0x40, opCall)
		b = appendU32(b, w.overflow())
		b = append(b, opEnd, opGlobalGet)
		b = appendU32(b, w.fuel())
		b = append(b, opI64Const, 0, opI64LtS, opIf, 0x40, opGlobalGet)
		b = appendU32(b, w.fuel())
		b = append(b, opCall)
		b = appendU32(b, w.refuel())
		b = append(b, opGlobalSet)
		b = appendU32(b, w.fuel())
		return append(b, opEnd, opEnd)
	}
	b = append(b, opGlobalGet)
	b = appendU32(b, w.fuel())
	switch number {
	case helperBytes:
		b = append(b, opLocalGet, 0, opI64ExtendU, opI64Const, bytesPerCostLog, opI64ShrU)
	case helperEntries:
		b = append(b, opLocalGet, 0, opI64ExtendU)
	case helperMemoryGrow:
		// What cannot succeed costs no more than what can.
		b = appendClamped(b, w.m.limits.MemoryPages)
		b = append(b, opI64Const, costPageLog, opI64Shl)
	case helperTableGrow:
		b = appendClamped(b, w.m.limits.TableEntries)
	}
	b = append(b, opI64Sub, opGlobalSet)
	b = appendU32(b, w.fuel())
	b = append(b, opGlobalGet)
	b = appendU32(b, w.fuel())
	b = append(b, opI64Const, 0, opI64LtS, opIf, 0x40, opCall)
	b = appendU32(b, w.helperIndex(helperSlow))
	return append(b, opEnd, opLocalGet, 0, opEnd)
}

// appendClamped appends the lesser of local 0 and most, as an i64.
func appendClamped(b []byte, most int) []byte {
	limit := appendS64([]byte{opI32Const}, int64(int32(most)))
	b = append(b, opLocalGet, 0)
	b = append(b, limit...)
	b = append(b, opLocalGet, 0)
	b = append(b, limit...)
	return append(b, opI32LtU, opSelect, opI64ExtendU)
}
