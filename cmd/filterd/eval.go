package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
	"github.com/filterd/filterd/filters/wasmfilter"
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
			&cli.StringFlag{Name: "wasm", Usage: "a module `FILE` that treats the lines for which the expression is true: it drops, passes or replaces them"},
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
	set, err := filter.Kind().Compile([]filterd.Filter{filter})
	if err != nil {
		return err
	}
	reads := set.Paths()
	workers := make([]func(*chunk, int, []byte), runtime.GOMAXPROCS(0))
	var module *wasmfilter.Module
	if file := c.String("wasm"); file != "" {
		var closeModule func()
		if module, closeModule, err = loadModule(c, file); err != nil {
			return err
		}
		defer closeModule()
		reads = append(slices.Clone(reads), module.Paths()...)
		workers = workers[:1] // what it keeps between messages goes by their order
	}
	projection := filterd.NewProjection(reads)
	for i := range workers {
		e := &evaluation{c: c, matcher: set.Bind(projection.Slots(set.Paths()))}
		if module != nil {
			e.stage = module.Bind(projection.Slots(module.Paths()))
		}
		e.batch[0] = &filterd.Message{Channel: c.String("channel")}
		e.batch[0].Bind(projection)
		workers[i] = e.line
	}
	t := newTally(c)
	if err := inChunks(c.Context, c.App.Reader, c.App.Writer, t, workers); err != nil {
		return err
	}
	return t.finish()
}

// An evaluation treats lines on one goroutine.
type evaluation struct {
	c        *cli.Context
	matcher  filterd.SetMatcher
	stage    filterd.StageRunner // nil without --wasm
	batch    [1]*filterd.Message // the line at hand
	verdicts []filterd.Verdict
}

func (e *evaluation) line(c *chunk, number int, line []byte) {
	m := e.batch[0]
	m.Reset(line)
	if err := (*filterd.Registry)(nil).Check(m); err != nil { // its envelope is auto
		c.tally.invalid(number, err)
		return
	}
	if e.verdicts = e.matcher.Match(e.batch[:], e.verdicts[:0]); len(e.verdicts) == 0 {
		return
	}
	err := e.verdicts[0].Err
	if e.verdicts[0].Group > 0 {
		err = e.matcher.Failure(m, 0)
	}
	keep, payload := err == nil, line
	if keep && e.stage != nil {
		var results [1]filterd.StageResult
		e.stage.Run(e.c.Context, e.batch[:], results[:])
		keep, err = results[0].Keep, results[0].Err
		if results[0].Payload != nil {
			payload = results[0].Payload
		}
	}
	switch {
	case err != nil:
		c.tally.failed(number, err)
	case keep:
		c.tally.Matched++
		c.out = append(append(c.out, payload...), '\n')
	}
}
