package webhook

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/filterd/filterd"
)

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		o    Options
		want string
	}{
		{"nothing", Options{}, "name: an endpoint needs one\nurl: want https://host/path"},
		{"no URL", Options{Name: "a", URL: "ops/hunter2"}, "url: want https://host/path"},
		{"broken URL", Options{Name: "a", URL: "https://a b%zz/hunter2"}, "url: want https://host/path"},
		{"plain", Options{Name: "a", URL: "http://ops.example/hunter2"}, "url: want https: http is for networks under allow"},
		{"other scheme", Options{Name: "a", URL: "file:///etc/passwd", Allow: loopback}, "url: want https://host/path"},
		{"gopher", Options{Name: "a", URL: "gopher://ops.example", Allow: loopback}, "url: want https: http is for networks under allow"},
		{"login", Options{Name: "a", URL: "https://me:hunter2@ops.example"}, "url: a user and a password don't belong there: messages are signed"},
		{"three keys", Options{Name: "a", URL: "https://ops.example", Secrets: []filterd.Secret{oldKey, newKey, otherKey}}, "secrets: 3 keys are over the limit of 2"},
		{"keys", Options{Name: "a", URL: "https://ops.example", Secrets: []filterd.Secret{"whsec_hunter2", "c2hvcnQ="}},
			"secrets[0]: want 24 to 64 bytes in base64, with or without whsec_ before\nsecrets[1]: want 24 to 64 bytes in base64, with or without whsec_ before"},
		{"bounds", Options{Name: "a", URL: "https://ops.example", Concurrency: 65}, "timeout, max_backoff, attempts and concurrency are not negative, and concurrency is at most 64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := New(test.o); err == nil || err.Error() != test.want {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
}

// A request is what was posted: its headers without those of the connection.
type request struct {
	header http.Header
	body   string
}

// A server answers by a script, and remembers what it was asked.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	answers  []http.HandlerFunc // the last one for all that come after it
}

func newServer(t testing.TB, answers ...http.HandlerFunc) *server {
	s := &server{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests = append(s.requests, request{r.Header, string(body)})
		answer := s.answers[0]
		if len(s.answers) > 1 {
			s.answers = s.answers[1:]
		}
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) take() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	return taken
}

func (s *server) endpoint(t testing.TB, o Options) *Endpoint {
	o.URL, o.Allow, o.MaxBackoff = filterd.Secret(s.URL+"/hook?token=hunter2"), loopback, time.Millisecond
	return endpoint(t, o)
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const event = `{"specversion":"1.0","id":"7","source":"bot","type":"t","data":{"a":1}}`

// What arrives is the payload, of the type that it has, signed with all keys.
func TestPost(t *testing.T) {
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "bytes", Envelope: filterd.EnvelopeBytes})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, answer(http.StatusNoContent, ""))
	e := s.endpoint(t, Options{Secrets: []filterd.Secret{oldKey, newKey}})
	for _, test := range []struct{ channel, payload, contentType string }{
		{"in", event, "application/cloudevents+json"},
		{"in", `{"a": 1.50}`, "application/json"},
		{"bytes", `{"a":1}`, "application/octet-stream"},
		{"bytes", "\x00\xff", "application/octet-stream"},
	} {
		m := &filterd.Message{Channel: test.channel, Payload: []byte(test.payload)}
		if err := registry.Check(m); err != nil {
			t.Fatal(err)
		}
		if err := e.Post(t.Context(), "r", m); err != nil {
			t.Fatal(err)
		}
		got := s.take()
		if len(got) != 1 || got[0].body != test.payload || got[0].header.Get("Content-Type") != test.contentType || got[0].header.Get("User-Agent") != "filterd" {
			t.Errorf("%+v\nwant %s %q", got, test.contentType, test.payload)
		}
		for key, want := range map[string]bool{oldKey: true, newKey: true, otherKey: false} {
			verifier, err := standardwebhooks.NewWebhook(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.Verify([]byte(got[0].body), got[0].header); (err == nil) != want {
				t.Errorf("%s: key %s: %v", test.payload, key, err)
			}
			if err := verifier.Verify([]byte(got[0].body+" "), got[0].header); err == nil {
				t.Errorf("%s: key %s verifies another body", test.payload, key)
			}
		}
	}
	if diff := cmp.Diff(Stats{Attempts: 4, Delivered: 4, Failed: map[Reason]uint64{}, Breaker: "closed"}, e.Stats()); diff != "" {
		t.Error(diff)
	}
}

func TestPostUnsigned(t *testing.T) {
	s := newServer(t, answer(http.StatusOK, "fine"))
	if err := s.endpoint(t, Options{}).Post(t.Context(), "r", message(event)); err != nil {
		t.Fatal(err)
	}
	h := s.take()[0].header
	if h.Get("Webhook-Signature") != "" || h.Get("Webhook-Id") == "" || h.Get("Webhook-Timestamp") == "" {
		t.Errorf("%v", h)
	}
}

// A request tells where in a trace it is made, if there is one, and nothing of
// the payload's.
func TestPostInTrace(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	s := newServer(t, answer(http.StatusOK, "fine"))
	e := s.endpoint(t, Options{})
	at, ok := filterd.ParseTraceparent(parent)
	if !ok {
		t.Fatal(parent)
	}
	m := message(strings.Replace(event, `"data"`, `"traceparent":"`+strings.ReplaceAll(parent, "f", "e")+`","data"`, 1))
	for _, test := range []struct{ state, parent string }{{"", ""}, {"", parent}, {"a=1,b=2", parent}} {
		ctx := t.Context()
		if test.parent != "" {
			at.State = test.state
			ctx = filterd.WithTraceContext(ctx, at)
		}
		if err := e.Post(ctx, "r", m); err != nil {
			t.Fatal(err)
		}
		h := s.take()[0].header
		if h.Get("Traceparent") != test.parent || h.Get("Tracestate") != test.state || len(h.Values("Tracestate")) > 1 {
			t.Errorf("%+v: %v", test, h)
		}
	}
}

// The ID says which message it is, through which rule, for which endpoint.
func TestIDIsStable(t *testing.T) {
	e := endpoint(t, Options{URL: "https://ops.example"})
	entry := func(stream, id, payload string) *filterd.Message {
		return &filterd.Message{Channel: stream, ID: id, Payload: []byte(payload)}
	}
	same := [][2]string{
		{e.id("r", message(event)), e.id("r", message(strings.Replace(event, "1}", "2}", 1)))},
		{e.id("r", entry("s", "1-1", "{}")), e.id("r", entry("s", "1-1", "[]"))},
	}
	for i, ids := range same {
		if ids[0] != ids[1] {
			t.Errorf("%d: %v", i, ids)
		}
	}
	other := endpoint(t, Options{Name: "other", URL: "https://ops.example"})
	seen := make(map[string]int)
	for i, id := range []string{
		e.id("r", message(event)),
		e.id("other", message(event)),
		other.id("r", message(event)),
		e.id("r", message(strings.Replace(event, `"7"`, `"8"`, 1))),
		e.id("r", message(strings.Replace(event, `"bot"`, `"bots"`, 1))),
		e.id("r", entry("s", "1-1", event)),
		e.id("r", entry("s", "1-2", event)),
		e.id("r", entry("t", "1-1", event)),
		e.id(`r" "x`, entry("s", "1-1", event)),
		e.id("r", message("{}")),
		e.id("r", message("{}")), // nothing tells these two apart
	} {
		if at, ok := seen[id]; ok {
			t.Errorf("%d and %d have the same ID", at, i)
		}
		seen[id] = i
		if !strings.HasPrefix(id, "msg_") || len(id) != len("msg_")+32 && len(id) > 64 {
			t.Errorf("%d: %q", i, id)
		}
	}
}

// The same ID comes with every attempt, under the time of each.
func TestRetries(t *testing.T) {
	s := newServer(t, answer(500, "oh"), answer(502, ""), answer(429, ""), answer(425, ""), answer(408, ""),
		func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, answer(201, ""))
	e := s.endpoint(t, Options{Secrets: []filterd.Secret{oldKey}})
	if err := e.Post(t.Context(), "r", message(event)); err != nil {
		t.Fatal(err)
	}
	requests := s.take()
	if len(requests) != 7 {
		t.Fatalf("%d requests", len(requests))
	}
	verifier, err := standardwebhooks.NewWebhook(oldKey)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range requests {
		if r.header.Get("Webhook-Id") != requests[0].header.Get("Webhook-Id") || verifier.Verify([]byte(r.body), r.header) != nil {
			t.Errorf("%d: %v", i, r)
		}
	}
	if diff := cmp.Diff(Stats{Attempts: 7, Retries: 6, Delivered: 1, Failed: map[Reason]uint64{}, Breaker: "closed"}, e.Stats()); diff != "" {
		t.Error(diff)
	}
}

// What there is no use in repeating is not repeated, and says what is wrong.
func TestRefusals(t *testing.T) {
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		reason Reason
		want   string
	}{
		{"refused", answer(400, "bad \x1b[31msignature"), ReasonRefused, `webhook ops: 400 Bad Request: "bad \x1b[31msignature"`},
		{"unauthorized", answer(401, ""), ReasonRefused, `webhook ops: 401 Unauthorized`},
		{"unknown", answer(499, strings.Repeat("x", 300)), ReasonRefused, `webhook ops: 499: "` + strings.Repeat("x", 200) + `"`},
		{"metadata", redirect("http://169.254.169.254/latest/meta-data"), ReasonRedirect,
			`webhook ops: 307 Temporary Redirect to "169.254.169.254": redirects are not followed: give the URL that is meant`},
		{"nowhere", answer(304, ""), ReasonRedirect, `webhook ops: 304 Not Modified to nowhere: redirects are not followed: give the URL that is meant`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, test.answer)
			e := s.endpoint(t, Options{})
			err := e.Post(t.Context(), "r", message(event))
			var failure *Error
			if !errors.As(err, &failure) || failure.Reason != test.reason || err.Error() != test.want {
				t.Errorf("%v\nwant %s", err, test.want)
			}
			if n := len(s.take()); n != 1 || e.Stats().Failed[test.reason] != 1 || e.Stats().Breaker != "closed" {
				t.Errorf("%d requests, %+v", n, e.Stats())
			}
		})
	}
}

// 410 ends it until somebody reloads, and costs no request after that.
func TestGone(t *testing.T) {
	s := newServer(t, answer(410, "bye"), answer(200, ""))
	e := s.endpoint(t, Options{})
	for _, want := range []string{
		"webhook ops: 410 Gone: disabled until the next reload",
		"webhook ops: disabled since it has answered 410 Gone: reload when it is there again, or take it out of the rules",
	} {
		if err := e.Post(t.Context(), "r", message(event)); err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if diff := cmp.Diff(Stats{Attempts: 1, Failed: map[Reason]uint64{ReasonGone: 2}, Breaker: "closed", Disabled: true}, e.Stats()); diff != "" {
		t.Error(diff)
	}
	next := s.endpoint(t, Options{})
	next.Replace(e)
	if err := next.Post(t.Context(), "r", message(event)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(Stats{Attempts: 2, Delivered: 1, Failed: map[Reason]uint64{ReasonGone: 2}, Breaker: "closed"}, next.Stats()); diff != "" {
		t.Error(diff)
	}
}

// Who takes the place of another goes on with its connections and its breaker,
// if it leads to the same place.
func TestReplace(t *testing.T) {
	base := Options{Name: "ops", URL: "https://ops.example", Secrets: []filterd.Secret{oldKey}}
	former := endpoint(t, base)
	for name, test := range map[string]struct {
		change func(*Options)
		same   bool
	}{
		"nothing":  {func(*Options) {}, true},
		"keys":     {func(o *Options) { o.Secrets = []filterd.Secret{newKey} }, true},
		"attempts": {func(o *Options) { o.Attempts, o.Concurrency = 3, 1 }, true},
		"URL":      {func(o *Options) { o.URL = "https://ops.example/2" }, false},
		"allow":    {func(o *Options) { o.Allow = loopback }, false},
		"timeout":  {func(o *Options) { o.Timeout = time.Second }, false},
	} {
		o := base
		test.change(&o)
		e := endpoint(t, o)
		e.Replace(former)
		if same := e.link == former.link; same != test.same || e.counters != former.counters {
			t.Errorf("%s: same %v", name, same)
		}
	}
}

// Connections are used again, also after answers that are refusals.
func TestConnectionsAreKept(t *testing.T) {
	s := newServer(t, answer(200, strings.Repeat("x", 10_000)), answer(400, "no"), answer(200, ""))
	e := s.endpoint(t, Options{Concurrency: 1})
	var mu sync.Mutex
	from := make(map[string]bool)
	handler := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		handler.ServeHTTP(w, r)
	})
	for range 10 {
		_ = e.Post(t.Context(), "r", message(event)) // the second one fails
	}
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 1 || e.Stats().Delivered != 9 {
		t.Errorf("%d connections, %+v", len(from), e.Stats())
	}
}

// There are never more requests at once than the endpoint is said to stand,
// however many rules send.
func TestConcurrency(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	reached := make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		if now++; now > most {
			if most = now; most == 3 {
				close(reached)
			}
		}
		mu.Unlock()
		<-reached
		mu.Lock()
		now--
		mu.Unlock()
	})
	e := s.endpoint(t, Options{Concurrency: 3})
	var posting sync.WaitGroup
	for range 20 {
		posting.Go(func() {
			if err := e.Post(t.Context(), "r", message(event)); err != nil {
				t.Error(err)
			}
		})
	}
	posting.Wait()
	if most != 3 || e.Stats().InFlight != 0 {
		t.Errorf("%d at once, %+v", most, e.Stats())
	}
}

// An environment's proxy would see what is posted, and go where it likes.
func TestNoProxy(t *testing.T) {
	proxy := newServer(t, answer(200, ""))
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	s := newServer(t, answer(200, ""))
	e := endpoint(t, Options{URL: filterd.Secret(s.URL), Allow: loopback})
	if e.link.transport.Proxy != nil {
		t.Error("there is a proxy") // net/http's would spare loopback, and read the environment only once
	}
	if err := e.Post(t.Context(), "r", message(event)); err != nil || len(proxy.take()) != 0 || len(s.take()) != 1 {
		t.Errorf("%v", err)
	}
}

// TLS is checked, and the error names what is wrong but not the URL.
func TestTLS(t *testing.T) {
	tls := httptest.NewUnstartedServer(answer(200, ""))
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	untrusted := endpoint(t, Options{URL: filterd.Secret(tls.URL + "/hunter2"), Allow: loopback, Attempts: 1})
	err := untrusted.Post(t.Context(), "r", message(event))
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "hunter2") || untrusted.Stats().Failed[ReasonConnect] != 1 {
		t.Errorf("%v", err)
	}
	trusted := endpoint(t, Options{URL: filterd.Secret(tls.URL), Allow: loopback, TLS: tls.Client().Transport.(*http.Transport).TLSClientConfig})
	if err := trusted.Post(t.Context(), "r", message(event)); err != nil {
		t.Error(err)
	}
}

func TestPostEndsWithItsContext(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	e := s.endpoint(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.Post(ctx, "r", message(event)) }()
	for e.Stats().Attempts == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s := e.Stats(); len(s.Failed) != 0 || s.Breaker != "closed" {
		t.Errorf("%+v", s) // it is not the endpoint's fault
	}
}

func TestUnreachable(t *testing.T) {
	s := newServer(t, answer(200, ""))
	e := s.endpoint(t, Options{Attempts: 2})
	s.Close()
	err := e.Post(t.Context(), "r", message(event))
	var failure *Error
	if !errors.As(err, &failure) || failure.Reason != ReasonConnect || failure.Attempts != 2 || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}
