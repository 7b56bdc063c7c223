package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// The daemon posts what a rule keeps, tries again, and gives what is refused to
// the dead letters.
func TestRunPostsToWebhooks(t *testing.T) {
	d := newDaemon(t)
	var mu sync.Mutex
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		switch bodies = append(bodies, string(body)); {
		case len(bodies) == 1:
			w.WriteHeader(503)
		case strings.Contains(string(body), "bad"):
			w.WriteHeader(422)
		}
	}))
	defer server.Close()
	d.write("token", testToken)
	d.write("key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	d.write("filterd.yaml", `redis: {url: "${REDIS_URL}"}
`+adminSection+`webhooks:
  ops: {url: "`+server.URL+`/hook", secrets: "${file:key}", allow: 127.0.0.0/8, concurrency: 1, max_backoff: 1ms}
rules:
  r: {from: in, to: {webhook: ops}, on_error: dead_letter, dead_letter: {stream: dead}}
`)
	t.Cleanup(func() { // after the daemon's end
		if lines := d.log.lines("webhook"); len(lines) != 1 || lines[0]["webhook"] != "ops" || lines[0]["attempts"] != 3.0 || lines[0]["delivered"] != 1.0 || lines[0]["failed_refused"] != 1.0 {
			t.Errorf("%v", lines)
		}
	})
	d.start()
	d.must(d.rdb.Publish(d.Context(), "in", `{"a":1}`).Err())
	d.must(d.rdb.Publish(d.Context(), "in", `{"a":"bad"}`).Err())
	d.eventually("dead letter", func() bool { return d.rdb.XLen(d.Context(), "dead").Val() == 1 })
	mu.Lock()
	if got := strings.Join(bodies, " "); got != `{"a":1} {"a":1} {"a":"bad"}` {
		t.Error(got)
	}
	mu.Unlock()
	entries := d.rdb.XRange(d.Context(), "dead", "-", "+").Val()
	if letter, _ := entries[0].Values["event"].(string); !strings.Contains(letter, `"rule":"r","reason":"webhook ops: 422 Unprocessable Entity"`) || !strings.Contains(letter, `"payload":"{\"a\":\"bad\"}"`) {
		t.Error(letter)
	}
	got := scrape(t, request{url: d.serving("server.listen") + "/metrics"})
	for series, want := range map[string]float64{
		`filterd_webhook_attempts_total{webhook="ops"}`:                  3,
		`filterd_webhook_retries_total{webhook="ops"}`:                   1,
		`filterd_webhook_deliveries_total{webhook="ops"}`:                1,
		`filterd_webhook_failures_total{reason="refused",webhook="ops"}`: 1,
		`filterd_webhook_failures_total{reason="breaker",webhook="ops"}`: 0,
		`filterd_webhook_breaker_open{webhook="ops"}`:                    0,
		`filterd_webhook_disabled{webhook="ops"}`:                        0,
		`filterd_rule_drops_total{reason="undelivered",rule="r"}`:        1,
	} {
		if n, ok := got[series]; !ok || n != want {
			t.Errorf("%s is %v, %v", series, n, ok)
		}
	}
	status := getJSON[adminStatus](t, request{url: d.serving("server.listen") + "/api/v1/status", token: testToken})
	if len(status.Webhooks) != 1 || status.Webhooks[0].Webhook != "ops" || status.Webhooks[0].Attempts != 3 || status.Webhooks[0].Breaker != "closed" {
		t.Errorf("%+v", status.Webhooks)
	}
}
