package channels

import "time"

// A Price is what a symbol was last worth: the data of [PriceData].
type Price struct {
	Symbol string  `json:"symbol"` // required: what is priced, in the venue's spelling ("BTC-USD")
	Price  float64 `json:"price"`  // required: the last price, above zero

	Qty      float64   `json:"qty,omitzero"`      // traded at Price, above zero
	Bid      float64   `json:"bid,omitzero"`      // best bid, above zero
	Ask      float64   `json:"ask,omitzero"`      // best ask, above zero
	Volume   *float64  `json:"volume,omitempty"`  // traded in the last 24 hours
	Venue    string    `json:"venue,omitzero"`    // the exchange
	Sequence int64     `json:"sequence,omitzero"` // numbers a symbol's prices from 1, to tell what was missed
	Time     time.Time `json:"time,omitzero"`     // when the venue saw it; the event's time says when it was sent
}

// An Action says what a [TradeCommand] wants done.
type Action string

// The actions.
const (
	Place  Action = "place"  // a new order: wants side, type and qty
	Cancel Action = "cancel" // take back the order of that order_id
)

// A Side is a side of the market.
type Side string

// The sides.
const (
	Buy  Side = "buy"
	Sell Side = "sell"
)

// An OrderType says at what price an order may trade.
type OrderType string

// The order types.
const (
	Market    OrderType = "market"
	Limit     OrderType = "limit"      // wants price
	Stop      OrderType = "stop"       // a market order once stop_price is reached: wants stop_price
	StopLimit OrderType = "stop_limit" // a limit order once stop_price is reached: wants both
)

// A TimeInForce says how long an order stands.
type TimeInForce string

// The times in force.
const (
	GoodTillCancelled TimeInForce = "gtc"
	ImmediateOrCancel TimeInForce = "ioc"
	FillOrKill        TimeInForce = "fok"
	Day               TimeInForce = "day"
)

// A TradeCommand tells a bot to trade: the data of [TradeCommands]. Unknown
// members are refused.
type TradeCommand struct {
	// OrderID is required: the sender's ID of the order. A bot that has seen
	// it does nothing, since a command may arrive twice.
	OrderID string `json:"order_id"`
	Action  Action `json:"action"` // required
	Symbol  string `json:"symbol"` // required

	Side        Side        `json:"side,omitzero"`          // required to place
	Type        OrderType   `json:"type,omitzero"`          // required to place
	Qty         float64     `json:"qty,omitzero"`           // required to place; above zero
	Price       float64     `json:"price,omitzero"`         // required by limit orders; above zero
	StopPrice   float64     `json:"stop_price,omitzero"`    // required by stop orders; above zero
	TimeInForce TimeInForce `json:"time_in_force,omitzero"` // the bot's default if absent
	ReduceOnly  bool        `json:"reduce_only,omitzero"`   // never open or turn a position
	PostOnly    bool        `json:"post_only,omitzero"`     // never take liquidity
	Bot         string      `json:"bot,omitzero"`           // the bot it is meant for; any if absent
	Venue       string      `json:"venue,omitzero"`         // the exchange
	Reason      string      `json:"reason,omitzero"`        // for humans
	Expires     time.Time   `json:"expires,omitzero"`       // not to be carried out after this
}

// A State is what a bot is doing.
type State string

// The states of a bot.
const (
	Starting State = "starting"
	Running  State = "running"
	Paused   State = "paused" // lives, but does not trade
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Failed   State = "failed" // stopped by an error: Status.Message says which
)

// A Status is how a bot fares: the data of [BotStatus].
type Status struct {
	Bot    string `json:"bot"`    // required: the bot's name
	Status State  `json:"status"` // required

	Message    string     `json:"message,omitzero"`      // for humans
	Version    string     `json:"version,omitzero"`      // of the bot's program
	Strategy   string     `json:"strategy,omitzero"`     // what it trades by
	Uptime     *float64   `json:"uptime,omitempty"`      // in seconds
	Equity     *float64   `json:"equity,omitempty"`      // worth of the account
	PnL        *float64   `json:"pnl,omitempty"`         // profit of the day, realized or not
	OpenOrders *int64     `json:"open_orders,omitempty"` // standing at the venue
	Errors     *int64     `json:"errors,omitempty"`      // since it started
	Positions  []Position `json:"positions,omitempty"`   // all that it holds
	Time       time.Time  `json:"time,omitzero"`         // when this was so; the event's time says when it was sent
}

// A Position is how much of a symbol a bot holds.
type Position struct {
	Symbol string  `json:"symbol"` // required
	Qty    float64 `json:"qty"`    // required; below zero if short

	EntryPrice float64 `json:"entry_price,omitzero"` // on average; above zero
}
