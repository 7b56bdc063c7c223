// Package filtertest is what every kind of filters must pass: that a set says
// of every rule and message what the rule's filter says alone.
package filtertest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/filterd/filterd"
)

// A Suite is one kind of filters and what to try it on.
type Suite struct {
	Kind filterd.Kind
	// Filters are filters of that kind: between them, on Messages, they must
	// keep, drop and fail.
	Filters []filterd.Filter
	// Messages are valid payloads.
	Messages []string
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	t.Run("kind", s.kind)
	t.Run("set says what each filter says", s.agreement)
	t.Run("batches say what single messages say", s.batches)
	t.Run("one set serves many goroutines", s.concurrency)
	t.Run("foreign filters are refused", s.foreign)
	t.Run("a set says how it finds its rules", s.access)
}

func (s Suite) kind(t *testing.T) {
	for i, f := range s.Filters {
		if f.Kind() != s.Kind {
			t.Errorf("filter %d is of kind %v, not %v", i, f.Kind(), s.Kind)
		}
	}
	if s.Kind.Name() == "" {
		t.Error("the kind has no name")
	}
}

// message returns message i, bound to what set reads.
func (s Suite) message(i int, p *filterd.Projection) *filterd.Message {
	m := &filterd.Message{Channel: "channel", Payload: []byte(s.Messages[i])}
	m.Bind(p)
	return m
}

func (s Suite) compile(t *testing.T, filters []filterd.Filter) (filterd.Set, *filterd.Projection) {
	t.Helper()
	set, err := s.Kind.Compile(filters)
	if err != nil {
		t.Fatal(err)
	}
	// The paths of another reader come first, so that slots are not 0, 1, 2.
	return set, filterd.NewProjection([]filterd.Path{filterd.PathChannel}, set.Paths())
}

// alone returns the verdicts of asking each filter about each message.
func (s Suite) alone() []string {
	var verdicts []string
	matchers := make([]filterd.Matcher, len(s.Filters))
	for i, f := range s.Filters {
		matchers[i] = f.Matcher()
	}
	for i := range s.Messages {
		for rule, matcher := range matchers {
			keep, err := matcher.Match(&filterd.Message{Channel: "channel", Payload: []byte(s.Messages[i])})
			if keep && err != nil {
				verdicts = append(verdicts, fmt.Sprintf("%d %d kept and failed", i, rule))
			} else if keep || err != nil {
				verdicts = append(verdicts, fmt.Sprintf("%d %d %v", i, rule, err))
			}
		}
	}
	return verdicts
}

// texts describes verdicts about a batch whose first message has that number.
// A group's verdict becomes those of its rules.
func texts(set filterd.Set, matcher filterd.SetMatcher, batch []*filterd.Message, verdicts []filterd.Verdict, first int) []string {
	var each []filterd.Verdict
	for _, v := range verdicts {
		if v.Group == 0 {
			each = append(each, v)
			continue
		}
		for _, rule := range set.Groups()[v.Group-1] {
			each = append(each, filterd.Verdict{Message: v.Message, Rule: rule, Err: matcher.Failure(batch[v.Message], rule)})
		}
	}
	slices.SortStableFunc(each, func(a, b filterd.Verdict) int {
		return cmp.Or(cmp.Compare(a.Message, b.Message), cmp.Compare(a.Rule, b.Rule))
	})
	var texts []string
	for _, v := range each {
		texts = append(texts, fmt.Sprintf("%d %d %v", v.Message+first, v.Rule, v.Err))
	}
	return texts
}

func (s Suite) agreement(t *testing.T) {
	set, projection := s.compile(t, s.Filters)
	matcher := set.Bind(projection.Slots(set.Paths()))
	var got []string
	for i := range s.Messages {
		batch := []*filterd.Message{s.message(i, projection)}
		got = append(got, texts(set, matcher, batch, matcher.Match(batch, nil), i)...)
	}
	equal(t, got, s.alone())

	kept, failed := 0, 0
	for _, filter := range s.Filters {
		matcher := filter.Matcher()
		for i := range s.Messages {
			switch keep, err := matcher.Match(s.message(i, projection)); {
			case err != nil:
				failed++
			case keep:
				kept++
			}
		}
	}
	if total := len(s.Filters) * len(s.Messages); kept == 0 || failed == 0 || kept+failed == total {
		t.Errorf("of %d pairs %d are kept and %d fail: the suite tries too little", total, kept, failed)
	}
}

func (s Suite) batches(t *testing.T) {
	set, projection := s.compile(t, s.Filters)
	matcher := set.Bind(projection.Slots(set.Paths()))
	var batch []*filterd.Message
	for i := range s.Messages {
		batch = append(batch, s.message(i, projection))
	}
	given := []filterd.Verdict{{Message: -1, Err: errors.New("was here before")}}
	got := matcher.Match(batch, given)
	if len(got) == 0 || got[0].Message != -1 {
		t.Fatal("Match does not append")
	}
	equal(t, texts(set, matcher, batch, got[1:], 0), s.alone())
	if got := matcher.Match(nil, nil); len(got) > 0 {
		t.Errorf("verdicts of no messages: %v", got)
	}
	none, projection := s.compile(t, nil)
	if got := none.Bind(projection.Slots(none.Paths())).Match([]*filterd.Message{s.message(0, projection)}, nil); len(got) > 0 {
		t.Errorf("verdicts of no filters: %v", got)
	}
}

func (s Suite) concurrency(t *testing.T) {
	set, projection := s.compile(t, s.Filters)
	want := s.alone()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			matcher := set.Bind(projection.Slots(set.Paths()))
			for range 20 {
				byMessage := make([][]string, len(s.Messages))
				for _, i := range rand.Perm(len(s.Messages)) {
					batch := []*filterd.Message{s.message(i, projection)}
					byMessage[i] = texts(set, matcher, batch, matcher.Match(batch, nil), i)
				}
				var got []string
				for _, verdicts := range byMessage {
					got = append(got, verdicts...)
				}
				equal(t, got, want)
			}
		})
	}
	all.Wait()
}

// stranger is a filter of no kind that exists.
type stranger struct{}

func (stranger) Kind() filterd.Kind                             { return strangers{} }
func (stranger) Matcher() filterd.Matcher                       { return nil }
func (stranger) String() string                                 { return "stranger" }
func (strangers) Name() string                                  { return "strangers" }
func (strangers) Compile([]filterd.Filter) (filterd.Set, error) { return nil, errors.New("none") }

type strangers struct{}

// access checks that a set can say of each rule how it finds it.
func (s Suite) access(t *testing.T) {
	set, _ := s.compile(t, s.Filters)
	for i := range s.Filters {
		if set.Access(i).By == "" {
			t.Errorf("rule %d: nothing is said of how it is found", i)
		}
	}
}

func (s Suite) foreign(t *testing.T) {
	if _, err := s.Kind.Compile([]filterd.Filter{stranger{}}); err == nil {
		t.Error("a filter of another kind compiled")
	}
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d verdicts, want %d:\n%q\n%q", len(got), len(want), got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("verdict %d: %s, want %s", i, got[i], want[i])
		}
	}
}
