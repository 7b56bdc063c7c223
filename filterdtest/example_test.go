package filterdtest_test

import (
	"testing"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filterdtest"
)

// A program that embeds a rules file tests it with its own tests:
//
//	func TestRules(t *testing.T) { filterdtest.Run(t, "filterd.yaml") }
func ExampleRun() {
	// In a file rules_test.go:
	TestRules := func(t *testing.T) {
		filterdtest.Run(t, "filterd.yaml", config.Callbacks(map[string]engine.Callback{"page-me": nil}))
	}
	_ = TestRules
}
