//go:build race

package exprfilter

// slow says that everything takes ten times as long.
const slow = true
