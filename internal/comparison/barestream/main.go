// Command barestream moves the entries of a stream to another one, as fast as
// go-redis does that in batches: XREADGROUP, then XADD for each and one XACK in
// a pipeline. It looks at nothing, and a reply that gets lost makes duplicates.
// It is here to be measured against.
package main

import (
	"context"
	"errors"
	"log"
	"os"

	"github.com/redis/go-redis/v9"
)

func main() {
	ctx := context.Background()
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	rdb := redis.NewClient(options)
	if err := rdb.XGroupCreateMkStream(ctx, "in", "bare", "0").Err(); err != nil && !redis.HasErrorPrefix(err, "BUSYGROUP") {
		log.Fatal(err)
	}
	for {
		streams, err := rdb.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "bare", Consumer: "bare", Streams: []string{"in", ">"}, Count: 256}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		} else if err != nil {
			log.Fatal(err)
		}
		pipeline := rdb.Pipeline()
		ids := make([]string, 0, 256)
		for _, entry := range streams[0].Messages {
			pipeline.XAdd(ctx, &redis.XAddArgs{Stream: "out", Values: []any{"event", entry.Values["event"]}})
			ids = append(ids, entry.ID)
		}
		pipeline.XAck(ctx, "in", "bare", ids...)
		if _, err := pipeline.Exec(ctx); err != nil {
			log.Fatal(err)
		}
	}
}
