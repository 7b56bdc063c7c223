package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

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
// engine answers, and gets on with the messages of channels and streams. If not,
// systemd is left to do what its unit says, which is to start the daemon again.
func (s *service) watch(ctx context.Context, eng *engine.Engine) {
	if s.watchdog <= 0 {
		return
	}
	ticker := time.NewTicker(s.watchdog / 3)
	defer ticker.Stop()
	hung := false
	for {
		_ = eng.Stats() // hangs if the engine does
		stuck := eng.Busy()
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
