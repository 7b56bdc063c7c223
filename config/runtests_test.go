package config

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// What tests say of payloads is compared with what the rule sends, as JSON or
// byte for byte.
func TestExpectedPayloads(t *testing.T) {
	for _, test := range []struct{ rule, tests, want string }{
		// Data, of whatever comes.
		{`set: {double: data.a * 2}`, `{in: {a: 1.50}, out: x, payload: {a: 15e-1, double: 3.0}}`, "ok: x"},
		{`set: {double: data.a * 2}`, `{in: {a: 1.5}, event: {}, out: x, payload: {a: 1.5, double: 3}}`, "ok: x"},
		{`set: {double: data.a * 2}`, `{in: {a: 1.5}, event: {}, out: x, payload: {a: 1.5, double: 4}}`, "x, with another payload\n  data.double: want 4, got 3"},
		{`set: {b: data.a}`, `{in: {a: 9007199254740993}, out: x, payload: {a: 9007199254740992, b: 9007199254740992}}`,
			"x, with another payload\n  data.a: want 9007199254740992, got 9007199254740993"},
		{`set: {}`, `{in: [1, {odd key: x, b: null}, 3], out: x, payload: [1, {odd key: y, c: {}}, 3, 4]}`,
			"x, with another payload\n  data[1].b: want nothing, got null\n  data[1].c: want {}, got nothing\n  data[1][\"odd key\"]: want \"y\", got \"x\"\n  data[3]: want 4, got nothing"},
		{``, `{in: [1, 2], out: x, payload: {a: 1}}`, `x, with another payload` + "\n  data: want {\"a\":1}, got [1,2]"},
		{``, `{in: "no json", out: x, payload: {a: 1}}`, "x, with another payload\n  payload: want {\"a\":1}, got \"no json\", which is not JSON"},
		{``, `{in: '{"specversion": "1.0", "id": "1", "source": "s", "type": "t"}', out: x, payload: 1}`, "x, with another payload\n  data: want 1, got nothing"},
		// Whole events.
		{`set: {b: 1}`, `{in: {}, event: {type: t, subject: s}, out: x, payload: {specversion: "1.0", id: test, source: filterd/test, type: t, subject: s, time: "2000-01-01T00:00:00Z", filterdhops: 1, data: {b: 1}}}`, "ok: x"},
		{`set: {b: event.subject}`, `{in: {specversion: "1.0", id: "7", source: s, type: t, subject: me, data: {}}, out: x, payload: {specversion: "1.0", id: "8", source: s, type: t, subject: me, filterdhops: 1, data: {b: me}}}`,
			"x, with another payload\n  payload.id: want \"8\", got \"7\""},
		// Texts.
		{``, `{in: '{"a": 1}', out: x, payload: '{"a": 1}'}`, "ok: x"},
		{``, `{in: '{"a": 1, "name": "a long one"}', out: x, payload: '{"a": 1, "name": "a long two"}'}`,
			"x, with another payload\n  payload, from byte 25: want …\" 1, \\\"name\\\": \\\"a long two\\\"}\", got …\" 1, \\\"name\\\": \\\"a long one\\\"}\""},
		// Several targets, each with the payload or its own.
		{`to: [x, y, {callback: page}, {log: info}, {stream: z}]`, `{in: 1, out: [x, y, z], payload: 1}`, "ok: x, y, z"},
		{`to: [x, y, {callback: page}, {log: info}]`, `{in: 1, out: [x, y], payload: 2}`, "x, y, with another payload\n  data: want 2, got 1"},
		{`to: [x, y, {callback: page}]`, `{in: 1, out: {x: 1, y: 2}, payload: 3}`, "x, y, with another payload\n  y: data: want 2, got 1\n  callback page: data: want 3, got 1"},
		{`to: {log: info}`, `{in: 1, out: [], payload: 2}`, "kept, for no channel, with another payload\n  data: want 2, got 1"},
		{`to: [x, y]`, `{in: 1, out: {x: 2}}`, "x, y"},
		{`to: x`, `{in: 1, out: [x, {x: 1}]}`, "x"},
		{`to: x`, `{in: 1, out: x, payload: null}`, "x, with another payload\n  data: want null, got 1"},
		{`when: data.a > 1`, `{in: {a: x}, out: x, payload: 1}`, "error: when: "},
		// The time.
		{`set: {at: now()}`, `{in: {}, out: x, payload: {at: "2000-01-01T00:00:00Z"}}`, "ok: x"},
		{`when: now() - date(event.time) > duration("1h")`, `{in: {}, event: {time: 2026-03-01T10:59:59Z}, now: 2026-03-01T12:00:00Z, out: x}`, "ok: x"},
		{`when: now() == date(event.time)`, `{in: {}, event: {}, now: 2026-03-01T12:00:00Z, out: x}`, "ok: x"},
		{`set: {at: now().Year()}`, `{in: {}, now: "2026-03-01T12:00:00+02:00", out: x, payload: {at: 2026}}`, "ok: x"},
	} {
		rule := ""
		for _, line := range strings.Split(strings.Replace(test.rule, "set: {}", "", 1), "\n") {
			rule += "    " + line + "\n"
		}
		if !strings.Contains(rule, "to:") {
			rule += "    to: x\n"
		}
		c, err := parse("channels: {in: {max_size: 1KiB}, loose: {envelope: bytes}}\nrules:\n  r:\n    from: "+source(test.tests)+"\n"+rule+"    tests:\n      - "+test.tests+"\n",
			Callbacks(map[string]engine.Callback{"page": func(context.Context, *filterd.Message) error { panic("called") }}))
		if err != nil {
			t.Errorf("%s: %v", test.tests, err)
			continue
		}
		results, err := c.RunTests()
		if err != nil {
			t.Fatal(err)
		}
		r := results[0]
		got := strings.Join(append([]string{r.Got}, r.Report()[3:]...), "\n")
		if r.OK {
			got = "ok: " + got
		}
		if strings.HasSuffix(test.want, ": ") {
			got = got[:min(len(got), len(test.want))]
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s\n%s (-want +got):\n%s", test.rule, test.tests, diff)
		}
	}
}

// source is a channel whose contract takes a test's message.
func source(test string) string {
	if strings.Contains(test, "no json") {
		return "loose"
	}
	return "in"
}

// A module's clock is the tests', also for what its KV forgets.
func TestModulesAreTestedAtATime(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path, err := filepath.Abs(probe)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(fmt.Sprintf(`
channels: {in: {envelope: bytes}}
modules: {m: {path: %s, kv: memory, publish: "*"}}
rules:
  minute:
    from: in
    wasm: m
    to: out
    tests:
      - {in: kin=1, out: out, payload: "1"}
      - {in: kin=1, out: out, now: 2000-01-01T00:00:59Z, payload: "2"}
      - {in: kin=1, out: out, now: 2000-01-01T00:01:00Z, payload: "1"}
      - {in: "mother\n{}", out: {other: {}, out: "mother\n{}"}}
      - {in: "mother\n{}", out: {other: [], out: }}
`, path))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	results, err := c.RunTests()
	if err != nil || len(results) != 5 {
		t.Fatal(err, results)
	}
	for _, r := range results[:4] {
		if !r.OK {
			t.Errorf("%s: %s", r.Test, strings.Join(r.Report(), "\n"))
		}
	}
	if r := results[4]; r.OK || len(r.Differences) != 1 || r.Differences[0].Target != "other" {
		t.Errorf("%+v", r)
	}
}

// Tests of what a module fails on say nothing of the tests after them, however
// many they are.
func TestModulesThatFailInTests(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path, err := filepath.Abs(probe)
	if err != nil {
		t.Fatal(err)
	}
	traps := strings.Repeat("      - {in: u, out: error}\n", 9)
	c, err := parse(fmt.Sprintf("channels: {in: {envelope: bytes}}\nmodules: {m: {path: %s, kv: memory}}\n"+
		"rules:\n  r:\n    from: in\n    wasm: m\n    to: out\n    tests:\n%s      - {in: kin=1, out: out, payload: \"1\"}\n", path, traps))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	results, err := c.RunTests()
	if err != nil || len(results) != 10 {
		t.Fatal(err, results)
	}
	for _, r := range results {
		if !r.OK || r.Test.Outcome == OutcomeError && !strings.Contains(r.Got, "trapped: unreachable") {
			t.Errorf("%s: %s", r.Test, strings.Join(r.Report(), "\n"))
		}
	}
}

// What numbers are equal, of any size.
func TestSameNumber(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"1", "1.0", true}, {"1.50", "15e-1", true}, {"0", "-0.00e7", true}, {"100", "1E+2", true}, {"-1", "1", false},
		{"1e400", "1e401", false}, {"1e400", "10e399", true}, {"0.1", "0.10000000000000001", false},
		{"1e99999999999999999999", "10e99999999999999999998", true}, {"12", "120", false}, {"9007199254740993", "9007199254740992", false},
	} {
		if got := sameNumber(test.a, test.b); got != test.want {
			t.Errorf("%s, %s: %v", test.a, test.b, got)
		}
	}
}
