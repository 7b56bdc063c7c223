package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// lineReader reads NDJSON of any length in constant memory: a line over its
// limit is skipped, not kept.
type lineReader struct {
	r     *bufio.Reader
	limit int // bytes of a line
	long  []byte
	n     int // number of the last line, from 1
}

// errLineTooLong says that a line was skipped.
var errLineTooLong = errors.New("line is too long")

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 256<<10), limit: limit}
}

// next returns the next line that is not blank, without its end; it is valid
// until the next call. The error is io.EOF at the end, errLineTooLong for a
// line that was skipped, or the reader's.
func (l *lineReader) next() ([]byte, error) {
	for {
		line, err := l.read()
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			return line, nil
		}
	}
}

func (l *lineReader) read() ([]byte, error) {
	part, err := l.r.ReadSlice('\n')
	if err == io.EOF && len(part) == 0 {
		return nil, io.EOF
	}
	l.n++
	if err != bufio.ErrBufferFull {
		return l.end(part, err)
	}
	l.long = append(l.long[:0], part...)
	for err == bufio.ErrBufferFull {
		part, err = l.r.ReadSlice('\n')
		if len(l.long) <= l.limit {
			l.long = append(l.long, part...)
		}
	}
	return l.end(l.long, err)
}

// end cuts a line's end off.
func (l *lineReader) end(line []byte, err error) ([]byte, error) {
	if err != nil && err != io.EOF {
		return nil, err
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) > l.limit {
		return nil, errLineTooLong
	}
	return line, nil
}

// A tally counts lines and says what is wrong with some of them.
type tally struct {
	c       *cli.Context
	quiet   bool
	Lines   int `json:"lines"`
	Matched int `json:"matched"`
	Invalid int `json:"invalid"`
	Errors  int `json:"errors"`
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
		_ = printJSON(t.c.App.ErrWriter, struct {
			Line  int    `json:"line"`
			Error string `json:"error"`
		}{line, err.Error()})
	default:
		fmt.Fprintf(t.c.App.ErrWriter, "line %d: %s\n", line, oneLine(err.Error()))
	}
}

// finish writes the last line of standard error, and returns what the command
// returns.
func (t *tally) finish() error {
	if asJSON(t.c) {
		_ = printJSON(t.c.App.ErrWriter, t)
	} else {
		fmt.Fprintf(t.c.App.ErrWriter, "lines=%d matched=%d invalid=%d errors=%d\n", t.Lines, t.Matched, t.Invalid, t.Errors)
	}
	if t.Invalid+t.Errors > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}
