package webhook

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/filterd/filterd"
)

// The bounds of every endpoint.
const (
	// MaxSecrets is how many keys can be active: the old one and the new one
	// while a key is changed.
	MaxSecrets = 2
	// MaxConcurrency is the most requests at once.
	MaxConcurrency = 64
	// MaxRetryAfter is the longest that a Retry-After of the endpoint is
	// waited for.
	MaxRetryAfter = 5 * time.Minute

	minKey, maxKey = 24, 64 // bytes, as the specification has it
)

// Options says what an endpoint is. A zero field is its documented default.
type Options struct {
	// Name names the endpoint in errors and statistics. Required.
	Name string
	// URL is where messages are posted to: https, or http for addresses
	// under Allow. Required.
	URL filterd.Secret
	// Secrets are the keys that messages are signed with, each of them by
	// every one: 24 to 64 bytes in base64, with or without "whsec_" before.
	// At most MaxSecrets. Default: messages are not signed.
	Secrets []filterd.Secret
	// Allow lists networks that the endpoint may be in although they are
	// not of the public internet. Default: none.
	Allow []netip.Prefix
	// Timeout bounds one attempt, from the connection to the end of the
	// answer. Default 10 s.
	Timeout time.Duration
	// Attempts is how often one message is tried, at most. Default 10.
	Attempts int
	// MaxBackoff bounds the pause between two attempts, which grows from
	// half a second; a Retry-After may be longer. Default 30 s.
	MaxBackoff time.Duration
	// Concurrency is how many requests there are at once, at most
	// MaxConcurrency. Default 4.
	Concurrency int
	// TLS is what connections are encrypted with. Default: the system's
	// certificate authorities, and TLS 1.2 at least. [Endpoint.Replace] takes
	// pointers that are the same for the same TLS.
	TLS *tls.Config
}

// An Endpoint is a server that takes messages. Its methods are safe for
// concurrent use, but for Replace.
type Endpoint struct {
	options  Options
	url      *url.URL
	signers  []*standardwebhooks.Webhook
	slots    chan struct{} // holds a token for every request under way
	link     *link
	counters *counters
	gone     atomic.Bool // it has answered 410
}

// New makes an endpoint. It connects to nothing. The error joins everything
// that is wrong with the options.
func New(o Options) (*Endpoint, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	e := &Endpoint{options: o, counters: &counters{}}
	if o.Name == "" {
		fail("name: an endpoint needs one")
	}
	var err error
	e.url, err = url.Parse(o.URL.Reveal())
	switch {
	case err != nil || e.url.Host == "": // the error shows the URL
		fail("url: want https://host/path")
	case e.url.User != nil:
		fail("url: a user and a password don't belong there: messages are signed")
	case e.url.Scheme != "https" && (e.url.Scheme != "http" || len(o.Allow) == 0):
		fail("url: want https: http is for networks under allow")
	}
	if len(o.Secrets) > MaxSecrets {
		fail("secrets: %d keys are over the limit of %d", len(o.Secrets), MaxSecrets)
	}
	for i, secret := range o.Secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret.Reveal(), "whsec_"))
		if err != nil || len(key) < minKey || len(key) > maxKey {
			fail("secrets[%d]: want %d to %d bytes in base64, with or without whsec_ before", i, minKey, maxKey)
			continue
		}
		signer, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			fail("secrets[%d]: %w", i, err)
		}
		e.signers = append(e.signers, signer)
	}
	if o.Timeout < 0 || o.MaxBackoff < 0 || o.Attempts < 0 || o.Concurrency < 0 || o.Concurrency > MaxConcurrency {
		fail("timeout, max_backoff, attempts and concurrency are not negative, and concurrency is at most %d", MaxConcurrency)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	e.options.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	e.options.Attempts = cmp.Or(o.Attempts, 10)
	e.options.MaxBackoff = cmp.Or(o.MaxBackoff, 30*time.Second)
	e.options.Concurrency = cmp.Or(o.Concurrency, 4)
	e.slots = make(chan struct{}, e.options.Concurrency)
	e.link = newLink(e.options, guard{allow: o.Allow, only: e.url.Scheme == "http"})
	return e, nil
}

// Replace makes e go on in the place of a former endpoint of its name: with its
// counters, and with its connections and its breaker where both lead to the
// same place. That the former one is disabled does not matter to e. It must be
// called before the first Post, and leaves the former one at work.
func (e *Endpoint) Replace(former *Endpoint) {
	e.counters = former.counters
	a, b := e.options, former.options
	if a.URL == b.URL && a.Timeout == b.Timeout && a.TLS == b.TLS && slices.Equal(a.Allow, b.Allow) {
		e.link = former.link
	}
}

// Concurrency is how many requests there are at once, at most.
func (e *Endpoint) Concurrency() int { return e.options.Concurrency }

// Close closes connections that are not in use. Those in use are closed later.
func (e *Endpoint) Close() { e.link.transport.CloseIdleConnections() }

// Post hands a message that a rule has kept to the endpoint. It returns when the
// endpoint has accepted it, refused it for good, or failed as often as it may:
// with an [*Error], or with that of ctx. What comes with the same stream entry,
// or event, and the same rule has the same ID. Where ctx has a place in a trace,
// the headers traceparent and tracestate tell it.
func (e *Endpoint) Post(ctx context.Context, rule string, m *filterd.Message) error {
	l := &letter{id: e.id(rule, m), contentType: m.ContentType(), body: m.Payload}
	pause := &backoff.ExponentialBackOff{InitialInterval: min(500*time.Millisecond, e.options.MaxBackoff), RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: e.options.MaxBackoff}
	pause.Reset()
	begin := time.Now()
	for tried := 1; ; tried++ {
		failure, err := e.attempt(ctx, l)
		switch {
		case err != nil: // ctx has ended
			return err
		case failure == nil:
			e.counters.delivered.Add(1)
			return nil
		case failure.final() || tried == e.options.Attempts:
			failure.Attempts, failure.Time = tried, time.Since(begin)
			e.counters.fail(failure.Reason)
			return failure
		}
		e.counters.retries.Add(1)
		if err := sleep(ctx, min(pause.NextBackOff(), e.options.MaxBackoff)); err != nil {
			return err
		}
	}
}

// id returns the ID of a message as a rule sends it to the endpoint.
func (e *Endpoint) id(rule string, m *filterd.Message) string {
	var origin string
	if m.ID != "" {
		origin = fmt.Sprintf("entry %q %q", m.Channel, m.ID)
	} else if attributes, err := m.Attributes(); err == nil && attributes["id"] != nil {
		origin = fmt.Sprintf("event %q %q", attributes["source"], attributes["id"])
	} else {
		return "msg_" + filterd.NewID(time.Now())
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q %q", origin, rule, e.options.Name))
	return fmt.Sprintf("msg_%x", sum[:16])
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A letter is a message on its way.
type letter struct {
	id, contentType string
	body            []byte
}

// sign writes what the specification asks for into the headers.
func (e *Endpoint) sign(h http.Header, l *letter, now time.Time) error {
	h.Set(standardwebhooks.HeaderWebhookID, l.id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, fmt.Sprint(now.Unix()))
	var signatures []string
	for _, s := range e.signers {
		signature, err := s.Sign(l.id, now, l.body)
		if err != nil {
			return err
		}
		signatures = append(signatures, signature)
	}
	if len(signatures) > 0 {
		h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	}
	return nil
}
