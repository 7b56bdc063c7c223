package main

import (
	"regexp"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
	"github.com/filterd/filterd/examples/exampletest"
	"github.com/filterd/filterd/internal/redistest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestSubscriber(t *testing.T) {
	server := redistest.Start(t)
	subscriber := exampletest.Start(t, server.URL())
	subscriber.Await("listening\n")

	publish := func(channel, payload string) {
		t.Helper()
		if receivers := server.Do("PUBLISH", channel, payload); receivers != "1" {
			t.Errorf("%s went to %s subscribers", channel, receivers)
		}
	}
	price := func(data string) string {
		event := filterd.Event{ID: "1", Source: "/test", Type: "price", Data: []byte(data)}
		return string(event.AppendJSON(nil))
	}
	publish(channels.PriceData, price(`{"symbol":"BTC-USD","price":60000,"qty":1}`)) // too small
	publish(channels.PriceData, price(`{"symbol":"ETH-USD","price":60000,"qty":2}`)) // not BTC
	publish(channels.PriceData, price(`{"symbol":"BTC-USD","price":60000,"qty":2}`))
	subscriber.Await("for 120000")
	publish(channels.PriceData, price(`{"symbol":"BTC-USD","price":"much"}`))
	subscriber.Await("invalid")
	publish("alerts.whales", `{"symbol":"BTC-USD"}`)
	subscriber.Await("alerts.whales")
	publish("alerts.test", "{\"text\": \"\x7f\"}")
	subscriber.Await("alerts.test")

	server.Restart()
	subscriber.Await("missing")
	publish("alerts.again", `"back"`)
	subscriber.Await("back")

	subscriber.Interrupt()
	if code := subscriber.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, subscriber.Stderr())
	}
	got := regexp.MustCompile(`for \d[0-9.a-zµ]*s\n`).ReplaceAllString(subscriber.Stdout(), "for a while\n")
	want := `listening
"BTC-USD" for 120000.00
invalid: PRICE_DATA: schema: /data/price: got string, want number
"alerts.whales": ` + "`" + `{"symbol":"BTC-USD"}` + "`" + `
"alerts.test": "{\"text\": \"\x7f\"}"
messages may be missing for a while
"alerts.again": ` + "`" + `"back"` + "`" + `
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestNoRedis(t *testing.T) { exampletest.NoRedis(t, "subscriber") }
