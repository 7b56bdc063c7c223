package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
)

// A service tells systemd how the daemon is. Where systemd has not started it,
// it tells nobody.
type service struct {
	logger   *slog.Logger
	watchdog time.Duration // how often systemd wants to hear; 0 is never

	mu      sync.Mutex // guards all below, and keeps messages in order
	isReady bool       // the first READY=1 is out
	failed  bool       // the last message did not go out, which was logged

	handlers sync.Map // *attendedHandler: those that sources call
}

func newService(logger *slog.Logger) *service {
	s := &service{logger: logger}
	var err error
	if s.watchdog, err = systemd.SdWatchdogEnabled(false); err != nil {
		logger.Warn("no watchdog", "error", err)
	}
	return s
}

// tell sends a message. The caller holds mu.
func (s *service) tell(format string, args ...any) {
	_, err := systemd.SdNotify(false, fmt.Sprintf(format, args...))
	if err != nil && !s.failed {
		s.logger.Warn("systemd can't be told", "error", err)
	}
	s.failed = err != nil
}

// ready says that the daemon does its work.
func (s *service) ready(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isReady = true
	s.tell("%s\nSTATUS=%s", systemd.SdNotifyReady, status)
}

// reloading says that a reload begins; done must be called at its end. Before the
// daemon is ready nobody is told, since the end would say that it is.
func (s *service) reloading() (done func(status string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isReady {
		return func(string) {}
	}
	s.tell("%s\n%sSTATUS=reloading", systemd.SdNotifyReloading, systemd.SdNotifyMonotonicUsec())
	return s.ready
}

// stopping says that the end has begun.
func (s *service) stopping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell("%s\nSTATUS=delivering what was read", systemd.SdNotifyStopping)
}

// watch tells the watchdog, until ctx ends, that the daemon lives: as long as the
// engine answers, and what reads messages gets on with them. If not, systemd is
// left to do what its unit says, which is to start the daemon again.
func (s *service) watch(ctx context.Context, eng *engine.Engine) {
	if s.watchdog <= 0 {
		return
	}
	ticker := time.NewTicker(s.watchdog / 3)
	defer ticker.Stop()
	hung := false
	for {
		_ = eng.Stats() // hangs if the engine does
		stuck := s.stuck(time.Now())
		s.mu.Lock()
		switch {
		case stuck < s.watchdog:
			hung = false
			s.tell(systemd.SdNotifyWatchdog)
		case !hung:
			hung = true
			s.logger.Error("a batch of messages hangs: the watchdog hears no more of this process", "for", stuck)
			s.tell("STATUS=hangs: a batch of messages takes longer than %v", s.watchdog)
		}
		s.mu.Unlock()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// stuck returns how long the oldest batch has been with its handler.
func (s *service) stuck(now time.Time) time.Duration {
	var longest time.Duration
	s.handlers.Range(func(key, _ any) bool {
		if since := key.(*attendedHandler).since.Load(); since > 0 {
			longest = max(longest, time.Duration(now.UnixNano()-since))
		}
		return true
	})
	return longest
}

// attend returns the source, with an eye on how long its batches take if there is
// a watchdog. It is not for sources that wait for room by design, as that of
// streams does.
func (s *service) attend(source filterd.Source) filterd.Source {
	if s.watchdog <= 0 {
		return source
	}
	return attendedSource{source, s}
}

type attendedSource struct {
	filterd.Source
	service *service
}

func (a attendedSource) Run(ctx context.Context, h filterd.Handler) error {
	if beginner, ok := h.(filterd.Beginner); ok { // the engine's is one
		attended := &attendedHandler{Beginner: beginner}
		a.service.handlers.Store(attended, nil)
		defer a.service.handlers.Delete(attended)
		h = attended
	}
	return a.Source.Run(ctx, h)
}

// An attendedHandler knows since when it has been called.
type attendedHandler struct {
	filterd.Beginner
	since atomic.Int64 // nanoseconds since 1970; 0 between calls
}

func (h *attendedHandler) called() (returned func()) {
	h.since.Store(time.Now().UnixNano())
	return h.returned
}

func (h *attendedHandler) returned() { h.since.Store(0) }

// Messages implements [filterd.Handler].
func (h *attendedHandler) Messages(ctx context.Context, batch []*filterd.Message) {
	defer h.called()()
	h.Beginner.Messages(ctx, batch)
}

// Begin implements [filterd.Beginner].
func (h *attendedHandler) Begin(ctx context.Context, batch []*filterd.Message) {
	defer h.called()()
	h.Beginner.Begin(ctx, batch)
}

// End implements [filterd.Beginner].
func (h *attendedHandler) End() {
	defer h.called()()
	h.Beginner.End()
}
