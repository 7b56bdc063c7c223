package pubsub

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/resp"
)

func frame(channel, pattern, payload string) *resp.Frame {
	f := &resp.Frame{Kind: resp.Message, Verb: "message", Channel: []byte(channel), Payload: []byte(payload)}
	if pattern != "" {
		f.Verb, f.Pattern = "pmessage", []byte(pattern)
	}
	return f
}

// A message that is used again is that of its own channel only: what was
// checked or bound for another one is gone.
func TestBatchForgets(t *testing.T) {
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "bytes", Envelope: filterd.EnvelopeBytes})
	if err != nil {
		t.Fatal(err)
	}
	projection := filterd.NewProjection([]filterd.Path{filterd.PathChannel})
	var b batch
	for i, test := range []struct{ channel, pattern string }{
		{"bytes", ""}, {"bytes", ""}, {"json", ""}, {"json", "j*"}, {"bytes", ""}, {"bytes", "b*"},
	} {
		now := time.Now()
		b.add(frame(test.channel, test.pattern, "[1]"), now)
		m := b.taken()[0]
		if m.Channel != test.channel || m.Pattern != test.pattern || string(m.Payload) != "[1]" || m.Received != now {
			t.Errorf("message %d: %+v", i, m)
		}
		if test.channel == "json" {
			if data, err := m.Data(); err != nil || fmt.Sprint(data) != "[1]" || fmt.Sprintf("%T", data) == "string" {
				t.Errorf("message %d: data %#v, %v", i, data, err)
			}
		} else if err := registry.Check(m); err != nil {
			t.Fatal(err)
		}
		bound := m.Bind(projection)
		if again := i == 1; again != (bound != nil) {
			t.Errorf("message %d: bound to %v", i, bound)
		}
		b.reset()
	}
}

func TestBatchAllocations(t *testing.T) {
	var b batch
	now := time.Now()
	frames := []*resp.Frame{frame("c", "", strings.Repeat("m", 200)), frame("d", "d*", "m"), frame("c", "", "m")}
	got := testing.AllocsPerRun(100, func() {
		for i := 0; !b.add(frames[i%len(frames)], now); i++ {
		}
		b.reset()
	})
	if got != 0 {
		t.Errorf("%v allocations for a batch, want none", got)
	}
}

// Names come from the network: what is kept of them is bounded.
func TestBatchKeepsFewNames(t *testing.T) {
	var b batch
	for i := range 3 * maxNames {
		if b.add(frame(fmt.Sprint(i), "*", "m"), time.Time{}) {
			b.reset()
		}
		if len(b.names) > maxNames {
			t.Fatalf("%d names kept", len(b.names))
		}
	}
	long := strings.Repeat("n", maxNameLength+1)
	b.add(frame(long, "", "m"), time.Time{})
	if m := b.messages[b.count-1]; m.Channel != long {
		t.Errorf("a name of %d bytes became one of %d", len(long), len(m.Channel))
	}
	if _, kept := b.names[long]; kept {
		t.Error("a long name is kept")
	}
}

// What a handler decoded goes with its message.
func TestBatchForgetsDecodedData(t *testing.T) {
	var b batch
	handle := func(count int, payload string) {
		for range count {
			b.add(frame("c", "", payload), time.Time{})
			if _, err := b.taken()[b.count-1].Data(); err != nil {
				t.Fatal(err)
			}
		}
		b.reset()
	}
	handle(50, "[1"+strings.Repeat(",1", 1<<16)+"]") // 110 MB, if their data stayed
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapAlloc > 20<<20 {
		t.Errorf("%d MiB in use", memory.HeapAlloc>>20)
	}
	runtime.KeepAlive(&b)
}
