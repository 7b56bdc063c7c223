package pubsub

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

// followSlots lets a Cluster's client ask who has which slots as soon as a server
// can't be used. By itself it asks once a minute, and when a server says that slots
// have moved; one that is dead says nothing, so that a failover would take a minute.
func followSlots(rdb redis.UniversalClient) {
	if c, ok := rdb.(*redis.ClusterClient); ok {
		c.AddHook(slotsHook{c})
	}
}

type slotsHook struct{ client *redis.ClusterClient }

// DialHook implements [redis.Hook].
func (slotsHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (h slotsHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error {
		err := next(ctx, command)
		h.look(err)
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (h slotsHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		h.look(err)
		return err
	}
}

// look asks, on another goroutine and at most five times a second, after an error
// that slots may explain: nothing came of the server, or it has them no more.
func (h slotsHook) look(err error) {
	var reply redis.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, redis.ErrClosed), errors.Is(err, net.ErrClosed):
	case errors.As(err, &reply) && !redis.HasErrorPrefix(err, "CLUSTERDOWN") && !redis.HasErrorPrefix(err, "READONLY"):
	default:
		h.client.ReloadState(context.Background()) // which goes on by itself
	}
}
