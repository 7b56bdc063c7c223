package wasmfilter_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/filterd/filterd/filters/wasmfilter"
)

// The versions that the committed guests were built by: others make other
// bytes.
const (
	clangVersion    = "14.0.6"
	wat2wasmVersion = "1.0.32"
)

// TestCommittedGuests builds the guests of testdata again, and compares them
// with those that are committed.
func TestCommittedGuests(t *testing.T) {
	sources, err := filepath.Glob("testdata/*.[cw]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		name, extension := strings.TrimSuffix(source, filepath.Ext(source)), filepath.Ext(source)
		if extension == ".wasm" {
			continue
		}
		t.Run(filepath.Base(source), func(t *testing.T) {
			dir := t.TempDir()
			object, out := filepath.Join(dir, "guest.o"), filepath.Join(dir, "guest.wasm")
			commands := [][]string{{"wat2wasm", source, "-o", out}}
			version, want := toolVersion("wat2wasm"), wat2wasmVersion
			if extension == ".c" {
				commands = [][]string{
					{"clang", "--target=wasm32", "-O2", "-mbulk-memory", "-ffreestanding", "-c", "-o", object, source},
					{"wasm-ld", "--no-entry", "-o", out, object},
				}
				version, want = toolVersion("clang"), clangVersion
			}
			for _, command := range commands {
				if _, err := exec.LookPath(command[0]); err != nil {
					t.Skip(err)
				}
				if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", command, err, output)
				}
			}
			built, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if os.Getenv("UPDATE_GUESTS") != "" {
				if err := os.WriteFile(name+".wasm", built, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			committed, err := os.ReadFile(name + ".wasm")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(version, want) && !bytes.Equal(built, committed) {
				t.Error("the committed module is not built from this source: run this test with UPDATE_GUESTS=1")
			}
			load(t, newRuntime(t, wasmfilter.RuntimeConfig{}), wasmfilter.ModuleConfig{Code: built, KV: "memory", HostFunctions: wanted})
		})
	}
}

func toolVersion(tool string) string {
	out, _ := exec.Command(tool, "--version").Output() // none is not the one
	return string(out)
}
