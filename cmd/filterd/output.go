package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/pubsub"
)

// Flags that several commands have.

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: "filterd.yaml", Usage: "the config `FILE`", EnvVars: []string{"FILTERD_CONFIG"}}
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT` of the output: text or json"}
}

// outputFormats returns what --output takes.
func outputFormats(command string) []string {
	if command == "test" {
		return []string{"text", "json", "junit"}
	}
	return []string{"text", "json"}
}

func checkOutput(c *cli.Context) error {
	formats, format := outputFormats(c.Command.Name), c.String("output")
	if format == "" || slices.Contains(formats, format) {
		return nil
	}
	last := len(formats) - 1
	return usage("--output %s: want %s or %s", format, strings.Join(formats[:last], ", "), formats[last])
}

func asJSON(c *cli.Context) bool { return c.String("output") == "json" }

// printJSON writes a value as one line.
func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// noArguments refuses arguments, which are forgotten flags mostly.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usage("%s takes no argument %q\nRun 'filterd %s --help' for usage", c.Command.Name, c.Args().First(), c.Command.Name)
	}
	return nil
}

// loadConfig loads the config file that --config names. It writes warnings to
// standard error.
func loadConfig(c *cli.Context, options ...config.Option) (*config.Config, error) {
	return loadFile(c, c.String("config"), options...)
}

// loadFile is loadConfig for a file of another name.
func loadFile(c *cli.Context, name string, options ...config.Option) (*config.Config, error) {
	loaded, err := config.Load(name, options...)
	if err != nil {
		return nil, configError(c, name, err)
	}
	for _, warning := range loaded.Warnings {
		if !asJSON(c) {
			fmt.Fprintf(c.App.ErrWriter, "warning: %s\n", printable(warning.String()))
		}
	}
	return loaded, nil
}

// configError shows what is wrong with a config file.
func configError(c *cli.Context, name string, err error) error {
	var problems *config.Error
	if !errors.As(err, &problems) {
		return &exitError{code: exitUsage, err: err}
	}
	if asJSON(c) {
		_ = printJSON(c.App.Writer, struct {
			OK       bool             `json:"ok"`
			Problems []config.Problem `json:"problems"`
		}{Problems: problems.Problems})
		return &exitError{code: exitUsage}
	}
	for _, p := range problems.Problems {
		fmt.Fprintln(c.App.ErrWriter, printable(p.String()))
	}
	if isMissing(err) {
		return usage("there is no config file: 'filterd demo --print-rules > %s' writes an example", name)
	}
	return &exitError{code: exitUsage, err: fmt.Errorf("%s was refused: %s", name, count(len(problems.Problems), "problem"))}
}

// redisError says with its exit code that Redis is unreachable.
func redisError(err error) error {
	if errors.Is(err, pubsub.ErrUnreachable) {
		return &exitError{code: exitUnreachable, err: err}
	}
	return err
}

// newLogger makes the logger that --log-level and --output ask for. Both
// formats escape control characters, so payloads can't reach the terminal.
func newLogger(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, usage("--log-level %s: want debug, info, warn or error", c.String("log-level"))
	}
	options := &slog.HandlerOptions{Level: level}
	if asJSON(c) {
		return slog.New(slog.NewJSONHandler(c.App.ErrWriter, options)), nil
	}
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, options)), nil
}

func logLevelFlag() cli.Flag {
	return &cli.StringFlag{Name: "log-level", Value: "info", Usage: "least `LEVEL` to log: debug, info, warn or error"}
}

// printable escapes what a terminal would obey: control characters other than
// line breaks and tabs, and what turns the direction of text.
func printable(text string) string {
	ok := func(r rune) bool {
		return r == '\n' || r == '\t' || r != utf8.RuneError && !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r)
	}
	if strings.IndexFunc(text, func(r rune) bool { return !ok(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case ok(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	return b.String()
}

// oneLine is printable for a text that must stay on its line.
func oneLine(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(printable(text))
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
