package main

import (
	"strings"
	"testing"
)

// What a daemon says of its streams: what is before their groups, and why one of
// them can't be read, which makes it not ready.
func TestAdminTellsOfStreams(t *testing.T) {
	d, url := newAdminDaemon(t, `
rules:
  r: {from: [{stream: orders, group: g}, {stream: broken}], to: {stream: out}}
`)
	streams := func() map[string]adminStream {
		t.Helper()
		all := map[string]adminStream{}
		for _, s := range getJSON[[]adminStream](t, request{url: url + "/api/v1/streams"}) {
			all[s.Stream] = s
		}
		return all
	}
	add := func(stream string) { d.must(d.rdb.Do(t.Context(), "XADD", stream, "*", "event", "1").Err()) }
	add("orders")
	add("orders")
	d.must(d.rdb.XGroupCreate(t.Context(), "orders", "g2", "0").Err()) // somebody else's
	waitUntil(t, "two entries are dealt with, as Redis knows", func() bool {
		s := streams()["orders"]
		return s.Acknowledged == 2 && s.Pending != nil && *s.Pending == 0 && s.Lag != nil && *s.Lag == 0
	})
	s := streams()["orders"]
	if s.Read != 2 || s.Held != 0 || s.Group != "g" || s.Consumer == "" || !s.Wanted || s.Error != "" || s.BacklogError != "" {
		t.Errorf("%+v", s)
	}
	want := "orders in group g as " + s.Consumer + ": 2 read, 0 redelivered, 2 acknowledged, 0 held, 0 pending, lag 0"
	if got := s.text(); got != want {
		t.Errorf("status: %s\nwant    %s", got, want)
	}
	metrics := scrape(t, request{url: url + "/metrics"})
	for series, want := range map[string]float64{
		`filterd_ready`: 1,
		`filterd_stream_entries_total{group="g",outcome="read",stream="orders"}`:         2,
		`filterd_stream_entries_total{group="g",outcome="acknowledged",stream="orders"}`: 2,
		`filterd_stream_held{group="g",stream="orders"}`:                                 0,
		`filterd_stream_ready{group="g",stream="orders"}`:                                1,
		`filterd_stream_pending{group="g",stream="orders"}`:                              0,
		`filterd_stream_lag{group="g",stream="orders"}`:                                  0,
	} {
		if got, ok := metrics[series]; !ok || got != want {
			t.Errorf("%s is %v, %v; want %v", series, got, ok, want)
		}
	}

	d.must(d.rdb.Del(t.Context(), "broken").Err())
	d.must(d.rdb.Set(t.Context(), "broken", "x", 0).Err())
	readiness := func() (int, string) { return request{url: url + "/readyz"}.get(t) }
	const reason = "WRONGTYPE Operation against a key holding the wrong kind of value"
	waitUntil(t, "not ready", func() bool {
		status, text := readiness()
		return status == 503 && strings.Contains(text, `"stream \"broken\" in group \"filterd\": redis at `+d.server.Addr+`: `+reason)
	})
	if s := streams()["broken"]; !strings.HasSuffix(s.Error, reason) || !strings.HasSuffix(s.text(), "; CAN'T BE READ") {
		t.Errorf("%+v: %s", s, s.text())
	}
	metrics = scrape(t, request{url: url + "/metrics"})
	if ready, stream := metrics["filterd_ready"], metrics[`filterd_stream_ready{group="filterd",stream="broken"}`]; ready != 0 || stream != 0 {
		t.Errorf("metrics: ready is %v, the stream's is %v", ready, stream)
	}
	d.must(d.rdb.Del(t.Context(), "broken").Err())
	waitUntil(t, "ready again", func() bool { status, _ := readiness(); return status == 200 })

	// What no rule takes any more is not asked about, and no reason not to be ready.
	d.write("filterd.yaml", "redis: {url: \"${REDIS_URL}\"}\n"+adminSection+"rules: {r: {from: {stream: orders, group: g}, to: {stream: out}}}\n")
	if status, text := (request{method: "POST", url: url + "/api/v1/reload", token: testToken}).get(t); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	d.must(d.rdb.Set(t.Context(), "broken", "x", 0).Err())
	if s := streams()["broken"]; s.Wanted || s.Error != "" || s.Pending != nil || s.BacklogError != "" || !strings.HasSuffix(s.text(), "; no rule takes it any more") {
		t.Errorf("%+v: %s", s, s.text())
	}
	if status, text := readiness(); status != 200 {
		t.Errorf("readyz: %d %s", status, text)
	}
}
