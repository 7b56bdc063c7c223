package lane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A gate is work that waits to be let through.
type gate struct {
	entered chan []int
	pass    chan struct{}
}

func newGate() *gate { return &gate{make(chan []int), make(chan struct{})} }

func (g *gate) work(batch []int) {
	g.entered <- slices.Clone(batch)
	<-g.pass
}

func TestLane(t *testing.T) {
	for _, test := range []struct {
		name      string
		limits    Limits
		policy    Policy
		push      []int  // their bytes; the value is the index from 1
		keys      string // a letter for each
		dropped   string
		conflated string
		want      string // batches of what is left, at most three at once
	}{
		{"in order", Limits{}, DropOldest, []int{1, 1, 1, 1}, "aaaa", "[0 0 0 0]", "[]", "[[1 2 3] [4]]"},
		{"oldest gives way", Limits{Messages: 2}, DropOldest, []int{1, 1, 1, 1}, "aaaa", "[0 0 1 1]", "[]", "[[3 4]]"},
		{"newest gives way", Limits{Messages: 2}, DropNewest, []int{1, 1, 1, 1}, "aaaa", "[0 0 1 1]", "[]", "[[1 2]]"},
		{"by bytes", Limits{Bytes: 10}, DropOldest, []int{4, 4, 4, 9}, "aaaa", "[0 0 1 2]", "[]", "[[4]]"},
		{"newest by bytes", Limits{Bytes: 10}, DropNewest, []int{4, 4, 4, 2}, "aaaa", "[0 0 1 0]", "[]", "[[1 2 4]]"},
		{"never fits", Limits{Bytes: 10}, DropOldest, []int{4, 11, 4}, "aaaa", "[0 1 0]", "[]", "[[1 3]]"},
		{"newest of a key in its place", Limits{}, Conflate, []int{1, 1, 1, 1, 1}, "abacb", "[0 0 0 0 0]", "[1 2]", "[[3 5 4]]"},
		{"oldest of many keys gives way", Limits{Messages: 2}, Conflate, []int{1, 1, 1, 1, 1}, "abcba", "[0 0 1 0 1]", "[2]", "[[3 5]]"},
		{"a larger one of a key", Limits{Bytes: 10}, Conflate, []int{4, 4, 8, 9}, "abbb", "[0 0 1 0]", "[2 3]", "[[4]]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGate()
			lost, conflated := []int{}, []int{}
			l := New(test.limits, test.policy, 3, g.work, func(v int, newer bool) {
				if newer {
					conflated = append(conflated, v)
				} else {
					lost = append(lost, v)
				}
			})
			l.Push(0, 1, "a") // keeps the worker busy
			<-g.entered
			var dropped []int
			total := 0
			for i, bytes := range test.push {
				n := l.Push(i+1, bytes, test.keys[i:i+1])
				dropped = append(dropped, n)
				total += n
			}
			if fmt.Sprint(dropped) != test.dropped || len(lost) != total || fmt.Sprint(conflated) != test.conflated {
				t.Errorf("dropped %v, lost %v, conflated %v; want %s, conflated %s", dropped, lost, conflated, test.dropped, test.conflated)
			}
			total += len(conflated)
			if l.Len()+total != len(test.push)+1 { // one is in hand
				t.Errorf("%d wait, %d are lost, of %d", l.Len(), total, len(test.push))
			}
			l.Close()
			if l.Push(99, 1, "z") != 1 || l.PushWait(t.Context(), 99, 1) {
				t.Error("a closed lane took a value")
			}
			g.pass <- struct{}{}
			var got [][]int
			for left := len(test.push) - total; left > 0; left -= len(got[len(got)-1]) {
				got = append(got, <-g.entered)
				g.pass <- struct{}{}
			}
			if dropped, inHand := l.Wait(t.Context()); dropped+inHand != 0 || fmt.Sprint(got) != test.want {
				t.Errorf("got %v, want %s", got, test.want)
			}
		})
	}
}

// Wait gives up with its context: what waits is lost, what is in hand is not.
func TestWaitGivesUp(t *testing.T) {
	g := newGate()
	lost := 0
	l := New(Limits{}, DropOldest, 1, g.work, func(int, bool) { lost++ })
	for i := range 5 {
		l.Push(i, 1, "")
	}
	<-g.entered
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if dropped, inHand := l.Wait(ctx); dropped != 4 || lost != 4 || inHand != 1 {
		t.Errorf("%d dropped, %d lost, %d in hand", dropped, lost, inHand)
	}
	if !l.Reopen() {
		t.Error("a lane whose worker is busy does not reopen")
	}
	if l.Push(5, 1, "") != 0 {
		t.Error("a reopened lane is closed")
	}
	l.Close()
	g.pass <- struct{}{}
	if got := <-g.entered; fmt.Sprint(got) != "[5]" {
		t.Errorf("got %v", got)
	}
	g.pass <- struct{}{}
	if dropped, _ := l.Wait(t.Context()); dropped != 0 || l.Reopen() {
		t.Errorf("%d dropped, or a worker that ended came back", dropped)
	}
}

// PushWait waits for room: until there is some, the lane closes or ctx ends.
func TestPushWait(t *testing.T) {
	g := newGate()
	l := New(Limits{Messages: 2, Bytes: 10}, DropOldest, 1, g.work, nil)
	push := func(ctx context.Context, value, bytes int) <-chan bool {
		done := make(chan bool, 1)
		go func() { done <- l.PushWait(ctx, value, bytes) }()
		return done
	}
	waits := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			waiting := l.waiting
			l.mu.Unlock()
			if waiting == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d wait, want %d", waiting, n)
			}
		}
	}
	for i := range 3 {
		if !l.PushWait(t.Context(), i, 4) {
			t.Fatal("there was room")
		}
		if i == 0 {
			<-g.entered
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	given, big := push(ctx, 3, 1), push(t.Context(), 4, 100)
	waits(2)
	cancel()
	if <-given {
		t.Error("a full lane took a value whose context ended")
	}
	g.pass <- struct{}{} // 0 is done
	if got := <-g.entered; got[0] != 1 {
		t.Error(got)
	}
	waits(1) // 4 is larger than the lane, which holds 2
	g.pass <- struct{}{}
	<-g.entered
	if !<-big {
		t.Error("an empty lane refused a value larger than the lane")
	}
	last := push(t.Context(), 5, 1)
	waits(1)
	l.Close()
	if <-last {
		t.Error("a closed lane took a value")
	}
	g.pass <- struct{}{}
	if got := <-g.entered; got[0] != 4 {
		t.Error(got)
	}
	g.pass <- struct{}{}
	l.Wait(t.Context())
}

// Everything that is pushed is worked on or lost, whoever pushes.
func TestConcurrentPush(t *testing.T) {
	const pushers, each = 8, 2000
	worked, lost, dropped := 0, 0, make([]int, pushers)
	l := New(Limits{Messages: 16}, DropOldest, 4, func(batch []int) { worked += len(batch) }, nil)
	var all sync.WaitGroup
	for p := range pushers {
		all.Go(func() {
			for i := range each {
				dropped[p] += l.Push(i, 1, "")
			}
		})
	}
	all.Wait()
	l.Close()
	l.Wait(t.Context())
	for _, n := range dropped {
		lost += n
	}
	if worked+lost != pushers*each {
		t.Errorf("%d worked on, %d lost, of %d", worked, lost, pushers*each)
	}
}
