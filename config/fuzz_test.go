package config

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"
)

// FuzzParse: any text is a config or an error with places inside the text,
// always the same, and without what references stand for.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if part.Name == "filterd.yaml" {
				f.Add(string(part.Data))
			}
		}
	}
	f.Add("rules:\r\n\tr: {from: a, to: [${b}, '${\"x\" + data}'], when: >-\r\n   a\r\n\r\n    b\r\n  }")
	f.Add("\uFEFFredis: &a {url: !!str \"redis://${SECRET:-x}\\u0041\"}\nrules: {r: {from: a, to: b, when: *a, <<: [*a]}}")
	const secret = "pssst-7f3a91"
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, src string) {
		if len(src) > 1<<16 {
			return // size is for the tests of the limits
		}
		load := func() (*Config, error) {
			return Parse("f", []byte(src), Folder(folder), Callbacks(callbacks()), Environment(func(name string) (string, bool) {
				return secret, !strings.HasPrefix(name, "U")
			}))
		}
		c, err := load()
		if err == nil {
			checkConfig(t, c)
			return
		}
		var of *Error
		if !errors.As(err, &of) || len(of.Problems) == 0 || c != nil {
			t.Fatalf("%T %v with config %v", err, err, c)
		}
		if strings.Contains(err.Error(), secret) && !strings.Contains(src, secret) {
			t.Errorf("the error shows a secret: %v", err)
		}
		text := newText("f", strings.ToValidUTF8(src, "?")) // one character each
		for _, p := range of.Problems {
			if p.Line == 0 {
				continue
			}
			if p.Line > len(text.lines) {
				t.Fatalf("line %d of %d: %v", p.Line, len(text.lines), p)
			}
			if utf8.ValidString(src) {
				line, _ := text.lineText(p.Line - 1)
				if n := utf8.RuneCountInString(line); p.Column < 1 || p.Length < 1 || p.Column+p.Length-1 > n+2 {
					t.Fatalf("columns %d, %d long, of %d: %v", p.Column, p.Length, n, p)
				}
			}
			if p.Message == "" || strings.ContainsAny(p.Message, "\n\x1b") || strings.ContainsAny(p.Hint, "\n\x1b") {
				t.Errorf("message %q, hint %q", p.Message, p.Hint)
			}
		}
		if _, again := load(); !reflect.DeepEqual(again, err) {
			t.Errorf("first %v\nthen %v", err, again)
		}
	})
}

func checkConfig(t *testing.T, c *Config) {
	t.Helper()
	if len(c.Rules) == 0 || c.Table == nil || c.Registry == nil {
		t.Fatalf("an empty config was accepted: %+v", c)
	}
	for _, test := range c.Tests {
		if test.Channel == "" || test.Outcome == "" || !test.Raw && !json.Valid(test.In) {
			t.Errorf("%+v", test)
		}
	}
	for _, r := range c.Rules {
		for _, m := range r.Set {
			if m.Value == nil && !json.Valid(m.Constant) {
				t.Errorf("set %s: %s", m.Name, m.Constant)
			}
		}
	}
}

// TestSpelling writes texts in every style and looks for their characters.
func TestSpelling(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "x.y", " ", "  ", "\n", "\n\n", "\t", "'", "''", `"`, `\`, `\n`, "#", " # ", ":", ": ", "é", "🐋", "-", "{", "}", "[", ",", "&", "*", "!", "|", ">", "%", "@", "\u00A0", "longer than others "})
	styles := []yaml.Style{0, yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle, yaml.LiteralStyle, yaml.FoldedStyle}
	rapid.Check(t, func(t *rapid.T) {
		value := strings.Join(rapid.SliceOfN(part, 1, 40).Draw(t, "parts"), "")
		style := rapid.SampledFrom(styles).Draw(t, "style")
		scalar := &yaml.Node{Kind: yaml.ScalarNode, Tag: tagText, Value: value, Style: style}
		src, err := yaml.Marshal(map[string]any{"list": []any{map[string]*yaml.Node{"key": scalar}}, "z": 1})
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "crlf") {
			src = []byte(strings.ReplaceAll(string(src), "\n", "\r\n"))
		}
		p := &problems{text: newText("f", string(src))}
		root := readTree(p)
		if root == nil {
			t.Skip("the library does not read what it wrote")
		}
		n := root.get("list").items[0].get("key")
		offsets := p.text.spelling(n)
		if offsets == nil {
			t.Fatalf("no spelling of %q in\n%s", n.value, src)
		}
		for i := range len(n.value) {
			c := n.value[i]
			if i > 0 && offsets[i] < offsets[i-1] {
				t.Fatalf("offset %d goes back in\n%s", i, src)
			}
			if (c >= 'a' && c <= 'z' || c == '.' || c == '#') && src[offsets[i]] != c {
				t.Fatalf("byte %d of %q is at %d of\n%s", i, n.value, offsets[i], src)
			}
		}
	})
}
