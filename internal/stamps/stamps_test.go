package stamps

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var epoch = time.Unix(0, 0)

func TestTracker(t *testing.T) {
	type step struct {
		take, reached uint64 // one of them
		lost          int64
	}
	for name, steps := range map[string][]step{
		"in order":             {{take: 7}, {take: 8}, {take: 9}},
		"from the first":       {{take: 1}, {take: 2}},
		"a hole":               {{take: 7}, {take: 11, lost: 3}, {take: 12}, {take: 14, lost: 1}},
		"late":                 {{take: 1}, {take: 5, lost: 3}, {take: 3, lost: -1}, {take: 3}, {take: 2, lost: -1}, {take: 4, lost: -1}, {take: 6}},
		"twice":                {{take: 1}, {take: 2}, {take: 2}, {take: 1}, {take: 3}},
		"the end is missing":   {{take: 1}, {reached: 1}, {reached: 4, lost: 3}, {reached: 4}, {take: 5}, {take: 4, lost: -1}},
		"word begins nothing":  {{reached: 9}, {take: 12}, {take: 13}},
		"a jump beyond belief": {{take: 1}, {take: maxJump + 100}, {take: maxJump + 102, lost: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var tracker Tracker
			for i, s := range steps {
				var loss Loss
				now := epoch.Add(time.Duration(i))
				if s.take > 0 {
					loss = tracker.Take(0, "c", []byte("p"), s.take, now)
				} else {
					loss = tracker.Reached("c", "p", s.reached, now)
				}
				if loss.Lost != s.lost {
					t.Fatalf("step %d: lost %d, want %d", i, loss.Lost, s.lost)
				}
				if loss.Lost > 0 && loss.Since.After(now.Add(-1)) {
					t.Errorf("step %d: since %v", i, loss.Since)
				}
			}
		})
	}
}

// Whatever is lost, and in whatever order the rest comes as long as it is not
// turned upside down, in the end the count is exact.
func TestTrackerIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var tracker Tracker
		type message struct {
			producer string
			number   uint64
		}
		var messages []message
		for p := range 3 {
			for n := range 100 {
				messages = append(messages, message{fmt.Sprint(p), uint64(n + 1)})
			}
		}
		for i := range messages[:len(messages)-8] { // neighbours change places
			j := i + random.IntN(8)
			messages[i], messages[j] = messages[j], messages[i]
		}
		lost, got := int64(0), int64(0)
		begun := make(map[string]uint64) // where a series begins
		for _, m := range messages {
			if begun[m.producer] == 0 {
				begun[m.producer] = m.number
			} else if random.IntN(4) == 0 {
				continue
			}
			if m.number >= begun[m.producer] {
				got++
			}
			lost += tracker.Take(0, "c", []byte(m.producer), m.number, epoch).Lost
		}
		want := int64(0)
		for p, first := range begun {
			lost += tracker.Reached("c", p, 100, epoch).Lost
			want += 101 - int64(first)
		}
		if got+lost != want {
			t.Fatalf("got %d, lost %d, of %d", got, lost, want)
		}
	}
}

// What a tracker remembers is bounded, whoever sends.
func TestTrackerIsBounded(t *testing.T) {
	var tracker Tracker
	tracker.Take(0, "a", []byte("steady"), 1, epoch)
	for i := range 5 * maxSeries {
		tracker.Take(0, fmt.Sprint("c", i%7), fmt.Append(nil, i), 1, epoch)
		if i%1000 == 0 {
			if loss := tracker.Take(0, "a", []byte("steady"), uint64(i/1000)+2, epoch); loss.Lost != 0 {
				t.Fatalf("at %d: lost %d", i, loss.Lost)
			}
		}
	}
	n := 0
	for _, generation := range []map[string]map[string]*series{tracker.young, tracker.old} {
		for _, of := range generation {
			n += len(of)
		}
	}
	if n > 2*maxSeries {
		t.Errorf("%d series", n)
	}
	s := &series{next: 1}
	for i := range 10 * maxSpans {
		s.reach(uint64(3*i+5), epoch, 1)
		s.arrive(uint64(3*i + 3))
	}
	if len(s.late) > maxSpans {
		t.Errorf("%d spans", len(s.late))
	}
}

func TestTrackerKeep(t *testing.T) {
	var tracker Tracker
	for _, channel := range []string{"a", "b"} {
		tracker.Take(0, channel, []byte("p"), 1, epoch)
	}
	tracker.Keep(0, func(channel string) bool { return channel == "a" })
	if a, b := tracker.Take(0, "a", []byte("p"), 5, epoch), tracker.Take(0, "b", []byte("p"), 5, epoch); a.Lost != 3 || b.Lost != 0 {
		t.Errorf("lost %d and %d, want 3 and 0", a.Lost, b.Lost)
	}
	if tracker.count != 2 {
		t.Errorf("counts %d series", tracker.count)
	}
}

func TestTrackerAllocations(t *testing.T) {
	var tracker Tracker
	producer, n := []byte("producer"), uint64(0)
	tracker.Take(0, "c", producer, n, epoch)
	if got := testing.AllocsPerRun(100, func() { n++; tracker.Take(0, "c", producer, n, epoch) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkTake(b *testing.B) {
	var tracker Tracker
	producer, n := []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), uint64(0)
	for b.Loop() {
		n++
		tracker.Take(0, "PRICE_DATA", producer, n, epoch)
	}
}

func TestHeartbeat(t *testing.T) {
	h := Heartbeat{Producer: "p", Sequences: map[string]uint64{"a": 1, "b\n": maxSequence}}
	text := h.Append(nil)
	if want := `{"producer":"p","sequences":{"a":1,"b\n":4611686018427387904}}`; string(text) != want {
		t.Errorf("got %s", text)
	}
	got, err := ParseHeartbeat(text)
	if err != nil || fmt.Sprint(*got) != fmt.Sprint(h) {
		t.Errorf("got %v, %v", got, err)
	}
	for text, want := range map[string]string{
		`{`:                                     "heartbeat: unexpected end of JSON input",
		`{"sequences":{"a":1}}`:                 "heartbeat: no producer",
		`{"producer":"p","sequences":{"a":-1}}`: "heartbeat: json: cannot unmarshal number -1 into Go struct field Heartbeat.sequences of type uint64",
		`{"producer":"p","sequences":{"a":4611686018427387905}}`: `heartbeat: the sequence of "a" is over the limit`,
		strings.Repeat(" ", maxHeartbeat+1):                      "a heartbeat of 1048577 bytes is over the limit of 1048576",
	} {
		if _, err := ParseHeartbeat([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%.50s: got %v, want %s", text, err, want)
		}
	}
}

func FuzzHeartbeat(f *testing.F) {
	f.Add([]byte(`{"producer":"p","sequences":{"a":1,"b":2}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := ParseHeartbeat(text)
		if err != nil {
			return
		}
		again, err := ParseHeartbeat(h.Append(nil))
		if err != nil || again.Producer != h.Producer || !maps.Equal(again.Sequences, h.Sequences) {
			t.Fatalf("%v became %v, %v", h, again, err)
		}
		var tracker Tracker
		for channel, n := range h.Sequences {
			tracker.Take(0, channel, []byte(h.Producer), n, epoch)
			if loss := tracker.Reached(channel, h.Producer, n+3, epoch); loss.Lost != 3 {
				t.Fatalf("lost %d", loss.Lost)
			}
		}
	})
}
