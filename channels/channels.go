package channels

import (
	"embed"
	"fmt"
	"slices"
	"sync"

	"github.com/filterd/filterd"
)

// The names of the channels.
const (
	PriceData     = "PRICE_DATA"     // each message's data is a [Price]
	TradeCommands = "TRADE_COMMANDS" // each message's data is a [TradeCommand]
	BotStatus     = "BOT_STATUS"     // each message's data is a [Status]
)

// files names each channel's schema, in the order of Names.
var files = [...]struct{ channel, file string }{
	{PriceData, "schemas/price.json"},
	{TradeCommands, "schemas/trade_command.json"},
	{BotStatus, "schemas/bot_status.json"},
}

//go:embed schemas/*.json
var texts embed.FS

// Names returns the names of the channels.
func Names() []string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.channel
	}
	return names
}

// Schema returns the JSON Schema of a channel's data, and false for a channel
// that is not among Names. The text is the caller's.
func Schema(channel string) ([]byte, bool) {
	for _, f := range files {
		if f.channel == channel {
			text, err := texts.ReadFile(f.file)
			return text, err == nil
		}
	}
	return nil, false
}

// Contracts returns the contracts of all channels, in the order of Names:
// CloudEvents events that are checked against the channel's schema. They are
// the caller's, to be given a size or a dead letter before they go into a
// registry.
func Contracts() []filterd.Contract { return slices.Clone(contracts()) }

// Contract returns the contract of one channel, as Contracts does, and false
// for a channel that is not among Names.
func Contract(channel string) (filterd.Contract, bool) {
	for _, c := range contracts() {
		if c.Channel == channel {
			return c, true
		}
	}
	return filterd.Contract{}, false
}

// contracts compiles the schemas at first use.
var contracts = sync.OnceValue(func() []filterd.Contract {
	var all []filterd.Contract
	for _, name := range Names() {
		text, _ := Schema(name)
		schema, err := filterd.ParseSchema(name, text)
		if err != nil {
			panic(fmt.Sprintf("channels: %v", err)) // a test has compiled the very same text
		}
		all = append(all, filterd.Contract{
			Channel:  name,
			Envelope: filterd.EnvelopeCloudEvents,
			Schema:   schema,
			Validate: filterd.ValidateEnforce,
		})
	}
	return all
})
