package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A language is one that modules are written in.
type language struct {
	name, alias string // on the command line
	title       string // in texts
	extension   string // of sources
	// sdk says which of guest.Sources a new module needs, and as what.
	sdk map[string]string
	// about ends a new module's README.
	about string
	// needs says what has to be installed. find returns the compiler, which may
	// have another path here, or what is missing; nil stands for onPath.
	needs string
	find  func(ctx context.Context) (compiler string, err error)
	// env, compiler and args are the build line. IN and OUT stand for the
	// files.
	env      []string
	compiler string
	args     []string
}

// languages lists them all. Their build lines are those of guest and of
// wasm-examples: a test compares them.
var languages = []*language{
	{
		name: "go", title: "Go", extension: ".go",
		sdk: map[string]string{"guest.go": "guest/guest.go", "host_wasip1.go": "guest/host_wasip1.go", "json.go": "guest/json.go", "test.go": "guest/test.go"},
		about: "The folder `guest` is a copy of filterd's SDK, so that there is nothing to fetch: `go doc -all ./guest` tells what a module\n" +
			"can do. Its `Test` stands for the host in unit tests.",
		needs: "Go 1.26 or later",
		env:   []string{"GOOS=wasip1", "GOARCH=wasm"}, compiler: "go",
		args: []string{"build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", "OUT", "."},
	},
	{
		name: "c", title: "C", extension: ".c",
		sdk:   map[string]string{"c/filterd.h": "filterd.h"},
		about: "`filterd.h` is filterd's SDK; how it begins tells what a module can do.",
		needs: "clang and lld (Debian: apt-get install clang lld)",
		find:  findClang, compiler: "clang",
		args: []string{"--target=wasm32", "-O2", "-nostdlib", "-Wl,--no-entry,--strip-all,--stack-first", "-o", "OUT", "IN"},
	},
	{
		name: "rust", title: "Rust", extension: ".rs",
		sdk:   map[string]string{"rust/filterd.rs": "filterd.rs"},
		about: "`filterd.rs` is filterd's SDK; how it begins tells what a module can do.",
		needs: "rustc with the target wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown, or Debian: apt-get install rustc libstd-rust-dev-wasm32)",
		find:  findRustc, compiler: "rustc",
		args: []string{"--edition", "2021", "--target", rustTarget, "--crate-type", "cdylib", "-O", "-C", "lto", "-C", "panic=abort", "-C", "strip=symbols",
			"-o", "OUT", "IN"},
	},
	{
		name: "assemblyscript", alias: "as", title: "AssemblyScript", extension: ".ts",
		sdk:   map[string]string{"assemblyscript/filterd.ts": "filterd.ts"},
		about: "`filterd.ts` is filterd's SDK; how it begins tells what a module can do.",
		needs: "Node.js, whose npx fetches " + assemblyScript + " the first time",
		find:  findAssemblyScript, compiler: "npx",
		args: []string{"--yes", "--package=" + assemblyScript, "asc", "IN", "-O3", "--runtime", "incremental", "--use", "abort=", "-o", "OUT"},
	},
	{
		name: "wat", title: "the text format of WebAssembly", extension: ".wat",
		about:    "The text format needs no SDK: the source shows what a module imports, and what it has to export.",
		needs:    "wabt (Debian: apt-get install wabt)",
		compiler: "wat2wasm",
		args:     []string{"IN", "-o", "OUT"},
	},
}

const (
	assemblyScript = "assemblyscript@0.28.20"
	rustTarget     = "wasm32-unknown-unknown"
)

// languageNamed returns the language of that name, or nil.
func languageNamed(name string) *language {
	at := slices.IndexFunc(languages, func(l *language) bool { return name != "" && (l.name == name || l.alias == name) })
	if at < 0 {
		return nil
	}
	return languages[at]
}

// languageNames are the names for the command line, as in "go, c".
func languageNames() string {
	var names []string
	for _, l := range languages {
		name := l.name
		if l.alias != "" {
			name += " (or " + l.alias + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// arguments returns the compiler's arguments for these files.
func (l *language) arguments(in, out string) []string {
	args := slices.Clone(l.args)
	for i, arg := range args {
		switch arg {
		case "IN":
			args[i] = in
		case "OUT":
			args[i] = out
		}
	}
	return args
}

// line is the build line as one types it into a shell.
func (l *language) line(compiler, in, out string) string {
	words := slices.Clone(l.env)
	for _, word := range append([]string{compiler}, l.arguments(in, out)...) {
		words = append(words, quoted(word))
	}
	return strings.Join(words, " ")
}

// quoted writes a word for a shell. An option keeps its name outside of the
// quotes.
func quoted(word string) string {
	plain := func(text string) bool {
		return text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./,:@+=") == ""
	}
	if plain(word) {
		return word
	}
	name, value, isOption := strings.Cut(word, "=")
	if !isOption || !plain(name) {
		name, value = "", word
	} else {
		name += "="
	}
	return name + `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(value) + `"`
}

// found returns the compiler, or what is missing.
func (l *language) found(ctx context.Context) (compiler string, err error) {
	if l.find == nil {
		return l.compiler, onPath(l.compiler)
	}
	return l.find(ctx)
}

// onPath reports that a program is missing.
func onPath(program string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("there is no %s in PATH", program)
	}
	return nil
}

// findClang looks for the linker and the target as well: Xcode's clang, for
// one, comes without them.
func findClang(ctx context.Context) (string, error) {
	for _, program := range []string{"clang", "wasm-ld"} {
		if err := onPath(program); err != nil {
			return "", err
		}
	}
	if targets, err := exec.CommandContext(ctx, "clang", "-print-targets").Output(); err != nil || !bytes.Contains(targets, []byte("wasm32")) {
		return "", errors.New("this clang does not know the target wasm32")
	}
	return "clang", nil
}

// findRustc returns the first rustc that has the target's standard library: a
// distribution's may have it where another one comes first.
func findRustc(ctx context.Context) (string, error) {
	for _, program := range []string{os.Getenv("RUSTC"), "rustc", "/usr/bin/rustc"} {
		if program == "" {
			continue
		}
		libs, err := exec.CommandContext(ctx, program, "--print", "target-libdir", "--target", rustTarget).Output()
		if err != nil {
			continue
		}
		if _, err := os.Stat(strings.TrimSpace(string(libs))); err == nil {
			return program, nil
		}
	}
	return "", errors.New("there is no rustc in PATH that has the target " + rustTarget)
}

// findAssemblyScript asks for the compiler's version, which fetches it into
// npm's cache if it is not there.
func findAssemblyScript(ctx context.Context) (string, error) {
	if err := onPath("npx"); err != nil {
		return "", err
	}
	if output, err := exec.CommandContext(ctx, "npx", "--yes", "--package="+assemblyScript, "asc", "--version").CombinedOutput(); err != nil {
		return "", fmt.Errorf("npx has no %s, and can't fetch it: %w\n%s", assemblyScript, err, bytes.TrimSpace(output))
	}
	return "npx", nil
}
