package filterd_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

const hidden = "hunter2"

// holders returns a secret in the places where configuration keeps it.
func holders() []any {
	s := filterd.Secret(hidden)
	type options struct {
		User     string
		Password filterd.Secret
	}
	return []any{
		s, &s, options{"bot", s}, &options{"bot", s}, []filterd.Secret{s}, [1]any{s},
		map[string]filterd.Secret{"password": s}, map[string]any{"o": []options{{"bot", s}}}, struct{ Any any }{s},
	}
}

// leaks reports whether a text gives the secret away, as it is, in hexadecimal
// or as bytes.
func leaks(text string) bool {
	for _, form := range []string{"%s", "%x", "%X", "% x", "%#x", "%q", "%v"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(fmt.Sprintf(form, hidden))) {
			return true
		}
	}
	return strings.Contains(text, fmt.Sprint([]byte(hidden))[1:])
}

func TestSecretReveal(t *testing.T) {
	same(t, "text", filterd.Secret(hidden).Reveal(), hidden)
	same(t, "redacted", filterd.Secret(hidden).String(), "[redacted]")
}

func TestSecretFormats(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%#x", "% X", "%20s", "%.3s", "%T", "%d", "%t", "%c", "%b", "%e", "%U", "%08.3f"} {
		for _, holder := range holders() {
			if got := fmt.Sprintf(verb, holder); leaks(got) {
				t.Errorf("%s of %T gives %s", verb, holder, got)
			}
		}
	}
	for _, got := range []string{
		fmt.Sprint(filterd.Secret(hidden)),
		fmt.Sprintln(holders()...),
		fmt.Errorf("connect: %w, %v", errors.New("refused"), filterd.Secret(hidden)).Error(),
	} {
		if leaks(got) {
			t.Errorf("gives %s", got)
		}
	}
	same(t, "%v", fmt.Sprintf("%v", filterd.Secret(hidden)), "[redacted]")
	same(t, "%q", fmt.Sprintf("%q", filterd.Secret(hidden)), `"[redacted]"`)
}

func TestSecretEncodings(t *testing.T) {
	for _, holder := range holders() {
		text, err := json.Marshal(holder)
		if err != nil || leaks(string(text)) {
			t.Errorf("JSON of %T gives %s, %v", holder, text, err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "holder", holder, slog.Group("g", "h", holder))
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "holder", holder, slog.Group("g", "h", holder))
		if leaks(log.String()) {
			t.Errorf("a log of %T gives %s", holder, log.String())
		}
	}
	text, err := xml.Marshal(filterd.Secret(hidden))
	if err != nil || leaks(string(text)) {
		t.Errorf("XML gives %s, %v", text, err)
	}
}
