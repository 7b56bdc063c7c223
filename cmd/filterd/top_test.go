package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/filterd/filterd/engine"
)

// topRules is what a daemon says of three rules at some second.
func topRules(second int, names ...string) topSample {
	rules := adminRules{Generation: 1, Time: time.Unix(int64(second), 0)}
	for i, name := range names {
		n := uint64(second * (i + 1) * 10)
		latency := engine.Latency{}
		latency.Buckets[i%10+3] = n
		rules.Rules = append(rules.Rules, adminRule{
			Name: name, Matched: n, Delivered: n, Errors: uint64(second * (10 - i)), Queued: i % 2, Gaps: uint64(i % 3),
			Latency: newAdminLatency(&latency), Rates: adminRates{Matched: 7},
		})
	}
	return topSample{rules: rules}
}

func names(v *topView) string {
	var all []string
	for _, r := range v.rows {
		all = append(all, r.Rule)
	}
	return strings.Join(all, " ")
}

// Rates are those between two looks, and rows are sorted by what was asked for.
func TestTopRows(t *testing.T) {
	v := &topView{sorted: topColumns[0]}
	v.take(topRules(10, "a", "b", "c"))
	if r := v.rows[0]; r.Matched != 7 {
		t.Errorf("at first the daemon's own rates are shown: %+v", r)
	}
	v.take(topRules(12, "a", "b", "c"))
	if r := v.rows[0]; r.Rule != "c" || r.Matched != 30 || r.Errors != 8 || r.Delivered != 30 || r.Dropped != 0 || r.Gaps != 2 {
		t.Errorf("%+v", r)
	}
	if p := v.rows[0].P99; p <= engine.LatencyBound(4).Seconds() || p > engine.LatencyBound(5).Seconds() {
		t.Errorf("the latency of c is %v", p)
	}
	for key, want := range map[string]string{"m": "c b a", "e": "a b c", "d": "c b a", "l": "c b a", "q": "b a c", "g": "c b a", "n": "a b c", "x": "a b c"} {
		v.sortBy("n")
		if v.sortBy(key); names(v) != want {
			t.Errorf("by %s: %s, want %s", key, names(v), want)
		}
	}
	v.take(topRules(1, "a", "b")) // another daemon
	if len(v.rows) != 2 || v.rows[0].Matched != 7 {
		t.Errorf("%+v", v.rows)
	}
}

// topStreamSample is what a daemon says of so many streams, of which the last one
// can't be read, and one that no rule takes any more.
func topStreamSample(second, n int) (streams []adminStream) {
	lag := int64(second)
	for i := range n {
		streams = append(streams, adminStream{Stream: fmt.Sprint("s", i), Group: "g\x1b[2J", Wanted: true, Read: uint64(10 * second), Acknowledged: uint64(5 * second), Held: i, Lag: &lag})
	}
	streams[n-1].Error, streams[n-1].Lag = "NOPERM\nfor you", nil
	return append(streams, adminStream{Stream: "left", Group: "g"})
}

// Streams are shown with what is before their groups, and why they can't be read.
func TestTopStreams(t *testing.T) {
	v := &topStreams{}
	v.take(topStreamSample(10, 2), time.Unix(10, 0))
	v.take(topStreamSample(12, 2), time.Unix(12, 0))
	want := []string{
		"  READ/s  ACKNOWLEDGED/s  HELD  PENDING  LAG  STREAM",
		"      10             5.0     0        -   12  s0 in group g\\x1b[2J",
		"      10             5.0     1        -    -  s1 in group g\\x1b[2J: can't be read: NOPERM\\nfor you",
	}
	if got := v.lines(10); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := v.lines(2); !slices.Equal(got, []string{"  READ/s  ACKNOWLEDGED/s  HELD  PENDING  LAG  STREAM", "and 2 more"}) {
		t.Errorf("in two lines: %q", got)
	}
	v.take(topStreamSample(1, 2), time.Unix(13, 0)) // another daemon
	if r := v.rows[0]; r.Read != 0 || r.Acknowledged != 0 {
		t.Errorf("%+v", r)
	}
}

// Whatever its size, the view fits, and nothing that a message says moves the
// cursor.
func TestTopFits(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("rule-%02d-with-a-long-name-\x1b[2J", i))
	}
	for _, colour := range []bool{true, false} {
		v := &topView{sorted: topColumnNamed("name"), styles: newViewStyles(colour), title: "http://localhost:1"}
		for second := range 2 {
			sample := topRules(1+second, many...)
			sample.streams = topStreamSample(second, 30)
			v.take(sample)
		}
		for _, tapped := range []bool{false, true} {
			if tapped {
				v.openTap(many[50])
				text := "\x1b[31m" + strings.Repeat("long ", 100)
				for range 200 {
					v.tapped(adminTapped{Outcome: engine.TapFailed, Channel: "in\n", Payload: &text, Bytes: len(text), Error: "a\nb", Skipped: 3})
				}
				if len(v.feed) != topFeed {
					t.Errorf("%d messages are remembered", len(v.feed))
				}
			}
			for _, size := range [][2]int{{20, 5}, {80, 24}, {200, 60}, {1, 1}} {
				v.width, v.height = size[0], size[1]
				picture := v.String()
				lines := strings.Split(picture, "\n")
				if len(lines) > v.height {
					t.Errorf("%v: %d lines", size, len(lines))
				}
				for _, line := range lines {
					if ansi.StringWidth(line) > v.width {
						t.Errorf("%v: %q is too wide", size, line)
					}
				}
				if rest := regexp.MustCompile(`\x1b\[[\d;]*m`).ReplaceAllString(picture, ""); strings.ContainsAny(rest, "\x1b\r") {
					t.Errorf("%v: control characters in %q", size, rest)
				}
				if !colour && regexp.MustCompile(`\x1b\[[\d;]*(3|4|9|10)\d`).MatchString(picture) {
					t.Errorf("%v: colour in %q", size, picture)
				}
			}
		}
		v.width, v.height = 100, 20
		if v.closeTap(); strings.Contains(v.String(), "last messages") {
			t.Error("the tap is still shown")
		}
		v.move(-1000)
		for range 99 {
			v.move(1)
		}
		if rule, ok := v.chosen(); !ok || rule != many[99] || !strings.Contains(v.String(), "rule-99") {
			t.Errorf("%q is chosen\n%s", rule, v.String())
		}
	}
}

// A terminal is what a program draws on, and the keys that are typed.
type terminal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *terminal) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(ansi.Strip(s.text.String()), text)
}

// The whole program, at a real daemon.
func TestTopOnATerminal(t *testing.T) {
	d, url := newAdminDaemon(t, "rules:\n  first: {from: in, when: data > 1, to: v1}\n  second: {from: in, to: v2}\n")
	client := &adminClient{base: url, token: testToken, http: &http.Client{}}
	view := &topView{title: url, interval: 50 * time.Millisecond, sorted: topColumnNamed("name"), styles: newViewStyles(true)}
	view.take(topSample{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	keys, typed := io.Pipe()
	screen := &terminal{}
	program := tea.NewProgram(&topProgram{ctx: ctx, client: client, view: view}, tea.WithContext(ctx), tea.WithInput(keys),
		tea.WithOutput(screen), tea.WithWindowSize(120, 30), tea.WithoutSignals(), tea.WithEnvironment([]string{"TERM=xterm"}))
	ended := make(chan error, 1)
	go func() { // ends with Ctrl-C, or ctx
		_, err := program.Run()
		ended <- err
	}()
	press := func(key string) {
		t.Helper()
		if _, err := io.WriteString(typed, key); err != nil {
			t.Fatal(err)
		}
	}
	waitUntil(t, "rules are shown", func() bool { return screen.has("second") })
	press("j")
	press("\r")
	waitUntil(t, "the tap is open", func() bool {
		return getJSON[adminStatus](t, request{url: url + "/api/v1/status"}).Taps == 1
	})
	d.must(d.rdb.Publish(t.Context(), "in", "12345").Err())
	waitUntil(t, "a message is shown", func() bool { return screen.has("last messages of second") && screen.has("12345") })
	press("k")
	press("\r")
	waitUntil(t, "the other tap is open", func() bool {
		return getJSON[adminStatus](t, request{url: url + "/api/v1/status"}).Taps == 2
	})
	d.must(d.rdb.Publish(t.Context(), "in", `"no number"`).Err())
	waitUntil(t, "its message is shown", func() bool { return screen.has("is a string") })
	press("\x03")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
