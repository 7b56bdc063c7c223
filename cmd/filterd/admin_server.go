package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/filterd/filterd/pubsub"
	"github.com/filterd/filterd/webhook"
)

// An admin serves the state of the daemon over HTTP, and what changes it.
type admin struct {
	logger  *slog.Logger
	engine  *engine.Engine
	config  func() *config.Config // that is at work
	waiting func() error          // what the daemon waits for; nil if it is ready
	streams *pubsub.StreamSource
	lease   *pubsub.Lease // nil: there is none
	traces  *traceExport  // nil: nothing is recorded
	reload  func(context.Context) (adminReloaded, error)

	open        bool          // other machines reach it
	certificate *certificate  // nil: it doesn't encrypt
	patience    time.Duration // for a request to arrive; default adminPatience
	started     time.Time
	metrics     http.Handler
	taps        atomic.Uint64   // that were opened
	refusals    lograte.Limiter // limits the log lines about requests
	servers     []*http.Server
	running     sync.WaitGroup
	end         context.CancelFunc // of every request

	rates rateWindow

	mu      sync.Mutex     // guards what follows
	indexed *config.Config // that found is of
	found   []access
}

// start listens, and serves until close. What is to be served must be there.
func (a *admin) start(section *config.Server) error {
	a.started = time.Now()
	a.open = !section.Loopback()
	a.metrics = newMetrics(&metricsCollector{
		stats:    a.engine.Stats,
		modules:  func() []*wasmfilter.Module { return a.config().Modules() },
		webhooks: func() map[string]*webhook.Endpoint { return a.config().Webhooks },
		streams:  a.streams,
		rules:    func() int { return len(a.config().Rules) },
		ready:    a.ready,
		lease:    a.lease,
		traces:   a.traces,

		exemplars: a.engine.Exemplars,
	})
	ctx, end := context.WithCancel(context.Background())
	a.end = end
	if section.TLS != nil {
		a.certificate = &certificate{files: *section.TLS}
		if _, err := a.certificate.get(nil); err != nil {
			return fmt.Errorf("server.tls: %w", err)
		}
	}
	if err := a.serve(ctx, "server.listen", section.Listen, a.handler(), a.certificate); err != nil {
		return err
	}
	if section.Probe != "" {
		if err := a.serve(ctx, "server.probe", section.Probe, a.probe(), nil); err != nil {
			return err
		}
	}
	a.running.Go(func() { a.rates.run(ctx, a.engine) })
	return nil
}

// serve serves at one address.
func (a *admin) serve(ctx context.Context, key, address string, handler http.Handler, c *certificate) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: cmp.Or(a.patience, adminPatience),
		ReadTimeout:       cmp.Or(a.patience, adminPatience),
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxAdminHeader,
		ErrorLog:          slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		Protocols:         new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	url := "http://" + listener.Addr().String()
	bounded := net.Listener(newBoundedListener(listener))
	if c != nil {
		url = "https://" + listener.Addr().String()
		bounded = tls.NewListener(bounded, &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12})
	}
	a.logger.Info("serving", "section", key, "url", url)
	a.servers = append(a.servers, server)
	a.running.Go(func() {
		if err := server.Serve(bounded); !errors.Is(err, http.ErrServerClosed) {
			a.logger.Error("the server has ended", "section", key, "error", err)
		}
	})
	return nil
}

// close ends the servers: what is being answered has a moment.
func (a *admin) close() {
	if a.end == nil {
		return
	}
	a.end()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, server := range a.servers {
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // time is up
		}
	}
	a.running.Wait()
}

// ready says why the daemon is not ready; nil if it is.
func (a *admin) ready() error {
	err := errors.Join(a.engine.Halted(), a.waiting())
	if a.lease != nil {
		err = errors.Join(err, a.lease.Ready())
	}
	return err
}

// access says how each rule of a config is found.
func (a *admin) access(of *config.Config) ([]access, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.indexed == of {
		return a.found, nil
	}
	found, err := ruleAccess(of.Rules)
	if err == nil {
		a.indexed, a.found = of, found
	}
	return found, err
}

// A rateWindow tells how fast counters of rules move, by what they were a short
// while ago.
type rateWindow struct {
	mu         sync.Mutex // guards what follows
	last, prev rateSample
}

// rateInterval is the time between samples: rates are over one to two of them.
const rateInterval = 5 * time.Second

// A rateSample is what rules have counted at some time.
type rateSample struct {
	at    time.Time
	rules map[string]ruleCounts
}

type ruleCounts struct{ matched, errors, delivered uint64 }

func countsOf(r engine.RuleStats) ruleCounts { return ruleCounts{r.Matched, r.Errors, r.Delivered} }

// run takes samples until ctx ends.
func (w *rateWindow) run(ctx context.Context, e *engine.Engine) {
	tick := time.NewTicker(rateInterval)
	defer tick.Stop()
	for {
		w.sample(e.Stats(), time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *rateWindow) sample(s engine.Stats, now time.Time) {
	rules := make(map[string]ruleCounts, len(s.Rules))
	for name, r := range s.Rules {
		rules[name] = countsOf(r)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.prev = w.last; w.prev.rules == nil {
		w.prev = rateSample{now, rules}
	}
	w.last = rateSample{now, rules}
}

// of returns the rates of a rule since the sample before the last one.
func (w *rateWindow) of(rule string, s engine.RuleStats, now time.Time) adminRates {
	w.mu.Lock()
	since := w.prev
	w.mu.Unlock()
	seconds := now.Sub(since.at).Seconds()
	if since.at.IsZero() || seconds <= 0 {
		return adminRates{}
	}
	before, n := since.rules[rule], countsOf(s)
	return adminRates{
		Matched:   float64(n.matched-before.matched) / seconds,
		Errors:    float64(n.errors-before.errors) / seconds,
		Delivered: float64(n.delivered-before.delivered) / seconds,
	}
}
