// Package comparison measures filterd beside what people would use instead.
// It holds no code of its own: see its benchmarks.
package comparison
