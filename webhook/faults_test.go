package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The endpoint's own wish when to come again holds, for all messages, within
// reason.
func TestRetryAfter(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		value  func() string
		least  time.Duration
		most   time.Duration
	}{
		"seconds":     {503, func() string { return "7" }, 7 * time.Second, 7 * time.Second},
		"busy":        {429, func() string { return "7" }, 7 * time.Second, 7 * time.Second},
		"date":        {503, func() string { return time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat) }, 90 * time.Second, 90 * time.Second},
		"a long time": {429, func() string { return "86400" }, MaxRetryAfter, MaxRetryAfter},
		"for ever":    {429, func() string { return strings.Repeat("9", 40) }, MaxRetryAfter, MaxRetryAfter},
		"far date":    {503, func() string { return time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat) }, MaxRetryAfter, MaxRetryAfter},
		"past":        {503, func() string { return time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat) }, 250 * time.Millisecond, 750 * time.Millisecond},
		"negative":    {503, func() string { return "-5" }, 250 * time.Millisecond, 750 * time.Millisecond},
		"nonsense":    {503, func() string { return "soon" }, 250 * time.Millisecond, 750 * time.Millisecond},
		"nothing":     {503, func() string { return "" }, 250 * time.Millisecond, 750 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // guards times
				var times []time.Time
				e, _, stop := inBubble(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					if times = append(times, time.Now()); len(times) == 1 {
						w.Header().Set("Retry-After", test.value())
						w.WriteHeader(test.status)
					}
				})
				defer stop()
				var others sync.WaitGroup
				others.Go(func() {
					time.Sleep(time.Millisecond) // after the first answer
					if test.least > time.Second {
						if err := e.Post(t.Context(), "r", message(event)); err != nil {
							t.Error(err)
						}
					}
				})
				if err := e.Post(t.Context(), "r", message(event)); err != nil {
					t.Fatal(err)
				}
				others.Wait()
				for _, at := range times[1:] {
					if waited := at.Sub(times[0]); waited < test.least || waited > test.most {
						t.Errorf("waited %v, want %v to %v", waited, test.least, test.most)
					}
				}
			})
		})
	}
}

// Pauses grow to the longest and vary, and the last failure is told with all
// that went before.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Time
		e, network, stop := inBubble(t, Options{Attempts: 4, MaxBackoff: time.Second}, func(w http.ResponseWriter, _ *http.Request) {
			times = append(times, time.Now())
			w.WriteHeader(500)
		})
		defer stop()
		err := e.Post(t.Context(), "r", message(event))
		var failure *Error
		if !errors.As(err, &failure) || failure.Attempts != 4 || failure.Status != 500 || failure.Reason != ReasonServer ||
			!strings.HasPrefix(err.Error(), "webhook ops: 500 Internal Server Error (the last of 4 attempts in ") {
			t.Fatal(err)
		}
		for i, bounds := range [][2]time.Duration{{250, 750}, {500, 1000}, {500, 1000}} {
			if waited := times[i+1].Sub(times[i]); waited < bounds[0]*time.Millisecond || waited > bounds[1]*time.Millisecond {
				t.Errorf("pause %d: %v", i, waited)
			}
		}
		if network.connections() != 1 {
			t.Errorf("%d connections", network.connections())
		}
		if diff := cmp.Diff(Stats{Attempts: 4, Retries: 3, Failed: map[Reason]uint64{ReasonServer: 1}, Breaker: "closed"}, e.Stats()); diff != "" {
			t.Error(diff)
		}
	})
}

// An endpoint that hangs, or answers 500, for an hour costs some requests, not a
// timeout for each message; and when it is back, so are we.
func TestDownForAnHour(t *testing.T) {
	for name, down := range map[string]http.HandlerFunc{
		"hangs":       func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"answers 500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var back atomic.Bool
				e, _, stop := inBubble(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if !back.Load() {
						down(w, r)
					}
				})
				defer stop()
				hour := time.Now().Add(time.Hour)
				time.AfterFunc(time.Hour, func() { back.Store(true) })
				var lanes sync.WaitGroup
				var failed, delivered atomic.Int64
				for range 4 { // goroutines of one rule
					lanes.Go(func() {
						for time.Now().Before(hour.Add(time.Minute)) {
							if err := e.Post(t.Context(), "r", message(event)); err != nil {
								failed.Add(1)
							} else {
								delivered.Add(1)
								time.Sleep(time.Second) // until there is another message
							}
						}
					})
				}
				time.Sleep(time.Hour - time.Second)
				s := e.Stats()
				if s.Breaker == "closed" || s.Attempts > 3600/10+10 || s.Delivered != 0 {
					t.Errorf("%+v", s)
				}
				lanes.Wait()
				s = e.Stats()
				if s.Breaker != "closed" || delivered.Load() < 4 || uint64(delivered.Load()) != s.Delivered {
					t.Errorf("%+v", s)
				}
				var told uint64
				for _, n := range s.Failed {
					told += n
				}
				if told != uint64(failed.Load()) || s.Failed[ReasonBreaker] == 0 {
					t.Errorf("%d failed: %+v", failed.Load(), s)
				}
			})
		})
	}
}

// The breaker refuses without a request, says so, and lets one try after a
// while. What an endpoint refuses is no reason to open it.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 400
		e, _, stop := inBubble(t, Options{Attempts: 1}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		defer stop()
		post := func() error { return e.Post(t.Context(), "r", message(event)) }
		for range 3 * breakerFailures {
			_ = post()
		}
		if s := e.Stats(); s.Breaker != "closed" || s.Attempts != 3*breakerFailures {
			t.Fatalf("%+v", s)
		}
		status = 503
		for range breakerFailures {
			_ = post()
		}
		before := e.Stats().Attempts
		want := "webhook ops: not tried, since 5 attempts in a row have failed: one in 10s is"
		if err := post(); err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
		if s := e.Stats(); s.Breaker != "open" || s.Attempts != before || s.Failed[ReasonBreaker] != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(breakerPause + time.Millisecond)
		if s := e.Stats(); s.Breaker != "half-open" {
			t.Errorf("%+v", s)
		}
		status = 200
		if err := post(); err != nil || e.Stats().Breaker != "closed" {
			t.Errorf("%v, %+v", err, e.Stats())
		}
	})
}

// An accepted message is accepted, however slowly or much the endpoint goes on
// to talk.
func TestLongAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, stop := inBubble(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(202)
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		})
		defer stop()
		begin := time.Now()
		if err := e.Post(t.Context(), "r", message(event)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > maxAnswerTime+time.Millisecond {
			t.Errorf("%v", took)
		}
	})
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	if err := s.endpoint(t, Options{}).Post(t.Context(), "r", message(event)); err != nil {
		t.Error(err)
	}
	endless := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 2*maxHeader))
	})
	err := endless.endpoint(t, Options{Attempts: 1}).Post(t.Context(), "r", message(event))
	if err == nil || !strings.Contains(err.Error(), "server response headers exceeded") {
		t.Error(err)
	}
}

// Who waits, for whatever, is not kept from its end.
func TestContextEndsAnyWait(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"retry": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"pause": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "300")
			w.WriteHeader(503)
		},
		"hang": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _, stop := inBubble(t, Options{Concurrency: 1}, handler)
				defer stop()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				begin := time.Now()
				var posting sync.WaitGroup
				for range 3 {
					posting.Go(func() {
						if err := e.Post(ctx, "r", message(event)); !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
						}
					})
				}
				posting.Wait()
				if took := time.Since(begin); took != 20*time.Second {
					t.Errorf("%v", took)
				}
			})
		})
	}
}

// An attempt that is given up tells nothing of the endpoint: the next one may
// try in its place.
func TestBreakerForgetsWhatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang, fine atomic.Bool
		e, _, stop := inBubble(t, Options{Attempts: 1}, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if hang.Load() {
				<-r.Context().Done()
			}
			if !fine.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		defer stop()
		for range breakerFailures {
			_ = e.Post(t.Context(), "r", message(event))
		}
		time.Sleep(breakerPause + time.Millisecond)
		hang.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.Post(ctx, "r", message(event)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		hang.Store(false)
		fine.Store(true)
		if err := e.Post(t.Context(), "r", message(event)); err != nil || e.Stats().Breaker != "closed" {
			t.Errorf("%v, %+v", err, e.Stats())
		}
	})
}
