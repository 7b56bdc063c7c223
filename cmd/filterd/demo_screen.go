package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
	"github.com/muesli/cancelreader"
)

// A demoScreen draws the demo on a terminal.
type demoScreen struct {
	screen *screen
	view   *demoView
	last   *demoTotals
}

func (d *demoScreen) event(e demoEvent) error {
	if e.Summary != nil {
		d.last = e.Summary
	}
	d.view.add(e)
	return nil
}

func (d *demoScreen) refresh() error {
	width, height := d.screen.size()
	return d.screen.draw(d.view.lines(width, height, time.Now()), width, height)
}

// close gives the terminal back, with what is worth keeping on it.
func (d *demoScreen) close() {
	d.screen.close()
	if d.last == nil {
		return
	}
	text := d.last.text()
	if start := d.view.start; start != nil {
		text += "next: " + start.Try[len(start.Try)-1] + "\n"
	}
	fmt.Fprint(d.screen.out, text)
}

// A screen is a terminal that is drawn on as a whole. It belongs to one
// goroutine.
type screen struct {
	out           *os.File
	lines         []string // as they are on the terminal
	width, height int
	redraw        chan struct{} // somebody wants everything drawn again

	restore func() // ends the keyboard's goroutine, too
}

// openScreen takes over a terminal. Quit is called, on another goroutine, when
// q or Ctrl-C is typed on in, which may be nil, or anything but a terminal.
func openScreen(in, out *os.File, quit func()) (*screen, error) {
	lipgloss.EnableLegacyWindowsANSI(out)
	s := &screen{out: out, redraw: make(chan struct{}, 1), restore: func() {}}
	if in != nil && term.IsTerminal(in.Fd()) {
		if err := s.listen(in, quit); err != nil {
			return nil, fmt.Errorf("take over the terminal: %w", err)
		}
	}
	_, err := out.WriteString(ansi.SetModeAltScreenSaveCursor + ansi.HideCursor + ansi.ResetModeAutoWrap + ansi.EraseEntireDisplay)
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// listen reads keys. Without it what is typed would be written over the
// picture.
func (s *screen) listen(in *os.File, quit func()) error {
	keys, err := cancelreader.NewReader(in)
	if err != nil {
		return err
	}
	before, err := term.MakeRaw(in.Fd())
	if err != nil {
		return errors.Join(err, keys.Close())
	}
	done := make(chan struct{})
	go func() { // ends when restore cancels the reader
		defer close(done)
		for buf := make([]byte, 64); ; {
			n, err := keys.Read(buf)
			if err != nil {
				return
			}
			if strings.ContainsAny(string(buf[:n]), "qQ\x03\x04") {
				quit()
			}
			if strings.Contains(string(buf[:n]), "\x0c") { // Ctrl-L
				select {
				case s.redraw <- struct{}{}:
				default:
				}
			}
		}
	}()
	s.restore = func() {
		if keys.Cancel() {
			<-done
			_ = keys.Close()
		}
		_ = term.Restore(in.Fd(), before)
	}
	return nil
}

// size returns the terminal's width and height, which may change at any time.
func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(s.out.Fd())
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// draw makes the terminal show the lines, each of at most width cells. It
// writes only those that differ from what is there, so that the others can be
// selected and copied in peace.
func (s *screen) draw(lines []string, width, height int) error {
	var b strings.Builder
	again := width != s.width || height != s.height
	select {
	case <-s.redraw:
		again = true
	default:
	}
	if again {
		b.WriteString(ansi.EraseEntireDisplay)
		s.lines, s.width, s.height = nil, width, height
	}
	for i := range max(len(lines), len(s.lines)) {
		line := ""
		if i < len(lines) && i < height {
			line = lines[i]
		}
		if i < len(s.lines) && s.lines[i] == line {
			continue
		}
		b.WriteString(ansi.CursorPosition(1, i+1) + line)
		// At the right edge the cursor stays on the last character, which
		// would be erased.
		if lipgloss.Width(line) < width {
			b.WriteString(ansi.EraseLineRight)
		}
	}
	s.lines = lines
	if b.Len() == 0 {
		return nil
	}
	_, err := s.out.WriteString(ansi.SetModeSynchronizedOutput + b.String() + ansi.ResetModeSynchronizedOutput)
	return err
}

// close gives the terminal back as it was.
func (s *screen) close() {
	_, _ = s.out.WriteString(ansi.SetModeAutoWrap + ansi.ShowCursor + ansi.ResetModeAltScreenSaveCursor) // it may be gone
	s.restore()
}
