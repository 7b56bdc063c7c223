package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/filterd/filterd/engine"
)

// A topRow is a rule over the last interval: messages in a second, and seconds.
type topRow struct {
	Rule      string  `json:"rule"`
	Matched   float64 `json:"matched"`
	Errors    float64 `json:"errors"`
	Delivered float64 `json:"delivered"`
	Dropped   float64 `json:"dropped"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	Queued    int     `json:"queued"`
	Gaps      uint64  `json:"gaps"` // since the daemon has started
	Linear    bool    `json:"linear"`
}

// A topColumn is what rows can be sorted by.
type topColumn struct {
	key, name string
	compare   func(a, b topRow) int // the most first
}

var topColumns = []*topColumn{
	{"m", "matched", func(a, b topRow) int { return cmp.Compare(b.Matched, a.Matched) }},
	{"e", "errors", func(a, b topRow) int { return cmp.Compare(b.Errors, a.Errors) }},
	{"d", "delivered", func(a, b topRow) int { return cmp.Compare(b.Delivered, a.Delivered) }},
	{"l", "latency", func(a, b topRow) int { return cmp.Compare(b.P99, a.P99) }},
	{"q", "queued", func(a, b topRow) int { return cmp.Compare(b.Queued, a.Queued) }},
	{"g", "gaps", func(a, b topRow) int { return cmp.Compare(b.Gaps, a.Gaps) }},
	{"n", "name", func(a, b topRow) int { return strings.Compare(a.Rule, b.Rule) }},
}

func topColumnNamed(name string) *topColumn {
	for _, column := range topColumns {
		if column.name == name {
			return column
		}
	}
	return nil
}

// topFeed is how many messages of a tap are remembered.
const topFeed = 100

// A topView turns what a daemon says into lines. It belongs to one goroutine.
type topView struct {
	title         string
	interval      time.Duration
	sorted        *topColumn
	styles        viewStyles
	width, height int

	last       *adminRules
	rows       []topRow
	streams    topStreams
	generation uint64
	at         string // the rule that is chosen; empty for the first
	fault      string // why there is nothing new

	tap      string   // the rule whose messages are shown; empty for none
	feed     []string // in lines of text, newest last
	skipped  uint64
	tapFault string
}

// take takes what the daemon says now.
func (v *topView) take(sample topSample) {
	now := &sample.rules
	v.streams.take(sample.streams, now.Time)
	before := make(map[string]*adminRule)
	seconds := 0.0
	if v.last != nil {
		seconds = now.Time.Sub(v.last.Time).Seconds()
		for i := range v.last.Rules {
			before[v.last.Rules[i].Name] = &v.last.Rules[i]
		}
	}
	v.rows = v.rows[:0]
	for i := range now.Rules {
		v.rows = append(v.rows, newTopRow(before[now.Rules[i].Name], &now.Rules[i], seconds))
	}
	v.last, v.generation = now, now.Generation
	v.sort()
}

// newTopRow compares a rule with what it was so many seconds ago. What it was
// is nil if nobody knows; then the row is of what the daemon says of the last
// seconds.
func newTopRow(before, now *adminRule, seconds float64) topRow {
	row := topRow{Rule: now.Name, Queued: now.Queued, Gaps: now.Gaps, Linear: now.Index.Linear}
	if before == nil || seconds <= 0 || now.Matched < before.Matched || now.Delivered < before.Delivered { // or the daemon is another one
		row.Matched, row.Errors, row.Delivered = now.Rates.Matched, now.Rates.Errors, now.Rates.Delivered
		row.P50, row.P99 = now.Latency.P50, now.Latency.P99
		return row
	}
	rate := func(now, before uint64) float64 { return float64(now-min(now, before)) / seconds }
	row.Matched = rate(now.Matched, before.Matched)
	row.Errors = rate(now.Errors, before.Errors)
	row.Delivered = rate(now.Delivered, before.Delivered)
	row.Dropped = rate(now.Dropped+now.Undelivered+now.Conflated, before.Dropped+before.Undelivered+before.Conflated)
	took := now.Latency.counted().Sub(before.Latency.counted())
	row.P50, row.P99 = took.Quantile(0.5).Seconds(), took.Quantile(0.99).Seconds()
	return row
}

// counted returns the latencies as the engine has counted them.
func (l *adminLatency) counted() (counted engine.Latency) {
	copy(counted.Buckets[:], l.Buckets)
	return counted
}

func (v *topView) sort() {
	slices.SortStableFunc(v.rows, func(a, b topRow) int { return cmp.Or(v.sorted.compare(a, b), strings.Compare(a.Rule, b.Rule)) })
}

// sortBy sorts by the column that has a key, if any has.
func (v *topView) sortBy(key string) {
	for _, column := range topColumns {
		if column.key == key {
			v.sorted = column
			v.sort()
		}
	}
}

// index returns where the chosen rule is.
func (v *topView) index() int {
	return max(0, slices.IndexFunc(v.rows, func(r topRow) bool { return r.Rule == v.at }))
}

// chosen returns the chosen rule.
func (v *topView) chosen() (string, bool) {
	if len(v.rows) == 0 {
		return "", false
	}
	return v.rows[v.index()].Rule, true
}

// move chooses another rule.
func (v *topView) move(by int) {
	if len(v.rows) > 0 {
		v.at = v.rows[min(max(0, v.index()+by), len(v.rows)-1)].Rule
	}
}

func (v *topView) openTap(rule string) {
	v.closeTap()
	v.tap, v.at = rule, rule
}

func (v *topView) closeTap() { v.tap, v.feed, v.skipped, v.tapFault = "", nil, 0, "" }

// tapped takes a line of the open tap.
func (v *topView) tapped(line adminTapped) {
	v.skipped = line.Skipped
	if line.Outcome == "" {
		return
	}
	v.feed = append(v.feed, strings.TrimSuffix(line.text(), "\n"))
	if len(v.feed) > topFeed {
		v.feed = slices.Delete(v.feed, 0, 1)
	}
}

// topTable writes rows as a table.
func topTable(rows []topRow) string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "MATCHED/s\tERRORS/s\tDELIVERED/s\tDROPPED/s\tP50\tP99\tQUEUED\tGAPS\t")
	for _, r := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t\n", rate(r.Matched), rate(r.Errors), rate(r.Delivered), rate(r.Dropped),
			latency(r.P50), latency(r.P99), r.Queued, r.Gaps)
	}
	_ = table.Flush() // to memory
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	b.Reset()
	fmt.Fprintf(&b, "%s  RULE\n", lines[0])
	for i, r := range rows {
		linear := ""
		if r.Linear {
			linear = " (evaluated for every message)"
		}
		fmt.Fprintf(&b, "%s  %s%s\n", lines[i+1], oneLine(r.Rule), linear)
	}
	return b.String()
}

// rate writes messages in a second.
func rate(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 10:
		return fmt.Sprintf("%.1f", n)
	default:
		return fmt.Sprintf("%.0f", n)
	}
}

// latency writes seconds, as exactly as it matters.
func latency(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < time.Second:
		return rate(float64(d)/float64(time.Millisecond)) + "ms"
	default:
		return rate(d.Seconds()) + "s"
	}
}

// String draws the view.
func (v *topView) String() string {
	width, height := cmp.Or(v.width, 80), cmp.Or(v.height, 24)
	head := fmt.Sprintf("%s  %s  generation %d  %s  sorted by %s", v.last.Time.Local().Format(time.TimeOnly), v.title, v.generation, count(len(v.rows), "rule"), v.sorted.name)
	lines := []string{v.styles.title.Render(head)}
	if v.fault != "" {
		lines = append(lines, v.styles.bad.Render(oneLine(v.fault)))
	}
	foot := []string{v.styles.faint.Render("m e d l q g n sort   ↑↓ choose   Enter messages   Esc close   Ctrl-C end")}
	if v.tap != "" {
		foot = append(v.tapLines(max(3, (height-4)/2)), foot...)
	}

	if streams := v.streams.lines(height / 3); streams != nil {
		streams[0] = v.styles.faint.Render(streams[0])
		for i := range v.streams.rows[:min(len(v.streams.rows), len(streams)-1)] {
			if v.streams.rows[i].Error != "" {
				streams[i+1] = v.styles.bad.Render(streams[i+1])
			}
		}
		foot = append(streams, foot...)
	}

	// What is left is for rules, around the chosen one.
	room := max(1, height-len(lines)-len(foot)-1)
	at := v.index()
	from := max(0, min(at-room/2, len(v.rows)-room))
	shown := v.rows[from:min(len(v.rows), from+room)]
	table := strings.Split(strings.TrimSuffix(topTable(shown), "\n"), "\n")
	lines = append(lines, v.styles.faint.Render(table[0]))
	for i, line := range table[1:] {
		switch r := shown[i]; {
		case from+i == at:
			line = v.styles.yours.Render(line)
		case r.Errors > 0 || r.Dropped > 0:
			line = v.styles.bad.Render(line)
		}
		lines = append(lines, line)
	}
	for len(lines)+len(foot) < height {
		lines = append(lines, "")
	}
	lines = append(lines, foot...)
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], width, "…")
	}
	return strings.Join(lines[:min(len(lines), height)], "\n")
}

// tapLines shows the last messages of the tapped rule in so many lines.
func (v *topView) tapLines(room int) []string {
	head := "last messages of " + oneLine(v.tap)
	if v.skipped > 0 {
		head += fmt.Sprintf(", without %d that came faster than they may be shown", v.skipped)
	}
	var lines []string
	for _, entry := range v.feed {
		lines = append(lines, strings.Split(entry, "\n")...)
	}
	switch {
	case v.tapFault != "":
		lines = append(lines, v.styles.bad.Render(oneLine(v.tapFault)))
	case len(lines) == 0:
		lines = append(lines, v.styles.faint.Render("none yet"))
	}
	lines = lines[max(0, len(lines)-(room-1)):]
	return append([]string{v.styles.name.Render(head)}, lines...)
}
