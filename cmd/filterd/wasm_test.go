package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// command runs filterd and returns its exit code and what it wrote.
func command(t *testing.T, input string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	code = run(append([]string{"filterd"}, args...), strings.NewReader(input), &out, &err)
	return code, out.String(), err.String()
}

// toolchain returns a language's compiler, and skips the test where there is
// none. Those of npm are not fetched for a test: once they were, npm has them.
func toolchain(t *testing.T, l *language) string {
	t.Helper()
	t.Setenv("npm_config_offline", "true")
	t.Setenv("npm_config_update_notifier", "false")
	compiler, err := l.found(t.Context())
	if err != nil {
		t.Skipf("%v: %s needs %s", err, l.title, l.needs)
	}
	return compiler
}

// A new module builds at once, in every language, and does what its tests and
// its messages say.
func TestNewModulesBuild(t *testing.T) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			compiler := toolchain(t, l)
			t.Chdir(t.TempDir())
			if code, _, stderr := command(t, "", "wasm", "new", l.name, "my-module"); code != 0 {
				t.Fatal(code, stderr)
			}
			t.Chdir("my-module")
			code, stdout, stderr := command(t, "", "wasm", "build")
			if code != 0 {
				t.Fatal(code, stderr)
			}
			if line := l.line(compiler, "my-module"+l.extension, "my-module.wasm") + "\n"; !strings.HasPrefix(stderr, line) {
				t.Errorf("it says %s, not %s", stderr, line)
			}
			for _, want := range []string{"name     my-module\n", "fields   data.price\n", "configure\n"} {
				if !strings.Contains(stdout, want) {
					t.Errorf("no %q in\n%s", want, stdout)
				}
			}
			t.Setenv("XDG_CACHE_HOME", t.TempDir()) // of compiled modules; the compilers have had their own
			if code, stdout, stderr := command(t, "", "test"); code != 0 || stdout != "3 passed, 0 failed\n" {
				t.Error(code, stdout, stderr)
			}
			messages, err := os.ReadFile("messages.ndjson")
			if err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr = command(t, string(messages), "replay", "--channel", "PRICE_DATA")
			if code != 0 || strings.Count(stdout, `"to":"expensive"`) != 2 || stderr != "lines=3 matched=3 invalid=0 errors=0\n" {
				t.Error(code, stdout, stderr)
			}
			if code, _, stderr := command(t, string(messages), "wasm", "bench", "--for", "1ms", "my-module.wasm"); code != 0 {
				t.Error(code, stderr)
			}
		})
	}
}

// A compiler's complaints are passed on.
func TestBuildPassesFaultsOn(t *testing.T) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			toolchain(t, l)
			t.Chdir(t.TempDir())
			if code, _, stderr := command(t, "", "wasm", "new", l.name, "m"); code != 0 {
				t.Fatal(code, stderr)
			}
			source := "m" + l.extension
			if l.name == "go" {
				source = "main.go"
			}
			if err := os.WriteFile(filepath.Join("m", source), []byte("package main\nfault"), 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := command(t, "", "wasm", "build", "m")
			last := stderr[strings.LastIndex(strings.TrimSpace(stderr), "\n")+1:]
			if code != exitFailed || stdout != "" || !strings.HasPrefix(stderr, "cd m && ") || !strings.Contains(strings.ToLower(stderr), "error") ||
				!strings.HasPrefix(last, "filterd: m") || !strings.Contains(last, " does not build: ") {
				t.Error(code, stdout, stderr)
			}
		})
	}
}

// The SDKs and the examples tell the very build lines that are run.
func TestBuildLines(t *testing.T) {
	for _, l := range languages {
		if l.name != "wat" {
			sdk, err := os.ReadFile("../../guest/README.md")
			if err != nil {
				t.Fatal(err)
			}
			if line := "`" + l.line(l.compiler, "my"+l.extension, "my.wasm") + "`"; !strings.Contains(string(sdk), line) {
				t.Errorf("guest/README.md does not say %s", line)
			}
		}
	}
	readmes, err := filepath.Glob("../../wasm-examples/*/README.md")
	if err != nil || len(readmes) == 0 {
		t.Fatal(readmes, err)
	}
	for _, readme := range readmes {
		text, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		s, err := findInFolder(filepath.Dir(readme))
		if err != nil {
			t.Error(err)
			continue
		}
		out := regexp.MustCompile(`-o (\S+\.wasm)`).FindSubmatch(text)
		if out == nil {
			t.Errorf("%s has no build line", readme)
			continue
		}
		if line := s.line(s.compiler, s.in, string(out[1])); !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("%s does not say %s", readme, line)
		}
	}
}

// What is built, and to what, is found out from the files.
func TestFindSource(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{
		"counter/main.go", "counter/filterd.go", "counter/main_test.go", "counter/guest/guest.go", "rust/trend.rs", "rust/filterd.rs", "as/a.ts", "as/a.d.ts", "as/filterd.ts", "c/-O9.c",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]source{
		"counter":         {dir: "counter", in: ".", out: "counter.wasm"},
		"counter/main.go": {dir: "counter", in: ".", out: "counter.wasm"},
		"rust":            {dir: "rust", in: "trend.rs", out: "trend.wasm"},
		"rust/filterd.rs": {dir: "rust", in: "filterd.rs", out: "filterd.wasm"},
		"as":              {dir: "as", in: "a.ts", out: "a.wasm"},
		"c":               {dir: "c", in: "./-O9.c", out: "./-O9.wasm"}, // no option
	} {
		got, err := findSource(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got.dir != want.dir || got.in != want.in || got.out != want.out {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

// A word is quoted so that a shell gets it back.
func TestQuoted(t *testing.T) {
	for word, want := range map[string]string{
		"-O2":             "-O2",
		"-ldflags=-s -w":  `-ldflags="-s -w"`,
		"my file.c":       `"my file.c"`,
		"a b=c":           `"a b=c"`,
		"":                `""`,
		"--use=\"$x`\\;'": "--use=\"\\\"\\$x\\`\\\\;'\"",
	} {
		if got := quoted(word); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A new module in Go gets the whole SDK.
func TestGoSDKIsWhole(t *testing.T) {
	files, err := filepath.Glob("../../guest/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	sdk := languageNamed("go").sdk
	for _, file := range files {
		name := filepath.Base(file)
		if name != "sources.go" && !strings.HasSuffix(name, "_test.go") && sdk[name] == "" {
			t.Errorf("%s is not copied", name)
		}
	}
}
