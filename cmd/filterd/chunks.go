package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// chunkSize is how much of an input is treated at once, in bytes: enough that
// handing a chunk over costs nothing, and little enough to stay in a cache.
const chunkSize = 256 << 10

// A chunk is some whole lines of an input, and what was made of them.
type chunk struct {
	buffer []byte // holds lines, and the beginning of the next chunk's
	lines  []byte
	first  int // number of the first line, from 1
	limit  int // bytes of a line; a line that is longer may be a beginning only

	out     []byte        // for standard output
	reports bytes.Buffer  // for standard error
	tally   *tally        // which writes to reports
	done    chan struct{} // receives when the chunk was treated
}

// each calls do for every line that is not blank and not too long, without its
// end, and tallies the lines.
func (c *chunk) each(do func(number int, line []byte)) {
	rest := c.lines
	for number := c.first; len(rest) > 0; number++ {
		line := rest
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			line, rest = rest[:end], rest[end+1:]
		} else {
			rest = nil
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		switch {
		case len(line) > c.limit:
			c.tally.Lines++
			c.tally.invalid(number, errLineOverLimit)
		case len(line) > 0 && (line[0] > ' ' || len(bytes.TrimSpace(line)) > 0):
			c.tally.Lines++
			do(number, line)
		}
	}
}

// A chunkReader cuts an input into chunks. A chunk ends where no more input is
// there for now, so that lines that come slowly don't wait for others.
type chunkReader struct {
	r     io.Reader
	limit int    // bytes of a line
	rest  []byte // what was read behind the last chunk, in that one's buffer
	line  int    // number of the last line that was handed out
	err   error  // of the reader
}

// next fills c with the next lines. The error is io.EOF at the end, or the
// reader's.
func (r *chunkReader) next(c *chunk) error {
	c.buffer = append(c.buffer[:0], r.rest...) // it may be in this very buffer
	r.rest = nil
	c.first, c.limit = r.line+1, r.limit
	searched := 0
	for {
		if end := bytes.LastIndexByte(c.buffer[searched:], '\n'); end >= 0 {
			return r.cut(c, searched+end+1)
		}
		searched = len(c.buffer)
		switch {
		case r.err == io.EOF && len(c.buffer) > 0:
			return r.cut(c, len(c.buffer))
		case r.err != nil:
			return r.err
		}
		if len(c.buffer) > r.limit+1 { // with the \r that the limit doesn't count
			return r.skip(c)
		}
		c.buffer = r.read(c.buffer)
	}
}

// read appends what there is to be read.
func (r *chunkReader) read(b []byte) []byte {
	if cap(b)-len(b) < chunkSize/2 {
		b = append(make([]byte, 0, max(2*cap(b), chunkSize)), b...)
	}
	var n int
	n, r.err = r.r.Read(b[len(b):cap(b)])
	return b[:len(b)+n]
}

// cut ends a chunk.
func (r *chunkReader) cut(c *chunk, end int) error {
	c.lines, r.rest = c.buffer[:end], c.buffer[end:]
	r.line += bytes.Count(c.lines, []byte("\n"))
	if c.lines[end-1] != '\n' {
		r.line++
	}
	return nil
}

// skip makes the line that c's buffer begins with a chunk of its own, and
// forgets the rest of it.
func (r *chunkReader) skip(c *chunk) error {
	c.lines = c.buffer
	r.line++
	var buffer [64 << 10]byte
	for r.err == nil {
		var n int
		n, r.err = r.r.Read(buffer[:])
		if end := bytes.IndexByte(buffer[:n], '\n'); end >= 0 {
			r.rest = bytes.Clone(buffer[end+1 : n])
			break
		}
	}
	return nil
}

// inChunks treats the lines of an input by several workers at once, each of
// which takes whole chunks. What they make of it is written, and tallied, in
// the input's order. It ends with the input, with ctx, or with the first error,
// and takes constant memory.
func inChunks(ctx context.Context, r io.Reader, out io.Writer, t *tally, workers []func(c *chunk, number int, line []byte)) error {
	input, stop := interruptible(ctx, r)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		free    = make(chan *chunk, 2*len(workers))
		ordered = make(chan *chunk, 2*len(workers)) // as they were read
		work    = make(chan *chunk, 2*len(workers))
		failed  error // of the reader; set before ordered is closed
	)
	for range cap(free) {
		c := &chunk{done: make(chan struct{}, 1)}
		c.tally = t.part(&c.reports)
		free <- c
	}
	for _, treat := range workers {
		go func() {
			for c := range work {
				c.out = c.out[:0]
				c.each(func(number int, line []byte) { treat(c, number, line) })
				c.done <- struct{}{}
			}
		}()
	}
	go func() {
		defer close(ordered)
		defer close(work)
		chunks := &chunkReader{r: input, limit: maxLine}
		for {
			var c *chunk
			select {
			case c = <-free:
			case <-ctx.Done():
				return
			}
			if err := chunks.next(c); err != nil {
				if err != io.EOF && ctx.Err() == nil {
					failed = fmt.Errorf("read line %d: %w", chunks.line+1, err)
				}
				return
			}
			ordered <- c
			work <- c
		}
	}()
	for c := range ordered {
		<-c.done
		if err := t.merge(c.tally, &c.reports); err != nil {
			return err
		}
		if _, err := out.Write(c.out); err != nil {
			return err
		}
		free <- c
	}
	return failed
}
