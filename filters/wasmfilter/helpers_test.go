package wasmfilter_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// readGuest returns a module of testdata.
func readGuest(t testing.TB, name string) []byte {
	t.Helper()
	code, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// buildGo builds the guest in testdata/goguest, once.
var buildGo = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "goguest")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "guest.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/goguest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
})

func goGuest(t testing.TB) []byte {
	t.Helper()
	code, err := buildGo()
	if err != nil {
		t.Fatalf("build the Go guest: %v", err)
	}
	return code
}

func newRuntime(t testing.TB, config wasmfilter.RuntimeConfig) *wasmfilter.Runtime {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	r, err := wasmfilter.NewRuntime(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func load(t testing.TB, r *wasmfilter.Runtime, config wasmfilter.ModuleConfig) *wasmfilter.Module {
	t.Helper()
	if config.Name == "" {
		config.Name = "test"
	}
	m, err := r.Load(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bare gives a runtime of wazero's what guests import, without filterd.
func bare(t testing.TB, ctx context.Context, r wazero.Runtime) {
	t.Helper()
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	if _, err := r.NewHostModuleBuilder("filterd").NewFunctionBuilder().WithFunc(func(uint32, uint32) {}).Export("replace").Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
}

// run runs payloads through a module in one batch.
func run(t testing.TB, m *wasmfilter.Module, payloads ...string) []filterd.StageResult {
	t.Helper()
	p := filterd.NewProjection([]filterd.Path{filterd.PathChannel}, m.Paths())
	batch := make([]*filterd.Message, len(payloads))
	for k, payload := range payloads {
		batch[k] = &filterd.Message{Channel: "channel", Payload: []byte(payload)}
		batch[k].Bind(p)
	}
	results := make([]filterd.StageResult, len(batch))
	m.Bind(p.Slots(m.Paths())).Run(context.Background(), batch, results)
	return results
}
