package config

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/webhook"
)

// A reload switches a webhook on again that has answered 410, and a refused one
// does not. What was counted stays, and another key signs.
func TestReloadWithWebhook(t *testing.T) {
	var status atomic.Int64
	var signedBy atomic.Value
	keys := map[string]string{"old": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "new": "C2FVsBQIhrscChlQIMV+b5sSYspob7oDiQ=="}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		by := ""
		for _, name := range []string{"old", "new"} {
			verifier, err := standardwebhooks.NewWebhook(keys[name])
			if err == nil && verifier.Verify([]byte("1"), r.Header) == nil {
				by += name
			}
		}
		signedBy.Store(by)
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	f := newFolder(t)
	file := func(secrets string) string {
		return "webhooks:\n  ops: {url: \"" + server.URL + "\", allow: 127.0.0.1, secrets: " + secrets + "}\nrules:\n  r: {from: in, to: {webhook: ops}}\n"
	}
	for name, key := range keys {
		f.write(name+".key", key+"\n")
	}
	f.write("filterd.yaml", file(`"${file:old.key}"`))
	c, err := Load(filepath.Join(f.path, "filterd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	e, err := c.Engine(engine.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	var failed, delivered uint64
	post := func(accepted bool, by string) {
		t.Helper()
		if err := e.Process(t.Context(), &filterd.Message{Channel: "in", Payload: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		if accepted {
			delivered++
		} else {
			failed++
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if s := e.Stats().Rules["r"]; s.Delivered == delivered && s.Undelivered == failed {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%+v, want %d delivered and %d not", s, delivered, failed)
			}
		}
		if got := signedBy.Load(); got != by {
			t.Errorf("signed by %v, want %s", got, by)
		}
	}
	reload := func(text string, fine bool) {
		t.Helper()
		f.write("filterd.yaml", text)
		next, err := c.Reload(t.Context(), e)
		if (err == nil) != fine {
			t.Fatal(err)
		}
		if fine {
			c = next
		}
	}
	status.Store(200)
	post(true, "old")
	status.Store(410)
	post(false, "old")
	status.Store(200)
	post(false, "old") // it is disabled
	reload(file(`"${file:missing.key}"`), false)
	post(false, "old")
	reload(file(`["${file:old.key}", "${file:new.key}"]`), true)
	post(true, "oldnew")
	reload(file(`"${file:new.key}"`), true)
	post(true, "new")
	want := webhook.Stats{Attempts: 4, Delivered: 3, Failed: map[webhook.Reason]uint64{webhook.ReasonGone: 3}, Breaker: "closed"}
	if diff := cmp.Diff(want, c.Webhooks["ops"].Stats()); diff != "" {
		t.Error(diff)
	}
}
