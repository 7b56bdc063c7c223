package pubsub

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	"github.com/redis/go-redis/v9"
)

// A script runs in Redis.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// run runs the script with a number of keys, the keys and the arguments; never
// twice, unlike redis.Script. It sends the script if the server does not know it.
func (s *script) run(ctx context.Context, rdb redis.UniversalClient, with []any) (any, error) {
	args := append([]any{"evalsha", s.hash}, with...)
	for {
		command := redis.NewCmd(ctx, args...)
		command.SetFirstKeyPos(3)
		_ = rdb.Process(ctx, once{command}) // the command has the error
		reply, err := command.Result()
		if args[0] == "eval" || !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return reply, err
		}
		args[0], args[1] = "eval", s.text
	}
}
