package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// A tally counts lines and says what is wrong with some of them.
type tally struct {
	c       *cli.Context
	quiet   bool
	errors  io.Writer // standard error
	file    string    // that the lines are of; empty for standard input
	Lines   int       `json:"lines"`
	Matched int       `json:"matched"`
	Invalid int       `json:"invalid"`
	Errors  int       `json:"errors"`
	Changed *int      `json:"changed,omitempty"` // lines of which two files make different things; nil if there is one
}

func newTally(c *cli.Context) *tally {
	return &tally{c: c, quiet: c.Bool("quiet"), errors: c.App.ErrWriter}
}

// part returns a tally of a part of the lines, which reports to w.
func (t *tally) part(w io.Writer) *tally { return &tally{c: t.c, quiet: t.quiet, errors: w} }

// merge takes over what a part has tallied and reported.
func (t *tally) merge(part *tally, reports *bytes.Buffer) error {
	t.Lines += part.Lines
	t.Matched += part.Matched
	t.Invalid += part.Invalid
	t.Errors += part.Errors
	*part = *t.part(part.errors)
	_, err := reports.WriteTo(t.errors)
	return err
}

// invalid reports a line that is not a valid message.
func (t *tally) invalid(line int, err error) {
	t.Invalid++
	t.report(line, err)
}

// failed reports a line that a rule failed on.
func (t *tally) failed(line int, err error) {
	t.Errors++
	t.report(line, err)
}

func (t *tally) report(line int, err error) {
	switch {
	case t.quiet:
	case asJSON(t.c):
		_ = printJSON(t.errors, struct {
			File  string `json:"file,omitempty"`
			Line  int    `json:"line"`
			Error string `json:"error"`
		}{t.file, line, err.Error()})
	case t.file != "":
		fmt.Fprintf(t.errors, "%s:%d: %s\n", oneLine(t.file), line, oneLine(err.Error()))
	default:
		fmt.Fprintf(t.errors, "line %d: %s\n", line, oneLine(err.Error()))
	}
}

// finish writes the last line of standard error, and returns what the command
// returns.
func (t *tally) finish() error {
	if asJSON(t.c) {
		_ = printJSON(t.errors, t)
	} else {
		fmt.Fprintf(t.errors, "lines=%d matched=%d invalid=%d errors=%d", t.Lines, t.Matched, t.Invalid, t.Errors)
		if t.Changed != nil {
			fmt.Fprintf(t.errors, " changed=%d", *t.Changed)
		}
		fmt.Fprintln(t.errors)
	}
	if t.Invalid+t.Errors > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}
