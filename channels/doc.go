// Package channels has ready-made names, payloads and contracts for the three
// channels that trading bots share: prices, commands and the bots' status.
//
// A misspelled name is a compile error:
//
//	publisher.Publish(ctx, channels.PriceData, channels.Price{Symbol: "BTC-USD", Price: 60_000})
//
// The names are untyped constants, so that they fit wherever a channel's name
// is a string. [Contracts] are what their messages must be: CloudEvents events
// whose data satisfies a JSON Schema, enforced for publishers, subscribers and
// the engine alike.
//
// # Numbers
//
// Prices and quantities are JSON numbers, and float64 in Go and in rules. A
// decimal of up to 15 significant digits comes back as it was written, but
// arithmetic on it rounds as floats do: fine to filter and to alert by, not to
// keep books by. A message that is passed on keeps its digits, since its bytes
// are passed on. Where zero is no valid value (a price, a quantity), zero in Go
// means absent; where it is (a profit, a count), the field is a pointer.
//
// # Unknown members
//
// [Price] and [Status] are open: a feed may say more than the schema knows,
// and readers ignore what they don't know. [TradeCommand] is closed: a
// misspelled reduce_only that is ignored would be an order that nobody meant.
package channels
