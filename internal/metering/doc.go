// Package metering bounds untrusted WebAssembly modules. [Instrument] reads a
// core module, refuses what it does not know or what is too large, and writes
// it anew with meters: for fuel, which bounds how long it runs, and for the
// height of its stack. [Inspect] describes a module. Nothing here runs one:
// the host imports and globals that a metered module wants are listed at
// [ImportModule].
//
// # Fuel
//
// Fuel is a mutable i64 global behind the module's own. Code is cut into
// segments, which are reached as a whole or not at all (segment.go); every
// instruction costs at least one (cost.go), and every segment is paid for
// before it runs. Entries of functions and headers of loops also check: below
// zero they call a helper, which asks the host for the next slice. What lies
// between is only subtracted. That is enough: without passing a check, code
// runs forward through a function, or returns into one that was checked when
// it was entered. The cap on the stack's height bounds how much of that there
// is to return into: some two million units, a millisecond or two, which is
// also how far a budget can be overrun. Bulk instructions and growth are
// charged by length, through helpers that take the length and return it.
//
// # Stack
//
// Every function that calls something subtracts its frame's estimated size
// (height.go) from a second global when it is entered, and adds it again on
// every way out; functions that call nothing and are small are free, since only
// one of them is on the stack. The native stack is at most some 8 times the
// estimate in code that is made to mislead it, and mostly half of it.
//
// # What keeps the meters out of reach
//
// Every index is checked against the counts of the module as it came; what is
// added stands behind the module's own types, imports, globals, functions and
// exports, so that only functions' indices move. Types of operands are not
// checked. They need not be: what is inserted takes and leaves nothing, so that
// the runtime finds the same faults in the result. Where wazero and the format
// differ in how bytes are cut into instructions (a prefix with an overlong
// number), the module is refused.
//
// Compilers are open to attack as well: a few kilobytes can keep wazero's busy
// for minutes. Besides plain sizes, [Limits] bound an estimate of its work.
//
// # Measured and rejected
//
// Ratios to the same code without meters, wazero 1.12 on amd64; loop is the
// tightest loop there is, bytes sums up 324 bytes, decode is encoding/json in
// a Go guest. What is done here: loop 2.0, bytes 1.1, fib 1.35, decode 1.2,
// sorting and maps in Go 1.1 to 1.25, a byte loop in Go 1.3 to 1.5; compiling
// a Go guest takes 1.1 times as long.
//
//   - One charge for each function and each loop, for everything within but
//     nested loops: decode 1.3, and charged 25 times what it ran, because a Go
//     function is one loop around a br_table.
//   - A check in every segment: decode 1.5 to 1.7, bytes in Go 2.5, code 15 %
//     larger than now. Each check is a place where ways meet, behind which
//     wazero reads globals and the memory's base again.
//   - The slow way in an if without an else: bytes 1.3, decode 1.36. It is the
//     first way then, and wazero's register allocator makes the other one read
//     everything from the stack as well.
//   - Fuel only in the global, also in loops without calls: bytes 1.9. Each
//     iteration then waits for the store of the one before.
//   - Fuel in a local everywhere, read again behind calls: like now within the
//     noise, fib 1.5, code 5 % larger.
//   - Height accounted around calls instead of in functions: as fast, fib 1.4
//     to 1.5, code 13 % larger: there are more calls than functions.
//   - More that may be skipped in a charge, 16 or 32 units instead of 8: decode
//     charged 1.1 and 1.4 times as much, and as slow within the noise.
//   - The check of a loop with calls on a local, which spares a load: the same
//     within the noise.
//   - Frames estimated by locals and operands: off without bound, since wazero
//     gives every value of the code that it spills a place of its own.
package metering
