package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// An Outcome is what becomes of a message in a [Test].
type Outcome string

// The outcomes.
const (
	OutcomeDeliver Outcome = "deliver" // it goes where Test.Out says
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
	// Raw says that In is the payload itself, or an event. Otherwise In is the
	// data, as compact JSON, and wants an event around it where the contract does,
	// or where Event is not nil: its attributes.
	Raw   bool
	In    []byte
	Event *filterd.Event
	// Now is when the message is received.
	Now time.Time
	// Outcome is what is expected, and Out where the message goes, in the order
	// of the file, if it is OutcomeDeliver. An empty Out is a message that is
	// kept and goes to no channel, but to callbacks or the log.
	Outcome Outcome
	Out     []Delivery
	// Sent is what targets get for which Out has no payload; nil is anything.
	Sent *Content
}

// A Delivery is a message that a test expects to go to a channel or stream.
type Delivery struct {
	Channel string
	Payload *Content // nil: what Test.Sent says
}

// Content is a payload that a test expects.
type Content struct {
	// Raw says that Text is the payload itself, byte for byte. Otherwise it is
	// compact JSON: a whole event if it has a member specversion, else the data
	// of whatever comes, numbers being equal by value.
	Raw  bool
	Text []byte
}

// String names the test, as in "whales[0]".
func (t Test) String() string { return fmt.Sprintf("%s[%d]", t.Rule, t.Index) }

// testTime is when messages of tests are received that don't say so.
var testTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// tests reads the tests of a rule.
func (l *loader) tests(key string, n *node, r engine.Rule) {
	if n.kind != listNode {
		l.want(key, n, "", "a list of tests")
		return
	}
	for i, item := range n.items {
		l.test(element(key, i), item, Test{Rule: r.Name, Index: i, File: l.problems.text.name, Now: testTime}, r)
	}
}

func (l *loader) test(key string, n *node, t Test, r engine.Rule) {
	s, ok := l.section(key, n, testKeys)
	if !ok {
		return
	}
	t.Line, t.Column = l.problems.text.position(n.offset)
	l.now(s, &t)
	inKey, in := s.get("in")
	if in == nil {
		l.fail(key, n, "", "in is missing")
	} else if content, ok := l.content(inKey, in, "a message"); ok {
		t.In, t.Raw = content.Text, content.Raw || isEvent(in)
	}
	outKey, out := s.get("out")
	if out == nil {
		l.fail(key, n, "", "out is missing")
	} else if out.kind == scalarNode && out.tag == tagText && contains(outcomes, out.value) {
		t.Outcome = Outcome(out.value)
	} else {
		t.Outcome, t.Out = OutcomeDeliver, l.deliveries(outKey, out)
	}
	if sentKey, sent := s.get("payload"); sent != nil {
		t.Sent, _ = l.content(sentKey, sent, "a payload")
		if t.Outcome != OutcomeDeliver && out != nil {
			l.fail(sentKey, sent, "take payload out", "nothing is sent where out is %s", t.Outcome)
		}
	}
	l.testChannel(key, s, &t, r)
	l.testEvent(s, &t)
	if in != nil && !t.Raw && t.Outcome != OutcomeInvalid {
		l.checkInput(inKey, in, t.Channel)
	}
	l.config.Tests = append(l.config.Tests, t)
}

// content reads a text, which is a payload, or what is JSON.
func (l *loader) content(key string, n *node, what string) (*Content, bool) {
	switch {
	case n.blank():
		l.fail(key, n, "write null for that value", "want %s, not nothing", what)
		return nil, false
	case n.kind == scalarNode && n.tag == tagText:
		return &Content{Raw: true, Text: []byte(n.value)}, true
	}
	var buf bytes.Buffer
	ok := l.json(key, n, &buf)
	return &Content{Text: buf.Bytes()}, ok
}

// isEvent reports whether a node is an event, and not data.
func isEvent(n *node) bool { return n.kind == mappingNode && n.get("specversion") != nil }

// deliveries reads the channels that a message goes to, and what goes there.
func (l *loader) deliveries(key string, n *node) []Delivery {
	var found []Delivery
	switch {
	case n.kind == scalarNode && n.tag == tagText:
		if channel, ok := l.text(key, n); ok {
			found = append(found, Delivery{Channel: channel})
		}
	case n.kind == mappingNode:
		for _, e := range n.entries {
			d := Delivery{Channel: e.key.value}
			if contains(outcomes, d.Channel) {
				l.fail(key, e.key, "write out: "+d.Channel, "%s has no payload", d.Channel)
			} else if !e.value.blank() { // which is anything
				d.Payload, _ = l.content(below(key, d.Channel), e.value, "a payload")
			}
			found = append(found, d)
		}
	case n.kind == listNode:
		for i, item := range n.items {
			if item.kind == listNode {
				l.want(element(key, i), item, "", "a channel")
				continue
			}
			found = append(found, l.deliveries(element(key, i), item)...)
		}
	default:
		l.want(key, n, "", "drop, invalid, error, a channel, a list of channels or {channel: payload}")
	}
	return found
}

// now reads when a test's message is received.
func (l *loader) now(s section, t *Test) {
	key, n := s.get("now")
	if n == nil {
		return
	}
	if n.kind != scalarNode || n.tag != tagText && n.tag != tagTime {
		l.want(key, n, "", "a time")
		return
	}
	now, err := time.Parse(time.RFC3339, n.value)
	if err != nil {
		l.fail(key, n, "write it as 2026-03-01T12:00:00Z", "want a time")
		return
	}
	t.Now = now
}

// testEvent reads the attributes of the event that a test's message is.
func (l *loader) testEvent(s section, t *Test) {
	key, n := s.get("event")
	if n == nil {
		return
	}
	if n.kind != mappingNode {
		l.want(key, n, "write {type: …, subject: …}", "a mapping")
		return
	}
	if c := l.config.Registry.Lookup(t.Channel); t.Raw {
		l.fail(key, n, "write the data under in", "in is a whole message, and gets no event around it")
		return
	} else if c.Envelope == filterd.EnvelopeRaw || c.Envelope == filterd.EnvelopeBytes {
		l.fail(key, n, "", "the messages of %s are no events (envelope: %s)", quote(t.Channel), c.Envelope)
		return
	}
	event := around(t)
	texts := map[string]*string{"id": &event.ID, "source": &event.Source, "type": &event.Type, "subject": &event.Subject,
		"datacontenttype": &event.DataContentType, "dataschema": &event.DataSchema}
	for _, e := range n.entries {
		name, value := e.key.value, e.value
		attributeKey := below(key, name)
		switch text := texts[name]; {
		case value.kind != scalarNode || value.tag == tagNull || value.tag == tagFloat:
			l.want(attributeKey, value, "", "text, a whole number, true or false")
		case name == "data" || name == "data_base64" || name == "specversion":
			l.fail(attributeKey, e.key, "write the data under in", "is no attribute of the event")
		case text != nil:
			*text = value.value
		case name == "time":
			at, err := time.Parse(time.RFC3339, value.value)
			if err != nil {
				l.fail(attributeKey, value, "write it as 2026-03-01T12:00:00Z", "want a time")
			}
			event.Time = at
		default:
			var buf bytes.Buffer
			var extension any = value.value
			if value.tag != tagText && value.tag != tagTime && l.json(attributeKey, value, &buf) {
				_ = json.Unmarshal(buf.Bytes(), &extension)
			}
			if number, ok := extension.(float64); ok {
				if extension = int32(number); float64(int32(number)) != number {
					l.fail(attributeKey, value, "put it in quotes", "is no number of 32 bits")
				}
			}
			if event.Extensions == nil {
				event.Extensions = make(map[string]any)
			}
			event.Extensions[name] = extension
		}
	}
	if err := event.Validate(); err != nil {
		l.fail(key, n, "", "%s", err)
	}
	t.Event = event
}

// around returns the event around a test's data, but for these.
func around(t *Test) *filterd.Event {
	return &filterd.Event{ID: "test", Source: "filterd/test", Type: t.Channel, Time: t.Now}
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
