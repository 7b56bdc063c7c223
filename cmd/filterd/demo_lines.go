package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/urfave/cli/v2"
)

// newDemoDisplay chooses how to show the demo: on a terminal it draws, elsewhere
// it writes lines.
func newDemoDisplay(c *cli.Context, run *demoRun, quit func()) (demoDisplay, error) {
	if asJSON(c) {
		return demoJSON{c.App.Writer}, nil
	}
	out, ok := c.App.Writer.(*os.File)
	if !ok || !term.IsTerminal(out.Fd()) || os.Getenv("TERM") == "dumb" {
		return demoLines{c.App.Writer}, nil
	}
	in, _ := c.App.Reader.(*os.File)
	s, err := openScreen(in, out, quit)
	if err != nil {
		return nil, err
	}
	view := &demoView{stats: run.stats, styles: newViewStyles(os.Getenv("NO_COLOR") == "")}
	return &demoScreen{screen: s, view: view}, nil
}

// demoJSON writes a JSON object for each event.
type demoJSON struct{ w io.Writer }

func (d demoJSON) event(e demoEvent) error { return printJSON(d.w, e) }
func (d demoJSON) refresh() error          { return nil }
func (d demoJSON) close()                  {}

// demoLines writes a line for each event.
type demoLines struct{ w io.Writer }

func (d demoLines) refresh() error { return nil }
func (d demoLines) close()         {}

func (d demoLines) event(e demoEvent) error {
	var text string
	switch {
	case e.Start != nil:
		text = e.Start.text()
	case e.Summary != nil:
		text = e.Summary.text()
	default:
		text = fmt.Sprintf("%s %s %s", e.Time.Format("15:04:05.000"), e.mark(), e.headline())
		if detail := e.detail(); detail != "" {
			text += "  " + detail
		}
		text += "\n"
	}
	_, err := io.WriteString(d.w, text)
	return err
}

// mark is one character that says how it went.
func (e demoEvent) mark() string {
	switch e.Event {
	case demoPublished:
		return "▶"
	case demoMatched, demoLogged:
		return "✓"
	case demoNote:
		return "!"
	}
	return "✗"
}

func (s *demoStart) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "broker: %s at %s\n", s.Broker, s.URL)
	for _, r := range s.Rules {
		fmt.Fprintf(&b, "rule %s: from %s, %s, to %s\n", r.Name, strings.Join(r.From, ", "), r.condition(), r.To)
	}
	for _, try := range s.Try {
		fmt.Fprintf(&b, "try: %s\n", try)
	}
	return b.String()
}

func (r demoRule) condition() string {
	if r.When == "" {
		return "all messages"
	}
	return "when " + oneLine(r.When)
}

func (t *demoTotals) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "in %v: %s in, %d matched, %d rejected, %s, %d not sent\n", time.Duration(t.Seconds*float64(time.Second)).Round(100*time.Millisecond),
		count(int(t.Received), "message"), t.Matched, t.Rejected, count(int(t.Failed), "rule error"), t.Refused)
	for _, r := range t.Rules {
		fmt.Fprintf(&b, "  %-12s seen %-6d matched %-6d errors %d\n", r.Name, r.Seen, r.Matched, r.Errors)
	}
	return b.String()
}
