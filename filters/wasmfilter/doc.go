// Package wasmfilter runs WebAssembly modules as stages of rules: modules that
// filter, rewrite or emit messages, written in any language.
//
// A module implements version 1 of filterd's interface for guests: it exports
// filterd_process, which the host calls for each message, and imports what it
// needs of the host. It is bounded whatever it does: every instruction costs
// fuel, stack and memory have limits, and an instance that fails is replaced.
// What is left of a module that goes wrong is an error for the message.
//
// One [Runtime] serves a whole program. A [Module] is compiled once, and has
// as many instances as are called at the same time, at most one for each of
// the runtime's workers; it implements [filterd.Stage] for any number of
// rules.
package wasmfilter
