package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func testCommand() *cli.Command {
	return &cli.Command{
		Name:  "test",
		Usage: "run the tests that stand beside the rules",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list the tests that pass as well"},
			outputFlag(),
		},
		Action: runTests,
	}
}

// A testLine is what --output json prints of a test.
type testLine struct {
	Test string `json:"test"`
	File string `json:"file"`
	Line int    `json:"line"`
	OK   bool   `json:"ok"`
	Want string `json:"want"`
	Got  string `json:"got"`
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
		place := fmt.Sprintf("%s (%s:%d)", oneLine(r.Test.String()), oneLine(r.Test.File), r.Test.Line)
		switch {
		case asJSON(c):
			_ = printJSON(c.App.Writer, testLine{r.Test.String(), r.Test.File, r.Test.Line, r.OK, r.Want, r.Got})
		case !r.OK:
			fmt.Fprintf(c.App.Writer, "FAIL %s\n  in:   %s\n  want: %s\n  got:  %s\n", place,
				oneLine(shorten(string(r.Test.In), 200)), oneLine(r.Want), oneLine(r.Got))
		case c.Bool("verbose"):
			fmt.Fprintf(c.App.Writer, "ok   %s: %s\n", place, oneLine(r.Got))
		}
	}
	switch {
	case asJSON(c):
	case len(results) == 0:
		fmt.Fprintf(c.App.Writer, "%s has no tests: write some beside its rules\n", oneLine(loaded.Path))
	default:
		fmt.Fprintf(c.App.Writer, "%d passed, %d failed\n", len(results)-failed, failed)
	}
	if failed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
