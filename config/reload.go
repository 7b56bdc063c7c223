package config

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"os"

	"github.com/filterd/filterd/engine"
)

// Reload loads the file anew, with the options that c was loaded with, and runs
// the tests beside its rules. Only then it makes the new table that of e, which
// has c's, and returns the new config in the place of c, which needs no Close
// any more. A module whose file and configuration are the same is taken over
// with its instances; another one of the same name has at least its KV and its
// counters.
//
// On an error e goes on with c's table, c stays, and e counts the refusal. The
// error is an [*Error]; a test that fails is one of its problems. ctx bounds how long to wait until no message is treated by the old
// table any more, as in [engine.Engine.Reload]: the new one holds either way.
// Reload is not safe for concurrent use.
func (c *Config) Reload(ctx context.Context, e *engine.Engine) (*Config, error) {
	if !c.loaded {
		return nil, errors.New("only a config that was loaded from a file can be reloaded")
	}
	next, err := c.next()
	if err != nil {
		e.RefuseReload(err)
		return nil, err
	}
	if err := e.Reload(ctx, next.Table); err != nil { // which counts that
		return nil, next.refuse(err)
	}
	next.modules, c.modules = next.stages, nil // e closes the rest of c's
	if next.runtime == nil {
		next.runtime = c.runtime
	}
	c.runtime = nil
	return next, nil
}

// next loads the file anew and runs its tests.
func (c *Config) next() (*Config, error) {
	if info, err := os.Stat(c.Path); err == nil && !info.Mode().IsRegular() {
		return nil, (&Config{Path: c.Path, Files: []File{{Path: c.Path}}}).refuse(errors.New("this is no regular file: it can't be read again"))
	}
	next, err := load(c.Path, c, c.options)
	if err != nil {
		return nil, err
	}
	results, err := next.RunTests()
	if err != nil {
		return nil, next.refuse(err)
	}
	if failed := FailedTests(results); len(failed) > 0 {
		return nil, next.refuse(&Error{Problems: failed, Files: next.Files})
	}
	return next, nil
}

// refuse closes c and returns the error as an [*Error].
func (c *Config) refuse(err error) error {
	if closing := c.Close(); closing != nil {
		err = errors.Join(err, closing)
	}
	var refused *Error
	if errors.As(err, &refused) {
		return refused
	}
	return &Error{Problems: []Problem{{File: c.Path, Message: printable(err.Error())}}, Files: c.Files, cause: err}
}

// FailedTests returns a problem for every test that fails: those that a reload is
// refused for.
func FailedTests(results []TestResult) []Problem {
	var failed []Problem
	more := 0
	for _, r := range results {
		switch {
		case r.OK:
		case len(failed) == maxProblems:
			more++
		default:
			got := r.Got
			if len(r.Differences) > 0 {
				got += ": " + r.Differences[0].String()
			}
			failed = append(failed, Problem{
				File: r.Test.File, Line: r.Test.Line, Column: r.Test.Column,
				Key:     element(below("rules", r.Test.Rule)+".tests", r.Test.Index),
				Message: printable(fmt.Sprintf("the test fails: want %s, got %s", r.Want, got)),
				Hint:    "mend the rule or the test",
			})
		}
	}
	if more > 0 {
		failed = append(failed, Problem{File: failed[0].File, Message: fmt.Sprintf("and %d more tests fail", more)})
	}
	return failed
}

// Changes says what differs between two versions of a file.
type Changes struct {
	// Added, Changed and Removed are names of rules, the first two in the
	// order of the newer file, Removed in that of the older one. A rule is
	// changed where its text is, or its module, but not by its channel's
	// contract.
	Added, Changed, Removed []string
	// Files are the paths of the files that are new or changed.
	Files []string
}

// Changes returns what is different in c from what was before.
func (c *Config) Changes(before *Config) Changes {
	var changes Changes
	old := make(map[string]int, len(before.Rules)) // rule name to index
	for i, r := range before.Rules {
		old[r.Name] = i
	}
	kept := make(map[string]bool, len(c.Rules))
	for i, r := range c.Rules {
		kept[r.Name] = true
		at, ok := old[r.Name]
		switch {
		case !ok:
			changes.Added = append(changes.Added, r.Name)
		case c.digests[i] != before.digests[at] || r.Stage != before.Rules[at].Stage:
			changes.Changed = append(changes.Changed, r.Name)
		}
	}
	for _, r := range before.Rules {
		if !kept[r.Name] {
			changes.Removed = append(changes.Removed, r.Name)
		}
	}
	sums := make(map[string]string, len(before.Files))
	for _, f := range before.Files {
		sums[f.Path] = f.SHA256
	}
	for _, f := range c.Files {
		if sum, ok := sums[f.Path]; !ok || sum != f.SHA256 {
			changes.Files = append(changes.Files, f.Path)
		}
	}
	return changes
}

// digest returns the hash of what a node says, wherever and however it stands.
func digest(n *node) [sha256.Size]byte {
	h := sha256.New()
	n.hash(h)
	return [sha256.Size]byte(h.Sum(nil))
}

func (n *node) hash(h hash.Hash) {
	var head []byte
	for _, size := range []int{int(n.kind), len(n.tag), len(n.value), len(n.items), len(n.entries)} {
		head = binary.AppendUvarint(head, uint64(size))
	}
	h.Write(append(append(head, n.tag...), n.value...))
	for _, item := range n.items {
		item.hash(h)
	}
	for _, e := range n.entries {
		e.key.hash(h)
		e.value.hash(h)
	}
}
