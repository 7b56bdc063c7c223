package metering

// The default limits. They leave room for what public toolchains make (a Go
// program of 16 MiB), and keep what a hostile module costs before it runs
// small: wazero expands declarations of a few bytes into real memory, and its
// compiler's time grows with blocks × locals.
const (
	DefaultFileBytes       = 16 << 20
	DefaultMemoryPages     = 256 // 16 MiB
	DefaultTypes           = 10_000
	DefaultImports         = 1_000
	DefaultFunctions       = 100_000
	DefaultExports         = 10_000
	DefaultGlobals         = 10_000
	DefaultTables          = 16
	DefaultTableEntries    = 100_000
	DefaultSegments        = 100_000
	DefaultElements        = 400_000
	DefaultParameters      = 1_000
	DefaultLocals          = 50_000
	DefaultTotalLocals     = 2_000_000
	DefaultDepth           = 1_000
	DefaultBodyBytes       = 2 << 20
	DefaultBranchTargets   = 20_000
	DefaultComplexity      = 500_000
	DefaultTotalComplexity = 5_000_000
	DefaultStackBytes      = 1 << 20
)

// Limits are the most that a module may ask for. In each field zero means the
// default.
type Limits struct {
	FileBytes       int // of the module as it is handed in
	MemoryPages     int // of 64 KiB; a minimum above is refused, a maximum above is lowered, a missing one is added
	Types           int
	Imports         int
	Functions       int // without the imported ones
	Exports         int
	Globals         int
	Tables          int
	TableEntries    int // of all tables together: their minimums above are refused, their maximums are lowered so that it holds
	Segments        int // of element segments, and of data segments
	Elements        int // of all element segments together
	Parameters      int // of a function type or block type; results likewise
	Locals          int // of a function, its parameters included
	TotalLocals     int // of all functions
	Depth           int // of nested blocks in a function
	BodyBytes       int // of a function
	BranchTargets   int // of a br_table
	Complexity      int // of a function: what a compiler has to do for it, see the comment at complexity
	TotalComplexity int // of all functions
	StackBytes      int // of estimated stack height at run time
}

// orDefaults fills in the defaults.
func (l Limits) orDefaults() Limits {
	for _, field := range []struct {
		value        *int
		defaultValue int
	}{
		{&l.FileBytes, DefaultFileBytes},
		{&l.MemoryPages, DefaultMemoryPages},
		{&l.Types, DefaultTypes},
		{&l.Imports, DefaultImports},
		{&l.Functions, DefaultFunctions},
		{&l.Exports, DefaultExports},
		{&l.Globals, DefaultGlobals},
		{&l.Tables, DefaultTables},
		{&l.TableEntries, DefaultTableEntries},
		{&l.Segments, DefaultSegments},
		{&l.Elements, DefaultElements},
		{&l.Parameters, DefaultParameters},
		{&l.Locals, DefaultLocals},
		{&l.TotalLocals, DefaultTotalLocals},
		{&l.Depth, DefaultDepth},
		{&l.BodyBytes, DefaultBodyBytes},
		{&l.BranchTargets, DefaultBranchTargets},
		{&l.Complexity, DefaultComplexity},
		{&l.TotalComplexity, DefaultTotalComplexity},
		{&l.StackBytes, DefaultStackBytes},
	} {
		if *field.value <= 0 {
			*field.value = field.defaultValue
		}
	}
	l.MemoryPages = min(l.MemoryPages, maxMemoryPages)
	return l
}

// maxMemoryPages is the most that the format can address.
const maxMemoryPages = 1 << 16
