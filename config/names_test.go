package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNames(t *testing.T) {
	for _, test := range []struct {
		text            string
		rules, channels []string
		fails           bool
	}{
		{`
channels: {declared: {}, a: {}}
rules:
  two: {from: [a, "b.*", {stream: s}, {sharded: h}], when: nonsense}
  one: {from: {stream: s}}
`, []string{"one", "two"}, []string{"a", "b.*", "declared", "h", "s"}, false},
		{"rules: {x: {from: c}, y: 7}", []string{"x"}, []string{"c"}, true},
		{"rules: [", nil, nil, true},
		{"", nil, nil, false},
	} {
		path := filepath.Join(t.TempDir(), "filterd.yaml")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		rules, channels, err := Names(path)
		if diff := cmp.Diff([][]string{test.rules, test.channels}, [][]string{rules, channels}); diff != "" || (err != nil) != test.fails {
			t.Errorf("%s: %v\n%s", test.text, err, diff)
		}
	}
	if _, _, err := Names(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Error(err)
	}
}
