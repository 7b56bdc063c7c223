package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/spelling"
)

// Definition is what a table is compiled of.
type Definition struct {
	// Registry holds the channels' contracts. Nil declares none.
	Registry *filterd.Registry
	// Rules are the rules, in the order in which they act on a message.
	Rules []Rule
	// Callbacks and Webhooks are those that rules can name.
	Callbacks map[string]Callback
	Webhooks  map[string]Webhook
	// StrictChannels demands that every channel a rule names is declared in
	// Registry.
	StrictChannels bool
}

// A RuleError is one fault of a rule.
type RuleError struct {
	Rule  string // the rule's name
	Field string // "name", "from", "streams", "sharded", "when", "set", "to", "allow", "on_error", "dead_letter", "overflow", "on_gap" or "loop"
	Index int    // the faulty element, where the field is a list
	Err   error
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %q: %s: %v", e.Rule, e.Field, e.Err) }

// Unwrap returns what is wrong.
func (e *RuleError) Unwrap() error { return e.Err }

// A Table is a set of rules, compiled and checked together. It is safe for
// concurrent use, and nothing about it changes but its memory of which rules
// a channel has.
type Table struct {
	registry    *filterd.Registry
	rules       []*rule
	names       []string        // every channel a rule takes messages from, sorted
	globs       []*filterd.Glob // every glob, in the order of their texts
	byName      map[string][]*rule
	byGlob      map[*filterd.Glob][]*rule
	onGap       []*rule          // those with OnGap
	stamped     bool             // channels that rules take messages from may be
	streams     []filterd.Stream // every stream, in the order of names and groups
	byStream    map[streamKey][]*rule
	sharded     []string // every sharded channel, sorted
	bySharded   map[string][]*rule
	warnings    []*RuleError
	mu          sync.RWMutex // guards routes and programs
	routes      map[routeKey]*route
	programs    map[string]*program // by the numbers of their rules
	crowds      map[crowd]int       // how many rules each has
	shared      map[crowd]*compiledSet
	maxPrograms int
	compiled    int                 // rules in programs
	forgotten   filterd.Evaluations // of programs that are not there any more
	linearOnce  sync.Once
	linear      int // set by linearOnce
}

// A rule is a Rule, compiled.
type rule struct {
	Rule
	table  *Table
	number int    // index into Table.rules
	from   string // all of From and Streams
	names  []string
	globs  []*filterd.Glob
	allow  []*filterd.Glob
	slow   []*slowTarget // by To; nil where a target is not slow
}

// A slowTarget is a target that messages wait for in lanes.
type slowTarget struct {
	name     string   // what its lanes are named by
	lanes    int      // that messages are spread over by channel and key
	callback Callback // nil: the webhook
	webhook  Webhook  // nil as well: the log
}

// slowTarget returns what is behind a target's lanes; nil if it has none.
func (d *Definition) slowTarget(to Target) *slowTarget {
	switch {
	case to.Callback != "":
		return &slowTarget{name: "callback " + to.Callback, lanes: 1, callback: d.Callbacks[to.Callback]}
	case to.Webhook != "":
		s := &slowTarget{name: "webhook " + to.Webhook, webhook: d.Webhooks[to.Webhook]}
		if s.webhook != nil {
			s.lanes = s.webhook.Concurrency()
		}
		return s
	case to.Log != nil:
		return &slowTarget{name: "log", lanes: 1}
	}
	return nil
}

// Compile compiles and checks rules. The error joins a [*RuleError] for every
// fault, in the order of the rules.
func Compile(d Definition) (*Table, error) {
	t := &Table{
		registry:    d.Registry,
		byName:      make(map[string][]*rule),
		byGlob:      make(map[*filterd.Glob][]*rule),
		byStream:    make(map[streamKey][]*rule),
		bySharded:   make(map[string][]*rule),
		routes:      make(map[routeKey]*route),
		programs:    make(map[string]*program),
		shared:      make(map[crowd]*compiledSet),
		maxPrograms: 4096,
	}
	if len(d.Rules) == 0 {
		return nil, errors.New("a table needs at least one rule")
	}
	var faults []*RuleError
	seen := make(map[string]bool, len(d.Rules))
	globs := make(map[string]*filterd.Glob)
	for i := range d.Rules {
		r := &rule{Rule: d.Rules[i], table: t, number: i}
		for _, to := range r.To {
			r.slow = append(r.slow, d.slowTarget(to))
		}
		faults = append(faults, r.check(d)...)
		r.from = strings.Join(r.From, "\x00")
		if seen[r.Name] {
			faults = append(faults, r.fault("name", 0, "another rule has this name"))
		}
		seen[r.Name] = true
		for _, from := range r.From {
			if !filterd.IsGlob(from) {
				r.names = append(r.names, from)
				t.byName[from] = append(t.byName[from], r)
				continue
			}
			if globs[from] == nil {
				globs[from] = filterd.CompileGlob(from)
			}
			r.globs = append(r.globs, globs[from])
			t.byGlob[globs[from]] = append(t.byGlob[globs[from]], r)
		}
		faults = append(faults, t.addStreams(r)...)
		for _, name := range r.Sharded {
			r.from += "\x03" + name
			t.bySharded[name] = append(t.bySharded[name], r)
		}
		t.rules = append(t.rules, r)
		if r.OnGap {
			t.onGap = append(t.onGap, r)
		}
	}
	t.stamped = slices.ContainsFunc(d.Registry.Contracts(), func(c *filterd.Contract) bool {
		return c.Stamped && slices.ContainsFunc(d.Rules, func(r Rule) bool {
			return slices.ContainsFunc(r.From, func(from string) bool { return overlap(c.Channel, from) })
		})
	})
	t.crowds = findCrowds(t.rules)
	t.names = slices.Sorted(maps.Keys(t.byName))
	t.sharded = slices.Sorted(maps.Keys(t.bySharded))
	for _, text := range slices.Sorted(maps.Keys(globs)) {
		t.globs = append(t.globs, globs[text])
	}
	loops, warnings := findLoops(t)
	t.warnings = append(t.warnings, warnings...)
	faults = append(faults, loops...)
	order := make(map[string]int, len(t.rules))
	for i, r := range t.rules {
		order[r.Name] = i
	}
	slices.SortStableFunc(faults, func(a, b *RuleError) int { return cmp.Compare(order[a.Rule], order[b.Rule]) })
	errs := make([]error, len(faults))
	for i, fault := range faults {
		errs[i] = fault
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := t.prepare(); err != nil {
		return nil, err
	}
	return t, nil
}

// Warnings returns what is suspicious about the rules, but no fault.
func (t *Table) Warnings() []*RuleError { return t.warnings }

// Rules returns the names of the rules in their order.
func (t *Table) Rules() []string {
	names := make([]string, len(t.rules))
	for i, r := range t.rules {
		names[i] = r.Name
	}
	return names
}

// Subscriptions returns what the rules take messages from, each kind sorted
// and without duplicates; and [filterd.StampsChannel] where one of their channels
// is stamped.
func (t *Table) Subscriptions() filterd.Subscriptions {
	s := filterd.Subscriptions{Channels: slices.Clone(t.names), Streams: slices.Clone(t.streams), Sharded: slices.Clone(t.sharded)}
	if t.stamped {
		s.Channels = slices.Insert(s.Channels, 0, filterd.StampsChannel)
		slices.Sort(s.Channels)
	}
	for _, g := range t.globs {
		s.Globs = append(s.Globs, g.String())
	}
	return s
}

// addStreams notes the streams that a rule takes messages from. Rules that
// share a stream and a group get its entries together.
func (t *Table) addStreams(r *rule) (faults []*RuleError) {
	for i, s := range r.Streams {
		r.from += "\x01" + s.Name + "\x02" + s.Group
		at, known := slices.BinarySearchFunc(t.streams, s, compareStreams)
		if !known {
			t.streams = slices.Insert(t.streams, at, s)
		} else if t.streams[at] != s {
			faults = append(faults, r.fault("streams", i, "another rule reads stream %s in group %s with other settings: %s", s.Name, s.Group, differences(s, t.streams[at])))
		}
		t.byStream[keyOf(s)] = append(t.byStream[keyOf(s)], r)
	}
	return faults
}

func compareStreams(a, b filterd.Stream) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Group, b.Group))
}

// differences names what two subscriptions to one stream don't share.
func differences(a, b filterd.Stream) string {
	var different []string
	if a.Field != b.Field {
		different = append(different, "field")
	}
	if a.ClaimIdle != b.ClaimIdle {
		different = append(different, "claim_idle")
	}
	if a.MaxDeliveries != b.MaxDeliveries {
		different = append(different, "max_deliveries")
	}
	return strings.Join(different, ", ")
}

func (r *rule) fault(field string, index int, format string, args ...any) *RuleError {
	return &RuleError{Rule: r.Name, Field: field, Index: index, Err: fmt.Errorf(format, args...)}
}

// check reports what is wrong with the rule by itself, and fills in defaults.
func (r *rule) check(d Definition) []*RuleError {
	var faults []*RuleError
	fail := func(field string, index int, format string, args ...any) {
		faults = append(faults, r.fault(field, index, format, args...))
	}
	if r.Name == "" {
		fail("name", 0, "a rule needs a name")
	}
	if len(r.From)+len(r.Streams)+len(r.Sharded) == 0 {
		fail("from", 0, "a rule needs a channel or a stream to take messages from")
	}
	undeclared := func(channel string) bool {
		return d.StrictChannels && !slices.ContainsFunc(d.Registry.Contracts(), func(c *filterd.Contract) bool { return overlap(c.Channel, channel) })
	}
	for i, from := range r.From {
		switch {
		case from == "":
			fail("from", i, "the name of a channel is not empty")
		case slices.Index(r.From, from) < i:
			fail("from", i, "%s is listed twice", from)
		case undeclared(from):
			fail("from", i, "channel %s is not declared%s", from, suggest(from, d.Registry))
		case len(r.Set) > 0 && d.takesBytes(from):
			fail("set", 0, "channel %s has envelope bytes: its data has no members", from)
		}
	}
	for i, name := range r.Sharded {
		switch {
		case name == "":
			fail("sharded", i, "the name of a channel is not empty")
		case filterd.IsGlob(name):
			fail("sharded", i, "%s is a pattern, which sharded channels have none of", name)
		case slices.Index(r.Sharded, name) < i:
			fail("sharded", i, "%s is listed twice", name)
		case undeclared(name):
			fail("sharded", i, "channel %s is not declared%s", name, suggest(name, d.Registry))
		case len(r.Set) > 0 && d.takesBytes(name):
			fail("set", 0, "channel %s has envelope bytes: its data has no members", name)
		}
	}
	r.Streams = slices.Clone(r.Streams) // they get their defaults
	for i := range r.Streams {
		s := r.Streams[i].WithDefaults()
		switch {
		case s.Name == "":
			fail("streams", i, "the name of a stream is not empty")
		case slices.ContainsFunc(r.Streams[:i], func(other filterd.Stream) bool { return keyOf(other) == keyOf(s) }):
			fail("streams", i, "stream %s is listed twice", s.Name)
		case undeclared(s.Name):
			fail("streams", i, "stream %s is not declared%s", s.Name, suggest(s.Name, d.Registry))
		case len(r.Set) > 0 && d.Registry.Lookup(s.Name).Envelope == filterd.EnvelopeBytes:
			fail("set", 0, "stream %s has envelope bytes: its data has no members", s.Name)
		case s.ClaimIdle < 0:
			fail("streams", i, "claim_idle %v: want more than 0", s.ClaimIdle)
		case s.MaxDeliveries < 0:
			fail("streams", i, "max_deliveries %d: want 1 or more", s.MaxDeliveries)
		}
		r.Streams[i] = s
	}
	members := make(map[string]bool, len(r.Set))
	for i, m := range r.Set {
		if members[m.Name] {
			fail("set", i, "member %s is set twice", m.Name)
		}
		members[m.Name] = true
	}
	if len(r.To) == 0 {
		fail("to", 0, "a rule needs a target")
	}
	if len(r.To) > MaxOutputs {
		fail("to", MaxOutputs, "%d targets are over the limit of %d", len(r.To), MaxOutputs)
	}
	computed := false
	for i, to := range r.To {
		switch {
		case to.Computed != nil:
			computed = true
		case to.Callback != "":
			if d.Callbacks[to.Callback] == nil {
				fail("to", i, "callback %s is not registered by the program", to.Callback)
			}
		case to.Webhook != "":
			if d.Webhooks[to.Webhook] == nil {
				fail("to", i, "there is no webhook %s", to.Webhook)
			}
		case to.Log != nil:
		case to.Stream != "":
			if undeclared(to.Stream) {
				fail("to", i, "stream %s is not declared%s", to.Stream, suggest(to.Stream, d.Registry))
			}
			if to.MaxLen < 0 {
				fail("to", i, "maxlen %d: want 1 or more", to.MaxLen)
			}
		case to.Sharded != "":
			if filterd.IsGlob(to.Sharded) {
				fail("to", i, "%s is a pattern: a target is one channel", to.Sharded)
			} else if undeclared(to.Sharded) {
				fail("to", i, "channel %s is not declared%s", to.Sharded, suggest(to.Sharded, d.Registry))
			}
		case to.Channel == "":
			fail("to", i, "the name of a channel is not empty")
		case filterd.IsGlob(to.Channel):
			fail("to", i, "%s is a pattern: a target is one channel", to.Channel)
		case undeclared(to.Channel):
			fail("to", i, "channel %s is not declared%s", to.Channel, suggest(to.Channel, d.Registry))
		case d.Registry.Lookup(to.Channel).Stamped:
			fail("to", i, "%v", stampedTarget(to.Channel))
		}
	}
	if computed && len(r.Allow) == 0 {
		fail("allow", 0, "a computed target needs the list of channels it may yield")
	}
	for i, allow := range r.Allow {
		if undeclared(allow) {
			fail("allow", i, "channel %s is not declared%s", allow, suggest(allow, d.Registry))
		}
		r.allow = append(r.allow, filterd.CompileGlob(allow))
	}
	r.OnError = cmp.Or(r.OnError, OnErrorDrop)
	switch r.OnError {
	case OnErrorDrop, OnErrorPass, OnErrorDeadLetter, OnErrorHalt:
	default:
		fail("on_error", 0, "unknown reaction %q: want drop, pass, dead_letter or halt", r.OnError)
	}
	switch {
	case r.OnError == OnErrorDeadLetter && r.DeadLetter == "":
		fail("on_error", 0, "dead_letter needs the channel: add dead_letter to the rule")
	case r.OnError != OnErrorDeadLetter && r.DeadLetter != "":
		fail("dead_letter", 0, "nothing goes there: on_error is %s", r.OnError)
	case filterd.IsGlob(r.DeadLetter) && !r.DeadLetterStream:
		fail("dead_letter", 0, "%s is a pattern: a dead letter channel is one channel", r.DeadLetter)
	case r.DeadLetterMaxLen < 0 || r.DeadLetterMaxLen > 0 && !r.DeadLetterStream:
		fail("dead_letter", 0, "maxlen %d: want 1 or more, and a stream", r.DeadLetterMaxLen)
	case r.DeadLetter != "" && undeclared(r.DeadLetter):
		fail("dead_letter", 0, "channel %s is not declared%s", r.DeadLetter, suggest(r.DeadLetter, d.Registry))
	}
	usual := OverflowDropOldest
	if len(r.From) == 0 && len(r.Streams) > 0 {
		usual = OverflowBlock
	}
	r.Overflow = cmp.Or(r.Overflow, usual)
	switch r.Overflow {
	case OverflowDropOldest, OverflowDropNewest, OverflowConflate:
		if usual == OverflowBlock {
			fail("overflow", 0, "nothing of a stream gives way: want block, which is the default")
		}
	case OverflowBlock:
		if len(r.From) > 0 {
			fail("overflow", 0, "block is for rules that take streams only: Redis would cut a subscription that waits")
		}
	default:
		fail("overflow", 0, "unknown policy %q: want drop_oldest, drop_newest, conflate or block", r.Overflow)
	}
	return append(faults, r.checkGaps(d)...)
}

// takesBytes reports whether messages of a channel, or of a channel that a
// glob may match, have the envelope bytes.
func (d Definition) takesBytes(from string) bool {
	if !filterd.IsGlob(from) {
		return d.Registry.Lookup(from).Envelope == filterd.EnvelopeBytes
	}
	return slices.ContainsFunc(d.Registry.Contracts(), func(c *filterd.Contract) bool {
		return c.Envelope == filterd.EnvelopeBytes && overlap(c.Channel, from)
	})
}

// overlap reports whether two names or globs can mean the same channel.
func overlap(a, b string) bool {
	switch {
	case a == b:
		return true
	case filterd.IsGlob(a) && filterd.IsGlob(b):
		return filterd.CompileGlob(a).Intersects(filterd.CompileGlob(b))
	case filterd.IsGlob(a):
		return filterd.CompileGlob(a).Match(b)
	case filterd.IsGlob(b):
		return filterd.CompileGlob(b).Match(a)
	}
	return false
}

// suggest returns ": did you mean X?" for a name that is nearly that of a
// declared channel.
func suggest(name string, registry *filterd.Registry) string {
	var declared []string
	for _, c := range registry.Contracts() {
		declared = append(declared, c.Channel)
	}
	if near := spelling.Nearest(name, declared); near != "" {
		return ": did you mean " + near + "?"
	}
	return ": declare it, or take strict_channels back"
}
