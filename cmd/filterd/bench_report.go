package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/internal/measure"
)

// A benchReport is what bench prints.
type benchReport struct {
	OK      bool   `json:"ok"`
	Config  string `json:"config"`
	Redis   string `json:"redis"`
	Rules   int    `json:"rules"`
	Samples int    `json:"samples"`
	From    string `json:"messages,omitempty"` // the file of the samples
	// Saturation is missing with --rate, AtRate where nothing goes to a
	// channel.
	Saturation *benchPhase `json:"saturation,omitempty"`
	AtRate     *benchPhase `json:"at_rate,omitempty"`
	Lost       uint64      `json:"lost"`
	Losses     []string    `json:"losses"` // in words
	Notes      []string    `json:"notes"`
}

// A benchPhase is what one way of publishing has shown.
type benchPhase struct {
	Rounds int     `json:"rounds"`
	Rate   float64 `json:"rate,omitempty"` // messages per second; 0 is as many as possible
	// Relays has filterd, and raw where it is measured, each with the
	// medians of all rounds.
	Relays map[string]*benchFigures `json:"relays"`
	// Ratios are filterd's figures to those of raw in the same round.
	Ratios map[string]benchRatio `json:"ratios,omitempty"`

	runs map[string][]benchResult
}

// benchFigures are the figures of one relay. Pointers are nil where the system
// does not tell, or nothing was to be measured.
type benchFigures struct {
	// Of all rounds, without the messages that warm a relay up.
	Published uint64  `json:"published"`
	Matched   uint64  `json:"matched"`
	Out       uint64  `json:"out"` // what came out of them
	Rate      float64 `json:"messages_per_second"`
	CPU       float64 `json:"cpu_us_per_message"`
	RedisCPU  float64 `json:"redis_cpu_us_per_message"`
	Behind    float64 `json:"published_late_us,omitempty"` // at worst
	P50       float64 `json:"p50_us,omitempty"`
	P99       float64 `json:"p99_us,omitempty"`
	P999      float64 `json:"p999_us,omitempty"`
	Most      float64 `json:"max_us,omitempty"`
	// Bytes; resident memory is after the first messages, at the end, and
	// at most.
	ResidentBegin int64  `json:"resident_begin,omitempty"`
	ResidentEnd   int64  `json:"resident_end,omitempty"`
	ResidentPeak  int64  `json:"resident_peak,omitempty"`
	HeapBegin     uint64 `json:"heap_begin,omitempty"`
	HeapEnd       uint64 `json:"heap_end,omitempty"`
	// Allocations of filterd for a message, its start and end left out.
	Allocations *float64 `json:"allocations_per_message,omitempty"`
}

// A benchRatio is of all rounds.
type benchRatio struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

type benchResult struct {
	*measure.Result
	said *measure.Report
}

// lose reports what a run has lost, and whether it had the rate it should have.
func (r *benchReport) lose(name string, rate float64, result *measure.Result, said *measure.Report, e *expectation) {
	var reasons []string
	lost := result.Lost()
	if name == "filterd" {
		if said.Received < result.Published && len(said.Heap) > 1 { // it has ended as it should
			lost = max(lost, result.Published-said.Received)
		}
		reasons = append(reasons, said.Losses...)
		for _, rule := range said.Dropped {
			dropped := said.Rules[rule].Dropped
			if e.stages[rule] {
				lost = max(lost, dropped)
				reasons = append(reasons, fmt.Sprintf("%d gave way in the queue of rule %s, whose module is slower than they came", dropped, oneLine(rule)))
			} else if note := fmt.Sprintf("rule %s: some gave way in the queue for the log, as they would by day", oneLine(rule)); !slices.Contains(r.Notes, note) {
				r.Notes = append(r.Notes, note)
			}
		}
	}
	// What was published late now and then is in the latencies; this is more.
	note := fmt.Sprintf("no %s messages/s could be published: what is measured is the load that could", grouped(int64(rate)))
	if result.Behind > max(100*time.Millisecond, result.Elapsed/10) && !slices.Contains(r.Notes, note) {
		r.Notes = append(r.Notes, note)
	}
	if extra := result.Extra(); extra > 0 {
		reasons = append(reasons, fmt.Sprintf("%d more came out than expected: does somebody else publish there?", extra))
	}
	if lost > 0 && len(reasons) == 0 {
		reasons = []string{"filterd does not know of it"}
	}
	r.Lost += lost
	if len(reasons) == 0 {
		return
	}
	text := fmt.Sprintf("%s lost %d of %d messages", name, lost, result.Published)
	for _, channel := range slices.Sorted(maps.Keys(result.Channels)) {
		if a := result.Channels[channel]; a.Exact && a.Arrived != a.Expected {
			text += fmt.Sprintf(", %s got %d of %d", oneLine(channel), a.Arrived, a.Expected)
		}
	}
	r.Losses = append(r.Losses, text+": "+strings.Join(reasons, ", "))
}

// sum makes figures of the runs.
func (p *benchPhase) sum(relays []benchRelay) {
	p.Relays = make(map[string]*benchFigures)
	for _, r := range relays {
		runs := p.runs[r.name]
		f := &benchFigures{
			Rate:     middle(runs, benchResult.Rate),
			CPU:      middle(runs, func(r benchResult) float64 { return micros(r.Each(r.CPU)) }),
			RedisCPU: middle(runs, func(r benchResult) float64 { return micros(r.Each(r.RedisCPU)) }),
			Behind:   middle(runs, func(r benchResult) float64 { return micros(r.Behind) }),
		}
		for _, run := range runs {
			f.Published += run.Messages
			f.Matched += run.Matched
			f.Out += run.Out
			f.ResidentPeak = max(f.ResidentPeak, run.Memory.Peak)
		}
		if runs[0].Latency != nil && runs[0].Latency.Count() > 0 {
			f.P50, f.P99, f.P999 = middle(runs, quantile(0.5)), middle(runs, quantile(0.99)), middle(runs, quantile(0.999))
			f.Most = middle(runs, func(r benchResult) float64 { return micros(r.Latency.Max()) })
		}
		last := runs[len(runs)-1]
		f.ResidentBegin, f.ResidentEnd = last.Memory.Begin, last.Memory.End
		if heap := last.said.Heap; len(heap) > 1 {
			f.HeapBegin, f.HeapEnd = heap[0], heap[1]
			each := middle(runs, func(r benchResult) float64 {
				return float64(r.said.Allocations[1]-r.said.Allocations[0]) / float64(r.Published)
			})
			f.Allocations = &each
		}
		p.Relays[r.name] = f
	}
	if len(relays) < 2 {
		return
	}
	p.Ratios = make(map[string]benchRatio)
	for name, figure := range map[string]func(benchResult) float64{
		"messages_per_second":      benchResult.Rate,
		"cpu_us_per_message":       func(r benchResult) float64 { return float64(r.Each(r.CPU)) },
		"redis_cpu_us_per_message": func(r benchResult) float64 { return float64(r.Each(r.RedisCPU)) },
		"p50_us":                   quantile(0.5),
		"p99_us":                   quantile(0.99),
		"p999_us":                  quantile(0.999),
	} {
		if figure(p.runs["raw"][0]) > 0 {
			p.Ratios[name] = ratio(p.runs["filterd"], p.runs["raw"], figure)
		}
	}
}

func quantile(part float64) func(benchResult) float64 {
	return func(r benchResult) float64 {
		if r.Latency == nil {
			return 0
		}
		return micros(r.Latency.Quantile(part))
	}
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func middle(runs []benchResult, figure func(benchResult) float64) float64 {
	figures := make([]float64, len(runs))
	for i, r := range runs {
		figures[i] = figure(r)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

func ratio(ours, others []benchResult, figure func(benchResult) float64) benchRatio {
	var ratios []float64
	for i := range ours {
		ratios = append(ratios, figure(ours[i])/figure(others[i]))
	}
	slices.Sort(ratios)
	return benchRatio{ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1]}
}

// print writes the report for people.
func (r *benchReport) print(w io.Writer) error {
	var b strings.Builder
	from := "of the tests beside them that deliver or drop"
	if r.From != "" {
		from = "of " + r.From
	}
	fmt.Fprintf(&b, "%s: %s, %s %s; %s\n", oneLine(r.Config), count(r.Rules, "rule"), count(r.Samples, "message"), oneLine(from), oneLine(r.Redis))
	if p := r.Saturation; p != nil {
		b.WriteString("\nas fast as possible\n")
		p.print(&b)
	}
	if p := r.AtRate; p != nil {
		fmt.Fprintf(&b, "\nat %s messages/s", grouped(int64(p.Rate)))
		if r.Saturation != nil {
			b.WriteString(", a tenth of that")
		}
		b.WriteString("\n")
		p.print(&b)
	}
	if r.Lost == 0 && r.OK {
		b.WriteString("\nnothing was lost\n")
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// print writes a table, with the baseline and the ratios beside it, if any.
func (p *benchPhase) print(b *strings.Builder) {
	ours, raw := p.Relays["filterd"], p.Relays["raw"]
	if raw != nil {
		fmt.Fprintf(b, "  %-26s %12s %12s   filterd/raw, %d rounds\n", "", "filterd", "raw", p.Rounds)
	}
	row := func(label, format string, key string, figure func(*benchFigures) float64) {
		if format != "" && figure(ours) == 0 && (raw == nil || figure(raw) == 0) {
			return // not told here
		}
		text := func(f *benchFigures) string {
			if format == "" {
				return grouped(int64(figure(f)))
			}
			return fmt.Sprintf(format, figure(f))
		}
		fmt.Fprintf(b, "  %-26s %12s", label, text(ours))
		if raw != nil {
			other := text(raw)
			if format != "" && figure(raw) == 0 {
				other = ""
			}
			fmt.Fprintf(b, " %12s", other)
			if ratio, ok := p.Ratios[key]; ok {
				fmt.Fprintf(b, "   %.2f (%.2f to %.2f)", ratio.Median, ratio.Least, ratio.Most)
			}
		}
		b.WriteString("\n")
	}
	const mib = 1 << 20
	row("messages/s", "", "messages_per_second", func(f *benchFigures) float64 { return f.Rate })
	row("CPU µs a message", "%.2f", "cpu_us_per_message", func(f *benchFigures) float64 { return f.CPU })
	row("Redis' CPU µs a message", "%.2f", "redis_cpu_us_per_message", func(f *benchFigures) float64 { return f.RedisCPU })
	row("latency p50, µs", "%.0f", "p50_us", func(f *benchFigures) float64 { return f.P50 })
	row("        p99", "%.0f", "p99_us", func(f *benchFigures) float64 { return f.P99 })
	row("        p99.9", "%.0f", "p999_us", func(f *benchFigures) float64 { return f.P999 })
	row("        max", "%.0f", "", func(f *benchFigures) float64 { return f.Most })
	row("published late by, max µs", "%.0f", "", func(f *benchFigures) float64 { return f.Behind })
	row("resident MiB, begin", "%.1f", "", func(f *benchFigures) float64 { return float64(f.ResidentBegin) / mib })
	row("              end", "%.1f", "", func(f *benchFigures) float64 { return float64(f.ResidentEnd) / mib })
	row("              most", "%.1f", "", func(f *benchFigures) float64 { return float64(f.ResidentPeak) / mib })
	row("heap MiB, begin", "%.1f", "", func(f *benchFigures) float64 { return float64(f.HeapBegin) / mib })
	row("          end", "%.1f", "", func(f *benchFigures) float64 { return float64(f.HeapEnd) / mib })
	row("allocations a message", "%.3f", "", func(f *benchFigures) float64 {
		if f.Allocations == nil {
			return 0
		}
		return *f.Allocations
	})
	row("published", "", "", func(f *benchFigures) float64 { return float64(f.Published) })
	row("matched", "", "", func(f *benchFigures) float64 { return float64(f.Matched) })
	row("came out", "", "", func(f *benchFigures) float64 { return float64(f.Out) })
}

// A benchBar is the progress bar, on a terminal only.
type benchBar struct {
	bar           *progressbar.ProgressBar // nil elsewhere
	phase, phases int
}

// barSteps is how many steps the whole bar has.
const barSteps = 1000

func newBenchBar(c *cli.Context) *benchBar {
	if f, ok := c.App.ErrWriter.(*os.File); !ok || !term.IsTerminal(f.Fd()) || asJSON(c) {
		return &benchBar{}
	}
	return &benchBar{bar: progressbar.NewOptions(barSteps, progressbar.OptionSetWriter(c.App.ErrWriter), progressbar.OptionSetWidth(30),
		progressbar.OptionSetElapsedTime(false), progressbar.OptionClearOnFinish())}
}

// set says what is done of a phase.
func (b *benchBar) set(relay string, rate float64, part float64) {
	if b.bar == nil {
		return
	}
	what := "as fast as possible"
	if rate > 0 {
		what = grouped(int64(rate)) + " messages/s"
	}
	b.bar.Describe(fmt.Sprintf("%-7s %s", relay, what))
	_ = b.bar.Set(int((float64(b.phase) + part) / float64(b.phases) * (barSteps - 1)))
}

// close takes the bar off the terminal.
func (b *benchBar) close() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
