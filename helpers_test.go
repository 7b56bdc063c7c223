package filterd_test

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
)

// minimal is an event with nothing but what is required.
const minimal = `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`

// eventWith returns the minimal event with members set to other JSON texts,
// given as name and text in turn. An empty text removes the member.
func eventWith(members ...string) string {
	texts := map[string]string{"specversion": `"1.0"`, "id": `"1"`, "source": `"/s"`, "type": `"t"`}
	names := []string{"specversion", "id", "source", "type"}
	for i := 0; i < len(members); i += 2 {
		if _, ok := texts[members[i]]; !ok {
			names = append(names, members[i])
		}
		texts[members[i]] = members[i+1]
	}
	var parts []string
	for _, name := range names {
		if texts[name] != "" {
			parts = append(parts, strconv.Quote(name)+":"+texts[name])
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// complaint returns the reason and the failures of a validation error, and ""
// for none. Any other error fails the test.
func complaint(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var invalid *filterd.ValidationError
	if !errors.As(err, &invalid) {
		t.Fatalf("%T is no ValidationError: %v", err, err)
	}
	if !errors.Is(err, filterd.ErrInvalid) {
		t.Errorf("%v is not ErrInvalid", err)
	}
	texts := make([]string, len(invalid.Failures))
	for i, f := range invalid.Failures {
		texts[i] = f.String()
	}
	return string(invalid.Reason) + ": " + strings.Join(texts, "; ")
}

// same fails the test where got is not what is wanted.
func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// text returns an error's text, and "" for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// decoded decodes an event that is valid.
func decoded(t testing.TB, payload string) *filterd.Event {
	t.Helper()
	e, err := filterd.DecodeEvent([]byte(payload))
	if err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	return e
}

// registry makes a registry of contracts that are in order.
func registry(t testing.TB, contracts ...filterd.Contract) *filterd.Registry {
	t.Helper()
	r, err := filterd.NewRegistry(contracts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// schema parses a schema that is in order.
func schema(t testing.TB, source string) *filterd.Schema {
	t.Helper()
	s, err := filterd.ParseSchema("test.json", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nested returns n arrays, each in the one before.
func nested(n int) []byte {
	return append(bytes.Repeat([]byte("["), n), bytes.Repeat([]byte("]"), n)...)
}
