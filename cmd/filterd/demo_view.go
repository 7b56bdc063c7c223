package main

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/filterd/filterd/engine"
)

const (
	demoFeed    = 200 // events that the view remembers
	demoPinned  = 4   // of the user's events that stay in view
	demoFeedMin = 4   // lines of the feed before other things give way

	// demoPatience is after what time nothing more is expected of a message.
	demoPatience = 500 * time.Millisecond
)

// viewStyles are few and in the sixteen colours that every terminal has, as
// its owner likes them.
type viewStyles struct {
	title, faint, name, good, bad, warn, yours lipgloss.Style
}

func newViewStyles(colour bool) viewStyles {
	plain := lipgloss.NewStyle()
	s := viewStyles{title: plain.Bold(true), faint: plain.Faint(true), name: plain.Bold(true), good: plain, bad: plain.Bold(true), warn: plain, yours: plain.Reverse(true)}
	if colour {
		s.title = s.title.Foreground(lipgloss.Cyan)
		s.good = s.good.Foreground(lipgloss.Green)
		s.bad = plain.Foreground(lipgloss.Red)
		s.warn = s.warn.Foreground(lipgloss.Yellow)
		s.yours = plain.Bold(true).Foreground(lipgloss.Black).Background(lipgloss.Cyan)
	}
	return s
}

// A demoView turns what happened into lines of a given width. It belongs to
// one goroutine.
type demoView struct {
	stats  func() engine.Stats
	styles viewStyles

	start   *demoStart // nil until the demo runs
	began   time.Time
	refused int
	feed    []demoEvent // the last ones, newest last
	pinned  []demoEvent // the user's last message and what became of it
}

func (v *demoView) add(e demoEvent) {
	switch {
	case e.Start != nil:
		v.start, v.began = e.Start, e.Time
		return
	case e.Summary != nil:
		return
	case e.Event == demoRefused:
		v.refused++
	}
	if len(v.feed) == demoFeed {
		v.feed = append(v.feed[:0], v.feed[demoFeed/2:]...)
	}
	v.feed = append(v.feed, e)
	if e.Yours {
		if e.Event == demoPublished {
			v.pinned = nil
		}
		if len(v.pinned) < demoPinned {
			v.pinned = append(v.pinned, e)
		}
	}
}

// A block is some lines that stay together. When there is no room, those of
// the lowest rank go first; rank 0 stays.
type block struct {
	rank  int
	lines []string
}

// lines draws everything: at most height lines of at most width cells.
func (v *demoView) lines(width, height int, now time.Time) []string {
	if v.start == nil {
		return []string{ansi.Truncate(v.styles.title.Render(" filterd demo")+" starting…", width, "…")}
	}
	stats := v.stats()
	blank := func(rank int) block { return block{rank, []string{""}} }
	const feed = 6 // the feed's place in blocks
	blocks := []block{
		{0, []string{v.titleLine(width, now)}},
		{4, []string{v.channelLine(stats)}},
		blank(2),
		{5, []string{v.ruleHeading(width)}},
		{9, v.ruleLines(stats, width, width >= 66 && height >= 32)},
		blank(3),
		{0, nil}, // the feed
		{0, v.pinnedLines(width, now)},
		blank(1),
	}
	for i, try := range v.start.Try {
		rank := [...]int{8, 1, 6, 7}[min(i, 3)]
		if strings.HasPrefix(try, "filterd publish") {
			rank = 8 // there is no redis-cli
		}
		blocks = append(blocks, block{rank, v.tryLines(i, try, width)})
	}
	room := func() int {
		left := height
		for _, b := range blocks {
			left -= len(b.lines)
		}
		return left
	}
	for rank := 1; rank < 10 && room() < demoFeedMin; rank++ {
		for i := range blocks {
			if blocks[i].rank == rank && room() < demoFeedMin {
				blocks[i].lines = nil
			}
		}
	}
	blocks[feed].lines = v.feedLines(width, max(0, room()))

	var lines []string
	for _, b := range blocks {
		for _, line := range b.lines {
			lines = append(lines, ansi.Truncate(line, width, "…"))
		}
	}
	return lines[:min(len(lines), height)]
}

func (v *demoView) titleLine(width int, now time.Time) string {
	left := " " + v.styles.title.Render("filterd demo") + "  " + oneLine(v.start.Broker)
	addr := strings.TrimPrefix(v.start.URL, "redis://")
	right := clock(now.Sub(v.began))
	if v.start.Limit > 0 {
		right += " of " + clock(v.start.Limit)
	}
	right += "  q quits "
	for _, at := range []string{" at " + addr, " port " + addr[strings.LastIndex(addr, ":")+1:]} {
		if gap := width - lipgloss.Width(left+at+right); gap > 0 {
			return left + at + strings.Repeat(" ", gap) + v.styles.faint.Render(right)
		}
	}
	return left + " at " + addr
}

func clock(d time.Duration) string {
	s := int(max(0, d).Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// channelLine counts what came in.
func (v *demoView) channelLine(s engine.Stats) string {
	var parts []string
	seen := make(map[string]bool)
	for _, rule := range v.start.Rules {
		for _, from := range rule.From {
			if seen[from] {
				continue
			}
			seen[from] = true
			text := fmt.Sprintf("%s %d", from, s.Channels[from].Received)
			if n := invalidCount(s.Channels[from]); n > 0 {
				text += " " + v.styles.bad.Render(fmt.Sprintf("✗%d", n))
			}
			parts = append(parts, text)
		}
	}
	if v.refused > 0 {
		parts = append(parts, v.styles.warn.Render(fmt.Sprintf("not sent %d", v.refused)))
	}
	return " " + strings.Join(parts, v.styles.faint.Render(" · "))
}

// Columns of the rules' lines.
const (
	ruleName     = 11
	ruleKeeps    = 64 // at most
	ruleCounters = 20
)

// keepsWidth is the width of the column with a rule's expression.
func keepsWidth(width int) int { return max(0, min(ruleKeeps, width-ruleName-ruleCounters-2)) }

func (v *demoView) ruleHeading(width int) string {
	return v.styles.faint.Render(" " + pad("rule", ruleName) + pad("keeps", keepsWidth(width)) + "  seen matched errors")
}

// ruleLines shows each rule with its expression and counters, on one line or
// on two.
func (v *demoView) ruleLines(s engine.Stats, width int, two bool) []string {
	var lines []string
	for _, r := range v.start.Rules {
		stats := s.Rules[r.Name]
		matched, errors := fmt.Sprintf("%8s", compact(stats.Matched)), fmt.Sprintf("%7s", compact(stats.Errors))
		if stats.Matched > 0 {
			matched = v.styles.good.Render(matched)
		}
		if stats.Errors > 0 {
			errors = v.styles.bad.Render(errors)
		}
		counters := fmt.Sprintf("%5s", compact(seenCount(s, r.From))) + matched + errors
		middle, below := r.When, ""
		if r.When == "" {
			middle = "every message"
		}
		middle = oneLine(middle)
		if two {
			below = strings.Repeat(" ", ruleName+1) + v.styles.faint.Render(oneLine(strings.Join(r.From, ", ")+" → "+r.To))
		} else {
			middle += v.styles.faint.Render(oneLine(" → " + r.To))
		}
		line := " " + v.styles.name.Render(pad(r.Name, ruleName-1)) + " " + pad(middle, keepsWidth(width)) + " " + counters
		lines = append(lines, line)
		if two {
			lines = append(lines, below)
		}
	}
	return lines
}

// compact writes a number in at most five characters, as long as the demo may
// run.
func compact(n uint64) string {
	switch {
	case n < 100_000:
		return fmt.Sprint(n)
	case n < 10_000_000:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprintf("%dM", n/1_000_000)
}

// pad makes a text as wide as a column, whatever it takes.
func pad(text string, width int) string {
	text = ansi.Truncate(text, width, "…")
	return text + strings.Repeat(" ", max(0, width-lipgloss.Width(text)))
}

// feedLines shows the last events, the newest below.
func (v *demoView) feedLines(width, height int) []string {
	events := v.feed[max(0, len(v.feed)-height):]
	lines := make([]string, 0, height)
	for _, e := range events {
		lines = append(lines, v.eventLine(e, width))
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines
}

func (v *demoView) eventLine(e demoEvent, width int) string {
	at := ""
	if width >= 100 {
		at = v.styles.faint.Render(e.Time.Format("15:04:05")) + " "
	}
	headline, detail := e.headline(), e.detail()
	if e.Yours {
		text := " " + e.mark() + " " + headline + "  " + detail
		return " " + at + v.styles.yours.Render(pad(strings.TrimPrefix(text, " "), max(0, width-2-lipgloss.Width(at))))
	}
	mark, style := e.mark(), v.styles.bad
	switch e.Event {
	case demoMatched, demoLogged:
		style = v.styles.good
	case demoRefused, demoNote:
		style = v.styles.warn
	}
	if e.Reason == "" {
		detail = v.styles.faint.Render(detail)
	} else if excerpt := e.excerpt(); excerpt != "" && e.Event != demoNote {
		detail = oneLine(e.Reason) + v.styles.faint.Render("  ← "+excerpt)
	}
	return " " + at + style.Render(mark+" "+headline) + "  " + detail
}

// pinnedLines shows what became of the user's last message, until there is
// another: the feed moves on.
func (v *demoView) pinnedLines(width int, now time.Time) []string {
	if len(v.pinned) == 0 {
		return nil
	}
	lines := []string{v.styles.faint.Render(" your last message")}
	for _, e := range v.pinned {
		lines = append(lines, v.eventLine(e, width))
	}
	if e := v.pinned[0]; len(v.pinned) == 1 && e.Event == demoPublished && e.Reason == "" && now.Sub(e.Time) > demoPatience {
		lines = append(lines, " · no rule kept it")
	}
	return lines
}

// tryLines shows a command so that it can be copied, also where it takes two
// lines: it breaks where a shell doesn't mind.
func (v *demoView) tryLines(i int, command string, width int) []string {
	var lines []string
	if i == 0 {
		lines = append(lines, v.styles.faint.Render(" try in another terminal"))
	}
	for _, line := range breakCommand(command, width-1) {
		lines = append(lines, " "+line)
	}
	return lines
}

// breakCommand breaks a shell command that is wider than width behind && or
// before its last quoted argument. One that can't be broken stays whole.
func breakCommand(command string, width int) []string {
	if lipgloss.Width(command) <= width {
		return []string{command}
	}
	if left, right, ok := strings.Cut(command, " && "); ok {
		return []string{left + " &&", right}
	}
	if at := strings.Index(command, " '"); at >= 0 {
		return []string{command[:at] + ` \`, command[at+1:]}
	}
	return []string{command}
}
