package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"
	"github.com/urfave/cli/v2"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name:  "top",
		Usage: "show the rules of a running daemon at work",
		Description: "The keys m, e, d, l, q, g and n sort by matches, errors, deliveries, latency, queue, gaps and name; up and down\n" +
			"choose a rule, Enter shows the last messages that it kept or failed on (this takes the token), Esc closes them,\n" +
			"Ctrl-C ends it. Latencies are from when a message was received until it was delivered.\n\n" +
			"Where standard output is no terminal, one table is printed for each interval, and with --output json one line.\n" +
			"The daemon is that of the config file's section server, or of --admin. The exit code is 3 if it does not answer.",
		Flags: append(adminFlags(),
			&cli.DurationFlag{Name: "interval", Aliases: []string{"i"}, Value: 2 * time.Second, Usage: "look every `DURATION`, at least 100ms"},
			&cli.StringFlag{Name: "sort", Value: "matched", Usage: "sort by `COLUMN`: matched, errors, delivered, latency, queued, gaps or name"},
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "end after `N` tables"},
			&cli.IntFlag{Name: "rules", Value: 20, Usage: "rows of a table that is printed"},
			outputFlag(),
		),
		Action: top,
	}
}

func top(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	interval := c.Duration("interval")
	if interval < 100*time.Millisecond {
		return usage("--interval %v: want at least 100ms", interval)
	}
	column := topColumnNamed(c.String("sort"))
	if column == nil {
		return usage("--sort %s: want matched, errors, delivered, latency, queued, gaps or name", c.String("sort"))
	}
	if c.Int("count") < 0 || c.Int("rules") < 1 {
		return usage("--count and --rules: want more than 0")
	}
	client, err := newAdminClient(c)
	if err != nil {
		return err
	}
	out, ok := c.App.Writer.(*os.File)
	if !ok || !term.IsTerminal(out.Fd()) || asJSON(c) {
		return printTops(c, client, column)
	}
	first := lookForTop(c.Context, client)
	if first.err != nil {
		return first.err
	}
	view := &topView{title: client.base, interval: interval, sorted: column, styles: newViewStyles(os.Getenv("NO_COLOR") == "")}
	view.take(first)
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	_, err = tea.NewProgram(&topProgram{ctx: ctx, client: client, view: view},
		tea.WithContext(ctx), tea.WithInput(c.App.Reader), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || c.Context.Err() != nil {
		return nil
	}
	return err
}

// printTops prints one table for each interval.
func printTops(c *cli.Context, client *adminClient, column *topColumn) error {
	view := &topView{sorted: column}
	tick := time.NewTicker(c.Duration("interval"))
	defer tick.Stop()
	for n := 1; ; n++ {
		sample := lookForTop(c.Context, client)
		if c.Context.Err() != nil {
			return nil
		}
		if sample.err != nil {
			return sample.err
		}
		view.take(sample)
		rows := view.rows[:min(len(view.rows), c.Int("rules"))]
		var err error
		if asJSON(c) {
			err = printJSON(c.App.Writer, struct {
				Time       time.Time   `json:"time"`
				Generation uint64      `json:"generation"`
				Rules      []topRow    `json:"rules"`
				Streams    []topStream `json:"streams,omitempty"`
			}{sample.rules.Time, sample.rules.Generation, rows, view.streams.rows})
		} else {
			text := topTable(rows)
			for _, line := range view.streams.lines(c.Int("rules")) {
				text += line + "\n"
			}
			_, err = io.WriteString(c.App.Writer, fmt.Sprintf("%s generation %d, %s\n%s\n", sample.rules.Time.Local().Format(time.TimeOnly), sample.rules.Generation, count(len(view.rows), "rule"), text))
		}
		if err != nil || n == c.Int("count") {
			return err
		}
		select {
		case <-tick.C:
		case <-c.Context.Done():
			return nil
		}
	}
}

// A topProgram keeps a topView up to date. It belongs to bubbletea's loop.
type topProgram struct {
	ctx    context.Context // of the whole program
	client *adminClient
	view   *topView

	lines  chan tea.Msg // what the open tap shows
	untap  context.CancelFunc
	number int // of the open tap
}

// What happens beside keys.
type (
	topTick   struct{}
	topSample struct {
		rules   adminRules
		streams []adminStream
		err     error
	}
	topTapped struct {
		number int
		line   adminTapped
	}
	topTapEnded struct {
		number int
		err    error
	}
)

// lookForTop asks the daemon for what is shown.
func lookForTop(ctx context.Context, client *adminClient) (s topSample) {
	if s.err = client.get(ctx, "/api/v1/rules", &s.rules); s.err == nil {
		s.err = client.get(ctx, "/api/v1/streams", &s.streams)
	}
	return s
}

// Init implements [tea.Model].
func (p *topProgram) Init() tea.Cmd { return p.tick() }

func (p *topProgram) tick() tea.Cmd {
	return tea.Tick(p.view.interval, func(time.Time) tea.Msg { return topTick{} })
}

// Update implements [tea.Model].
func (p *topProgram) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		p.view.width, p.view.height = m.Width, m.Height
	case tea.KeyPressMsg:
		return p, p.key(m.String())
	case topTick:
		return p, func() tea.Msg { return lookForTop(p.ctx, p.client) }
	case topSample:
		if p.view.fault = ""; m.err != nil {
			p.view.fault = m.err.Error()
		} else {
			p.view.take(m)
		}
		return p, p.tick()
	case topTapped:
		if m.number == p.number {
			p.view.tapped(m.line)
			return p, p.next()
		}
	case topTapEnded:
		if m.number == p.number && m.err != nil {
			p.view.tapFault = m.err.Error()
		}
	}
	return p, nil
}

// View implements [tea.Model].
func (p *topProgram) View() tea.View {
	view := tea.NewView(p.view.String())
	view.AltScreen = true
	return view
}

// key does what a key says.
func (p *topProgram) key(name string) tea.Cmd {
	switch name {
	case "ctrl+c":
		p.closeTap()
		return tea.Quit
	case "esc":
		p.closeTap()
		p.view.closeTap()
	case "enter":
		if rule, ok := p.view.chosen(); ok {
			p.closeTap()
			p.view.openTap(rule)
			return p.openTap(rule)
		}
	case "up", "k":
		p.view.move(-1)
	case "down", "j":
		p.view.move(1)
	case "pgup":
		p.view.move(-10)
	case "pgdown":
		p.view.move(10)
	default:
		p.view.sortBy(name)
	}
	return nil
}

// openTap taps a rule, on a goroutine that ends with closeTap.
func (p *topProgram) openTap(rule string) tea.Cmd {
	ctx, cancel := context.WithCancel(p.ctx)
	p.number++
	lines, number := make(chan tea.Msg), p.number
	p.lines, p.untap = lines, cancel
	go func() {
		send := func(m tea.Msg) bool {
			select {
			case lines <- m:
				return true
			case <-ctx.Done():
				return false
			}
		}
		err := p.client.tap(ctx, rule, url.Values{"outcome": {"kept,filtered,failed"}, "rate": {"20"}}, func(line adminTapped) bool {
			return send(topTapped{number, line})
		})
		send(topTapEnded{number, err})
		close(lines)
	}()
	return p.next()
}

// next waits for what the open tap shows next.
func (p *topProgram) next() tea.Cmd {
	lines := p.lines
	return func() tea.Msg { return <-lines }
}

func (p *topProgram) closeTap() {
	if p.untap != nil {
		p.untap()
		p.untap = nil
		p.number++ // what is still shown is nobody's
	}
}
