// Command goredis is a relay that filters nothing: it reads by go-redis, looks
// for one word, and publishes in pipelines, as somebody would who wants go-redis
// to be fast. It is here to be measured against.
package main

import (
	"context"
	"log"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"
)

// most is how many messages are published at once.
const most = 256

func main() {
	ctx := context.Background()
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	rdb := redis.NewClient(options)
	kept := make(chan string, most)
	go publish(ctx, rdb, kept)
	subscription := rdb.Subscribe(ctx, "in")
	for {
		received, err := subscription.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if message, ok := received.(*redis.Message); ok && strings.Contains(message.Payload, `"price":60000.5`) {
			kept <- message.Payload
		}
	}
}

// publish publishes what is there at once, and then what has come meanwhile.
func publish(ctx context.Context, rdb *redis.Client, kept <-chan string) {
	for payload := range kept {
		pipeline := rdb.Pipeline()
		pipeline.Publish(ctx, "out", payload)
		for waiting := min(len(kept), most-1); waiting > 0; waiting-- {
			pipeline.Publish(ctx, "out", <-kept)
		}
		if _, err := pipeline.Exec(ctx); err != nil {
			log.Fatal(err)
		}
	}
}
