package config

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	generator "github.com/invopop/jsonschema"
)

// TestSchemaIsDocumented holds the tables in docs/config.md against the spec;
// with -update it writes them. What stands before them is written by hand.
func TestSchemaIsDocumented(t *testing.T) {
	const path, begin = "../docs/config.md", "<!-- From here on generated from config/spec.go: task schema -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	prose, got, ok := strings.Cut(string(text), begin)
	if !ok {
		t.Fatalf("%s has no line %s", path, begin)
	}
	var r tables
	r.section("", object(&fileSpec{}))
	want := r.text.String()
	if *update {
		if err := os.WriteFile(path, []byte(prose+begin+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := diff.Diff(want, got); d != "" {
		t.Errorf("%s is not what spec.go says: run go test ./config -run Schema -update (-want +got):\n%s", path, d)
	}
}

// tables is the text of tables of all keys.
type tables struct{ text strings.Builder }

// section writes the table of a section's keys, and then those of the
// sections below it.
func (r *tables) section(key string, s *generator.Schema) {
	title := "The file"
	if key != "" {
		title = "`" + key + "`"
	}
	fmt.Fprintf(&r.text, "\n## %s\n| key | value | default | |\n|---|---|---|---|\n", title)
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		fallback := ""
		switch {
		case p.Value.Default != nil:
			fallback = fmt.Sprintf("`%v`", p.Value.Default)
		case slices.Contains(s.Required, p.Key):
			fallback = "required"
		}
		fmt.Fprintf(&r.text, "| `%s` | %s | %s | %s |\n", p.Key, inWords(p.Value), fallback, strings.ReplaceAll(p.Value.Description, "|", `\|`))
	}
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		name := p.Key
		if key != "" {
			name = key + "." + name
		}
		r.below(name, p.Value)
	}
}

// below writes the sections that a value may be.
func (r *tables) below(key string, s *generator.Schema) {
	switch {
	case s == nil:
	case s.AnyOf != nil:
		for _, alternative := range s.AnyOf {
			switch {
			case alternative.Type == "array" && repeats(s, alternative):
			case alternative.Properties.Len() > 0 && len(alternative.Required) > 0:
				r.section(key+": {"+alternative.Required[0]+": …}", alternative)
			default:
				r.below(key, alternative)
			}
		}
	case s.Properties.Len() > 0:
		r.section(key, s)
	case s.Type == "object":
		r.below(key+".NAME", s.AdditionalProperties)
	case s.Type == "array":
		r.below(key+"[]", s.Items)
	}
}

// repeats reports whether a list's elements are alternatives of their own.
func repeats(s, list *generator.Schema) bool {
	return slices.ContainsFunc(s.AnyOf, func(a *generator.Schema) bool {
		return a != list && inWords(a) != "" && strings.Contains(inWords(list), inWords(a))
	})
}

// inWords says in words what a value may be.
func inWords(s *generator.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.AnyOf != nil:
		var words []string
		for _, alternative := range s.AnyOf {
			word := inWords(alternative)
			if alternative.Pattern == reference && len(s.AnyOf) > 1 && s.AnyOf[0] != alternative {
				continue // a reference may stand for it: the prose says so
			}
			if alternative.Type == "array" && repeats(s, alternative) {
				word = "a list of them"
			}
			if word != "" && !slices.Contains(words, word) {
				words = append(words, word)
			}
		}
		return strings.Join(words, ", or ")
	case s.Enum != nil:
		var words []string
		for _, word := range s.Enum {
			words = append(words, fmt.Sprintf("`%v`", word))
		}
		return strings.Join(words, ", ")
	case s.Properties.Len() > 0:
		var keys []string
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			keys = append(keys, p.Key)
		}
		switch {
		case len(s.Required) == 0:
			return "a section"
		case len(keys) > 3:
			keys = append(slices.Clone(s.Required), "…")
		}
		return "`{" + strings.Join(keys, ", ") + "}`"
	case s.Type == "object" && s.AdditionalProperties != nil && s.AdditionalProperties.Properties.Len() > 0:
		return "sections by name"
	case s.Type == "array":
		return "a list of " + cmp.Or(inWords(s.Items), "values")
	case s.Pattern == durationText().Pattern:
		return "a duration: `500ms`"
	case s.Pattern == reference:
		return "`${…}`"
	case strings.Contains(s.Pattern, "KiB"):
		return "a size: `64KiB`"
	}
	return map[string]string{"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "object": "a mapping", "": "any value"}[s.Type]
}
