//go:build !race

package metering_test

// slow says that everything takes ten times as long.
const slow = false
