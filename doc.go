// Package filterd holds the words and small interfaces that every other
// package of filterd shares: what a message is, what a channel demands of it,
// and what a filter, a source and a sink are.
//
// A [Message] is one Redis message. Its payload may carry a CloudEvents
// [Event]; what a channel's messages must look like is its [Contract], and all
// contracts of a program are one [Registry], shared by publishers, subscribers
// and the engine. A [Filter] decides whether a message is kept; filters of one
// [Kind] are compiled together into a [Set], because thousands of rules over
// one message have more in common than not.
//
// Nothing here knows Redis, expressions or WebAssembly: see packages pubsub,
// filters/exprfilter and engine.
package filterd
