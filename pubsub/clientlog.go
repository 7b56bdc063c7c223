package pubsub

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// LogClients hands the lines that go-redis writes to standard error to a
// logger, at level debug: what matters of them is in errors as well. It holds
// for all clients of the process, so it is for main functions.
func LogClients(logger *slog.Logger) { redis.SetLogger(clientLog{logger}) }

type clientLog struct{ logger *slog.Logger }

// Printf implements what go-redis wants of a logger.
func (l clientLog) Printf(ctx context.Context, format string, args ...any) {
	if l.logger.Enabled(ctx, slog.LevelDebug) {
		l.logger.DebugContext(ctx, "go-redis", "line", fmt.Sprintf(format, args...))
	}
}
