package wasmfilter_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// A bomb is a module that takes what memory it can get, and how it is run.
type bomb struct {
	name      string
	body      []byte // of filterd_process
	workers   int    // instances at the same time
	calls     int    // of each
	recycle   int    // calls of an instance
	instances int64  // whose memory may be there at the same time
	stack     int64  // in bytes; it is not part of the memory
}

// The instructions of bombs.
func growBy(pages int) []byte { return slices.Concat([]byte{0x41}, leb(pages), []byte{0x40, 0}) }

// fillAll writes to every byte of a memory of the default limit.
func fillAll() []byte {
	return slices.Concat([]byte{0x41, 0, 0x41, 1, 0x41}, leb(wasmfilter.DefaultMemory), []byte{0xfc, 11, 0})
}

const bombPages = wasmfilter.DefaultMemory >> 16

func bombs() []bomb {
	drop, keep := []byte{0x1a}, []byte{0x41, 1}
	whole := slices.Concat(growBy(bombPages-1), drop, fillAll(), keep)
	return []bomb{
		{name: "fills its memory", body: whole, workers: 1, calls: 100, instances: 1},
		{name: "grows page by page", workers: 1, calls: 3, recycle: 1, instances: 1, body: slices.Concat(
			// loop: if grow(1) >= 0, write to the page and go on
			[]byte{0x03, 0x40}, growBy(1), []byte{0x41, 0x7f, 0x47, 0x04, 0x40}, // != -1
			[]byte{0x3f, 0, 0x41, 16, 0x74, 0x41, 1, 0x6b, 0x41, 1, 0x3a, 0, 0}, // memory[size - 1] = 1
			[]byte{0x0c, 1, 0x0b, 0x0b}, fillAll(), keep)},
		{name: "is recycled after each call", body: whole, workers: 1, calls: 30, recycle: 1, instances: 1},
		{name: "four at a time, recycled", body: whole, workers: 4, calls: 20, recycle: 1, instances: 4},
		{name: "four at a time, trapped", body: slices.Concat(whole, []byte{0}), workers: 4, calls: 100, instances: 4},
		{name: "never ends", body: slices.Concat(whole, forever), workers: 1, calls: 3, instances: 1},
		// wazero's stack is at most some 8 times what the meter allows.
		{name: "calls itself", stack: 8 << 20, body: slices.Concat(whole, []byte{0x10, 3}), workers: 1, calls: 100, instances: 1},
	}
}

// TestResidentMemory runs each bomb in a process of its own, and looks at how
// much memory that had at most.
func TestResidentMemory(t *testing.T) {
	const variable = "FILTERD_TEST_BOMB"
	for _, b := range bombs() {
		if os.Getenv(variable) == b.name {
			b.explode(t)
			return
		}
	}
	if _, err := os.Stat(clearRefs); err != nil {
		t.Skip(err)
	}
	for _, b := range bombs() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run=^TestResidentMemory$", "-test.v")
			child.Env = append(os.Environ(), variable+"="+b.name)
			out, err := child.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var tame, bomb int64
			_, result, _ := strings.Cut(string(out), "resident: ")
			if _, err := fmt.Sscan(result, &tame, &bomb); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			limit, more := b.instances*wasmfilter.DefaultMemory+b.stack, bomb-tame
			t.Logf("%.1f MiB, and %.1f MiB more than a tame module's: %.1f %% of the limit", float64(bomb)/(1<<20), float64(more)/(1<<20), 100*float64(more)/float64(limit))
			if more > limit+limit/10 {
				t.Errorf("%d bytes more than a tame module, limited to %d", more, limit)
			}
			if more < wasmfilter.DefaultMemory/2 {
				t.Errorf("only %d bytes more than a tame module: is it a bomb?", more)
			}
		})
	}
}

// explode runs a tame module and then the bomb in the same way, and prints how
// much memory the process had at most, in bytes, with each.
func (b bomb) explode(t *testing.T) {
	debug.SetGCPercent(10) // garbage is not what this is about
	text := minimalText()
	text.funcs[2].body = b.body
	text.funcs = append(text.funcs, funcText{typeUnary, []byte{0x20, 0, 0x20, 0, 0x10, 3, 0x6a}}) // calls itself
	r := newRuntime(t, wasmfilter.RuntimeConfig{Workers: b.workers})
	var most []int64
	for _, code := range [][]byte{minimalText().bytes(), text.bytes()} {
		debug.FreeOSMemory()
		if err := os.WriteFile(clearRefs, []byte("5"), 0); err != nil { // the maximum begins anew
			t.Fatal(err)
		}
		m := load(t, r, wasmfilter.ModuleConfig{Code: code, RecycleCalls: b.recycle, RecycleMemory: 4 << 30})
		var running sync.WaitGroup
		for range b.workers {
			running.Go(func() { // ends after its calls
				runner := m.Bind(nil)
				batch := []*filterd.Message{{Channel: "c", Payload: []byte("payload")}}
				for range b.calls {
					runner.Run(context.Background(), batch, make([]filterd.StageResult, 1))
				}
			})
		}
		running.Wait()
		most = append(most, mostResident(t))
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	fmt.Println("resident:", most[0], most[1])
}

const clearRefs = "/proc/self/clear_refs"

// mostResident returns how much memory this process had at most, in bytes.
func mostResident(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ = strings.Cut(line, "kB")
	kB, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}
