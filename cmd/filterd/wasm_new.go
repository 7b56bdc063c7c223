package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/guest"
)

// templates holds the files of new modules: in common those of all languages,
// and a folder for each. A file that is called module.* gets the module's
// name, and one that ends with .tmpl is a template of text/template.
//
//go:embed templates
var templates embed.FS

// sane is what the name of a new module looks like: it becomes a folder, files
// and a word in several languages. reserved are the names that stand for
// something else: the SDKs' files, values of YAML, devices of Windows.
var (
	sane     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
	reserved = regexp.MustCompile(`(?i)^(filterd|null|true|false|con|prn|aux|nul|com\d|lpt\d)$`)
)

// wasmNew makes a folder with a module that builds.
func wasmNew(c *cli.Context) error {
	if c.NArg() != 2 {
		return usage("wasm new takes a language and a name\nRun 'filterd wasm new --help' for usage")
	}
	l, name := languageNamed(strings.ToLower(c.Args().Get(0))), c.Args().Get(1)
	switch {
	case l == nil:
		var known []string
		for _, l := range languages {
			known = append(known, l.name)
		}
		return usage("there is no template in %q%s\nThere are %s", c.Args().Get(0), didYouMean(c.Args().Get(0), known), languageNames())
	case !sane.MatchString(name):
		return usage("%q is no name for a module: want a letter, then letters, digits, - and _, 64 together at most", name)
	case reserved.MatchString(name):
		return usage("%q is no name for a module: it stands for something else in YAML, in Windows or among the SDKs", name)
	}
	files, err := l.files(name)
	if err != nil {
		return err
	}
	if err := writeFolder(name, files); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(files))
	if asJSON(c) {
		return printJSON(c.App.Writer, struct {
			Folder   string   `json:"folder"`
			Language string   `json:"language"`
			Files    []string `json:"files"`
		}{name, l.name, names})
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: %s\nNext: cd %s && filterd wasm build && filterd test\n", name, strings.Join(names, ", "), name)
	return err
}

// files returns the files of a new module by their paths in its folder.
func (l *language) files(name string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	data := struct {
		Name, Language, Needs, Line, About string
		Configurable                       bool // min of the configuration
	}{name, l.title, l.needs, l.line(l.compiler, name+l.extension, name+".wasm"), l.about, l.name != "wat"}
	for _, folder := range []string{"templates/common", "templates/" + l.name} {
		entries, err := templates.ReadDir(folder)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			text, err := templates.ReadFile(path.Join(folder, entry.Name()))
			if err != nil {
				return nil, err
			}
			file, isTemplate := strings.CutSuffix(entry.Name(), ".tmpl")
			if isTemplate {
				t, err := template.New(file).Option("missingkey=error").Parse(string(text))
				if err != nil {
					return nil, err
				}
				var b strings.Builder
				if err := t.Execute(&b, data); err != nil {
					return nil, err
				}
				text = []byte(b.String())
			}
			if extension, ok := strings.CutPrefix(file, "module."); ok {
				file = name + "." + extension
			}
			files[file] = text
		}
	}
	for from, to := range l.sdk {
		text, err := fs.ReadFile(guest.Sources(), from)
		if err != nil {
			return nil, err
		}
		files[to] = text
	}
	return files, nil
}

// writeFolder makes a folder with these files. One that is there must be
// empty.
func writeFolder(dir string, files map[string][]byte) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return usage("%s is there, and no folder: choose another name", dir)
	}
	switch entries, err := os.ReadDir(dir); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return usage("%v", err)
	case len(entries) > 0:
		return usage("the folder %s is not empty: choose another name, or empty it", dir)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}
