package filterd_test

import (
	"go/build"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/filterd/filterd"

// floors says which packages of this module a package may import, and which
// third-party modules. Imports go down only. A package that isn't listed may
// not exist.
var floors = map[string]struct{ own, foreign []string }{
	"internal/projection":   {},
	"internal/spelling":     {},
	"internal/lograte":      {},
	"internal/lane":         {},
	"internal/resp":         {},
	"internal/ledger":       {},
	"internal/stamps":       {},
	"":                      {own: []string{"internal/projection"}, foreign: []string{"github.com/santhosh-tekuri/jsonschema/v6"}},
	"channels":              {own: []string{""}},
	"filters/exprfilter":    {own: []string{"", "internal/spelling"}, foreign: []string{"github.com/expr-lang/expr"}},
	"filters/wasmfilter":    {own: []string{"", "internal/metering", "internal/lograte"}, foreign: []string{"github.com/tetratelabs/wazero"}},
	"guest":                 {},
	"wasm-examples":         {},
	"wasm-examples/*":       {own: []string{"guest"}},
	"filters/filtertest":    {own: []string{""}},
	"pubsub":                {own: []string{"", "internal/lane", "internal/lograte", "internal/resp", "internal/stamps"}, foreign: []string{"github.com/redis/go-redis/v9", "github.com/cenkalti/backoff/v5"}},
	"webhook":               {own: []string{""}, foreign: []string{"github.com/standard-webhooks/standard-webhooks/libraries", "github.com/cenkalti/backoff/v5", "github.com/sony/gobreaker/v2"}},
	"engine":                {own: []string{"", "internal/projection", "internal/lane", "internal/lograte", "internal/spelling", "internal/stamps"}},
	"tracing":               {own: []string{"", "engine"}, foreign: []string{"go.opentelemetry.io/otel"}},
	"filters":               {own: []string{"", "filters/exprfilter"}},
	"config":                {own: []string{"", "channels", "engine", "filters", "filters/exprfilter", "filters/wasmfilter", "internal/spelling", "pubsub", "webhook"}, foreign: []string{"go.yaml.in/yaml/v4", "github.com/invopop/jsonschema"}},
	"filterdtest":           {own: []string{"config"}},
	"cmd/filterd":           {own: []string{"*"}, foreign: []string{"*"}},
	"examples/*":            {own: []string{"*"}, foreign: []string{"github.com/redis/go-redis/v9"}},
	"internal/metering":     {},
	"internal/redistest":    {foreign: []string{"*"}},
	"internal/faultproxy":   {},
	"internal/measure":      {own: []string{"internal/resp"}, foreign: []string{"github.com/redis/go-redis/v9"}},
	"internal/comparison":   {own: []string{"*"}, foreign: []string{"*"}},
	"internal/comparison/*": {own: []string{"*"}, foreign: []string{"*"}},
}

func TestImportsGoDownOnly(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if name := entry.Name(); dir != "." && (strings.HasPrefix(name, ".") || name == "testdata" || isModule(dir)) {
			return fs.SkipDir
		}
		pkg, err := build.ImportDir(dir, 0)
		if err != nil {
			return nil // no Go files here
		}
		seen++
		path := strings.TrimPrefix(filepath.ToSlash(dir), ".")
		floor, ok := floors[path]
		if !ok {
			floor, ok = floors[parent(path)+"/*"]
		}
		if !ok {
			t.Errorf("package %s has no floor: see DESIGN.md, and add it to this test", path)
			return nil
		}
		for _, imported := range pkg.Imports {
			switch own, isOwn := strings.CutPrefix(imported, module); {
			case isOwn:
				if !allowed(floor.own, strings.TrimPrefix(own, "/"), false) {
					t.Errorf("%s must not import %s", path, imported)
				}
			case strings.Contains(strings.Split(imported, "/")[0], "."):
				if !allowed(floor.foreign, imported, true) {
					t.Errorf("%s must not import %s", path, imported)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 8 {
		t.Errorf("only %d packages found", seen)
	}
}

func isModule(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(found) > 0
}

func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

func allowed(list []string, path string, below bool) bool {
	for _, entry := range list {
		if entry == "*" || entry == path || below && strings.HasPrefix(path, entry+"/") {
			return true
		}
	}
	return false
}
