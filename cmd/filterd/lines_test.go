package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// Reading lines ends with its context even if no line comes.
func TestEachLineIsInterrupted(t *testing.T) {
	input, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	defer typed.Close() // not before: there may be more to come
	if _, err := typed.WriteString("{}\n{}\n"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	counts := &tally{errors: io.Discard}
	err = eachLine(ctx, input, counts, func(n int, _ []byte) error {
		if n == 2 {
			cancel() // and no third line comes
		}
		return nil
	})
	if err != nil || counts.Lines != 2 {
		t.Errorf("%d lines, %v", counts.Lines, err)
	}
}

// A line over the limit is skipped in constant memory, and the next is read.
func TestLineReader(t *testing.T) {
	const limit = 1 << 20
	long := strings.Repeat("x", limit+1)
	l := newLineReader(strings.NewReader("a\r\n\n"+long+"\n"+long[:limit]+"\n \nb"), limit)
	for i, want := range []struct {
		length, number int
		err            error
	}{{1, 1, nil}, {0, 3, errLineTooLong}, {limit, 4, nil}, {1, 6, nil}, {0, 6, io.EOF}} {
		line, err := l.next()
		if len(line) != want.length || l.n != want.number || !errors.Is(err, want.err) {
			t.Errorf("%d: %d bytes in line %d, %v; want %+v", i, len(line), l.n, err, want)
		}
	}
	if cap(l.long) > 4*limit {
		t.Errorf("%d bytes are kept", cap(l.long))
	}
}
