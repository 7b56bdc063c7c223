package filterdtest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filterdtest"
)

func TestRun(t *testing.T) {
	if path := os.Getenv("FILTERDTEST_FILE"); path != "" { // what a program's test does
		filterdtest.Run(t, path, config.Callbacks(map[string]engine.Callback{
			"page": func(context.Context, *filterd.Message) error { panic("called") },
		}))
		return
	}
	dir := t.TempDir()
	for _, test := range []struct{ name, file, want string }{
		{"passes.yaml", `rules:
  whales:
    from: PRICE_DATA
    when: data.price > 10
    set: {double: data.price * 2}
    to: [whale-alerts, {callback: page}]
    tests:
      - {in: {price: 11}, out: whale-alerts, payload: {price: 11, double: 22}}
      - {in: {price: 9}, out: drop}
`, `
=== RUN   TestRun
=== RUN   TestRun/whales
=== RUN   TestRun/whales/0
=== RUN   TestRun/whales/1
--- PASS: TestRun
    --- PASS: TestRun/whales
        --- PASS: TestRun/whales/0
        --- PASS: TestRun/whales/1
PASS
`},
		{"fails.yaml", `rules:
  whales:
    from: PRICE_DATA
    when: data.price > 10
    set: {double: data.price * 2}
    to: whale-alerts
    tests:
      - {in: {price: 11}, out: whale-alerts, payload: {price: 11, double: 23}}
      - {in: {price: 9}, out: drop}
`, `
=== RUN   TestRun
=== RUN   TestRun/whales
=== RUN   TestRun/whales/0
    filterdtest.go: DIR/fails.yaml:8:
        in:   {"price":11}
        want: whale-alerts
        got:  whale-alerts, with another payload
          data.double: want 23, got 22
=== RUN   TestRun/whales/1
--- FAIL: TestRun
    --- FAIL: TestRun/whales
        --- FAIL: TestRun/whales/0
        --- PASS: TestRun/whales/1
FAIL
`},
		{"none.yaml", "rules: {r: {from: a, to: b}}\n", `
=== RUN   TestRun
    filterdtest_test.go: DIR/none.yaml has no tests: write some beside its rules
--- FAIL: TestRun
FAIL
`},
		{"refused.yaml", "rules: {r: {from: a, to: b, when: dat}}\n", `
=== RUN   TestRun
    filterdtest_test.go: DIR/refused.yaml:1:35: rules.r.when: unknown name dat
            1 | rules: {r: {from: a, to: b, when: dat}}
              |                                   ^~~ an expression sees data, event and channel
--- FAIL: TestRun
FAIL
`},
	} {
		path := filepath.Join(dir, test.name)
		if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
			t.Fatal(err)
		}
		run := exec.Command(os.Args[0], "-test.run", "^TestRun$", "-test.v")
		run.Env = append(os.Environ(), "FILTERDTEST_FILE="+path)
		out, err := run.CombinedOutput()
		if _, exited := err.(*exec.ExitError); err != nil && !exited {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(string(out), filepath.ToSlash(dir), "DIR")
		got = strings.ReplaceAll(got, dir, "DIR")
		got = regexp.MustCompile(`\.go:\d+| \(\d+\.\d+s\)`).ReplaceAllStringFunc(got, func(found string) string {
			if found[0] == '.' {
				return ".go"
			}
			return ""
		})
		if i := strings.Index(got, "coverage:"); i >= 0 {
			got = got[:i]
		}
		if diff := cmp.Diff(test.want, "\n"+got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}
