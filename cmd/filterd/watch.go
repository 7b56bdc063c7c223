package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/filterd/filterd/config"
)

const (
	// settleTime is how long files must have been left alone before they are
	// read: whoever writes one does not do it at once.
	settleTime = 200 * time.Millisecond
	// lookInterval is how often files are looked at where nothing tells of a
	// change: file systems of other machines don't.
	lookInterval = 3 * time.Second
	// maxLinks bounds the symbolic links on the way to a file.
	maxLinks = 40
)

// A watch waits until files change. Events of the folders that lead to them
// make it quick, and a look every few seconds makes it sure. Folders are
// watched and not files, since a file that is replaced is another file. It
// belongs to one goroutine.
type watch struct {
	logger *slog.Logger
	events *fsnotify.Watcher // nil: there are none
	// names are the paths that matter: of files, of symbolic links on the
	// way to them, and of what is missing there; folders are where they are.
	names, folders map[string]bool
	failed         bool // a folder could not be watched, and that was said
}

// newWatch makes a watch. It must be closed.
func newWatch(logger *slog.Logger) *watch {
	w := &watch{logger: logger, folders: make(map[string]bool)}
	events, err := fsnotify.NewWatcher()
	if err != nil {
		w.fail(err)
		return w
	}
	w.events = events
	return w
}

func (w *watch) close() {
	if w.events != nil {
		_ = w.events.Close() // nothing is left to be told
	}
}

// fail says, once, that changes are noticed later.
func (w *watch) fail(err error) {
	if !w.failed {
		w.failed = true
		w.logger.Warn("files can't be watched: they are looked at from time to time", "every", lookInterval, "error", err)
	}
}

// A wakeup is why a watch has stopped waiting.
type wakeup int

const (
	wakeupEnd    wakeup = iota // the context has ended
	wakeupAsked                // a signal has come
	wakeupChange               // of a file; in event: maybe
	wakeupTick                 // in event only
)

// wait waits until a file is not what it was and all have settled, or a signal
// comes, or ctx ends.
func (w *watch) wait(ctx context.Context, files []config.File, signals <-chan os.Signal) wakeup {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		w.follow(files)
		if !anyChanged(files) {
			if why := w.event(ctx, signals, look.C); why < wakeupChange {
				return why
			}
			continue
		}
		before := stamps(files)
		quiet := time.NewTimer(settleTime)
		why := w.event(ctx, signals, quiet.C)
		quiet.Stop()
		if why < wakeupChange || why == wakeupTick && slices.Equal(before, stamps(files)) && anyChanged(files) {
			return min(why, wakeupChange)
		}
	}
}

// event waits for one.
func (w *watch) event(ctx context.Context, signals <-chan os.Signal, tick <-chan time.Time) wakeup {
	var events chan fsnotify.Event // none come from nil
	var errs chan error
	if w.events != nil {
		events, errs = w.events.Events, w.events.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return wakeupEnd
		case <-signals:
			return wakeupAsked
		case e := <-events:
			if w.names[e.Name] || w.folders[e.Name] { // a folder tells of its own end
				return wakeupChange
			}
		case <-errs: // some events were lost
			return wakeupChange
		case <-tick:
			return wakeupTick
		}
	}
}

func anyChanged(files []config.File) bool {
	changed := false
	for i := range files {
		changed = files[i].Changed() || changed
	}
	return changed
}

// A stamp is what tells that a file is being written to.
type stamp struct {
	size     int64
	modified time.Time
}

func stamps(files []config.File) []stamp {
	all := make([]stamp, len(files))
	for i, f := range files {
		if info, err := os.Stat(f.Path); err == nil {
			all[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return all
}

// follow watches the folders that lead to files now, and no others.
func (w *watch) follow(files []config.File) {
	if w.events == nil {
		return
	}
	before := w.folders
	w.names, w.folders = make(map[string]bool), make(map[string]bool)
	for _, f := range files {
		if path, err := filepath.Abs(f.Path); err == nil {
			w.trail(path, maxLinks)
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(w.folders)) {
		// Again and again, since it may be another folder by now.
		if err := w.events.Add(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.fail(err)
		}
	}
	for folder := range before {
		if !w.folders[folder] {
			_ = w.events.Remove(folder) // which may be gone
		}
	}
}

// trail finds the names that matter on the way to a file. What changes the
// meaning of its path is a link, which may be swapped, or the lack of a part.
func (w *watch) trail(path string, links int) {
	root := filepath.VolumeName(path) + string(filepath.Separator)
	parts := strings.Split(strings.TrimPrefix(path, root), string(filepath.Separator))
	folder := root
	for i, part := range parts {
		at := filepath.Join(folder, part)
		info, err := os.Lstat(at)
		link := err == nil && info.Mode()&fs.ModeSymlink != 0
		if err != nil || link || i == len(parts)-1 {
			w.names[at], w.folders[folder] = true, true
		}
		if err != nil {
			return
		}
		if link {
			target, err := os.Readlink(at)
			if err != nil || links == 0 {
				return
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(folder, target)
			}
			w.trail(filepath.Join(target, filepath.Join(parts[i+1:]...)), links-1)
			return
		}
		folder = at
	}
}
