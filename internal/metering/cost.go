package metering

// Costs in fuel. One is a simple instruction, some 0.3 ns; what takes much
// longer weighs more, so that fuel stays a bound of time. Loads and stores
// count as simple, although a cache miss is not: it is the price of a bound by
// counting.
const (
	costEntry        = 4 // of a function: frame, stack check
	costCall         = 4
	costCallIndirect = 8
	costCallImport   = 40 // leaves to the host; the host charges for its own work
	costDivide32     = 8
	costDivide64     = 12
	costDivideFloat  = 5
	costRoot         = 8
	costBulk         = 16 // and by length, at run time
	costGrow         = 200

	// Moving values where ways meet costs nothing in the format, but a
	// compiler puts them into the places that the code behind expects.
	valuesPerCost = 8

	// By length, at run time.
	bytesPerCostLog = 3  // memory.copy, fill, init
	costPageLog     = 12 // memory.grow: a page is zeroed, and memory may move
)
