package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

const (
	// drainWait bounds how long a reload waits for the messages that the old
	// rules still have.
	drainWait = 10 * time.Second
	// maxShown bounds the names, and the problems, that are logged at once.
	maxShown = 10
)

// A reloader gives an engine the rules anew when what they were made of has
// changed, or a signal asks for it.
type reloader struct {
	engine    *engine.Engine
	logger    *slog.Logger
	manager   *service
	connected *pubsub.Options // nil: the config does not say where Redis is

	maxMessage int // of the source

	server *config.Server
	ha     *config.HA
	traces *config.Traces

	config  atomic.Pointer[config.Config] // that the engine runs
	files   []config.File                 // that were read, or tried, last
	refused string                        // what the last attempt failed on; empty if it didn't

	mu     sync.Mutex      // guards asking
	asking []chan<- result // of the next attempt; each has room for it
}

// A result is what came of a reload.
type result struct {
	reloaded adminReloaded
	err      error
}

// run reloads until ctx ends.
func (r *reloader) run(ctx context.Context, signals <-chan os.Signal) {
	w := newWatch(r.logger)
	defer w.close()
	r.files = r.config.Load().Files
	for {
		why := w.wait(ctx, r.files, signals)
		if why == wakeupEnd {
			return
		}
		r.mu.Lock()
		asking := r.asking
		r.asking = nil
		r.mu.Unlock()
		reloaded, err := r.reload(ctx, why == wakeupAsked)
		for _, answer := range asking {
			answer <- result{reloaded, err}
		}
	}
}

// ask has the files reloaded as a signal does, and waits for what comes of it.
func (r *reloader) ask(ctx context.Context, signals chan<- os.Signal) (adminReloaded, error) {
	answer := make(chan result, 1)
	r.mu.Lock()
	r.asking = append(r.asking, answer)
	r.mu.Unlock()
	select {
	case signals <- syscall.SIGHUP:
	default: // there is one already
	}
	select {
	case done := <-answer:
		return done.reloaded, done.err
	case <-ctx.Done():
		return adminReloaded{}, ctx.Err()
	}
}

// reload reloads once. A failure like the last one is not logged again, unless
// somebody asked.
func (r *reloader) reload(ctx context.Context, asked bool) (adminReloaded, error) {
	done := r.manager.reloading()
	defer func() { done(r.status()) }()
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	before := r.config.Load()
	next, err := before.Reload(bounded, r.engine)
	took := time.Since(begin)
	if err != nil {
		again := err.Error() == r.refused && !asked
		r.refused = err.Error()
		var problems *config.Error
		if errors.As(err, &problems) {
			r.files = problems.Files
		}
		if !again {
			r.logRefusal(err, took)
		}
		return adminReloaded{}, err
	}
	r.config.Store(next)
	r.files, r.refused = next.Files, ""
	changes := next.Changes(before)
	generation := r.engine.Stats().Generation
	r.logger.Info("reloaded", "generation", generation, "rules", len(next.Rules),
		"added", shown(changes.Added), "changed", shown(changes.Changed), "removed", shown(changes.Removed),
		"files", shown(changes.Files), "took", took)
	for i, warning := range next.Warnings {
		same := func(p config.Problem) bool { return p.Key == warning.Key && p.Message == warning.Message }
		if i < maxShown && !slices.ContainsFunc(before.Warnings, same) {
			r.logger.Warn("suspicious", attributes(warning)...)
		}
	}
	if next.MaxMessage != r.maxMessage || r.connected != nil && !reflect.DeepEqual(*r.connected, next.Redis) {
		r.logger.Warn("the section redis has changed: the connection stays as it is until filterd is started again")
	}
	if !sameServer(r.server, next.Server) {
		r.logger.Warn("the section server has changed: all but its token stays as it is until filterd is started again")
	}
	if !reflect.DeepEqual(r.ha, next.HA) {
		r.logger.Warn("the section ha has changed: it stays as it is until filterd is started again")
	}
	if !reflect.DeepEqual(r.traces, next.Traces) {
		r.logger.Warn("the section traces has changed: it stays as it is until filterd is started again")
	}
	return adminReloaded{
		Generation: generation, Rules: len(next.Rules),
		Added: listed(changes.Added), Changed: listed(changes.Changed), Removed: listed(changes.Removed), Files: listed(changes.Files),
	}, nil
}

// sameServer reports whether two sections are the same but for the token.
func sameServer(a, b *config.Server) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Token, y.Token = "", ""
	return reflect.DeepEqual(x, y)
}

// listed returns the names as a list that is [] in JSON where there are none.
func listed(names []string) []string { return append([]string{}, names...) }

// status says in a line what runs, and whether that is what the files say.
func (r *reloader) status() string {
	text := fmt.Sprintf("%s, generation %d", count(len(r.config.Load().Rules), "rule"), r.engine.Stats().Generation)
	if r.refused != "" {
		text += "; the files were refused, see the log"
	}
	return text
}

// tellOfTests warns of tests that fail at the start. The daemon goes on: what is
// at work elsewhere must come up again. But a reload would be refused.
func (r *reloader) tellOfTests(loaded *config.Config) error {
	results, err := loaded.RunTests()
	if err != nil {
		return err
	}
	failed := config.FailedTests(results)
	for _, p := range failed[:min(maxShown, len(failed))] {
		r.logger.Warn("test fails", attributes(p)...)
	}
	if len(failed) > 0 {
		r.logger.Warn("tests beside the rules fail: no reload is taken until they pass", "problems", len(failed))
	}
	return nil
}

// logRefusal says what is wrong, where, and what to do about it.
func (r *reloader) logRefusal(err error, took time.Duration) {
	var refused *config.Error
	if errors.As(err, &refused) {
		for _, p := range refused.Problems[:min(maxShown, len(refused.Problems))] {
			r.logger.Error("refused", attributes(p)...)
		}
		err = errors.New(count(len(refused.Problems), "problem"))
	}
	r.logger.Error("reload refused: the rules stay as they are", "error", err, "generation", r.engine.Stats().Generation, "took", took)
}

// attributes describes a problem for the log.
func attributes(p config.Problem) []any {
	at := p.File
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	args := []any{"at", at}
	for _, part := range [][2]string{{"key", p.Key}, {"problem", p.Message}, {"hint", p.Hint}} {
		if part[1] != "" {
			args = append(args, part[0], part[1])
		}
	}
	return args
}

// shown returns a bounded part of names.
func shown(names []string) []string {
	part := listed(names[:min(maxShown, len(names))])
	if more := len(names) - len(part); more > 0 {
		part = append(part, fmt.Sprintf("and %d more", more))
	}
	return part
}
