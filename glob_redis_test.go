package filterd_test

import (
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// TestGlobMatchesRedis asks a Redis which of its channels match each of some
// thousand patterns. (Redis compares the ends of a range as C's char, whose
// sign is the platform's choice: no range here ends beyond ASCII.)
func TestGlobMatchesRedis(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: redistest.Start(t).Addr})
	defer client.Close()
	ctx := t.Context()

	names := append(allNames(`ab]-`, 3), "[", "*", "?", `\`, "^", "[a", "a*b", `a\b`, "é", "\xff")
	subscription := client.Subscribe(ctx, names...)
	defer subscription.Close()
	for range names {
		if _, err := subscription.Receive(ctx); err != nil {
			t.Fatal(err)
		}
	}

	patterns := []string{"", "*", "**", "?", "[", "[^", "[]", `\`, `[\`, "[a-", "[a-]", "[^]]", `[\]-b]`}
	for seed := range 2_000 {
		patterns = append(patterns, anyGlob(9).Example(seed))
	}
	replies := make([]*redis.Cmd, len(patterns))
	if _, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, pattern := range patterns {
			replies[i] = p.Do(ctx, "PUBSUB", "CHANNELS", pattern)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	matches := 0
	for i, pattern := range patterns {
		matched, err := replies[i].StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		matches += len(matched)
		g := filterd.CompileGlob(pattern)
		for _, name := range names {
			if got, want := g.Match(name), slices.Contains(matched, name); got != want {
				t.Errorf("%q matches %q: %v, but Redis says %v", pattern, name, got, want)
			}
			if got, want := redisMatch(pattern, name), slices.Contains(matched, name); got != want {
				t.Errorf("the reference says %q matches %q: %v, but Redis says %v", pattern, name, got, want)
			}
		}
	}
	if matches < len(patterns) {
		t.Errorf("%d patterns matched %d names in all: the test has lost its teeth", len(patterns), matches)
	}
}
