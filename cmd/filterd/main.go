// Command filterd runs programmable message filters for Redis.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/internal/spelling"
	"github.com/filterd/filterd/pubsub"
)

// The exit codes.
const (
	exitFailed      = 1  // rules or messages failed
	exitUsage       = 2  // the command line or the config file is wrong
	exitUnreachable = 3  // Redis is unreachable
	exitBug         = 70 // EX_SOFTWARE of sysexits.h
)

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "filterd: this is a bug, please report it: %v\n%s", r, debug.Stack())
			code = exitBug
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills

	pubsub.LogClients(slog.New(slog.DiscardHandler)) // run says more, if it is told to

	app := newApp(stdin, stdout, stderr)
	err := app.RunContext(ctx, flagsFirst(app, args))
	if err == nil {
		return 0
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{code: exitFailed, err: err}
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "filterd: %v\n", exit.err)
	}
	return exit.code
}

// An exitError ends the program with a code. Without an error there is nothing
// more to say.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage is a fault of the command line.
func usage(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:    "filterd",
		Usage:   "programmable message filters for Redis",
		Version: version(),
		Description: "filterd subscribes to Redis channels, checks each message against its channel's contract,\n" +
			"evaluates rules on it, and sends what they keep to other channels.\n\n" +
			"Try it: filterd demo",
		Reader:          stdin,
		Writer:          stdout,
		ErrWriter:       stderr,
		HideHelpCommand: true,
		// A channel may have a comma in its name.
		DisableSliceFlagSeparator: true,
		UseShortOptionHandling:    false,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		OnUsageError:              onUsageError,
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usage("there is no command %q%s\nRun 'filterd --help' for the list of commands", name, didYouMean(name, commandNames(c.App.Commands)))
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			runCommand(), demoCommand(), checkCommand(), testCommand(), explainCommand(), evalCommand(), replayCommand(),
			publishCommand(), tailCommand(), recordCommand(), statusCommand(), gapsCommand(), topCommand(), dlqCommand(), benchCommand(), wasmCommand(), ledgerCommand(), schemaCommand(), completionCommand(),
			completeCommand(), manCommand(), rawRelayCommand(),
		},
	}
	finish(app.Commands)
	return app
}

// finish gives every command what all commands have.
func finish(commands []*cli.Command) {
	for _, command := range commands {
		command.OnUsageError = onUsageError
		command.HideHelpCommand = true
		finish(command.Subcommands)
		action := command.Action
		if len(command.Subcommands) > 0 {
			action = func(c *cli.Context) error {
				if name := c.Args().First(); name != "" {
					return usage("there is no command %q%s\nRun 'filterd %s --help' for the list of commands", c.Command.Name+" "+name, didYouMean(name, commandNames(c.Command.Subcommands)), c.Command.Name)
				}
				return cli.ShowSubcommandHelp(c)
			}
		}
		command.Action = func(c *cli.Context) error {
			if err := checkOutput(c); err != nil {
				return err
			}
			return action(c)
		}
	}
}

func onUsageError(c *cli.Context, err error, isSubcommand bool) error {
	text := err.Error()
	name := "filterd"
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	if flag, ok := strings.CutPrefix(text, "flag provided but not defined: "); ok {
		var known []string
		for _, f := range c.Command.Flags {
			for _, name := range f.Names() {
				known = append(known, dashed(name))
			}
		}
		text = fmt.Sprintf("there is no flag %s%s", dashed(strings.TrimLeft(flag, "-")), didYouMean(dashed(strings.TrimLeft(flag, "-")), known))
	}
	return usage("%s\nRun '%s --help' for usage", text, name)
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func commandNames(commands []*cli.Command) []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	return names
}

// flagsFirst moves a command's flags before its arguments, since the flag
// package stops at the first argument: 'filterd eval EXPR --quiet' is what
// people type. Everything behind -- is an argument.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) < 2 {
		return args
	}
	command := app.Command(args[1])
	if command == nil {
		return args
	}
	at := 2 // where the command's own words begin
	for at < len(args) && len(command.Subcommands) > 0 {
		sub := slices.IndexFunc(command.Subcommands, func(c *cli.Command) bool { return c.Name == args[at] })
		if sub < 0 {
			return args
		}
		command = command.Subcommands[sub]
		at++
	}
	takesValue := make(map[string]bool)
	for _, f := range command.Flags {
		_, isBool := f.(*cli.BoolFlag)
		for _, name := range f.Names() {
			takesValue[name] = !isBool
		}
	}
	var flags, rest []string
	for i := at; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			flags = append(flags, arg)
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		flags = append(flags, arg)
		if takesValue[strings.TrimLeft(arg, "-")] && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return slices.Concat(args[:at], flags, rest)
}

// didYouMean returns ": did you mean X?" for a word that nearly is another.
func didYouMean(word string, words []string) string {
	if near := spelling.Nearest(word, words); near != "" {
		return ": did you mean " + near + "?"
	}
	return ""
}

// release and commit are set by the linker where filterd is released.
var release, commit string

// version is the release or the module's version, the commit it was built from
// where that is known, and Go's version.
func version() string {
	v, from := release, commit
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(v, "unknown")
	}
	changed := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			from = cmp.Or(from, s.Value)
		case s.Key == "vcs.modified" && s.Value == "true" && commit == "":
			changed = " with changes"
		}
	}
	text := cmp.Or(v, info.Main.Version, "(devel)")
	if from != "" {
		text += " commit " + from + changed
	}
	return text + " " + info.GoVersion
}
