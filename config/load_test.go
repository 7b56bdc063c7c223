package config

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

// variables is the environment of every test.
func variables(name string) (string, bool) {
	value, ok := map[string]string{"PASSWORD": "hunter2", "EMPTY": ""}[name]
	return value, ok
}

func callbacks() map[string]engine.Callback {
	return map[string]engine.Callback{"page-me": func(context.Context, *filterd.Message) error { return nil }}
}

// parse parses a text as every test does.
func parse(text string, opts ...Option) (*Config, error) {
	return Parse("filterd.yaml", []byte(text), append([]Option{Environment(variables), Callbacks(callbacks())}, opts...)...)
}

// TestCases runs the files of testdata/cases: a config and the files it names,
// and what comes of it: the error or else the config, the warnings, the hints,
// and whether the JSON Schema accepts the file too.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	schema := compileSchema(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			folder := t.TempDir()
			golden := map[string]string{}
			var given []txtar.File
			var text []byte
			for _, f := range archive.Files {
				if name, ok := strings.CutPrefix(f.Name, "want/"); ok {
					golden[name] = string(f.Data)
					continue
				}
				given = append(given, f)
				if f.Name == "filterd.yaml" {
					text = f.Data
					continue
				}
				path := filepath.Join(folder, f.Name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.Data, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			got := map[string]string{}
			c, err := parse(string(text), Folder(folder))
			if err != nil {
				got["error"] = err.Error() + "\n"
			} else {
				got["config"] = describe(c)
				for _, w := range c.Warnings {
					got["warnings"] += w.String() + "\n"
				}
				for _, h := range c.Hints {
					got["hints"] += h.String() + "\n"
				}
			}
			got["schema"] = editor(t, schema, string(text)) + "\n"
			for name, text := range got {
				if got[name] = strings.ReplaceAll(text, folder, "FOLDER"); strings.Contains(text, "hunter2") {
					t.Errorf("%s shows a secret:\n%s", name, text)
				}
			}
			if *update {
				archive.Files = given
				for _, name := range []string{"error", "config", "warnings", "hints", "schema"} {
					if got[name] != "" {
						archive.Files = append(archive.Files, txtar.File{Name: "want/" + name, Data: []byte(got[name])})
					}
				}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(golden, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestExampleFiles: editors agree with what users start from, and it loads.
func TestExampleFiles(t *testing.T) {
	schema := compileSchema(t)
	files, err := filepath.Glob("../examples/*/filterd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../deploy/filterd.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if verdict := editor(t, schema, string(text)); verdict != "accepts" {
			t.Errorf("the schema %s %s", verdict, file)
		}
	}
	for _, file := range append(files, "../deploy/filterd.yaml", "../cmd/filterd/demo/demo.yaml") {
		c, err := Load(file, Environment(variables), Callbacks(map[string]engine.Callback{"page": func(context.Context, *filterd.Message) error { return nil }}))
		if err != nil {
			t.Error(err)
			continue
		}
		if len(c.Warnings) > 0 {
			t.Error(c.Warnings)
		}
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("filterd.schema.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("filterd.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// editor says what an editor that has the JSON Schema thinks of a file.
func editor(t *testing.T, schema *jsonschema.Schema, text string) string {
	t.Helper()
	l := &loader{problems: &problems{text: newText("", text)}, environment: func(string) (string, bool) { return "", true }}
	root := readTree(l.problems)
	var buf bytes.Buffer
	if root == nil || !l.json("rules.", root, &buf) {
		return "refuses: no JSON"
	}
	document, err := jsonschema.UnmarshalJSON(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if schema.Validate(document) != nil {
		return "refuses"
	}
	return "accepts"
}

// describe writes down what a config says.
func describe(c *Config) string {
	var b strings.Builder
	r := c.Redis
	fmt.Fprintf(&b, "redis: url %d bytes, mode %q, addrs %q, host %q, port %d, master %q, db %d, username %q, password %d bytes, sentinel %q %d bytes\n",
		len(r.URL), r.Mode, r.Addrs, r.Host, r.Port, r.Master, r.DB, r.Username, len(r.Password), r.SentinelUsername, len(r.SentinelPassword))
	if r.TLS != nil {
		fmt.Fprintf(&b, "tls: %+v\n", *r.TLS)
	}
	if s := c.Server; s != nil {
		fmt.Fprintf(&b, "server: listen %q, token %d bytes, probe %q, tls %v\n", s.Listen, len(s.Token), s.Probe, s.TLS)
	}
	if t := c.Traces; t != nil {
		fmt.Fprintf(&b, "traces: endpoint %q, service %q, sample %v, replace %v\n", t.Endpoint, t.Service, t.Sample, t.Replace)
		for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
			fmt.Fprintf(&b, "  %s: %v, %d bytes\n", name, t.Headers[name], len(t.Headers[name].Reveal()))
		}
	}
	if c.HA != nil {
		fmt.Fprintf(&b, "ha: %+v\n", *c.HA)
	}
	for _, c := range c.Registry.Contracts() {
		fmt.Fprintf(&b, "channel %s: envelope %s, schema %v, validate %s %v, max_size %d, dead_letter %q\n",
			c.Channel, c.Envelope, c.Schema, c.Validate, c.SampleRate, c.MaxSize, c.DeadLetter)
	}
	for _, c := range c.Registry.Contracts() {
		if c.DeadLetterStream {
			fmt.Fprintf(&b, "dead letters of %s go to a stream, maxlen %d\n", c.Channel, c.DeadLetterMaxLen)
		}
	}
	for _, c := range c.Registry.Contracts() {
		if c.Stamped {
			fmt.Fprintf(&b, "channel %s is stamped\n", c.Channel)
		}
	}
	if c.MaxMessage != pubsub.DefaultMaxMessage {
		fmt.Fprintf(&b, "messages up to %d\n", c.MaxMessage)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Webhooks)) {
		fmt.Fprintf(&b, "webhook %s: concurrency %d\n", name, c.Webhooks[name].Concurrency())
	}
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "rule %s: from %q, when %v, allow %q, on_error %q, dead_letter %q, overflow %q, loop %v\n",
			r.Name, r.Sources(), r.When, r.Allow, r.OnError, r.DeadLetter, r.Overflow, r.LoopAllowed)
		if r.Shadow {
			b.WriteString("  shadow\n")
		}
		if r.OnGap {
			fmt.Fprintln(&b, "  on gap")
		}
		for _, s := range r.Streams {
			fmt.Fprintf(&b, "  stream %+v\n", s)
		}
		if r.DeadLetterStream {
			fmt.Fprintf(&b, "  dead letters go to a stream, maxlen %d\n", r.DeadLetterMaxLen)
		}
		for _, m := range r.Set {
			fmt.Fprintf(&b, "  set %q: %v %s\n", m.Name, m.Value, m.Constant)
		}
		for _, to := range r.To {
			if to.Webhook != "" {
				fmt.Fprintf(&b, "  to: webhook %q\n", to.Webhook)
				continue
			}
			if to.Stream != "" {
				fmt.Fprintf(&b, "  to: stream %q, maxlen %d\n", to.Stream, to.MaxLen)
				continue
			}
			fmt.Fprintf(&b, "  to: %q, computed %v, callback %q, log %v\n", to.Channel, to.Computed, to.Callback, to.Log)
		}
	}
	for _, test := range c.Tests {
		fmt.Fprintf(&b, "test %s at %s:%d:%d: channel %s, raw %v, in %s, %s",
			test, test.File, test.Line, test.Column, test.Channel, test.Raw, test.In, test.Outcome)
		if test.Event != nil {
			fmt.Fprintf(&b, ", event %s", test.Event.AppendJSON(nil))
		}
		if test.Now != testTime {
			fmt.Fprintf(&b, ", now %s", test.Now.Format(time.RFC3339Nano))
		}
		show := func(what string, c *Content) {
			if c != nil {
				fmt.Fprintf(&b, "%s %s, raw %v", what, c.Text, c.Raw)
			}
		}
		for _, d := range test.Out {
			fmt.Fprintf(&b, ", to %q", d.Channel)
			show(":", d.Payload)
		}
		show(", sent", test.Sent)
		b.WriteString("\n")
	}
	return b.String()
}

func TestEmptyFiles(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "filterd.yaml:1:1: the file is empty"},
		{" \n\n", "filterd.yaml:1:1: the file is empty"},
		{"\uFEFF", "filterd.yaml:1:1: the file is empty"},
		{"# rules:\n", "filterd.yaml:1:1: the file is empty\n    1 | # rules:\n      | ^"},
		{"---\n", "filterd.yaml:2:1: the file is empty"},
		{"~\n", "filterd.yaml:1:1: the file is empty\n    1 | ~\n      | ^"},
		{"{}\n", "filterd.yaml:1:1: rules: the file has no rules\n    1 | {}\n      | ^ add rules"},
		{"rules", "filterd.yaml:1:1: want a mapping, not text\n    1 | rules\n      | ^~~~~"},
		{"- rules", "filterd.yaml:1:1: want a mapping, not a list\n    1 | - rules\n      | ^"},
		{"redis: {}\n", "filterd.yaml:1:1: rules: the file has no rules\n    1 | redis: {}\n      | ^ add rules"},
		{"rules:\n", "filterd.yaml:1:7: rules: there is no rule\n    1 | rules:\n      |       ^ add a rule"},
		{"rules: {}\n", "filterd.yaml:1:8: rules: there is no rule\n    1 | rules: {}\n      |        ^ add a rule"},
		{"rules: []\n", "filterd.yaml:1:8: rules: want a mapping of rules, not a list\n    1 | rules: []\n      |        ^ write the rule's name before it"},
		{"rules:\n  r:\n", "filterd.yaml:2:3: rules.r: the rule is empty\n    2 |   r:\n      |   ^ add from and to"},
		{"redis:\nrules: {r: {from: a, to: b}}\n", "filterd.yaml:1:7: redis: want a mapping, not nothing\n    1 | redis:\n      |       ^"},
		{"channels:\nrules: {r: {from: a, to: b}}\n", "filterd.yaml:1:10: channels: want a mapping of channels, not nothing\n    1 | channels:\n      |          ^"},
	} {
		_, err := parse(test.text)
		checkError(t, test.text, err, test.want)
	}
}

func checkError(t *testing.T, text string, err error, want string) {
	t.Helper()
	if err == nil {
		t.Errorf("%q was accepted", text)
	} else if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("%q (-want +got):\n%s", text, diff)
	}
}

// TestSyntax holds what YAML refuses, most of it because an expression is not
// in quotes.
func TestSyntax(t *testing.T) {
	const before, after = "redis: {}\nrules:\n  r:\n    from: a\n", "\n    to: b\n  s:\n    from: c\n    to: d\n"
	for _, test := range []struct{ text, want string }{
		{"    when: a ? b : c", `5:11: this is no YAML: mapping values are not allowed in this context
    5 |     when: a ? b : c
      |           ^~~~~~~~~ quote the expression`},
		{`    when: data.x == "a: b"`, `5:11: this is no YAML: mapping values are not allowed in this context
    5 |     when: data.x == "a: b"
      |           ^~~~~~~~~~~~~~~~ quote the expression`},
		{`    when: "BTC" in data.x`, `5:11: this is no YAML: did not find expected key
    5 |     when: "BTC" in data.x
      |           ^~~~~~~~~~~~~~~ quote the expression`},
		{`    when: 'it''s' == data.x`, `5:11: this is no YAML: did not find expected key
    5 |     when: 'it''s' == data.x
      |           ^~~~~~~~~~~~~~~~~ quote the expression`},
		{"    when: {a: 1}.a == data.x", `5:11: this is no YAML: did not find expected key
    5 |     when: {a: 1}.a == data.x
      |           ^~~~~~~~~~~~~~~~~~ quote the expression`},
		{"    when: [1, 2] == data.x", `5:11: this is no YAML: did not find expected key
    5 |     when: [1, 2] == data.x
      |           ^~~~~~~~~~~~~~~~ quote the expression`},
		{"    when: @data", `5:11: this is no YAML: found character that cannot start any token
    5 |     when: @data
      |           ^~~~~ quote the expression`},
		{"    when: > 5", `5:11: this is no YAML: did not find expected comment or line break
    5 |     when: > 5
      |           ^~~ quote the expression`},
		{"    when: *data > 1", `5:11: this is no YAML: did not find expected comment or line break
    5 |     when: *data > 1
      |           ^~~~~~~~~ quote the expression`},
		{"    when: *data", `5:11: this is no YAML: unknown anchor 'data' referenced
    5 |     when: *data
      |           ^~~~~ quote the expression`},
		{"    to: [a, ${data.x}]", `5:9: this is no YAML: did not find expected ',' or ']'
    5 |     to: [a, ${data.x}]
      |         ^~~~~~~~~~~~~~ quote the expression`},
		{"    set: {a: data.x ? 1 : {}, b: c}}", `5:10: this is no YAML: did not find expected ',' or '}'
    5 |     set: {a: data.x ? 1 : {}, b: c}}
      |          ^~~~~~~~~~~~~~~~~~~~~~~~~~~ quote the expression`},
		{`    when: "data.x`, `5:11: this is no YAML: found unexpected end of stream
    5 |     when: "data.x
      |           ^~~~~~~ the quote is not closed`},
		{"\twhen: data.x", `5:1: this is no YAML: found a tab character that violates indentation
    5 | ` + "\t" + `when: data.x
      | ^ indent with spaces: YAML takes no tab there`},
		{"    when data.x\n", `5:5: this is no YAML: could not find expected ':'
    5 |     when data.x
      |     ^~~~~~~~~~~`},
		{"   when: data.x", `5:10: this is no YAML: did not find expected key
    5 |    when: data.x
      |          ^~~~~~`},
		{"---", `5:1: the file holds a second YAML document
    5 | ---
      | ^~~ keep one file for each`},
	} {
		text := before + test.text + after
		_, err := parse(text)
		checkError(t, text, err, "filterd.yaml:"+test.want)
		text = strings.ReplaceAll(text, "\n", "\r\n")
		if _, err := parse(text); err == nil || err.Error() != "filterd.yaml:"+test.want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestUnreadable(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"a: 1\nb: \xff", "filterd.yaml:2:4: the file is not UTF-8\n    2 | b: \uFFFD\n      |    ^"},
		{"a: é\x00", "filterd.yaml:1:5: control characters are not allowed\n    1 | a: é\uFFFD\n      |     ^"},
		{"\uFEFFa: \x1b[31m", "filterd.yaml:1:4: control characters are not allowed\n    1 | a: \uFFFD[31m\n      |    ^"},
		{"\xff\xfea\x00", "filterd.yaml:1:1: the file is not UTF-8\n    1 | \uFFFD\uFFFDa\uFFFD\n      | ^"},
		{"a: \u009b", "filterd.yaml:1:4: control characters are not allowed\n    1 | a: \uFFFD\n      |    ^"},
	} {
		_, err := parse(test.text)
		checkError(t, test.text, err, test.want)
	}
}

func TestByteOrderMarkAndLineBreaks(t *testing.T) {
	text := "\uFEFF# rules\nrules:\n  r:\n    from: a\n    when: |\n      data.x == 1\n      or data.y == 2\n    to: b\n    tests:\n\n      - {in: {x: 1},\tout: b}\n"
	for _, text := range []string{text, strings.ReplaceAll(text, "\n", "\r\n")} {
		c, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(c.Rules[0].When), "data.x == 1\nor data.y == 2\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if line := c.Tests[0].Line; line != 11 {
			t.Errorf("the test is in line %d", line)
		}
	}
}

// TestTruncated cuts a file anywhere: what is left is refused, or is a whole
// rule by its looks.
func TestTruncated(t *testing.T) {
	const text = "redis: {url: redis://localhost:6379}\nrules:\n  whales:\n    from: PRICE_DATA\n    when: data.price > 10_000\n    to: whale-alerts\n"
	whole := strings.Index(text, "to: ") + len("to: ")
	for i := range len(text) {
		c, err := parse(text[:i])
		if (err == nil) != (i > whole) {
			t.Errorf("%q: %v", text[:i], err)
		}
		if err == nil && len(c.Rules) != 1 {
			t.Errorf("%q: %d rules", text[:i], len(c.Rules))
		}
	}
}

func TestSubstitution(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"plain": "secret", "newline": "secret\n", "crlf": "secret\r\n", "two": "secret\n\n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ value, want string }{
		{"${PASSWORD}", "hunter2"},
		{"a${PASSWORD}b${PASSWORD}", "ahunter2bhunter2"},
		{`"${PASSWORD}"`, "hunter2"},
		{"${UNSET:-x}", "x"},
		{"${EMPTY:-x}", "x"},
		{"${PASSWORD:-x}", "hunter2"},
		{"${PASSWORD:-}", "hunter2"},
		{"x${UNSET:-}", "x"},
		{"x${EMPTY}", "x"},
		{"${UNSET:-a:-b}", "a:-b"},
		{"$${PASSWORD}", "${PASSWORD}"},
		{"$$${PASSWORD}", "$${PASSWORD}"},
		{"a$b$${", "a$b${"},
		{"${file:plain}", "secret"},
		{"${file:newline}", "secret"},
		{"${file:crlf}", "secret"},
		{"${file:two}", "secret\n"},
		{"${file:" + folder + "/plain}!", "secret!"},
	} {
		c, err := parse("redis: \n  password: "+test.value+"\nrules: {r: {from: a, to: b}}", Folder(folder))
		if err != nil {
			t.Errorf("%s: %v", test.value, err)
		} else if got := c.Redis.Password.Reveal(); got != test.want {
			t.Errorf("%s: got %q, want %q", test.value, got, test.want)
		}
	}
	c, err := parse("redis: {db: \"${DB:-3}\", port: '${PORT:-1234}'}\nrules: {r: {from: a, to: b}}")
	if err == nil {
		t.Errorf("a quoted number was accepted: %+v", c.Redis)
	}
	c, err = parse("redis:\n  db: ${DB:-3}\n  port: ${PORT:-1234}\nstrict_channels: ${STRICT:-false}\nrules: {r: {from: a, to: b}}")
	if err != nil || c.Redis.DB != 3 || c.Redis.Port != 1234 {
		t.Errorf("%v %+v", err, c)
	}
}

// TestNoSubstitutionUnderRules: ${…} is an expression there, even if the text
// comes from an anchor.
func TestNoSubstitutionUnderRules(t *testing.T) {
	c, err := parse("channels: {a: {dead_letter: &target '${UNSET:-\"x\"}'}}\nrules: {r: {from: a, to: *target, allow: [x]}}")
	if err == nil || !strings.Contains(err.Error(), "rules.r.to: ") {
		t.Errorf("got %+v, %v", c, err)
	}
	c, err = parse("channels: {a: {dead_letter: &target '${UNSET:-x}'}}\nrules: {r: {from: a, when: \"data == '${UNSET:-x}'\", set: {a: '\"${UNSET:-x}\"'}, to: b, tests: [{in: '${UNSET}', out: b}]}}")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %v %s %s", c.Rules[0].When, c.Rules[0].Set[0].Value, c.Tests[0].In, c.Registry.Lookup("a").DeadLetter); got != `data == '${UNSET:-x}' "${UNSET:-x}" ${UNSET} x` {
		t.Error(got)
	}
}

func TestLimits(t *testing.T) {
	rules := "rules: {r: {from: a, to: b}}\n"
	nested := func(open, end string, n int) string {
		return "rules: {r: {from: a, to: b, tests: [{out: b, in: " + strings.Repeat(open, n) + "1" + strings.Repeat(end, n) + "}]}}"
	}
	var laughs strings.Builder
	laughs.WriteString("channels:\n  a: {schema: {enum: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]}}\n")
	for i := range 30 {
		fmt.Fprintf(&laughs, "  b%d: {schema: {enum: &x%d [*x%d, *x%d, *x%d, *x%d, *x%d, *x%d, *x%d, *x%d]}}\n", i, i+1, i, i, i, i, i, i, i, i)
	}
	var merges strings.Builder
	merges.WriteString("channels:\n  a: &x0 {a: , b: , c: , d: , e: , f: , g: , h: }\n")
	for i := range 60 {
		fmt.Fprintf(&merges, "  b%d: &x%d {<<: [*x%d, *x%d], k%d: [*x%d, *x%d]}\n", i, i+1, i, i, i, i, i)
	}
	var manyKeys strings.Builder
	manyKeys.WriteString(rules)
	for i := range 200_000 {
		fmt.Fprintf(&manyKeys, "k%d:\n", i)
	}
	for _, test := range []struct{ name, text, want string }{
		{"too large", rules + strings.Repeat("#", maxSize), "filterd.yaml: the file is larger than 16 MiB"},
		{"open brackets", "rules: " + strings.Repeat("[", 1<<20), "exceeded max depth of 10000"},
		{"open sequences", strings.Repeat("- ", 1<<20), "exceeded max depth of 10000"},
		{"open keys", strings.Repeat("? ", 1<<20), "exceeded max depth of 10000"},
		{"open braces", strings.Repeat("{a: ", 1<<20), "exceeded max depth of 10000"},
		{"brackets in data", nested("[", "]", 20_000), "exceeded max depth of 10000"},
		{"billion laughs", laughs.String() + rules, "aliases make the file larger than 16 MiB"},
		{"billion merges", merges.String() + rules, "aliases make the file larger than 16 MiB"},
		{"anchor in itself", "a: &a [*a]\n" + rules, "anchor a stands within itself"},
		{"merge of itself", "rules: &a {r: {from: a, to: b}, <<: *a}", "anchor a stands within itself"},
		{"many keys", manyKeys.String(), "and 199000 more problems"},
		{"one long line", "rules: {r: {from: a, to: b, tests: [" + strings.Repeat("1,", 200_000) + "]}}", "and 199000 more problems"},
		{"long key", strings.Repeat("k", 1000) + ": 1\n" + rules, "unknown key"},
		{"many comments", strings.Repeat("# x\n", 200_000) + "a: 1\n" + rules, "unknown key"},
	} {
		_, err := parse(test.text) // what is not bounded here takes hours, or all memory
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %.300v", test.name, err)
		}
	}
	if _, err := parse(nested("[", "]", 5000)); err != nil {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "filterd.yaml")
	_, err := Load(path)
	checkError(t, path, err, path+": no such file or directory")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	if _, err := Load(folder); err == nil {
		t.Error("a folder was loaded")
	}
	// Paths lead from the file's folder.
	write(t, path, "channels: {a: {schema: a.json}}\nrules: {r: {from: a, to: b}}")
	write(t, filepath.Join(folder, "a.json"), `{"type": "object"}`)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Path != path || c.Registry.Lookup("a").Schema == nil {
		t.Errorf("%+v", c)
	}
	e, err := c.Engine(engine.Config{Sink: filterd.SinkFunc(func(context.Context, []filterd.Delivery) {})})
	if err != nil {
		t.Fatalf("no engine: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestProblemsAsJSON is what --output json prints.
func TestProblemsAsJSON(t *testing.T) {
	_, err := parse("rules: {r: {from: a, to: b, when: data.x ~ 1}}")
	var of *Error
	if !errors.As(err, &of) {
		t.Fatalf("%T", err)
	}
	got, err := json.Marshal(of.Problems)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"file":"filterd.yaml","line":1,"column":42,"length":1,"key":"rules.r.when","message":"unrecognized character: U+007E '~'","hint":"write matches","excerpt":"rules: {r: {from: a, to: b, when: data.x ~ 1}}"}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkParse loads 10,000 rules.
func BenchmarkParse(b *testing.B) {
	b.Run("untyped", func(b *testing.B) { benchmarkParse(b, "") })
	b.Run("typed", func(b *testing.B) {
		benchmarkParse(b, "channels: {PRICE_DATA: {contract: builtin}, \"prices.*\": {schema: {properties: {symbol: {type: string}, price: {type: number}, qty: {type: number}}}}}\n")
	})
}

func benchmarkParse(b *testing.B, channels string) {
	var text strings.Builder
	text.WriteString(channels + "rules:\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, `  rule%d:
    from: [PRICE_DATA, "prices.*"]
    when: data.symbol startsWith "BTC%d" and data.price * data.qty > 10_000
    set: {notional: data.price * data.qty}
    to: whale-alerts
    tests:
      - {in: {symbol: BTC-USD, price: 60000, qty: 1}, out: whale-alerts}
`, i, i)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if _, err := parse(text.String()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLoadServer reads the section server of files that are faulty elsewhere.
func TestLoadServer(t *testing.T) {
	for _, test := range []struct {
		text string
		want *Server
		err  string
	}{
		{text: "rules: 7\nserver: {}\n", want: &Server{Listen: DefaultListen}},
		{text: "rules: {}\nsurplus: 1\nserver: {listen: localhost:1, token: \"${TOKEN}\"}\n", want: &Server{Listen: "localhost:1", Token: "0123456789abcdef"}},
		{text: "redis: {url: \"${NONE}\"}\n"},
		{text: "server: {listen: nowhere}\n", err: "FILE:1:18: server.listen: want host:port\n    1 | server: {listen: nowhere}\n      |                  ^~~~~~~ write \"127.0.0.1:9464\""},
		{text: "", err: "FILE:1:1: the file is empty"},
	} {
		path := filepath.Join(t.TempDir(), "filterd.yaml")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadServer(path, Environment(func(string) (string, bool) { return "0123456789abcdef", true }))
		if err != nil {
			checkError(t, test.text, errors.New(strings.ReplaceAll(err.Error(), path, "FILE")), test.err)
		} else if test.err != "" {
			t.Errorf("%q was accepted", test.text)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.text, diff)
		}
	}
	if _, err := LoadServer(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
}
