package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// wasmBuild builds a module and checks it.
func wasmBuild(c *cli.Context) error {
	if c.NArg() > 1 {
		return usage("wasm build takes one folder or file, not %d\nRun 'filterd wasm build --help' for usage", c.NArg())
	}
	s, err := findSource(cmp.Or(c.Args().First(), "."))
	if err != nil {
		return err
	}
	if err := s.build(c.Context, c.App.ErrWriter); err != nil {
		return err
	}
	return describeModule(c, filepath.Join(s.dir, s.out))
}

// A source is what one module is built from.
type source struct {
	*language
	dir     string // where it is built
	in, out string // files in dir
}

// findSource finds out what there is to build at a path.
func findSource(path string) (*source, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, usage("%v", err)
	case info.IsDir():
		return findInFolder(path)
	}
	l := languageOf(path)
	switch {
	case l != nil:
		return l.source(filepath.Dir(path), filepath.Base(path))
	case filepath.Ext(path) == ".wasm":
		return nil, usage("%s is built already: 'filterd wasm check' describes it", path)
	}
	return nil, usage("%s: modules are built from %s", path, extensions())
}

// findInFolder returns the only source in a folder. SDKs and tests are none,
// and Go's files are one.
func findInFolder(dir string) (*source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, usage("%v", err)
	}
	var found []string
	hasGo := false
	for _, entry := range entries {
		name := entry.Name()
		l := languageOf(name)
		switch {
		case l == nil, entry.IsDir(), l.isSDK(name), strings.HasSuffix(name, "_test.go"), strings.HasSuffix(name, ".d.ts"):
		case l.name == "go" && hasGo:
		default:
			found = append(found, name)
			hasGo = hasGo || l.name == "go"
		}
	}
	switch len(found) {
	case 0:
		return nil, usage("%s has no source of a module, which is one of %s: 'filterd wasm new' makes one", dir, extensions())
	case 1:
		return languageOf(found[0]).source(dir, found[0])
	}
	return nil, usage("%s has several sources: name the one to build, %s", dir, strings.Join(found, " or "))
}

func (l *language) isSDK(file string) bool {
	return slices.Contains(slices.Collect(maps.Values(l.sdk)), file)
}

// source says what a file in a folder is built to: of Go's the whole package,
// named as the folder is.
func (l *language) source(dir, file string) (*source, error) {
	name := strings.TrimSuffix(file, l.extension)
	if l.name == "go" {
		folder, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		name, file = filepath.Base(folder), "."
	}
	s := &source{language: l, dir: dir, in: file, out: name + ".wasm"}
	if strings.HasPrefix(name, "-") { // no option of the compiler
		s.in, s.out = "./"+s.in, "./"+s.out
	}
	return s, nil
}

func languageOf(file string) *language {
	at := slices.IndexFunc(languages, func(l *language) bool { return filepath.Ext(file) == l.extension })
	if at < 0 {
		return nil
	}
	return languages[at]
}

// extensions lists what sources end with.
func extensions() string {
	var all []string
	for _, l := range languages {
		all = append(all, l.extension)
	}
	return strings.Join(all, ", ")
}

// build runs the compiler, which writes to output. So is the command written.
func (s *source) build(ctx context.Context, output io.Writer) error {
	path := filepath.Join(s.dir, s.in)
	compiler, err := s.found(ctx)
	if err != nil {
		return usage("%s: %v\n%s needs %s", path, err, s.title, s.needs)
	}
	line := s.line(compiler, s.in, s.out)
	if s.dir != "." {
		line = "cd " + quoted(s.dir) + " && " + line
	}
	fmt.Fprintln(output, oneLine(line))
	command := exec.CommandContext(ctx, compiler, s.arguments(s.in, s.out)...)
	command.Dir = s.dir
	command.Env = append(os.Environ(), s.env...)
	command.Stdout, command.Stderr = output, output
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s does not build: %s: %w", path, compiler, err)
	}
	return nil
}
