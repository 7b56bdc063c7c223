package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
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
	connected *pubsub.Options // nil: the config does not say where Redis is

	maxMessage int // of the source

	config  atomic.Pointer[config.Config] // that the engine runs
	files   []config.File                 // that were read, or tried, last
	refused string                        // what the last attempt failed on; empty if it didn't
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
		r.reload(ctx, why == wakeupAsked)
	}
}

// reload reloads once. A failure like the last one is not logged again, unless
// somebody asked.
func (r *reloader) reload(ctx context.Context, asked bool) {
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
		return
	}
	r.config.Store(next)
	r.files, r.refused = next.Files, ""
	changes := next.Changes(before)
	r.logger.Info("reloaded", "generation", r.engine.Stats().Generation, "rules", len(next.Rules),
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
	part := append([]string{}, names[:min(maxShown, len(names))]...) // [] in JSON, not null
	if more := len(names) - len(part); more > 0 {
		part = append(part, fmt.Sprintf("and %d more", more))
	}
	return part
}
