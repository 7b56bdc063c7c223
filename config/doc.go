// Package config reads the file in which users write their rules, and makes an
// engine's table of it: a Go program can embed the very file that the daemon
// runs.
//
// A file is refused as a whole or taken as a whole. What is wrong with it is
// reported all at once, each [Problem] with its place in the file. [Schema] is
// the JSON Schema of the format, for editors.
//
// How a file becomes a [Config]:
//
//   - text.go: the bytes, and what a place in them is called
//   - node.go: YAML to nodes that know where they stand; spelling.go leads
//     from a byte of a scalar's value back to the text
//   - spec.go: every key with its documentation; unknown keys are told by it
//   - redis.go, channels.go, rules.go, tests.go: one section each
//   - load.go: the order of all this, and the table
//   - files.go, reload.go: what it was made of, and the next version of it
package config
