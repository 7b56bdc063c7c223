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
		name       string
		limits     Limits
		dropNewest bool
		push       []int // their bytes; the value is the index from 1
		dropped    string
		want       string // batches of what is left, at most three at once
	}{
		{"in order", Limits{}, false, []int{1, 1, 1, 1}, "[0 0 0 0]", "[[1 2 3] [4]]"},
		{"oldest gives way", Limits{Messages: 2}, false, []int{1, 1, 1, 1}, "[0 0 1 1]", "[[3 4]]"},
		{"newest gives way", Limits{Messages: 2}, true, []int{1, 1, 1, 1}, "[0 0 1 1]", "[[1 2]]"},
		{"by bytes", Limits{Bytes: 10}, false, []int{4, 4, 4, 9}, "[0 0 1 2]", "[[4]]"},
		{"newest by bytes", Limits{Bytes: 10}, true, []int{4, 4, 4, 2}, "[0 0 1 0]", "[[1 2 4]]"},
		{"never fits", Limits{Bytes: 10}, false, []int{4, 11, 4}, "[0 1 0]", "[[1 3]]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGate()
			var lost []int
			l := New(test.limits, test.dropNewest, 3, g.work, func(v int) { lost = append(lost, v) })
			l.Push(0, 1) // keeps the worker busy
			<-g.entered
			var dropped []int
			total := 0
			for i, bytes := range test.push {
				n := l.Push(i+1, bytes)
				dropped = append(dropped, n)
				total += n
			}
			if fmt.Sprint(dropped) != test.dropped || len(lost) != total {
				t.Errorf("dropped %v, lost %v; want %s", dropped, lost, test.dropped)
			}
			if l.Len()+total != len(test.push)+1 { // one is in hand
				t.Errorf("%d wait, %d are lost, of %d", l.Len(), total, len(test.push))
			}
			l.Close()
			if l.Push(99, 1) != 1 {
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
	l := New(Limits{}, false, 1, g.work, func(int) { lost++ })
	for i := range 5 {
		l.Push(i, 1)
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
	if l.Push(5, 1) != 0 {
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

// Everything that is pushed is worked on or lost, whoever pushes.
func TestConcurrentPush(t *testing.T) {
	const pushers, each = 8, 2000
	worked, lost, dropped := 0, 0, make([]int, pushers)
	l := New(Limits{Messages: 16}, false, 4, func(batch []int) { worked += len(batch) }, nil)
	var all sync.WaitGroup
	for p := range pushers {
		all.Go(func() {
			for i := range each {
				dropped[p] += l.Push(i, 1)
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
