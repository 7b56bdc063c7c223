package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/filterd/filterd"
)

const (
	// breakerFailures is how many attempts in a row fail before the breaker
	// opens, and breakerPause how long it then takes until one may try again.
	breakerFailures = 5
	breakerPause    = 10 * time.Second
	// maxAnswer is how much of an answer is read, so that its connection can
	// be used again; maxHeader bounds its headers. In bytes.
	maxAnswer = 64 << 10
	maxHeader = 64 << 10
	// maxAnswerTime is how long the rest of an answer may take once its status
	// is known.
	maxAnswerTime = time.Second
	// maxShown is how much of a refusing answer an error shows, in bytes.
	maxShown = 200
)

// A Reason classifies why a message was not delivered. There are few of them, so
// that they can serve as metric labels.
type Reason string

// The reasons.
const (
	ReasonConnect  Reason = "connect"  // no connection, or it broke before there was an answer
	ReasonTimeout  Reason = "timeout"  // no answer in time
	ReasonServer   Reason = "server"   // an answer of 5xx
	ReasonBusy     Reason = "busy"     // an answer of 408, 425 or 429
	ReasonBreaker  Reason = "breaker"  // not tried, since the last attempts have failed
	ReasonRefused  Reason = "refused"  // any other answer but 2xx
	ReasonRedirect Reason = "redirect" // an answer of 3xx
	ReasonBlocked  Reason = "blocked"  // the address is not in the public internet, nor allowed
	ReasonGone     Reason = "gone"     // 410, for this message or one before
)

// Reasons lists every Reason.
var Reasons = [...]Reason{ReasonConnect, ReasonTimeout, ReasonServer, ReasonBusy, ReasonBreaker, ReasonRefused, ReasonRedirect, ReasonBlocked, ReasonGone}

// An Error says why a message was not delivered.
type Error struct {
	Endpoint string // its name
	Reason   Reason // of the last attempt
	Status   int    // of the last answer; 0 if there was none
	Attempts int    // how often it was tried
	Time     time.Duration
	Err      error // what the last attempt failed on
}

func (e *Error) Error() string {
	text := fmt.Sprintf("webhook %s: %v", e.Endpoint, e.Err)
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (the last of %d attempts in %v)", e.Attempts, e.Time.Round(time.Millisecond))
	}
	return text
}

// Unwrap returns what the last attempt failed on.
func (e *Error) Unwrap() error { return e.Err }

// final reports whether there is no use in trying again.
func (e *Error) final() bool {
	switch e.Reason {
	case ReasonRefused, ReasonRedirect, ReasonBlocked, ReasonGone:
		return true
	}
	return false
}

// A link is what leads to an endpoint, and what is known of how it does.
// Safe for concurrent use.
type link struct {
	transport *http.Transport
	breaker   *gobreaker.TwoStepCircuitBreaker[struct{}]
	paused    atomic.Int64 // the time before which nothing may be sent, in Unix nanoseconds
}

func newLink(o Options, g guard) *link {
	dialer := &net.Dialer{Timeout: o.Timeout, Control: g.control, Resolver: g.resolver}
	return &link{
		transport: &http.Transport{ // without a Proxy
			DialContext:            dialer.DialContext,
			TLSClientConfig:        o.TLS.Clone(),
			TLSHandshakeTimeout:    o.Timeout,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConns:           MaxConcurrency,
			MaxIdleConnsPerHost:    MaxConcurrency,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			Timeout:     breakerPause,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
			IsExcluded:  func(err error) bool { return errors.Is(err, errUntold) },
		}),
	}
}

// errUntold is what the breaker is told of an attempt that says nothing of the
// endpoint.
var errUntold = errors.New("nothing is known of the endpoint")

// verdict is what the breaker is told of an attempt. An answer shows that the
// endpoint is there, unless it says that it is broken.
func (e *Error) verdict() error {
	switch {
	case e == nil:
		return nil
	case e.Reason == ReasonBlocked:
		return errUntold
	case e.Reason == ReasonConnect || e.Reason == ReasonTimeout || e.Reason == ReasonServer:
		return e
	}
	return nil
}

// attempt tries to deliver a letter once. The error is that of ctx.
func (e *Endpoint) attempt(ctx context.Context, l *letter) (*Error, error) {
	if e.gone.Load() {
		return e.failure(ReasonGone, http.StatusGone, errors.New("disabled since it has answered 410 Gone: reload when it is there again, or take it out of the rules")), nil
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := sleep(ctx, time.Until(time.Unix(0, e.link.paused.Load()))); err != nil {
		return nil, err
	}
	tell, err := e.link.breaker.Allow()
	if err != nil {
		return e.failure(ReasonBreaker, 0, fmt.Errorf("not tried, since %d attempts in a row have failed: one in %v is", breakerFailures, breakerPause)), nil
	}
	e.counters.attempts.Add(1)
	failure := e.send(ctx, l)
	if ctx.Err() != nil && failure != nil {
		tell(errUntold)
		return nil, ctx.Err()
	}
	tell(failure.verdict())
	return failure, nil
}

func (e *Endpoint) failure(reason Reason, status int, err error) *Error {
	return &Error{Endpoint: e.options.Name, Reason: reason, Status: status, Err: err}
}

// send makes one request.
func (e *Endpoint) send(ctx context.Context, l *letter) *Error {
	ctx, cancel := context.WithTimeout(ctx, e.options.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url.String(), bytes.NewReader(l.body))
	if err != nil {
		return e.failure(ReasonRefused, 0, bare(err))
	}
	request.Header.Set("Content-Type", l.contentType)
	request.Header.Set("User-Agent", "filterd")
	if t, ok := filterd.TraceContextOf(ctx); ok {
		request.Header.Set(filterd.TraceparentAttribute, t.Traceparent())
		if t.State != "" {
			request.Header.Set(filterd.TracestateAttribute, t.State)
		}
	}
	if err := e.sign(request.Header, l, time.Now()); err != nil {
		return e.failure(ReasonRefused, 0, fmt.Errorf("signing: %w", err))
	}
	response, err := e.link.transport.RoundTrip(request) // which follows no redirect
	var blocked *blockedError
	switch {
	case errors.As(err, &blocked):
		return e.failure(ReasonBlocked, 0, blocked)
	case err != nil && ctx.Err() != nil, isTimeout(err):
		return e.failure(ReasonTimeout, 0, fmt.Errorf("no answer in %v", e.options.Timeout))
	case err != nil:
		return e.failure(ReasonConnect, 0, bare(err))
	}
	late := time.AfterFunc(maxAnswerTime, cancel)
	defer late.Stop()
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // the status says it all
	_ = response.Body.Close()
	return e.judge(response, body)
}

// judge says what an answer means.
func (e *Endpoint) judge(response *http.Response, body []byte) *Error {
	status := response.StatusCode
	text := strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
	switch {
	case status >= 200 && status < 300:
		return nil
	case status >= 300 && status < 400:
		host := "nowhere"
		if to, err := response.Location(); err == nil {
			host = strconv.Quote(to.Host)
		}
		return e.failure(ReasonRedirect, status, fmt.Errorf("%s to %s: redirects are not followed: give the URL that is meant", text, host))
	case status == http.StatusGone:
		e.gone.Store(true)
		return e.failure(ReasonGone, status, fmt.Errorf("%s: disabled until the next reload", text))
	}
	if len(body) > 0 {
		text += fmt.Sprintf(": %q", body[:min(len(body), maxShown)])
	}
	reason := ReasonRefused
	switch {
	case status == http.StatusRequestTimeout || status == http.StatusTooEarly || status == http.StatusTooManyRequests:
		reason = ReasonBusy
	case status >= 500:
		reason = ReasonServer
	}
	if wait := retryAfter(response.Header, time.Now()); wait > 0 && reason != ReasonRefused {
		e.link.pause(time.Now().Add(wait))
	}
	return e.failure(reason, status, errors.New(text))
}

// pause lets nothing be sent before that time.
func (l *link) pause(until time.Time) {
	for {
		before := l.paused.Load()
		if before >= until.UnixNano() || l.paused.CompareAndSwap(before, until.UnixNano()) {
			return
		}
	}
}

// retryAfter returns how long the endpoint asks to wait: at most MaxRetryAfter,
// and 0 if it does not ask.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	var wait time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		wait = time.Duration(min(seconds, uint64(MaxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return max(0, min(wait, MaxRetryAfter))
}

// bare returns what an error of net/http says without the URL, which may be a
// secret.
func bare(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
