package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "say how a running daemon is",
		Description: "The daemon is that of the config file's section server, or of --admin. The exit code is 1 if it is not ready,\n" +
			"and 3 if it does not answer. With --output json it is what /api/v1/status answers.",
		Flags:  append(adminFlags(), outputFlag()),
		Action: status,
	}
}

func status(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	client, err := newAdminClient(c)
	if err != nil {
		return err
	}
	var s adminStatus
	if err := client.get(c.Context, "/api/v1/status", &s); err != nil {
		return err
	}
	if asJSON(c) {
		err = printJSON(c.App.Writer, s)
	} else {
		_, err = io.WriteString(c.App.Writer, s.text())
	}
	if err == nil && !s.Ready {
		return &exitError{code: exitFailed}
	}
	return err
}

// text shows the state to people.
func (s *adminStatus) text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", name, oneLine(fmt.Sprintf(format, args...)))
	}
	if s.Ready {
		line("ready", "yes")
	}
	for _, reason := range s.Reasons {
		line("NOT READY", "%s", reason)
	}
	if ha := s.HA; ha != nil {
		switch {
		case ha.Role == "leader":
			line("ha", "leader of group %s, fence %d", ha.Group, ha.Fence)
		case ha.Leader != "":
			line("ha", "standby in group %s, for %s", ha.Group, ha.Leader)
		default:
			line("ha", "standby in group %s, which has no leader", ha.Group)
		}
	}
	line("running for", "%s", span(s.Uptime))
	line("version", "%s", s.Version)
	line("config", "%s", s.Config)
	line("generation", "%d: %s, %s refused", s.Generation, count(int(s.Reloads), "reload"), counted(s.RefusedReloads))
	line("rules", "%d, of which %d are evaluated for every message", s.Rules, s.Linear)
	if r := s.LastRefusal; r != nil {
		line("last refusal", "%s: %s", r.Time.Local().Format(time.DateTime), r.Error)
		for _, p := range r.Problems[:min(len(r.Problems), maxShown)] {
			p.Excerpt = "" // the file may be another one by now
			line("", "%s", p.String())
		}
		if more := len(r.Problems) - maxShown; more > 0 {
			line("", "and %d more", more)
		}
	}
	for _, ch := range s.Channels {
		text := fmt.Sprintf("%s: %d received", ch.Channel, ch.Received)
		for _, reason := range filterd.Reasons {
			if n := ch.Invalid[reason]; n > 0 {
				text += fmt.Sprintf(", %d invalid (%s)", n, reason)
			}
		}
		if ch.Standby > 0 {
			text += fmt.Sprintf(", %d left to the leader", ch.Standby)
		}
		if ch.Lost > 0 {
			text += fmt.Sprintf(", %d LOST", ch.Lost)
		}
		line("channel", "%s", text)
	}
	for i := range s.Streams {
		line("stream", "%s", s.Streams[i].text())
	}
	for _, m := range s.Modules {
		text := fmt.Sprintf("%s: %d messages, %d errors", m.Module, m.Messages, m.Errors)
		for _, kind := range wasmfilter.FaultKinds {
			if n := m.Faults[kind]; n > 0 {
				text += fmt.Sprintf(", %d faults (%s)", n, kind)
			}
		}
		if m.Breaker != wasmfilter.BreakerClosed {
			text += fmt.Sprintf(", its breaker is %s: %d messages refused", strings.ReplaceAll(string(m.Breaker), "_", " "), m.Refused)
		}
		line("module", "%s", text)
	}
	line("dead letters", "%d, and %d lost", s.DeadLetters, s.DeadLettersLost)
	line("gaps", "%s", gapText(s.Gaps, s.GapTime))
	return b.String()
}

// text is a line about a stream.
func (s *adminStream) text() string {
	text := fmt.Sprintf("%s in group %s as %s: %d read, %d redelivered, %d acknowledged, %d held", s.Stream, s.Group, s.Consumer,
		s.Read, s.Redelivered, s.Acknowledged, s.Held)
	switch {
	case s.BacklogError != "":
		text += "; pending and lag unknown: " + s.BacklogError
	case s.Pending != nil && s.Lag != nil:
		text += fmt.Sprintf(", %d pending, lag %d", *s.Pending, *s.Lag)
	case s.Pending != nil:
		text += fmt.Sprintf(", %d pending, lag unknown", *s.Pending)
	}
	for _, part := range []struct {
		what string
		n    uint64
	}{{"malformed", s.Malformed}, {"poison", s.Poison}, {"LOST (trimmed)", s.Trimmed}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	switch {
	case s.Error != "":
		text += "; CAN'T BE READ"
	case !s.Wanted:
		text += "; no rule takes it any more"
	}
	return text
}

func gapText(n uint64, seconds float64) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("%d, %s in all: filterd gaps", n, span(seconds))
}

func counted(n uint64) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// span writes seconds as people read them.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(100 * time.Nanosecond).String()
	}
}

func gapsCommand() *cli.Command {
	return &cli.Command{
		Name:  "gaps",
		Usage: "list what a running daemon may have missed",
		Description: "A gap is a span in which messages may have been missed. Where events are stamped, it is known how many, and\n" +
			"whose. The last 256 are listed, the oldest first. The exit code is 3 if the daemon does not answer.",
		Flags:  append(adminFlags(), outputFlag()),
		Action: gaps,
	}
}

func gaps(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	client, err := newAdminClient(c)
	if err != nil {
		return err
	}
	var g adminGaps
	if err := client.get(c.Context, "/api/v1/gaps", &g); err != nil {
		return err
	}
	if asJSON(c) {
		return printJSON(c.App.Writer, g)
	}
	_, err = io.WriteString(c.App.Writer, g.text())
	return err
}

// text shows gaps to people.
func (g *adminGaps) text() string {
	if len(g.Last) == 0 {
		return "no gaps\n"
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FROM\tLENGTH\tLOST\tCHANNELS\tREASON")
	for _, gap := range g.Last {
		lost, reason := "unknown", gap.Reason
		if gap.Lost > 0 {
			lost, reason = fmt.Sprint(gap.Lost), reason+": "+gap.Producer
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", gap.From.Local().Format(time.DateTime), span(gap.Length), lost,
			oneLine(strings.Join(shown(gap.Channels), " ")), oneLine(reason))
	}
	_ = table.Flush() // to memory
	b.WriteByte('\n')
	fmt.Fprintln(table, "CHANNEL\tGAPS\tTIME")
	for _, ch := range g.Channels {
		fmt.Fprintf(table, "%s\t%d\t%s\n", oneLine(ch.Channel), ch.Gaps, span(ch.Time))
	}
	_ = table.Flush()
	fmt.Fprintf(&b, "\nin all: %s of %s\n", count(int(g.Gaps), "gap"), span(g.Time))
	return b.String()
}
