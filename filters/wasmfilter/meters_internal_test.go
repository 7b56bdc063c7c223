package wasmfilter

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/metering"
)

// unmetered returns the module with nothing but what the host wants to see of
// it: the global that fuel is kept in, which no instruction uses, and the start
// function as an export.
func unmetered(code []byte) []byte {
	number := func(b []byte) (n int, rest []byte) {
		v, size := binary.Uvarint(b)
		return int(v), b[size:]
	}
	sections := make(map[byte][]byte)
	for rest := code[8:]; len(rest) > 0; {
		id := rest[0]
		size, content := number(rest[1:])
		sections[id], rest = content[:size], content[size:] // the custom ones are not needed
	}
	add := func(id byte, items ...[]byte) (before int) {
		var content []byte
		if sections[id] != nil {
			before, content = number(sections[id])
		}
		sections[id] = slices.Concat(binary.AppendUvarint(nil, uint64(before+len(items))), content, slices.Concat(items...))
		return before
	}
	export := func(name string, kind byte, index int) []byte {
		return binary.AppendUvarint(append(append([]byte{byte(len(name))}, name...), kind), uint64(index))
	}
	globals := add(6, []byte{0x7e, 1, 0x42, 0, 0x0b}) // a mutable i64 of 0
	add(7, export(metering.ExportFuel, 3, globals))
	if start := sections[8]; start != nil {
		function, _ := number(start)
		add(7, export(metering.ExportStart, 0, function))
	}
	out := slices.Clone(code[:8])
	for _, id := range []byte{1, 2, 3, 4, 5, 6, 7, 9, 12, 10, 11} {
		if content := sections[id]; content != nil {
			out = append(binary.AppendUvarint(append(out, id), uint64(len(content))), content...)
		}
	}
	return out
}

// takeMeters makes the module's instances run as code that was not metered.
func (m *Module) takeMeters(t testing.TB, code []byte) {
	t.Helper()
	compiled, err := m.runtime.compile(context.Background(), unmetered(code))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.compiled.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.compiled = compiled
	i, err := m.pool.get(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	m.discard(i)
	m.pool.put(nil)
}

// An exampleCall is an example of wasm-examples, and the messages it comes with.
type exampleCall struct {
	name     string
	config   ModuleConfig
	messages []*filterd.Message
}

// exampleCalls reads the examples and how their READMEs configure them.
func exampleCalls(b *testing.B) (all []exampleCall) {
	b.Helper()
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	readmes, err := filepath.Glob("../../wasm-examples/*/README.md")
	check(err)
	for _, path := range readmes {
		readme, err := os.ReadFile(path)
		check(err)
		_, text, _ := strings.Cut(string(readme), "```yaml\n")
		text, _, _ = strings.Cut(text, "```")
		var file struct {
			Modules map[string]struct {
				Path    string
				Config  any
				Publish []string
				KV      string
			}
		}
		check(yaml.Unmarshal([]byte(text), &file))
		for name, module := range file.Modules {
			folder := filepath.Dir(path)
			e := exampleCall{name: filepath.Base(folder), config: ModuleConfig{Name: name, Publish: module.Publish, KV: module.KV}}
			wasm := filepath.Join("../..", module.Path)
			if _, err := os.Stat(wasm); err != nil { // built by those who want it
				wasm = filepath.Join(b.TempDir(), "guest.wasm")
				build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", wasm, "./"+folder)
				build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
				check(build.Run())
			}
			e.config.Code, err = os.ReadFile(wasm)
			check(err)
			if module.Config != nil {
				e.config.Config, err = json.Marshal(module.Config)
				check(err)
			}
			lines, err := os.ReadFile(filepath.Join(folder, "messages.ndjson"))
			check(err)
			for line := range bytes.Lines(lines) {
				var sample struct {
					Channel string
					In      json.RawMessage
				}
				check(json.Unmarshal(line, &sample))
				e.messages = append(e.messages, &filterd.Message{Channel: sample.Channel, Payload: sample.In, Received: time.Now()})
			}
			all = append(all, e)
		}
	}
	return all
}

// BenchmarkMeters runs every example with its messages, with and without
// meters, in turns.
func BenchmarkMeters(b *testing.B) {
	ctx := context.Background()
	for _, e := range exampleCalls(b) {
		for _, n := range []int{1, 64} {
			name := e.name + "/single"
			if n > 1 {
				name = e.name + "/batch"
			}
			b.Run(name, func(b *testing.B) {
				r, err := NewRuntime(ctx, RuntimeConfig{Logger: testLogger})
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = r.Close(ctx) }()
				var run [2]func(rounds int) time.Duration
				for k := range run {
					m, err := r.Load(ctx, e.config)
					if err != nil {
						b.Fatal(err)
					}
					if k == 0 {
						m.takeMeters(b, e.config.Code)
					}
					projection := filterd.NewProjection(m.Paths())
					runner := m.Bind(projection.Slots(m.Paths()))
					results := make([]filterd.StageResult, n)
					batches := make([][]*filterd.Message, len(e.messages))
					for at := range batches {
						for i := range n {
							message := e.messages[(at+i)%len(e.messages)].Clone()
							message.Bind(projection)
							batches[at] = append(batches[at], message)
						}
					}
					run[k] = func(rounds int) time.Duration {
						begin := time.Now()
						for range rounds {
							for _, batch := range batches {
								clear(results)
								runner.Run(ctx, batch, results)
							}
						}
						return time.Since(begin)
					}
					run[k](10)
				}
				rounds := max(1, int(2*time.Millisecond/run[0](1)))
				best := [2]time.Duration{1 << 62, 1 << 62}
				for b.Loop() {
					for k := range run {
						best[k] = min(best[k], run[k](rounds))
					}
				}
				each := float64(rounds * n * len(e.messages))
				b.ReportMetric(float64(best[0])/each, "ns-without")
				b.ReportMetric(float64(best[1])/each, "ns-with")
				b.ReportMetric(float64(best[1])/float64(best[0]), "ratio")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
