package filterd_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
)

// What the README and the documents show must work as it stands there. Their
// commands are run by cmd/filterd's TestDocuments.

func blocks(t *testing.T, document, language string) []string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		found = append(found, match[1])
	}
	if len(found) == 0 {
		t.Fatalf("no %s in %s", language, document)
	}
	return found
}

// Each of these files is whole, has tests beside its rules, and passes them.
func TestReadmeRules(t *testing.T) {
	t.Setenv("HOOK_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	for _, document := range []string{"README.md", "docs/cookbook.md", "docs/operations.md", "docs/migration.md"} {
		for i, block := range blocks(t, document, "yaml") {
			file, err := config.Parse(document, []byte(block), config.Callbacks(map[string]engine.Callback{}))
			if err != nil {
				t.Errorf("%s: file %d:\n%s\n%v", document, i, block, err)
				continue
			}
			for _, warning := range file.Warnings {
				if strings.HasPrefix(warning.Key, "rules.") {
					t.Errorf("%s: file %d: %s", document, i, warning)
				}
			}
			results, err := file.RunTests()
			if err != nil {
				t.Fatal(err)
			}
			tested := make(map[string]bool)
			for _, r := range results {
				tested[r.Test.Rule] = true
				if !r.OK {
					t.Errorf("%s: file %d: %s: want %s, got %s\n%s", document, i, r.Test, r.Want, r.Got, block)
				}
			}
			for _, rule := range file.Rules {
				if !tested[rule.Name] {
					t.Errorf("%s: file %d: rule %s has no tests\n%s", document, i, rule.Name, block)
				}
			}
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestReadmeGo(t *testing.T) {
	var source strings.Builder
	source.WriteString(`package readme

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/pubsub"
)

func page([]byte) error { return nil }

var _ = []any{fmt.Sprint, slog.Default, filterd.SpecVersion, channels.PriceData, config.Load, engine.New, exprfilter.Compile, pubsub.Connect}
`)
	for _, block := range append(blocks(t, "README.md", "go"), blocks(t, "docs/go.md", "go")...) {
		declared := ""
		if !strings.Contains(block, "rdb, err") { // it goes on from the block before
			declared = "rdb redis.UniversalClient, registry *filterd.Registry"
		}
		source.WriteString("\nvar _ = func(ctx context.Context, " + declared + ") error {\n" + block + "}\n")
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("testdata", "readme-") // within the module, and not in ./...
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "readme.go"), []byte(source.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", "./"+dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("docs/*.md")
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	return append(found, "README.md", "DESIGN.md", "CONTRIBUTING.md")
}

// Every file that the documents link to, or name, exists, and every heading.
func TestDocumentsNameFiles(t *testing.T) {
	bases := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		bases[filepath.Base(path)] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	dependencies, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([\w./-]*)(?:#([\w-]+))?\)`)
	named := regexp.MustCompile("`([\\w./-]+\\.(?:go|yaml|yml|md)|[\\w-]+/[\\w/-]*)`")
	for _, document := range documents(t) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		links := link.FindAllStringSubmatch(string(text), -1)
		for _, match := range links {
			name, anchor := filepath.Join(filepath.Dir(document), match[1]), match[2]
			if match[1] == "" {
				name = document
			}
			if _, err := os.Stat(name); err != nil {
				t.Errorf("%s links to %s: %v", document, match[1], err)
			} else if anchor != "" && !headings(t, name)[anchor] {
				t.Errorf("%s links to %s, which has no heading #%s", document, name, anchor)
			}
		}
		if filepath.Dir(document) != "." { // the names of readers' own files
			continue
		}
		names := named.FindAllStringSubmatch(string(text), -1)
		if len(names)+len(links) < 2 {
			t.Errorf("%s names %d files", document, len(names)+len(links))
		}
		for _, match := range names {
			name := match[1]
			_, err := os.Stat(name)
			switch {
			case err == nil:
			case !strings.Contains(name, "/") && (bases[name] || name == "filterd.yaml"):
			case strings.Contains(string(dependencies), name):
			case strings.HasPrefix(name, "testdata/") || strings.HasPrefix(name, "dist/"): // in any package; made by tasks
			default:
				t.Errorf("%s names %s: %v", document, name, err)
			}
		}
	}
}

// headings returns the anchors of a document.
func headings(t *testing.T, document string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	anchors := make(map[string]bool)
	for _, match := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		kept := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(match[1]), "")
		anchors[strings.ReplaceAll(kept, " ", "-")] = true
	}
	return anchors
}

// Every test that the documents name, as what holds a promise, exists, and every
// metric.
func TestDocumentsNameTests(t *testing.T) {
	metrics, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]bool) // by name, and by package.name
	err = filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "test/") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(text, -1) {
			tests[string(match[1])] = true
			tests[filepath.Base(filepath.Dir(path))+"."+string(match[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range documents(t) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile("`((?:\\w+\\.)?(?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(string(text), -1) {
			if !tests[match[1]] {
				t.Errorf("%s names %s, which is no test", document, match[1])
			}
		}
		for _, metric := range regexp.MustCompile("`(filterd_[a-z_]+)`").FindAllStringSubmatch(string(text), -1) {
			if document != "docs/abi.md" && !bytes.Contains(metrics, []byte("| `"+metric[1]+"` |")) {
				t.Errorf("%s names %s, which is no metric", document, metric[1])
			}
		}
	}
}
