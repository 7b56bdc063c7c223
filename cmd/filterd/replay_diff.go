package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
)

// A change is what one file makes of a message and the other one does not.
type change struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line"`
	Change string `json:"change"` // "added" or "removed"
	effect
}

// An effect is one thing that rules make of a message: a delivery, or a
// failure, for which To is empty.
type effect struct {
	Rule          string  `json:"rule"` // empty where the contract was broken
	To            string  `json:"to,omitempty"`
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
	Shadow        bool    `json:"shadow,omitempty"` // the rule runs silently beside
	Error         string  `json:"error,omitempty"`

	same string // what makes it the same as another one
}

// replayDiff prints what the rules of --diff make of the messages and those of
// the loaded file don't, and the other way round. What is counted is what the
// rules of --diff do.
func replayDiff(c *cli.Context, in *replayInput, before *config.Config) error {
	after, err := loadFile(c, c.String("diff"))
	if err != nil {
		return err
	}
	defer after.Close()
	old, next := before.Table.NewProcessor(), after.Table.NewProcessor()
	changed := 0
	in.tally.Changed = &changed
	return in.run(c.Context, func(n int, m *filterd.Message) error {
		if m.Received.IsZero() {
			m.Received = time.Now() // the same for both
		}
		was, err := old.Process(m.With(m.Payload)) // a processor binds the message to its own table
		if err != nil {
			return err
		}
		is, err := next.Process(m)
		if err != nil {
			return err
		}
		in.tally.count(is)
		left, right := effects(was), effects(is)
		removed, added := without(left, right), without(right, left)
		if len(removed)+len(added) > 0 {
			changed++
		}
		for i, e := range slices.Concat(removed, added) {
			line := change{File: in.tally.file, Line: n, Change: "removed", effect: e}
			if i >= len(removed) {
				line.Change = "added"
			}
			if err := printJSON(in.out, line); err != nil {
				return err
			}
		}
		return nil
	})
}

// effects lists what rules made of a message.
func effects(result engine.Result) []effect {
	var list []effect
	failed := func(rule string, err error) {
		list = append(list, effect{Rule: rule, Error: err.Error(), same: rule + "\x00" + err.Error()})
	}
	if result.Invalid != nil {
		failed("", result.Invalid)
	}
	for _, outcome := range result.Outcomes {
		if outcome.Err != nil {
			failed(outcome.Rule, outcome.Err)
		}
	}
	for _, err := range result.Lost {
		failed("", err)
	}
	for _, output := range result.Outputs {
		e := effect{Rule: output.Rule, To: destination(output), Shadow: output.Shadow}
		e.Payload, e.PayloadBase64 = textOrBase64(output.Payload)
		e.same = fmt.Sprintf("%s\x00%s\x00%t\x00%s", e.Rule, e.To, e.Shadow, told(output))
		list = append(list, e)
	}
	return list
}

// told returns what two outputs have in common that are the same: all but
// the ID, which is another one for each dead letter.
func told(output engine.Output) []byte {
	var event struct {
		Data json.RawMessage `json:"data"`
	}
	if output.DeadLetter && json.Unmarshal(output.Payload, &event) == nil {
		return event.Data
	}
	return output.Payload
}

// without returns what of a list has no partner in another one, whatever their
// orders: that of rules means nothing.
func without(list, other []effect) []effect {
	partners := make(map[string]int)
	for _, e := range other {
		partners[e.same]++
	}
	var rest []effect
	for _, e := range list {
		if partners[e.same]--; partners[e.same] < 0 {
			rest = append(rest, e)
		}
	}
	return rest
}
