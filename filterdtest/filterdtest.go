// Package filterdtest runs the tests that stand beside the rules of a config
// file as tests of a Go program, as filterd test does: nothing is sent, and no
// Redis is needed.
package filterdtest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/filterd/filterd/config"
)

// Run runs every test beside the rules of a file as a subtest of t, named rule/0,
// rule/1, …: go test -run TestRules/whales runs those of one rule. A test that
// fails says where it stands, and in which places a payload is not the expected
// one. A file that is refused, and one without tests, fails t at once.
//
// The options are those of [config.Load]. Callbacks are not called: it will do
// to register nil for each.
func Run(t *testing.T, path string, options ...config.Option) {
	t.Helper()
	file, err := config.Load(path, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	results, err := file.RunTests()
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		t.Fatalf("%s has no tests: write some beside its rules", path)
	}
	for from := 0; from < len(results); {
		rule, to := results[from].Test.Rule, from
		for to < len(results) && results[to].Test.Rule == rule {
			to++
		}
		t.Run(rule, func(t *testing.T) {
			for _, r := range results[from:to] {
				t.Run(strconv.Itoa(r.Test.Index), func(t *testing.T) {
					if !r.OK {
						t.Errorf("%s:%d:\n%s", r.Test.File, r.Test.Line, strings.Join(r.Report(), "\n"))
					}
				})
			}
		})
		from = to
	}
}
