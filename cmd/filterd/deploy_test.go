package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// queries returns every expression of the dashboard and of the alerts.
func queries(t *testing.T) map[string][]string {
	t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile("../../deploy/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	all := map[string][]string{}
	var dashboard any
	if err := json.Unmarshal(read("grafana-dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	var walk func(value any)
	walk = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			for name, member := range value {
				if text, ok := member.(string); ok && (name == "expr" || name == "query") {
					all["dashboard"] = append(all["dashboard"], text)
				}
				walk(member)
			}
		case []any:
			for _, element := range value {
				walk(element)
			}
		}
	}
	walk(dashboard)
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(read("prometheus-alerts.yaml"), &alerts); err != nil {
		t.Fatal(err)
	}
	for _, group := range alerts.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" || rule.Expr == "" || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("the alert lacks something: %+v", rule)
			}
			all["alerts"] = append(all["alerts"], rule.Expr)
		}
	}
	return all
}

// The dashboard and the alerts ask for metrics and labels that there are, and
// between them for most.
func TestDeployedQueries(t *testing.T) {
	known := map[string]metric{}
	for _, m := range allMetrics() {
		known[m.name] = m
	}
	names := regexp.MustCompile(`filterd_\w+`)
	selector := regexp.MustCompile(`(filterd_\w+)\{([^}]*)\}`)
	matcher := regexp.MustCompile(`(\w+)(=~|!=|!~|=)"([^"]*)"`)
	grouping := regexp.MustCompile(`by \(([^)]*)\)`)
	common := []string{"job", "instance", "le"}
	used := map[string]bool{}
	for file, exprs := range queries(t) {
		if len(exprs) < 10 {
			t.Errorf("%s: only %d queries are found", file, len(exprs))
		}
		for _, expr := range exprs {
			labels := slices.Clone(common)
			for _, name := range names.FindAllString(expr, -1) {
				m, ok := known[family(name)]
				if !ok || m.kind == "histogram" && family(name) == name {
					t.Errorf("%s: nothing exports %s: %s", file, name, expr)
				}
				used[m.name] = true
				labels = append(labels, m.labels...)
			}
			for _, at := range selector.FindAllStringSubmatch(expr, -1) {
				for _, label := range matcher.FindAllStringSubmatch(at[2], -1) {
					m := known[family(at[1])]
					if !slices.Contains(append(m.labels, common...), label[1]) {
						t.Errorf("%s: %s has no label %s: %s", file, at[1], label[1], expr)
					}
					for value := range strings.SplitSeq(label[3], "|") {
						if !strings.HasPrefix(value, "$") && !slices.Contains(common, label[1]) && !strings.Contains(m.help, value) {
							t.Errorf("%s: no %s of %s is %s: %s", file, label[1], at[1], value, expr)
						}
					}
				}
			}
			for _, group := range grouping.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(group[1], ", ") {
					if !slices.Contains(labels, label) {
						t.Errorf("%s: nothing has the label %s: %s", file, label, expr)
					}
				}
			}
			if strings.Count(expr, "(") != strings.Count(expr, ")") {
				t.Errorf("%s: parentheses: %s", file, expr)
			}
		}
	}
	if len(used) < len(known)/2 {
		t.Errorf("only %d of %d metrics are looked at", len(used), len(known))
	}
}
