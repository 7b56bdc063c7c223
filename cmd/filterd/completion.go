package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/config"
)

// completions are the shells' scripts. Each hands the words up to the cursor to
// 'filterd complete', which answers with a candidate on each line; where it has
// none the shell offers files. Candidates are data: no shell evaluates them.
var completions = map[string]string{
	"bash": `# For ~/.bashrc: source <(filterd completion bash)
_filterd() {
	local -a words
	local line="${COMP_LINE:0:COMP_POINT}" cur="" prefix candidate
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	cur="${words[-1]}"
	prefix="${cur%"${cur##*[:=]}"}" # readline leaves this alone
	COMPREPLY=()
	while IFS= read -r candidate; do
		printf -v candidate %q "${candidate#"$prefix"}"
		COMPREPLY+=("$candidate")
	done < <("${words[0]}" complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _filterd filterd
`,
	"zsh": `#compdef filterd
# For a folder of $fpath, as _filterd; or for ~/.zshrc: source <(filterd completion zsh)
_filterd() {
	local -a candidates
	candidates=("${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n "${candidates[1]}" ]]; then
		compadd -a candidates
	else
		_files
	fi
}
if [[ "${funcstack[1]}" = _filterd ]]; then
	_filterd "$@"
else
	compdef _filterd filterd
fi
`,
	"fish": `# For ~/.config/fish/completions/filterd.fish
function __filterd_complete
	set -l words (commandline -opc) (commandline -ct)
	$words[1] complete -- $words[2..-1] 2>/dev/null
end
complete -c filterd -f -a '(__filterd_complete)'
complete -c filterd -n 'test -z "$(__filterd_complete)"' -F
`,
}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script that completes command lines in a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "Rules and channels are completed as well, by the names in the config file of the command line, or in\n" +
			"./filterd.yaml.\n\n" +
			"Example: source <(filterd completion bash)",
		Action: func(c *cli.Context) error {
			script, ok := completions[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return usage("completion %s: want bash, zsh or fish", strings.Join(c.Args().Slice(), " "))
			}
			_, err := fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}

// completeCommand answers the scripts.
func completeCommand() *cli.Command {
	return &cli.Command{
		Name:   "complete",
		Usage:  "list what the last of some words may become",
		Hidden: true,
		Action: func(c *cli.Context) error {
			for _, candidate := range complete(c.App, c.Args().Slice()) {
				fmt.Fprintln(c.App.Writer, candidate)
			}
			return nil
		},
	}
}

// complete returns what the last word may become; the words before it stand
// behind the program's name.
func complete(app *cli.App, words []string) []string {
	if len(words) == 0 {
		return nil
	}
	before, current := words[:len(words)-1], words[len(words)-1]
	commands, command := app.Commands, (*cli.Command)(nil)
	file := os.Getenv("FILTERD_CONFIG")
	waiting := "" // the flag whose value comes next
	for _, word := range before {
		name, value, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
		switch {
		case waiting != "":
			if waiting == "config" {
				file = word
			}
			waiting = ""
		case strings.HasPrefix(word, "-"):
			if name = flagOf(command, name); name != "" && !joined {
				waiting = name
			} else if name == "config" {
				file = value
			}
		default:
			for _, c := range commands {
				if c.HasName(word) {
					command, commands = c, c.Subcommands
					break
				}
			}
		}
	}
	prefix := ""
	if name, _, joined := strings.Cut(current, "="); joined && strings.HasPrefix(name, "-") && waiting == "" {
		waiting = flagOf(command, strings.TrimLeft(name, "-"))
		prefix = name + "="
	}
	var found []string
	switch {
	case waiting != "":
		found = valuesOf(command, waiting, file)
	case strings.HasPrefix(current, "-"):
		found = []string{"--help"}
		if command != nil {
			for _, flag := range command.VisibleFlags() {
				found = append(found, dashed(flag.Names()[0]))
			}
		}
	case len(commands) > 0:
		for _, c := range commands {
			if !c.Hidden {
				found = append(found, c.Name)
			}
		}
	default:
		found = argumentsOf(command, file)
	}
	var candidates []string
	for _, candidate := range found {
		candidate = prefix + candidate
		// A candidate is a line, and a terminal must not obey it.
		if strings.HasPrefix(candidate, current) && strings.IndexFunc(candidate, unicode.IsControl) < 0 {
			candidates = append(candidates, candidate)
		}
	}
	slices.Sort(candidates)
	return slices.Compact(candidates)
}

// flagOf returns the first name of a command's flag that takes a value, or
// nothing.
func flagOf(command *cli.Command, name string) string {
	if command == nil {
		return ""
	}
	for _, flag := range command.Flags {
		if _, isBool := flag.(*cli.BoolFlag); !isBool && slices.Contains(flag.Names(), name) {
			return flag.Names()[0]
		}
	}
	return ""
}

// valuesOf returns what a flag takes, as far as that can be known.
func valuesOf(command *cli.Command, flag, file string) []string {
	switch flag {
	case "output":
		return outputFormats(command.Name)
	case "log-level":
		return []string{"debug", "info", "warn", "error"}
	case "profile":
		return []string{"default", "full"}
	case "speed":
		return []string{"1", "2", "max"}
	case "rule":
		rules, _ := namesIn(file)
		return rules
	case "channel", "sharded", "stream":
		_, channels := namesIn(file)
		return channels
	}
	return nil
}

// argumentsOf returns what a command takes.
func argumentsOf(command *cli.Command, file string) []string {
	if command == nil {
		return nil
	}
	switch command.Name {
	case "publish", "tail":
		_, channels := namesIn(file)
		return channels
	case "completion":
		return []string{"bash", "zsh", "fish"}
	case "new":
		var names []string
		for _, l := range languages {
			names = append(names, l.name)
		}
		return names
	}
	return nil
}

// namesIn returns the rules and channels that a config file names, which may be
// half-written.
func namesIn(file string) (rules, channels []string) {
	if file == "" {
		file = "filterd.yaml"
	}
	rules, channels, _ = config.Names(file)
	return rules, channels
}
