package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/muesli/cancelreader"
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

// eachLine calls do for every line that is not too long, until ctx ends, even
// if no line comes.
func eachLine(ctx context.Context, r io.Reader, t *tally, do func(n int, line []byte) error) error {
	input, stop := interruptible(ctx, r)
	defer stop()
	lines := newLineReader(input, maxLine)
	for {
		line, err := lines.next()
		switch {
		case ctx.Err() != nil, err == io.EOF:
			return nil
		case err == errLineTooLong:
			t.Lines++
			t.invalid(lines.n, errLineOverLimit)
			continue
		case err != nil:
			return fmt.Errorf("read line %d: %w", lines.n, err)
		}
		t.Lines++
		if err := do(lines.n, line); err != nil {
			return err
		}
	}
}

// interruptible returns a reader that ends with ctx, even if nothing comes; stop
// frees what it takes.
func interruptible(ctx context.Context, r io.Reader) (input io.Reader, stop func()) {
	if file, ok := r.(*os.File); ok {
		if input, err := cancelreader.NewReader(file); err == nil { // a plain file is none to wait for
			release := context.AfterFunc(ctx, func() { input.Cancel() })
			return input, func() {
				release()
				_ = input.Close()
			}
		}
	}
	return r, func() {}
}

// maxLine is the longest line that is read as a message, in bytes: contracts
// may allow more than the default size.
const maxLine = 64 << 20

var errLineOverLimit = fmt.Errorf("size: the line is over the limit of %d bytes", maxLine)
