package config

import (
	"maps"
	"os"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Names returns the rules of a config file, and the channels, globs and streams
// that it declares or that its rules take messages from, each sorted. It is for
// completing command lines: nothing is checked, and of a file that is faulty
// what can be read is returned, with the error.
func Names(path string) (rules, channels []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var file struct {
		Channels map[string]any `yaml:"channels"`
		Rules    map[string]struct {
			From any `yaml:"from"`
		} `yaml:"rules"`
	}
	err = yaml.Unmarshal(text, &file)
	channels = slices.Collect(maps.Keys(file.Channels))
	for _, rule := range file.Rules {
		entries, ok := rule.From.([]any)
		if !ok {
			entries = []any{rule.From}
		}
		for _, entry := range entries {
			if of, ok := entry.(map[string]any); ok {
				entry = of["stream"]
				if entry == nil {
					entry = of["sharded"]
				}
			}
			if name, ok := entry.(string); ok {
				channels = append(channels, name)
			}
		}
	}
	slices.Sort(channels)
	return slices.Sorted(maps.Keys(file.Rules)), slices.Compact(channels), err
}
