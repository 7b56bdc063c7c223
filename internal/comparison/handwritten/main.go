// Command handwritten is the program that people write before they use
// filterd: it subscribes, decodes each message, asks one expression, and
// publishes what it keeps. It is here to be measured against.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/expr-lang/expr"
	"github.com/redis/go-redis/v9"
)

func main() {
	ctx := context.Background()
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	rdb := redis.NewClient(options)
	program, err := expr.Compile(`data.symbol == "BTC-USD" && data.price * data.qty > 10000`, expr.AsBool())
	if err != nil {
		log.Fatal(err)
	}
	subscription := rdb.Subscribe(ctx, "in")
	for {
		received, err := subscription.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		message, ok := received.(*redis.Message)
		if !ok {
			continue
		}
		var event map[string]any
		if err := json.Unmarshal([]byte(message.Payload), &event); err != nil {
			log.Print(err)
			continue
		}
		keep, err := expr.Run(program, map[string]any{"data": event["data"]})
		if err != nil {
			log.Print(err)
			continue
		}
		if keep == true {
			if err := rdb.Publish(ctx, "out", message.Payload).Err(); err != nil {
				log.Print(err)
			}
		}
	}
}
