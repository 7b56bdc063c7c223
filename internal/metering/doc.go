// Package metering bounds untrusted WebAssembly modules: it reads a core
// module, refuses what it does not know or what is too large, and writes it
// anew with meters for fuel and for the height of the stack.
package metering
