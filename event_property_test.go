package filterd_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/filterd/filterd"
)

// anyJSON generates JSON texts, with spaces and the odd number forms.
func anyJSON() *rapid.Generator[string] {
	scalar := rapid.OneOf(
		rapid.SampledFrom([]string{"null", "true", "false", "0", "-0", "1.50", "1e5", "9007199254740993", "1e-400", `""`, `"\ud800"`, `"\u0064"`}),
		rapid.Map(rapid.String(), func(s string) string { return string(filterd.AppendString(nil, s)) }),
		rapid.Map(rapid.Float64(), func(f float64) string { return fmt.Sprintf("%v", f) }).Filter(func(s string) bool { return json.Valid([]byte(s)) }),
	)
	return rapid.OneOf(
		scalar,
		rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(s []string) string { return list("[", s, " ]") }),
		rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(s []string) string {
			for i := range s {
				s[i] = `"k` + fmt.Sprint(i%2) + `": ` + s[i]
			}
			return list("{", s, "}")
		}),
	)
}

func list(open string, parts []string, end string) string {
	for i, p := range parts {
		if i > 0 {
			open += " , "
		}
		open += p
	}
	return open + end
}

// anyText generates strings that are CloudEvents Strings.
func anyText() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.RuneFrom([]rune{'a', '"', '\\', '/', '<', ' ', 'é', '\u2028', '\ufffd', '😀', '\ue000'}), 1, 8, -1)
}

// anyEvent generates valid events.
func anyEvent() *rapid.Generator[*filterd.Event] {
	return rapid.Custom(func(t *rapid.T) *filterd.Event {
		optional := func(g *rapid.Generator[string], label string) string {
			return rapid.OneOf(rapid.Just(""), g).Draw(t, label)
		}
		e := &filterd.Event{
			ID:              anyText().Draw(t, "id"),
			Source:          rapid.SampledFrom([]string{"/s", "urn:x:1", "https://u@[::1]:8/a%20b?q#f", "a", "//h"}).Draw(t, "source"),
			Type:            anyText().Draw(t, "type"),
			DataContentType: optional(rapid.SampledFrom([]string{"application/json", `text/plain; x="\""`}), "content type"),
			DataSchema:      optional(rapid.SampledFrom([]string{"urn:s", "http://s/#/a"}), "schema"),
			Subject:         optional(anyText(), "subject"),
		}
		if rapid.Bool().Draw(t, "timed") {
			zone := time.FixedZone("", rapid.IntRange(-1439, 1439).Draw(t, "offset")*60)
			seconds := rapid.Int64Range(-62_000_000_000, 253_000_000_000).Draw(t, "seconds")
			e.Time = time.Unix(seconds, rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).In(zone)
		}
		value := rapid.OneOf(rapid.Just(any("")), rapid.Map(anyText(), asAny[string]), rapid.Map(rapid.Bool(), asAny[bool]), rapid.Map(rapid.Int32(), asAny[int32]))
		if n := rapid.IntRange(0, 3).Draw(t, "extensions"); n > 0 {
			e.Extensions = make(map[string]any)
			for i := range n {
				e.Extensions[fmt.Sprintf("x%d", i)] = value.Draw(t, "extension")
			}
		}
		switch rapid.IntRange(0, 2).Draw(t, "data") {
		case 1:
			e.Data = json.RawMessage(anyJSON().Draw(t, "JSON"))
		case 2:
			e.Binary = rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "binary")
		}
		return e
	})
}

func asAny[T any](v T) any { return v }

// sameEvent compares events, and times as instants with an offset.
func sameEvent(got, want *filterd.Event) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b time.Time) bool {
		return a.Format(time.RFC3339Nano) == b.Format(time.RFC3339Nano)
	}))
}

// TestEventRoundTrip checks that what AppendJSON writes DecodeEvent reads, and
// that encoding/json agrees on what was written.
func TestEventRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent().Draw(t, "event")
		if err := e.Validate(); err != nil {
			t.Fatalf("generated an event that is not valid: %v", err)
		}
		payload := e.AppendJSON(nil)
		got, err := filterd.DecodeEvent(payload)
		if err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		if diff := sameEvent(got, e); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", payload, diff)
		}
		checkAgainstJSON(t, payload, got)
	})
}
