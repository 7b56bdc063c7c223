package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/config"
)

func testCommand() *cli.Command {
	return &cli.Command{
		Name:  "test",
		Usage: "run the tests that stand beside the rules",
		Description: "Nothing is sent, and no Redis is needed. Where a payload is not the expected one, it says at which places. A Go\n" +
			"program has the same by package filterdtest.\n\n" +
			"Example: filterd test --output junit > filterd-tests.xml",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list the tests that pass as well"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT` of the output: text, json, or junit for continuous integration"},
		},
		Action: runTests,
	}
}

// A testLine is what --output json prints of a test.
type testLine struct {
	Test        string              `json:"test"`
	File        string              `json:"file"`
	Line        int                 `json:"line"`
	OK          bool                `json:"ok"`
	Want        string              `json:"want"`
	Got         string              `json:"got"`
	Differences []config.Difference `json:"differences,omitempty"`
}

func runTests(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	loaded, err := loadConfig(c)
	if err != nil {
		return err
	}
	defer loaded.Close()
	results, err := loaded.RunTests()
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range results {
		if !r.OK {
			failed++
		}
	}
	switch c.String("output") {
	case "json":
		for _, r := range results {
			_ = printJSON(c.App.Writer, testLine{r.Test.String(), r.Test.File, r.Test.Line, r.OK, r.Want, r.Got, r.Differences})
		}
	case "junit":
		if err := printJUnit(c.App.Writer, loaded.Path, results); err != nil {
			return err
		}
	default:
		printTests(c, results)
		if len(results) == 0 {
			fmt.Fprintf(c.App.Writer, "%s has no tests: write some beside its rules\n", oneLine(loaded.Path))
		} else {
			fmt.Fprintf(c.App.Writer, "%d passed, %d failed\n", len(results)-failed, failed)
		}
	}
	if failed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// printTests prints what failed, and with --verbose all.
func printTests(c *cli.Context, results []config.TestResult) {
	for _, r := range results {
		place := fmt.Sprintf("%s (%s:%d)", oneLine(r.Test.String()), oneLine(r.Test.File), r.Test.Line)
		if r.OK {
			if c.Bool("verbose") {
				fmt.Fprintf(c.App.Writer, "ok   %s: %s\n", place, oneLine(r.Got))
			}
			continue
		}
		fmt.Fprintf(c.App.Writer, "FAIL %s\n", place)
		for _, line := range r.Report() {
			fmt.Fprintf(c.App.Writer, "  %s\n", oneLine(line))
		}
	}
}

func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
