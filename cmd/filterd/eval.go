package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

func evalCommand() *cli.Command {
	return &cli.Command{
		Name:      "eval",
		Usage:     "print the lines of standard input for which an expression is true",
		ArgsUsage: "EXPR",
		Description: "Each line is the payload of one message: a CloudEvents event, or any JSON. Matching lines come out\n" +
			"unchanged. Lines that are no message, or that the expression fails on, go to standard error with their\n" +
			"number; then the exit code is 1.\n\n" +
			"Example: filterd eval 'data.price * data.qty > 10_000' < trades.ndjson",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only count the lines that are invalid or fail"},
			channelFlag("the `CHANNEL` that the expression sees"),
			profileFlag(),
			outputFlag(),
		},
		Action: eval,
	}
}

func channelFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "channel", Usage: usage} }

func profileFlag() cli.Flag {
	return &cli.StringFlag{Name: "profile", Value: "default", Usage: "`PROFILE` of the expression: default, or full for all of expr-lang without bounds"}
}

// compileFlag compiles an expression from the command line.
func compileFlag(c *cli.Context, source string) (*exprfilter.Filter, error) {
	var opts []exprfilter.Option
	switch profile := c.String("profile"); profile {
	case "default":
	case "full":
		opts = append(opts, exprfilter.Full())
	default:
		return nil, usage("--profile %s: want default or full", profile)
	}
	filter, err := exprfilter.Compile(source, opts...)
	var fault *filterd.SourceError
	if errors.As(err, &fault) {
		return nil, usage("expression %s\n%s", printable(fault.Error()), excerpt(fault))
	}
	return filter, err
}

// excerpt shows the faulty line with a caret below the fault.
func excerpt(fault *filterd.SourceError) string {
	row, column := fault.Position()
	line := []rune(strings.Split(fault.Source, "\n")[row-1])
	const around = 60 // characters on either side
	start, end := max(0, column-1-around), min(len(line), column-1+around)
	length := max(1, min(len([]rune(fault.Source[fault.Offset:min(len(fault.Source), fault.Offset+fault.Length)])), end-column+1))
	return fmt.Sprintf("    %s\n    %s^%s", oneLine(string(line[start:end])), strings.Repeat(" ", column-1-start), strings.Repeat("~", length-1))
}

func eval(c *cli.Context) error {
	if c.NArg() != 1 {
		return usage("eval takes one expression, not %d arguments: quote it\nRun 'filterd eval --help' for usage", c.NArg())
	}
	filter, err := compileFlag(c, c.Args().First())
	if err != nil {
		return err
	}
	matcher := filter.Matcher()
	out := bufio.NewWriterSize(c.App.Writer, 64<<10)
	defer out.Flush()
	t := &tally{c: c, quiet: c.Bool("quiet")}
	registry := (*filterd.Registry)(nil) // every line's envelope is auto
	m := &filterd.Message{Channel: c.String("channel")}
	err = eachLine(c.Context, c.App.Reader, t, func(n int, line []byte) error {
		m.Reset(line)
		if err := registry.Check(m); err != nil {
			t.invalid(n, err)
			return nil
		}
		keep, err := matcher.Match(m)
		if err != nil {
			t.failed(n, err)
			return nil
		}
		if !keep {
			return nil
		}
		t.Matched++
		_, _ = out.Write(line)
		return out.WriteByte('\n')
	})
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	return t.finish()
}

// eachLine calls do for every line that is not too long, until ctx ends.
func eachLine(ctx context.Context, r io.Reader, t *tally, do func(n int, line []byte) error) error {
	lines := newLineReader(r, maxLine)
	for {
		line, err := lines.next()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == io.EOF:
			return nil
		case err == errLineTooLong:
			t.Lines++
			t.invalid(lines.n, fmt.Errorf("size: the line is over the limit of %d bytes", maxLine))
			continue
		case err != nil:
			return fmt.Errorf("read line %d: %w", lines.n+1, err)
		}
		t.Lines++
		if err := do(lines.n, line); err != nil {
			return err
		}
	}
}

// maxLine is the longest line that is read as a message, in bytes: contracts
// may allow more than the default size.
const maxLine = 64 << 20
