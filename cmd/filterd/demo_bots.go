package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
	"github.com/filterd/filterd/pubsub"
)

// demoTick is the time between two messages of the market.
const demoTick = 60 * time.Millisecond

// demoBots is a small market: a feed that publishes prices, a desk that sends
// commands, and three bots that say how they fare. It all happens on one
// goroutine, which owns everything here.
type demoBots struct {
	prices   *pubsub.TypedPublisher[channels.Price]
	commands *pubsub.TypedPublisher[channels.TradeCommand]
	statuses map[string]*pubsub.TypedPublisher[channels.Status] // by bot
	raw      filterd.Sink                                       // past the publishers

	random *rand.Rand
	known  *demoOrigins
	emit   func(demoEvent)

	market  []demoSymbol
	orders  int    // sent so far
	broken  int    // broken messages so far
	wrong   int    // refused publishes so far
	unsent  string // the last error, so that it is told of once
	sent    uint64 // messages published; to be read after run
	refused uint64 // publishes that were refused; to be read after run
}

type demoSymbol struct {
	name  string
	price float64
	lot   float64 // what is usually traded at once
}

var demoBotNames = [...]string{"alpha", "bravo", "carol"}

func newDemoBots(rdb redis.UniversalClient, registry *filterd.Registry, random rand.Source, known *demoOrigins, emit func(demoEvent)) *demoBots {
	publisher := func(name string) *pubsub.Publisher {
		return pubsub.NewPublisher(rdb, registry, pubsub.PublisherOptions{Source: demoSource + name})
	}
	b := &demoBots{
		prices:   pubsub.For[channels.Price](publisher("feed"), channels.PriceData),
		commands: pubsub.For[channels.TradeCommand](publisher("desk"), channels.TradeCommands),
		statuses: make(map[string]*pubsub.TypedPublisher[channels.Status]),
		raw:      pubsub.NewSink(rdb),
		random:   rand.New(random),
		known:    known,
		emit:     emit,
		market: []demoSymbol{
			{"BTC-USD", 91_250, 0.4}, {"ETH-USD", 3_120, 4}, {"SOL-USD", 142.6, 60},
			{"XRP-USD", 2.214, 900}, {"LTC-USD", 87.45, 30},
		},
	}
	for _, name := range demoBotNames {
		b.statuses[name] = pubsub.For[channels.Status](publisher(name), channels.BotStatus)
	}
	return b
}

// run publishes until ctx ends. Everything that there is to see comes within
// the first two seconds, and again and again after that.
func (b *demoBots) run(ctx context.Context) {
	schedule := []struct {
		first, every int // ticks
		do           func(ctx context.Context)
	}{
		{4, 41, b.whale},
		{7, 19, b.order},
		{10, 33, b.publishBroken},
		{13, 53, b.doge},
		{16, 97, b.strayOrder},
		{19, 71, b.publishWrong},
		{22, 127, b.failure},
		{25, 83, b.bigOrder},
		{28, 149, b.withoutQty},
		{5, 11, b.heartbeat},
	}
	ticker := time.NewTicker(demoTick)
	defer ticker.Stop()
	for tick := 0; ; tick++ {
		b.price(ctx)
		for _, s := range schedule {
			if tick >= s.first && (tick-s.first)%s.every == 0 {
				s.do(ctx)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// price publishes the next step of a symbol's random walk.
func (b *demoBots) price(ctx context.Context) {
	s := &b.market[b.random.IntN(len(b.market))]
	s.price *= math.Exp(b.random.NormFloat64() * 0.0008)
	b.publishPrice(ctx, s.name, s.price, s.lot*(0.2+b.random.Float64()))
}

// whale publishes a trade that is far larger than usual.
func (b *demoBots) whale(ctx context.Context) {
	s := b.market[b.random.IntN(2)]
	b.publishPrice(ctx, s.name, s.price, (270_000+b.random.Float64()*900_000)/s.price)
}

func (b *demoBots) doge(ctx context.Context) {
	b.publishPrice(ctx, "DOGE-USD", 0.3+b.random.Float64()/50, 500+float64(b.random.IntN(9000)))
}

// withoutQty publishes a price that is valid, but that an expression trips
// over.
func (b *demoBots) withoutQty(ctx context.Context) {
	b.publishPrice(ctx, b.market[0].name, b.market[0].price, 0)
}

func (b *demoBots) publishPrice(ctx context.Context, symbol string, price, qty float64) {
	_, err := b.prices.Publish(ctx, channels.Price{Symbol: symbol, Price: digits(price, 5), Qty: digits(qty, 3)})
	b.published(ctx, "feed", err)
}

// digits rounds to significant digits, but not before the point.
func digits(x float64, n int) float64 {
	if x == 0 {
		return 0
	}
	unit := math.Pow(10, math.Min(0, math.Floor(math.Log10(x))-float64(n)+1))
	return math.Round(x/unit) / math.Round(1/unit)
}

func (b *demoBots) order(ctx context.Context) {
	b.place(ctx, demoBotNames[b.random.IntN(len(demoBotNames))], float64(1+b.random.IntN(20)))
}

func (b *demoBots) bigOrder(ctx context.Context) {
	b.place(ctx, demoBotNames[b.random.IntN(len(demoBotNames))], float64(40+b.random.IntN(100)))
}

// strayOrder commands a bot that the rules know nothing of.
func (b *demoBots) strayOrder(ctx context.Context) { b.place(ctx, "mallory", 1) }

func (b *demoBots) place(ctx context.Context, bot string, qty float64) {
	b.orders++
	side := channels.Buy
	if b.random.IntN(2) == 0 {
		side = channels.Sell
	}
	_, err := b.commands.Publish(ctx, channels.TradeCommand{
		OrderID: fmt.Sprintf("o-%d", b.orders), Action: channels.Place, Bot: bot,
		Side: side, Qty: qty, Symbol: b.market[1+b.random.IntN(2)].name, Type: channels.Market,
	})
	b.published(ctx, "desk", err)
}

func (b *demoBots) heartbeat(ctx context.Context) {
	name := demoBotNames[b.random.IntN(len(demoBotNames))]
	pnl := math.Round(b.random.NormFloat64()*1e5) / 100
	_, err := b.statuses[name].Publish(ctx, channels.Status{Bot: name, Status: channels.Running, PnL: &pnl})
	b.published(ctx, name, err)
}

// failure has a bot say that it can't go on.
func (b *demoBots) failure(ctx context.Context) {
	name := demoBotNames[b.random.IntN(len(demoBotNames))]
	_, err := b.statuses[name].Publish(ctx, channels.Status{Bot: name, Status: channels.Failed, Message: "no route to venue"})
	b.published(ctx, name, err)
}

// publishWrong tries to publish what breaks a contract: the publisher refuses.
func (b *demoBots) publishWrong(ctx context.Context) {
	b.wrong++
	var err error
	name := "feed"
	switch b.wrong % 3 {
	case 1:
		_, err = b.prices.Publish(ctx, channels.Price{Symbol: "BTC-USD", Price: -1, Qty: 1})
	case 2:
		name = "desk"
		_, err = b.commands.Publish(ctx, channels.TradeCommand{OrderID: "o-x", Action: channels.Place, Symbol: "ETH-USD", Side: channels.Buy, Type: channels.Limit, Qty: 1})
	default:
		name = "bravo"
		_, err = b.statuses[name].Publish(ctx, channels.Status{Bot: name, Status: "asleep"})
	}
	b.published(ctx, name, err)
}

// published takes note of what became of a publish.
func (b *demoBots) published(ctx context.Context, bot string, err error) {
	var invalid *filterd.ValidationError
	switch {
	case err == nil:
		b.sent++
		b.unsent = ""
	case errors.As(err, &invalid):
		b.refused++
		b.emit(demoEvent{
			Event: demoRefused, Bot: bot, Channel: invalid.Channel, Pointer: invalid.Pointer(),
			Reason: strings.TrimPrefix(invalid.Error(), invalid.Channel+": "),
		})
	case ctx.Err() == nil && err.Error() != b.unsent:
		b.unsent = err.Error()
		b.emit(demoEvent{Event: demoNote, Reason: bot + ": " + b.unsent})
	}
}

// publishBroken publishes, past the publisher, what other programs get wrong.
func (b *demoBots) publishBroken(ctx context.Context) {
	b.broken++
	event := func(channel, data string) (string, string) {
		return channel, fmt.Sprintf(`{"specversion":"1.0","id":"raw-%d","source":"%slegacy","type":"%s","data":%s}`, b.broken, demoSource, channel, data)
	}
	var channel, payload string
	switch b.broken % 6 {
	case 1: // a wrong type
		channel, payload = event(channels.PriceData, `{"symbol":"BTC-USD","price":"91k"}`)
	case 2: // a missing field
		channel, payload = event(channels.TradeCommands, fmt.Sprintf(`{"order_id":"r-%d","action":"place","symbol":"SOL-USD"}`, b.broken))
	case 3: // malformed JSON
		channel, payload = channels.PriceData, fmt.Sprintf(`{"symbol":"ETH-USD","price":3120.%d,"qt`, b.broken)
	case 4: // what a terminal would obey
		channel, payload = channels.TradeCommands, fmt.Sprintf("{\"order_id\":\"r-%d\",\"action\":\"\x1b]0;pwned\x07\"}", b.broken)
	case 5: // an unknown word
		channel, payload = event(channels.BotStatus, `{"bot":"bravo","status":"asleep"}`)
	default: // no valid event
		channel, payload = channels.BotStatus, fmt.Sprintf(`{"specversion":"1.0","id":"raw-%d","type":"BOT_STATUS","data":{"bot":"alpha"}}`, b.broken)
	}
	b.known.expect([]byte(payload))
	d := []filterd.Delivery{{Channel: channel, Payload: []byte(payload)}}
	b.raw.Deliver(ctx, d)
	if d[0].Err != nil {
		b.known.unexpect([]byte(payload))
	}
	b.published(ctx, "legacy", d[0].Err)
}
