package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// manCommand writes the manual page. The library's own generator is left out of
// the binary, since it brings a Markdown parser along.
func manCommand() *cli.Command {
	return &cli.Command{
		Name:   "man",
		Usage:  "print the manual page, for man -l or a package",
		Hidden: true,
		Action: func(c *cli.Context) error {
			writeManual(c.App.Writer, c.App)
			return nil
		},
	}
}

// writeManual writes the page filterd(1) in roff's macros man.
func writeManual(w io.Writer, app *cli.App) {
	fmt.Fprintf(w, ".TH FILTERD 1 \"\" %s \"User Commands\"\n", quotedRoff(app.Version))
	fmt.Fprintf(w, ".SH NAME\nfilterd \\- %s\n", roff(app.Usage))
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B filterd\n.I command\n.RI [ option \\|.\\|.\\|.]\n.RI [ argument \\|.\\|.\\|.]\n")
	fmt.Fprintf(w, ".SH DESCRIPTION\n%s\n.SH COMMANDS\n", paragraphs(app.Description))
	for _, command := range app.Commands {
		writeCommand(w, "filterd", command)
	}
	for _, part := range []struct{ title, text string }{
		{"EXIT STATUS", ".TP\n0\nall is well\n.TP\n1\nrules or messages failed\n.TP\n2\nthe command line or the config file is wrong\n.TP\n3\nRedis is unreachable\n.TP\n70\na bug\n"},
		{"FILES", ".TP\n.I filterd.yaml\nthe config file, if neither\n.B \\-\\-config\nnor\n.B FILTERD_CONFIG\nnames another one\n"},
	} {
		fmt.Fprintf(w, ".SH %s\n%s", quotedRoff(part.title), part.text)
	}
}

// writeCommand writes a command, or the commands below it.
func writeCommand(w io.Writer, above string, command *cli.Command) {
	if command.Hidden {
		return
	}
	name := above + " " + command.Name
	for _, sub := range command.Subcommands {
		writeCommand(w, name, sub)
	}
	if len(command.Subcommands) > 0 {
		return
	}
	fmt.Fprintf(w, ".SS %s\n", quotedRoff(strings.TrimSpace(name+" "+command.ArgsUsage)))
	fmt.Fprintf(w, "%s.\n", roff(command.Usage))
	if command.Description != "" {
		fmt.Fprintf(w, ".PP\n%s\n", paragraphs(command.Description))
	}
	for _, flag := range command.VisibleFlags() {
		documented, ok := flag.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, text := valueOf(documented.GetUsage())
		var names []string
		for _, name := range flag.Names() {
			names = append(names, `\fB`+roff(dashed(name))+`\fR`)
		}
		if documented.TakesValue() {
			names[len(names)-1] += ` \fI` + roff(value) + `\fR`
			if preset := documented.GetDefaultText(); preset != "" && preset != `""` {
				text += " (default: " + preset + ")"
			}
		}
		if variables := documented.GetEnvVars(); len(variables) > 0 {
			text += " ($" + strings.Join(variables, ", $") + ")"
		}
		fmt.Fprintf(w, ".TP\n%s\n%s\n", strings.Join(names, ", "), roff(text))
	}
}

// valueOf returns what a flag's usage calls its value, in backquotes, and the
// usage without those.
func valueOf(usage string) (value, text string) {
	value = "VALUE"
	if parts := strings.SplitN(usage, "`", 3); len(parts) == 3 {
		value = parts[1]
	}
	return value, strings.ReplaceAll(usage, "`", "")
}

// paragraphs escapes a description. Lines that are indented stay lines.
func paragraphs(text string) string {
	var b strings.Builder
	for i, part := range strings.Split(text, "\n") {
		switch {
		case part == "":
			part = ".PP"
		case strings.HasPrefix(part, " "):
			part = ".br\n" + roff(part) + "\n.br"
		default:
			part = roff(part)
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(part)
	}
	return b.String()
}

// roff escapes a text, of one line or more.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "…", `\|.\|.\|.`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") { // no macro
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func quotedRoff(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }
