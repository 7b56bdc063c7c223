package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filterd/filterd"
)

// errUnread is what is wrong with a stream at first.
var errUnread = errors.New("not read yet")

// note notes whether the stream can be read: err is nil if it can.
func (r *streamReader) note(err error) {
	if err == nil && r.fault.Load() == nil {
		return // as with nearly every batch
	}
	if err == nil {
		r.fault.Store(nil)
	} else {
		r.fault.Store(&err)
	}
	r.source.mu.Lock()
	defer r.source.mu.Unlock()
	r.source.tell()
}

// block returns how long Redis waits for a new entry: hardly, as long as it isn't
// known that the stream can be read.
func (r *streamReader) block() time.Duration {
	if r.fault.Load() != nil {
		return time.Millisecond
	}
	return min(streamBlock, r.stream.ClaimIdle/4) // what comes at last is not old then
}

// tell wakes those who wait for streams to be readable. The caller holds mu.
func (s *StreamSource) tell() {
	close(s.noted)
	s.noted = make(chan struct{})
}

// unreadable says why a stream that is wanted can't be read; nil if it can. The
// caller holds mu.
func (s *StreamSource) unreadable(stream filterd.Stream) error {
	r := s.readers[stream]
	if r == nil { // Run has not begun, or a reader with other settings has not left yet
		return errUnread
	}
	if fault := r.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// Ready says, without waiting, why streams can't be read: what Redis refuses, or
// that it can't be reached. It is nil if all of them are.
func (s *StreamSource) Ready() error {
	const most = 10
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, stream := range s.wanted {
		if err := s.unreadable(stream); err != nil {
			errs = append(errs, fmt.Errorf("stream %q in group %q: %w", stream.Name, stream.Group, err))
		}
	}
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most], fmt.Errorf("%d more streams that can't be read", more))
	}
	return errors.Join(errs...)
}

// WaitReady waits until every stream is read. The error is ctx's, with what
// [StreamSource.Ready] says.
func (s *StreamSource) WaitReady(ctx context.Context) error {
	for {
		s.mu.Lock()
		noted := s.noted
		s.mu.Unlock()
		err := s.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-noted:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}
