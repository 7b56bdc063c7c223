package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const completionRules = `
channels: {"prices:btc": {}, "prices:eth": {}, "evil$(touch pwned) x": {}}
rules:
  whales: {from: trades, to: out}
  white-list: {from: trades, to: out}
  "no\nline": {from: trades, to: out}
`

func completionFolder(t *testing.T) string {
	t.Helper()
	t.Setenv("FILTERD_CONFIG", "")
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "filterd.yaml"), []byte(completionRules), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	return folder
}

func TestComplete(t *testing.T) {
	folder := completionFolder(t)
	t.Chdir(t.TempDir()) // where there is no file
	file := filepath.Join(folder, "filterd.yaml")
	for _, test := range []struct{ words, want string }{
		{"ch", "check"},
		{"wasm ", "bench build check new"},
		{"wasm new r", "rust"},
		{"check --ver", "--verbose"},
		{"nonsense --ver", ""},
		{"check --output ", "json text"},
		{"check --output=j", "--output=json"},
		{"check -o j", "json"},
		{"explain --rule wh", ""},
		{"explain -c " + file + " --rule wh", "whales white-list"},
		{"explain --config=" + file + " --rule=wh", "--rule=whales --rule=white-list"},
		{"explain --config " + file + " --rule no", ""},
		{"tail -c " + file + " pr", "prices:btc prices:eth"},
		{"record -c " + file + " --channel t", "trades"},
		{"record --out ", ""},
		{"completion ", "bash fish zsh"},
		{"ma", ""},
	} {
		_, stdout, stderr := filterdOf("", append([]string{"complete", "--"}, strings.Split(test.words, " ")...)...)
		if diff := cmp.Diff(test.want, strings.Join(strings.Fields(stdout), " ")); diff != "" || stderr != "" {
			t.Errorf("%s: %s\n%s", test.words, stderr, diff)
		}
	}
}

// The scripts work in the shells that are there, with names that are no words.
func TestCompletionInShells(t *testing.T) {
	for shell, drive := range map[string]string{
		"bash": `source <(filterd completion bash)
try() { COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=() COMP_CWORD=0; _filterd; printf '%s\n' "${COMPREPLY[*]}"; }
`,
		"zsh": `compdef() { :; }; compadd() { print -r -- "${(P)2}"; }; _files() { print; }
source <(filterd completion zsh)
try() { local -a words; words=(${(s: :)1}); [[ $1 == *" " ]] && words+=(""); CURRENT=$#words; _filterd; }
`,
		"fish": `filterd completion fish | source
function try; complete -C $argv[1] | string replace -r '\t.*' '' | string join ' '; true; end
`,
	} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip("needs " + shell)
			}
			folder := completionFolder(t)
			script := drive + "try 'filterd explain --rule wh'\ntry 'filterd repl'\ntry 'filterd tail prices:b'\ntry 'filterd tail evil'\n"
			cmd := exec.Command(path, "-c", script)
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			want := "whales white-list\nreplay\nprices:btc\nevil$(touch pwned) x\n"
			if shell == "bash" { // readline replaces what stands behind the colon, and takes words as they are typed
				want = "whales white-list\nreplay\nbtc\nevil\\$\\(touch\\ pwned\\)\\ x\n"
			}
			if diff := cmp.Diff(want, string(out)); diff != "" {
				t.Error(diff)
			}
			if entries, _ := os.ReadDir(folder); len(entries) != 1 {
				t.Error("a name was executed")
			}
		})
	}
}

// Every command and flag is in the manual, and man has nothing to say against it.
func TestManual(t *testing.T) {
	code, page, stderr := filterdOf("", "man")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	app := newApp(nil, nil, nil)
	for _, command := range app.Commands {
		if got := strings.Contains(page, `.SS "filterd `+roff(command.Name)); got == command.Hidden {
			t.Errorf("%s: hidden %v, in the manual %v", command.Name, command.Hidden, got)
		}
		for _, flag := range command.VisibleFlags() {
			if !strings.Contains(page, roff(dashed(flag.Names()[0]))) {
				t.Errorf("%s: no --%s", command.Name, flag.Names()[0])
			}
		}
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("needs man")
	}
	file := filepath.Join(t.TempDir(), "filterd.1")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", file)
	cmd.Env = append(os.Environ(), "MANPAGER=cat", "LC_ALL=C.UTF-8")
	var faults strings.Builder
	cmd.Stderr = &faults
	if out, err := cmd.Output(); err != nil || faults.Len() > 0 || !strings.Contains(string(out), "rules or messages failed") {
		t.Errorf("%v\n%s\n%.300s", err, faults.String(), out)
	}
}
