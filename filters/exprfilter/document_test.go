package exprfilter_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

// TestDocument evaluates the examples in docs/expressions.md: each line of a
// block expr, or as a condition of a block when, on the message in the block
// json before it.
func TestDocument(t *testing.T) {
	const path = "../../docs/expressions.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := filterd.NewRegistry()
	if err != nil {
		t.Fatal(err)
	}
	var payload string
	examples := 0
	for _, block := range regexp.MustCompile("(?s)```(json|expr|when)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		if block[1] == "json" {
			payload = block[2]
			continue
		}
		for line := range strings.Lines(block[2]) {
			source, want, ok := strings.Cut(strings.TrimSpace(line), "→")
			if !ok {
				t.Errorf("%s: no result: %s", path, line)
				continue
			}
			examples++
			m := &filterd.Message{Channel: "PRICE_DATA", Payload: []byte(payload)}
			got := evaluate(t, registry, m, strings.TrimSpace(source), block[1] == "when")
			if want = strings.TrimSpace(want); got != want {
				t.Errorf("%s\n got: %s\nwant: %s", source, got, want)
			}
		}
	}
	// The functions that it lists are there.
	_, functions, _ := strings.Cut(string(text), "\n## Functions\n")
	functions, _, _ = strings.Cut(functions, "```")
	for i, quoted := range strings.Split(functions, "`") {
		if i%2 == 0 || strings.ContainsAny(quoted, "#.") {
			continue
		}
		for _, name := range strings.Fields(quoted) {
			if _, err := exprfilter.CompileValue(name + "(data.a, true)"); err != nil && strings.Contains(err.Error(), "unknown name") {
				t.Errorf("%s: %s: %v", path, name, err)
			}
			examples++
		}
	}
	if examples < 100 {
		t.Errorf("%s has %d examples", path, examples)
	}
}

// evaluate says in words what an expression is worth.
func evaluate(t *testing.T, registry *filterd.Registry, m *filterd.Message, source string, condition bool) string {
	t.Helper()
	result, err := func() (any, error) {
		if condition {
			filter, err := exprfilter.Compile(source)
			if err != nil {
				return nil, fmt.Errorf("refused: %w", err)
			}
			return filter.Matcher().Match(m)
		}
		value, err := exprfilter.CompileValue(source)
		if err != nil {
			return nil, fmt.Errorf("refused: %w", err)
		}
		projection := filterd.NewProjection(value.Paths())
		m.Bind(projection)
		if err := registry.Check(m); err != nil {
			t.Fatal(err)
		}
		return value.Bind(projection.Slots(value.Paths())).Evaluate(m)
	}()
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "refused: "):
		return err.Error()
	case err != nil:
		return fmt.Sprintf("error: %v", err)
	}
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
