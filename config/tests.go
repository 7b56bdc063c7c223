package config

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// An Outcome is what becomes of a message in a [Test].
type Outcome string

// The outcomes.
const (
	OutcomeDeliver Outcome = "deliver" // it goes to the channels in Test.Out
	OutcomeDrop    Outcome = "drop"    // the rule does not keep it
	OutcomeInvalid Outcome = "invalid" // it breaks its contract
	OutcomeError   Outcome = "error"   // the rule fails on it
)

// A Test is one of the tests that stand beside a rule.
type Test struct {
	// Rule is the rule's name, and Index says which of its tests this is.
	Rule  string
	Index int
	// File, Line and Column say where the test stands.
	File         string
	Line, Column int
	// Channel is where the message comes from, and Stream says that it is a
	// stream.
	Channel string
	Stream  bool
	Sharded bool // it is a sharded channel
	// Raw says that In is the payload itself. Otherwise In is the data, as
	// compact JSON, and wants an event around it where the contract does.
	Raw bool
	In  []byte
	// Outcome is what is expected, and Out the channels, in the order of the
	// file, if it is OutcomeDeliver. An empty Out is a message that is kept
	// and goes to no channel, but to callbacks or the log.
	Outcome Outcome
	Out     []string
}

// String names the test, as in "whales[0]".
func (t Test) String() string { return fmt.Sprintf("%s[%d]", t.Rule, t.Index) }

// tests reads the tests of a rule.
func (l *loader) tests(key string, n *node, r engine.Rule) {
	if n.kind != listNode {
		l.want(key, n, "", "a list of tests")
		return
	}
	for i, item := range n.items {
		l.test(element(key, i), item, Test{Rule: r.Name, Index: i, File: l.problems.text.name}, r)
	}
}

func (l *loader) test(key string, n *node, t Test, r engine.Rule) {
	s, ok := l.section(key, n, testKeys)
	if !ok {
		return
	}
	t.Line, t.Column = l.problems.text.position(n.offset)
	inKey, in := s.get("in")
	switch {
	case in == nil:
		l.fail(key, n, "", "in is missing")
	case in.blank():
		l.fail(inKey, in, "write null for that value", "want a message, not nothing")
	case in.kind == scalarNode && in.tag == tagText:
		t.Raw, t.In = true, []byte(in.value)
	default:
		var buf bytes.Buffer
		l.json(inKey, in, &buf)
		t.In = buf.Bytes()
	}
	outKey, out := s.get("out")
	if out == nil {
		l.fail(key, n, "", "out is missing")
	} else if out.kind == scalarNode && out.tag == tagText && contains(outcomes, out.value) {
		t.Outcome = Outcome(out.value)
	} else if t.Out, _, ok = l.texts(outKey, out, "drop, invalid, error, a channel or a list of channels"); ok {
		t.Outcome = OutcomeDeliver
	}
	l.testChannel(key, s, &t, r)
	if in != nil && !t.Raw && t.Outcome != OutcomeInvalid {
		l.checkInput(inKey, in, t.Channel)
	}
	l.config.Tests = append(l.config.Tests, t)
}

// testChannel finds out where a test's message comes from.
func (l *loader) testChannel(key string, s section, t *Test, r engine.Rule) {
	if channelKey, n := s.get("channel"); n != nil {
		if t.Channel = l.optionalText(s, "channel"); t.Channel == "" {
			return
		}
		for _, from := range r.From {
			if from == t.Channel || filterd.IsGlob(from) && filterd.CompileGlob(from).Match(t.Channel) {
				return
			}
		}
		for _, s := range r.Streams {
			if t.Stream = s.Name == t.Channel; t.Stream {
				return
			}
		}
		if t.Sharded = slices.Contains(r.Sharded, t.Channel); t.Sharded {
			return
		}
		if len(r.From)+len(r.Streams)+len(r.Sharded) > 0 {
			l.fail(channelKey, n, "", "the rule takes no messages from %s", quote(t.Channel))
		}
		return
	}
	for _, from := range r.From {
		if !filterd.IsGlob(from) {
			t.Channel = from
			return
		}
	}
	if len(r.Streams) > 0 {
		t.Channel, t.Stream = r.Streams[0].Name, true
	} else if len(r.Sharded) > 0 {
		t.Channel, t.Sharded = r.Sharded[0], true
	} else if len(r.From) > 0 {
		l.fail(key, s.node, "add channel", "which channel? the rule takes patterns only")
	}
}
