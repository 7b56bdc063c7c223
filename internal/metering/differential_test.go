package metering_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/filterd/filterd/internal/metering"
)

// toolchainModules returns the modules that come with wazero's sources: those
// of the public WebAssembly test suite, and programs made by Rust, Zig, C,
// TinyGo and Emscripten.
func toolchainModules(t *testing.T) map[string][]byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	root := strings.TrimSpace(string(dir))
	if err != nil || root == "" {
		t.Skip("wazero's sources are not here")
	}
	modules := make(map[string][]byte)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".wasm" {
			return err
		}
		binary, err := os.ReadFile(path)
		modules[strings.TrimPrefix(path, root)] = binary
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(modules) < 1000 {
		t.Fatalf("only %d modules in %s", len(modules), root)
	}
	return modules
}

// TestToolchainModules instruments every module there is, and checks that the
// result is valid if and only if the module is, and does the same.
func TestToolchainModules(t *testing.T) {
	modules := toolchainModules(t)
	names := make([]string, 0, len(modules))
	for name := range modules {
		names = append(names, name)
	}
	sort.Strings(names)
	h := newHost(t)
	instrumented, invalid, called := 0, 0, 0
	refused := make(map[metering.Reason]int)
	for i, name := range names {
		if testing.Short() && i%10 != 0 || slow && i%4 != 0 { // one goroutine: no race to find
			continue
		}
		binary := modules[name]
		out, err := metering.Instrument(binary, metering.Limits{MemoryPages: memoryLimit})
		if err != nil {
			refusal := err.(*metering.Error)
			refused[refusal.Reason]++
			if refusal.Reason == metering.Malformed && !lax(refusal.Text) && h.valid(binary) {
				t.Errorf("%s: wazero takes it, refused as malformed: %v", name, err)
			}
			continue
		}
		n, ok := h.same(t, binary, out)
		called += n
		if ok {
			instrumented++
		} else {
			invalid++
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
	t.Logf("%d instrumented, %d functions called, %d of wrong types, refused: %d malformed, %d unsupported, %d too large",
		instrumented, called, invalid, refused[metering.Malformed], refused[metering.Unsupported], refused[metering.TooLarge])
	if instrumented == 0 || called == 0 {
		t.Error("nothing was tested")
	}
}

// lax reports whether wazero takes what the format forbids.
func lax(text string) bool {
	for _, known := range []string{
		"is out of order or there twice",
		"vector instruction", // the byte behind 0xfd is enough
	} {
		if strings.Contains(text, known) {
			return true
		}
	}
	return false
}

// compile compiles a module; the caller closes it.
func (h *host) compile(binary []byte) (wazero.CompiledModule, error) {
	return h.runtime.CompileModule(context.Background(), binary)
}

// valid reports whether wazero takes a module as it is. It panics over some
// that it should refuse; over instrumented ones it must not, so that only this
// recovers.
func (h *host) valid(binary []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	m, err := h.compile(binary)
	if err == nil {
		_ = m.Close(context.Background())
	}
	return err == nil
}

// differentialBudget ends what does not end by itself.
const differentialBudget = 2_000_000

// same checks that a module is as valid as it is instrumented. If it is, it
// calls every exported function of both, and compares all that can be seen;
// modules whose imports are not there are left out. It returns how many calls
// it compared, and whether the module is valid.
func (h *host) same(t testing.TB, binary []byte, out *metering.Module) (called int, valid bool) {
	t.Helper()
	ctx := context.Background()
	plainCompiled, err := h.compile(binary)
	meteredCompiled, meteredErr := h.compile(out.Binary)
	if err != nil || meteredErr != nil {
		if (err == nil) != (meteredErr == nil) {
			t.Errorf("compiles with %v, instrumented with %v", err, meteredErr)
		}
		return 0, false
	}
	defer func() { _, _ = plainCompiled.Close(ctx), meteredCompiled.Close(ctx) }()
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	metered, err := h.runtime.InstantiateModule(ctx, meteredCompiled, config)
	if err != nil {
		return 0, true // what it imports is not there, or a segment is out of bounds
	}
	defer func() { _ = metered.Close(ctx) }()
	if out.HasStart {
		if _, err := h.call(metered, metering.ExportStart, differentialBudget); err != nil {
			return 0, true
		}
	}
	plain, err := h.runtime.InstantiateModule(ctx, plainCompiled, config)
	if err != nil {
		t.Errorf("cannot be instantiated, but instrumented it can: %v", err)
		return 0, true
	}
	defer func() { _ = plain.Close(ctx) }()
	functions := plain.ExportedFunctionDefinitions()
	names := make([]string, 0, len(functions))
	for name := range functions {
		names = append(names, name)
	}
	sort.Strings(names)
	seeds := []uint64{0, 1, 0x4045_0000_0000_0065}
	if info, err := metering.Inspect(binary, metering.Limits{}); err == nil && len(info.Tables) == 0 {
		seeds = append(seeds, 0xffff_ffff_ffff_fff7) // as an argument of table.grow it ends the process
	}
	for _, function := range names {
		if references(functions[function]) {
			continue // the addresses of an instance
		}
		for _, seed := range seeds {
			args := arguments(functions[function], seed)
			counted := count(metered)
			got, err := h.call(metered, function, differentialBudget, args...)
			if n := (count(metered) - counted) * countCost; h.used(metered) < n {
				t.Errorf("%s(%x): used %d units for instructions that cost %d alone", function, args, h.used(metered), n)
			}
			if errors.Is(err, errFuel) || errors.Is(err, errOverflow) {
				return called, true // its state is not comparable any more
			}
			want, wantErr := h.call(plain, function, 0, args...)
			called++
			if fmt.Sprint(got) != fmt.Sprint(want) || outcome(err) != outcome(wantErr) {
				t.Errorf("%s(%x): got %x, %v, want %x, %v", function, args, got, err, want, wantErr)
				return called, true
			}
		}
	}
	compareState(t, plain, metered)
	return called, true
}

// count is how many statements a generated module has run.
func count(m api.Module) int64 {
	if g := m.ExportedGlobal("count"); g != nil {
		return int64(g.Get())
	}
	return 0
}

// arguments makes up arguments; vectors take two.
func arguments(f api.FunctionDefinition, seed uint64) []uint64 {
	var args []uint64
	for _, t := range f.ParamTypes() {
		switch byte(t) {
		case i32, f32:
			args = append(args, seed&0xffff_ffff)
		case v128:
			args = append(args, seed, seed+1)
		case funcref, externref:
			args = append(args, 0)
		default:
			args = append(args, seed)
		}
	}
	return args
}

// references reports whether the function returns references.
func references(f api.FunctionDefinition) bool {
	for _, t := range f.ResultTypes() {
		if byte(t) == funcref || byte(t) == externref {
			return true
		}
	}
	return false
}

// outcome is the part of an error that does not depend on how the module is
// written: its first line.
func outcome(err error) string {
	if err == nil {
		return ""
	}
	return strings.SplitN(err.Error(), "\n", 2)[0]
}

// compareState compares memory and exported globals.
func compareState(t testing.TB, plain, metered api.Module) {
	t.Helper()
	// Memory() of a module without one is an interface that holds nil.
	if fmt.Sprint(plain.Memory()) != "<nil>" {
		if a, b := plain.Memory().Size(), metered.Memory().Size(); a != b {
			t.Errorf("memory of %d bytes, %d when instrumented", a, b)
			return
		}
		a, _ := plain.Memory().Read(0, plain.Memory().Size())
		b, _ := metered.Memory().Read(0, metered.Memory().Size())
		if !bytes.Equal(a, b) {
			t.Error("memory differs")
		}
	}
	for i := range 100 {
		export := fmt.Sprintf("g%d", i)
		g := plain.ExportedGlobal(export)
		if g == nil {
			break
		}
		if other := metered.ExportedGlobal(export); g.Get() != other.Get() {
			t.Errorf("global %d is %x, %x when instrumented", i, g.Get(), other.Get())
		}
	}
}
