package pubsub

import (
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filterd/filterd"
)

func payloads(batch []*filterd.Message) string {
	var texts []string
	for _, m := range batch {
		texts = append(texts, string(m.Payload))
	}
	return strings.Join(texts, " ")
}

func TestQueueOrder(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.putMessage("c", "", "1", now)
	q.putMessage("c", "c*", "2", now)
	q.putGap(&filterd.Gap{Reason: "first"})
	q.putGap(&filterd.Gap{Reason: "second"})
	q.putMessage("c", "", "3", now)
	q.close()
	q.putMessage("c", "", "after the end", now)

	batch, gap := q.take(nil)
	if payloads(batch) != "1 2" || gap != nil || batch[1].Pattern != "c*" || batch[1].Received != now {
		t.Errorf("first: %q, %v", payloads(batch), gap)
	}
	for _, reason := range []string{"first", "second"} {
		if batch, gap = q.take(batch); len(batch) != 0 || gap == nil || gap.Reason != reason {
			t.Errorf("then: %q, %v, want the gap %q", payloads(batch), gap, reason)
		}
	}
	if batch, gap = q.take(batch); payloads(batch) != "3" || gap != nil {
		t.Errorf("then: %q, %v", payloads(batch), gap)
	}
	if batch, gap = q.take(batch); len(batch) != 0 || gap != nil {
		t.Errorf("at the end: %q, %v", payloads(batch), gap)
	}
}

// A full queue, in messages or bytes, makes the reader wait.
func TestQueueBounds(t *testing.T) {
	for name, test := range map[string]struct {
		fill    int
		payload string
		want    int // messages in the first batch
	}{
		"messages":           {queueEntries, "m", maxBatch},
		"bytes":              {4, strings.Repeat("m", queueBytes/4), 4},
		"one beyond a bound": {1, strings.Repeat("m", queueBytes+1), 1},
	} {
		t.Run(name, func(t *testing.T) {
			q, now := newQueue(), time.Now()
			for i := range test.fill {
				if q.putMessage("c", "", test.payload, now) {
					t.Fatalf("message %d had to wait", i)
				}
			}
			if q.full() {
				t.Error("full before anyone waits")
			}
			var waited bool
			var reader sync.WaitGroup
			reader.Go(func() { waited = q.putMessage("c", "", test.payload, now) }) // ends with take
			eventually(t, "the reader waits", q.full)
			batch, _ := q.take(nil)
			reader.Wait()
			if !waited || q.full() || len(batch) != test.want {
				t.Errorf("waited %v, full %v, got %d messages, want %d", waited, q.full(), len(batch), test.want)
			}
		})
	}
}

func TestQueueAbandon(t *testing.T) {
	q, now := newQueue(), time.Now()
	for range queueEntries {
		q.putMessage("c", "", "m", now)
	}
	var reader sync.WaitGroup
	reader.Go(func() { q.putGap(&filterd.Gap{}) }) // ends with abandon
	eventually(t, "the reader waits", q.full)
	q.abandon()
	reader.Wait()
	q.putMessage("d", "d*", "late", now.Add(1))
	if lost := q.losses(); lost.messages != queueEntries+1 || len(lost.gaps) != 1 || !lost.from.Equal(now) ||
		!maps.Equal(lost.subs, map[subscription]bool{{name: "c"}: true, {name: "d*", glob: true}: true}) {
		t.Errorf("lost %+v", lost)
	}
	if batch, gap := q.take(nil); len(batch) != 0 || gap != nil {
		t.Errorf("afterwards: %q, %v", payloads(batch), gap)
	}
}

func TestQueueAllocations(t *testing.T) {
	q, now := newQueue(), time.Now()
	var batch []*filterd.Message
	payload := strings.Repeat("m", 200)
	got := testing.AllocsPerRun(100, func() {
		for range 10 {
			q.putMessage("c", "", payload, now)
		}
		batch, _ = q.take(batch)
	})
	if got != 0 {
		t.Errorf("%v allocations for 10 messages, want none", got)
	}
}

func TestExamine(t *testing.T) {
	const interval = time.Second
	begin := time.Now()
	at := func(ms time.Duration) time.Time { return begin.Add(ms * time.Millisecond) }
	for name, test := range map[string]struct {
		now, seen, waited time.Duration // milliseconds
		open              *command
		stirred, full     bool

		probe bool
		wait  time.Duration // milliseconds
		err   string
	}{
		"heard lately":                 {now: 900, seen: 100, wait: 200},
		"silent for an interval":       {now: 1100, seen: 100, probe: true},
		"messages arrive":              {now: 900, seen: 900, stirred: true, probe: true},
		"asked and waiting":            {now: 1500, seen: 100, open: &command{kind: kindPing, sent: at(1100)}, wait: 600},
		"asked while messages arrive":  {now: 1500, seen: 1400, stirred: true, open: &command{kind: kindPing, sent: at(1100)}, wait: 900},
		"silent for two":               {now: 2100, seen: 100, open: &command{kind: kindPing, sent: at(1100)}, err: "no answer to PING within 1s"},
		"silent subscribe":             {now: 1000, seen: 0, open: &command{kind: kindSubscribe, sent: begin}, err: "no answer to SUBSCRIBE within 1s"},
		"no answer but messages":       {now: 14900, seen: 14900, open: &command{kind: kindPing, sent: begin}, wait: 100},
		"never an answer but messages": {now: 15000, seen: 15000, open: &command{kind: kindPing, sent: begin}, err: "no answer to PING within 15s"},
		"busy handler":                 {now: 20000, seen: 1000, full: true, open: &command{kind: kindPing, sent: begin}, wait: 1000},
		"handler was busy":             {now: 20000, seen: 1000, waited: 19900, open: &command{kind: kindPing, sent: begin}, wait: 900},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSource(nil, SourceOptions{ProbeInterval: interval})
			c := &connection{source: s, queue: newQueue(), begin: begin}
			c.seen.Store(int64(test.seen * time.Millisecond))
			c.waited.Store(int64(test.waited * time.Millisecond))
			c.stirred.Store(test.stirred)
			c.queue.waiting = test.full
			if test.open != nil {
				s.ledger.open = []command{*test.open}
			}
			probe, wait, err := c.examine(at(test.now))
			text := ""
			if err != nil {
				text = err.Error()
			}
			if probe != test.probe || !probe && wait != test.wait*time.Millisecond || text != test.err {
				t.Errorf("got %v, %v, %q", probe, wait, text)
			}
		})
	}
}

// What a handler decoded goes with its message: waiting for another use, a
// message holds no more than a small buffer.
func TestQueueForgetsDecodedData(t *testing.T) {
	q, now := newQueue(), time.Now()
	var batch []*filterd.Message
	handle := func(count int, payload string) {
		for range count {
			q.putMessage("c", "", payload, now)
		}
		for handled := 0; handled < count; handled += len(batch) {
			batch, _ = q.take(batch)
			for _, m := range batch {
				if _, err := m.Data(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	handle(1000, "1") // so that there are many to rotate
	large := "[1" + strings.Repeat(",1", 1<<16) + "]"
	for range 50 { // 110 MB, if their data stayed
		handle(1, large)
	}
	handle(1, "1")
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapAlloc > 20<<20 {
		t.Errorf("%d MiB in use", memory.HeapAlloc>>20)
	}
	for _, m := range q.free {
		if m.Channel != "" || cap(m.Payload) > keepBuffer {
			t.Fatalf("recycled: channel %q, a buffer of %d", m.Channel, cap(m.Payload))
		}
	}
	runtime.KeepAlive(q)
}
