package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/urfave/cli/v2"
)

func testTally(reports io.Writer) *tally {
	return &tally{c: cli.NewContext(cli.NewApp(), flag.NewFlagSet("", flag.ContinueOnError), nil), errors: reports}
}

// echo writes each line's number and text, and reports every line with an x.
func echo(c *chunk, number int, line []byte) {
	c.out = fmt.Appendf(c.out, "%d:%s\n", number, line)
	if bytes.Contains(line, []byte("x")) {
		c.tally.invalid(number, errors.New("has an x"))
	}
}

// Chunks, however the input comes and whoever treats them, are what reading
// line by line gives.
func TestInChunks(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		var input strings.Builder
		for range r.IntN(2000) {
			input.WriteString([]string{"", "a", "x", " ", "bb\r", strings.Repeat("c", r.IntN(300)), strings.Repeat("long", r.IntN(1000))}[r.IntN(7)])
			if r.IntN(50) == 0 {
				input.WriteString(strings.Repeat("y", r.IntN(chunkSize)))
			}
			input.WriteString("\n")
		}
		input.WriteString([]string{"", "end", "x"}[r.IntN(3)])

		var want, wantReports strings.Builder
		wantTally := testTally(&wantReports)
		lines := newLineReader(strings.NewReader(input.String()), maxLine)
		for {
			line, err := lines.next()
			if err == io.EOF {
				break
			}
			wantTally.Lines++
			fmt.Fprintf(&want, "%d:%s\n", lines.n, line)
			if bytes.Contains(line, []byte("x")) {
				wantTally.invalid(lines.n, errors.New("has an x"))
			}
		}
		var from io.Reader = strings.NewReader(input.String())
		switch seed % 3 {
		case 1:
			from = iotest.HalfReader(from)
		case 2:
			from = iotest.DataErrReader(from)
		}
		var got, gotReports bytes.Buffer
		gotTally := testTally(&gotReports)
		workers := []func(*chunk, int, []byte){echo, echo, echo}[:1+seed%3]
		if err := inChunks(t.Context(), from, &got, gotTally, workers); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() || gotReports.String() != wantReports.String() {
			t.Fatalf("seed %d: output or reports differ", seed)
		}
		if gotTally.Lines != wantTally.Lines || gotTally.Invalid != wantTally.Invalid {
			t.Fatalf("seed %d: %d lines, %d invalid; want %d, %d", seed, gotTally.Lines, gotTally.Invalid, wantTally.Lines, wantTally.Invalid)
		}
	}
}

// A line over the limit is skipped, without being kept.
func TestChunkReaderSkips(t *testing.T) {
	const limit = 1 << 20
	long := strings.Repeat("x", limit)
	chunks := &chunkReader{r: strings.NewReader("a\n" + long + "yyy\n" + long + "\nb\n" + strings.Repeat("z", 5*limit)), limit: limit}
	var got []string
	c := &chunk{}
	var reports bytes.Buffer
	c.tally = testTally(&reports)
	for {
		err := chunks.next(c)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		c.each(func(number int, line []byte) {
			got = append(got, fmt.Sprint(number, " ", len(line), " ", string(line[:1])))
		})
		if cap(c.buffer) > 5*limit {
			t.Fatalf("%d bytes are kept", cap(c.buffer))
		}
	}
	if want := []string{"1 1 a", "3 1048576 x", "4 1 b"}; strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("got %q, want %q", got, want)
	}
	tooLong := errLineOverLimit.Error()
	if want := "line 2: " + tooLong + "\nline 5: " + tooLong + "\n"; reports.String() != want || c.tally.Lines != 5 {
		t.Errorf("%d lines, reports %s, want %s", c.tally.Lines, reports.String(), want)
	}
}

// Lines that come slowly come out at once, an error of the reader comes after
// them, and the context ends what waits for more.
func TestInChunksIsPrompt(t *testing.T) {
	input, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	defer typed.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shown, out := io.Pipe()
	ended := make(chan error)
	go func() {
		ended <- inChunks(ctx, input, out, testTally(io.Discard), []func(*chunk, int, []byte){echo})
	}()
	for i := range 3 {
		fmt.Fprintf(typed, "line %d\nhalf", i)
		b := make([]byte, 100)
		n, err := shown.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), fmt.Sprint(i+1, ":")) {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("does not end with its context")
	}
	var got bytes.Buffer
	err = inChunks(t.Context(), io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(errors.New("broken"))), &got, testTally(io.Discard), []func(*chunk, int, []byte){echo})
	if err == nil || err.Error() != "read line 3: broken" || got.String() != "1:a\n2:b\n" {
		t.Errorf("%q, %v", got.String(), err)
	}
}
