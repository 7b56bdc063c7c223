package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// A topStream is a stream in a group over the last interval: entries in a second.
type topStream struct {
	Stream       string  `json:"stream"`
	Group        string  `json:"group"`
	Read         float64 `json:"read"`
	Acknowledged float64 `json:"acknowledged"`
	Held         int     `json:"held"`
	Pending      *int64  `json:"pending,omitempty"`
	Lag          *int64  `json:"lag,omitempty"`
	Error        string  `json:"error,omitempty"`
}

// topStreams are what a daemon has said of its streams.
type topStreams struct {
	at   time.Time
	last []adminStream
	rows []topStream
}

// take takes what the daemon says at some time.
func (t *topStreams) take(now []adminStream, at time.Time) {
	seconds := at.Sub(t.at).Seconds()
	t.rows = nil
	for i := range now {
		s := &now[i]
		if !s.Wanted {
			continue
		}
		row := topStream{Stream: s.Stream, Group: s.Group, Held: s.Held, Pending: s.Pending, Lag: s.Lag, Error: s.Error}
		for j := range t.last {
			if before := &t.last[j]; before.Stream == s.Stream && before.Group == s.Group && s.Read >= before.Read && s.Acknowledged >= before.Acknowledged && seconds > 0 {
				row.Read = float64(s.Read-before.Read) / seconds
				row.Acknowledged = float64(s.Acknowledged-before.Acknowledged) / seconds
			}
		}
		t.rows = append(t.rows, row)
	}
	t.last, t.at = now, at
}

// lines writes them as a table, of at most so many lines; none if there are none.
func (t *topStreams) lines(most int) []string {
	if len(t.rows) == 0 || most < 2 {
		return nil
	}
	shown := t.rows[:min(len(t.rows), most-1)]
	if len(shown) < len(t.rows) {
		shown = shown[:len(shown)-1]
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "READ/s\tACKNOWLEDGED/s\tHELD\tPENDING\tLAG\t")
	for _, r := range shown {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t\n", rate(r.Read), rate(r.Acknowledged), r.Held, known(r.Pending), known(r.Lag))
	}
	_ = table.Flush() // to memory
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	lines[0] += "  STREAM"
	for i, r := range shown {
		lines[i+1] += "  " + oneLine(r.Stream+" in group "+r.Group)
		if r.Error != "" {
			lines[i+1] += oneLine(": can't be read: " + r.Error)
		}
	}
	if more := len(t.rows) - len(shown); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

func known(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}
