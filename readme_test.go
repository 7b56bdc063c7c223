package filterd_test

import (
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

// What the README shows must work as it stands there.

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func blocks(t *testing.T, language string) []string {
	t.Helper()
	var found []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(readme(t), -1) {
		found = append(found, match[1])
	}
	if len(found) == 0 {
		t.Fatalf("no %s in the README", language)
	}
	return found
}

func TestReadmeRules(t *testing.T) {
	for _, block := range blocks(t, "yaml") {
		t.Setenv("HOOK_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
		file, err := config.Parse("README.md", []byte(block), config.Callbacks(map[string]engine.Callback{}))
		if err != nil {
			t.Fatal(err)
		}
		if len(file.Tests) == 0 {
			t.Error("rules without tests")
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
	for _, block := range blocks(t, "go") {
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

// Every file that the documents link to, or name, exists.
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
	link := regexp.MustCompile(`\]\(([\w./-]+)\)`)
	named := regexp.MustCompile("`([\\w./-]+\\.(?:go|yaml|yml|md)|[\\w-]+/[\\w/-]*)`")
	for _, document := range []string{"README.md", "DESIGN.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		names := append(link.FindAllStringSubmatch(string(text), -1), named.FindAllStringSubmatch(string(text), -1)...)
		if len(names) < 2 {
			t.Errorf("%s names %d files", document, len(names))
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
