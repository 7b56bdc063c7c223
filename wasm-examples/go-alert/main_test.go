//go:build !wasip1

package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/filterd/filterd/guest"
)

func TestAlert(t *testing.T) {
	test, err := guest.NewTest(setup, `{"key":"data.user","n":2,"window_s":10,"channel":"logins.alerts"}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		user  string
		later time.Duration
		want  []guest.TestMessage
	}{
		{user: `a\"b`},
		{user: "other"},
		{user: `a\"b`, later: 9 * time.Second, want: []guest.TestMessage{
			{Channel: "logins.alerts", Payload: `{"key":"a\"b","count":2,"channel":"logins"}`},
		}},
		{user: `a\"b`},                         // the third
		{user: `a\"b`, later: 1 * time.Second}, // the first of the next window
		{user: `a\"b`, want: []guest.TestMessage{
			{Channel: "logins.alerts", Payload: `{"key":"a\"b","count":2,"channel":"logins"}`},
		}},
	} {
		test.Now = test.Now.Add(step.later)
		result := test.Process("logins", `{"user": "`+step.user+`"}`)
		if result.Verdict != "pass" || !slices.Equal(result.Emitted, step.want) {
			t.Errorf("%s at %s: %+v, want %v", step.user, test.Now, result, step.want)
		}
	}
}

func TestAlertErrors(t *testing.T) {
	for config, want := range map[string]string{
		`{"n":0}`:             "config: n must be 1 or more, window_s 0.001 or more",
		`{"n":"3"}`:           "config: n must be a number\nconfig: n must be 1 or more, window_s 0.001 or more",
		`{"key":"user.name"}`: "not a path: user.name",
	} {
		if _, err := guest.NewTest(setup, config); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}

	test, err := guest.NewTest(setup, `{"n":1}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := test.Process("BOT_STATUS", `{"bot": 7}`); got.Verdict != "error" || got.Err.Error() != "the key must be a string" {
		t.Errorf("%+v", got)
	}
	test.Refuse = map[string]error{"alerts": guest.ErrNotAllowed}
	if got := test.Process("BOT_STATUS", `{"bot": "momentum"}`); !errors.Is(got.Err, guest.ErrNotAllowed) {
		t.Errorf("%+v", got)
	}
}
