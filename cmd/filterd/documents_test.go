package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestDocuments does what the documents with commands tell readers to do, from
// top to bottom, in one folder and with a Redis of the document's own:
//
//   - A block that follows "`NAME`:" is written to that file, and a block yaml
//     without one to filterd.yaml.
//   - In a block console each line after "$ " is given to the shell, with the
//     lines after "> ". It must print what stands below it, where … is any text
//     in a line, or any lines if it is alone, and exit with 0, or with N if the
//     line ends in "# exits N". With an & at its end it runs in the background.
//   - The address of the admin server is another one, which is free.
//   - What a comment <!-- run … --> holds are lines of a script: see TestScripts.
func TestDocuments(t *testing.T) {
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, "../../README.md")
	dir := t.TempDir()
	var scripts []string
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		archive := documentScript(strings.ReplaceAll(string(text), "127.0.0.1:9464", freeAddress(t)))
		if !strings.Contains(string(archive.Comment), "\nruns ") {
			continue
		}
		script := filepath.Join(dir, strings.TrimSuffix(filepath.Base(document), ".md")+".txtar")
		if err := os.WriteFile(script, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
		scripts = append(scripts, script)
	}
	if len(scripts) == 0 {
		t.Fatal("no document has commands")
	}
	testscript.Run(t, scriptParams(t, testscript.Params{Files: scripts}))
}

var (
	fenced  = regexp.MustCompile("(?ms)(?:^`([\\w./-]+)`:\\n+)?^```(\\w+)\\n(.*?)^```$|<!-- run\\n(.*?)-->")
	prompt  = regexp.MustCompile(`(?m)^\$ (.*(?:\n> .*)*)\n?`)
	exitsBy = regexp.MustCompile(`# exits (\d+)$`)
)

// documentScript makes a script of a document.
func documentScript(text string) *txtar.Archive {
	archive := &txtar.Archive{}
	var script strings.Builder
	keep := func(suffix, data string) string {
		name := fmt.Sprintf(".document/%d%s", len(archive.Files), suffix)
		archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(data)})
		return name
	}
	for _, found := range fenced.FindAllStringSubmatchIndex(text, -1) {
		group := func(n int) string {
			if found[2*n] < 0 {
				return ""
			}
			return text[found[2*n]:found[2*n+1]]
		}
		name, language, body, lines := group(1), group(2), group(3), group(4)
		if lines+name == "" && language != "console" && language != "yaml" {
			continue
		}
		fmt.Fprintf(&script, "# line %d\n", 1+strings.Count(text[:found[0]], "\n"))
		switch {
		case lines != "":
			script.WriteString(lines)
		case language == "console":
			prompts := prompt.FindAllStringSubmatchIndex(body, -1)
			for i, at := range prompts {
				command, end := strings.ReplaceAll(body[at[2]:at[3]], "\n> ", "\n"), len(body)
				if i+1 < len(prompts) {
					end = prompts[i+1][0]
				}
				code := "0"
				if exits := exitsBy.FindStringSubmatch(command); exits != nil {
					code = exits[1]
				}
				if background, ok := strings.CutSuffix(command, " &"); ok {
					fmt.Fprintf(&script, "exec sh %s &\n", keep(".sh", "exec "+background+"\n"))
					continue
				}
				command = "exec 2>&1\nalias redis-cli='redis-cli -u \"$REDIS_URL\"'\n" + command + "\n"
				fmt.Fprintf(&script, "runs %s %s %s\n", code, keep(".sh", command), keep(".out", body[at[1]:end]))
			}
		default:
			if name == "" {
				name = "filterd.yaml"
			}
			fmt.Fprintf(&script, "cp %s %s\n", keep("", body), name)
		}
	}
	archive.Comment = []byte(script.String())
	return archive
}

// runs runs a command of a document and compares what it prints.
func runs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: runs CODE COMMAND OUTPUT")
	}
	exits(ts, false, []string{args[0], "sh", args[1]})
	got, want := ts.ReadFile("stdout"), ts.ReadFile(args[2])
	var pattern strings.Builder
	for line := range strings.Lines(want) {
		if strings.TrimSpace(line) == "…" {
			pattern.WriteString(`(?:.*\n)*`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
	}
	if !regexp.MustCompile(`\A` + pattern.String() + `\z`).MatchString(got) {
		ts.Fatalf("the document says:\n%s", want)
	}
}
