package pubsub

import (
	"errors"
	"slices"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// notNow is how replies begin that are no answer to the command itself: the same
// may be taken later, when the server can do more, the Cluster has settled down,
// or the login works again, whose replies go-redis gives to the command.
var notNow = []string{
	"LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "MISCONF", "OOM", "BUSY", "UNBLOCKED", "NOSCRIPT",
	"CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK",
	"NOAUTH", "WRONGPASS", "DENIED", "max number of clients",
}

// refuses reports whether an error is a reply of the server that says no to the
// very command: it may not, or can't, be done.
func refuses(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && !slices.ContainsFunc(notNow, func(code string) bool {
		return redis.HasErrorPrefix(err, code+" ")
	})
}

// judged returns the error of what publishes or appends one payload so that it
// matches filterd.ErrRefused if the server refuses that.
func judged(err error) error {
	if refuses(err) {
		return refusedError{err}
	}
	return err
}

// A refusedError matches filterd.ErrRefused.
type refusedError struct{ error }

func (refusedError) Is(target error) bool { return target == filterd.ErrRefused }
func (e refusedError) Unwrap() error      { return e.error }
