package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// gapsOnly is a source that has nothing but gaps.
type gapsOnly []filterd.Gap

func (s gapsOnly) Subscribe(filterd.Subscriptions) {}
func (s gapsOnly) Run(_ context.Context, h filterd.Handler) error {
	for _, g := range s {
		h.Gap(g)
	}
	return nil
}

// Gaps are counted by what was not listened to; the last ones are remembered.
func TestGapsAreCounted(t *testing.T) {
	e := newEngine(t, engine.Config{Table: table(t, engine.Rule{Name: "r", From: []string{"in"}, To: to("out")}), Sink: &recorder{}})
	begin := time.Now()
	var gaps gapsOnly
	for i := range 300 {
		g := filterd.Gap{Channels: []string{"in"}, From: begin, To: begin.Add(time.Second), Reason: fmt.Sprint(i)}
		if i%3 == 0 {
			g.Channels = append(g.Channels, "in.*")
		}
		gaps = append(gaps, g)
	}
	if err := e.Run(t.Context(), gaps); err != nil {
		t.Fatal(err)
	}
	s := e.Stats()
	if s.Gaps != 300 || s.GapTime != 300*time.Second {
		t.Errorf("%d gaps of %v", s.Gaps, s.GapTime)
	}
	if got, want := fmt.Sprint(s.ChannelGaps), "map[in:{300 5m0s} in.*:{100 1m40s}]"; got != want {
		t.Errorf("by channels: %s, want %s", got, want)
	}
	last := e.Gaps()
	if len(last) != 256 || last[0].Reason != "44" || last[255].Reason != "299" {
		t.Errorf("%d gaps are remembered, from %s to %s", len(last), last[0].Reason, last[len(last)-1].Reason)
	}
}
