// Package engine runs rules over messages.
//
// [Compile] makes a [Table] of rules: immutable, and checked as a whole. An
// [Engine] has one table at a time, feeds it the messages of its sources, and
// hands what the rules keep to its sink and callbacks. A program that has its
// messages from elsewhere calls [Engine.Process] itself.
//
// The engine knows no Redis, no expressions and no WebAssembly: sources and
// sinks come from package pubsub, filters from the packages below filters.
package engine
