package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/filterd/filterd"
)

// GapType is the type of the events that tell rules with OnGap of gaps.
const GapType = "io.filterd.gap.v1"

// A GapEvent is the data of an event that tells a rule of a gap.
type GapEvent struct {
	// Channels are those of the rule's From entries that the gap is of.
	Channels []string  `json:"channels"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	// Length is the time between, in seconds.
	Length float64 `json:"length"`
	Reason string  `json:"reason"`
	// Lost is how many messages of Producer are missing, exactly, where stamps
	// tell that; 0 where it isn't known. Channels is the messages' channel then,
	// and From is when the last one before them came.
	Lost     uint64 `json:"lost,omitempty"`
	Producer string `json:"producer,omitempty"`
}

// gapEvent returns the message that tells of a gap of channels.
func gapEvent(gap *filterd.Gap, channels []string, fence uint64) *filterd.Message {
	data, err := json.Marshal(GapEvent{
		Channels: channels, From: gap.From.UTC(), To: gap.To.UTC(), Length: gap.Length().Seconds(), Reason: gap.Reason,
		Lost: gap.Lost, Producer: gap.Producer,
	})
	if err != nil {
		panic(err) // strings, times and numbers marshal
	}
	now := time.Now()
	event := filterd.Event{
		ID: newID(now, fence), Source: "filterd", Type: GapType, DataContentType: "application/json", Time: gap.To.UTC(), Data: data,
	}
	return &filterd.Message{Channel: channels[0], Payload: event.AppendJSON(nil)} // which nobody received
}

// checkGaps reports the targets of a rule with OnGap that could never get an
// event of a gap.
func (r *rule) checkGaps(d Definition) []*RuleError {
	if !r.OnGap {
		return nil
	}
	var faults []*RuleError
	sample, able := gapEvent(&filterd.Gap{Reason: "sample"}, []string{"sample"}, 0), false
	for i, to := range r.To {
		name := to.Channel + to.Stream + to.Sharded
		if able = able || to.Computed == nil; name == "" || filterd.IsGlob(to.Channel) {
			continue
		}
		if contract := d.Registry.Lookup(name); contract.Channel == "" {
			continue
		}
		err := d.Registry.CheckWhole(&filterd.Message{Channel: name, Payload: sample.Payload})
		if invalid, ok := errors.AsType[*filterd.ValidationError](err); ok {
			faults = append(faults, r.fault("to", i, "the contract of %s refuses the events of on_gap: %s (a rule of its own, with when: false, can send them elsewhere)", name, invalid.Failures[0].Detail))
		}
	}
	if !able && len(r.To) > 0 {
		faults = append(faults, r.fault("on_gap", 0, "the events of gaps go to no ${…} target: add a channel, a callback or the log to the rule's targets"))
	}
	return faults
}

// tellOfGap sends an event to the targets of every rule that asks for the gaps
// of what it takes messages from; affected says what of that a gap is of. Only
// computed targets get none: they are computed from messages of the rule's
// channels. A process that leaves messages to others leaves gaps to them. What goes to channels waits for flush.
func (w *worker) tellOfGap(gap *filterd.Gap, affected func(r *rule) []string) {
	if !w.engine.leads() {
		return
	}
	for _, r := range w.table.onGap {
		channels := affected(r)
		if len(channels) == 0 {
			continue
		}
		w.rules[r.number].gaps.Add(1)
		if r.Shadow {
			continue
		}
		m := gapEvent(gap, channels, w.engine.fence())
		for i, to := range r.To {
			output := Output{Rule: r.Name, Payload: m.Payload, rule: r, message: m, slow: r.slow[i]}
			if to.aim(&output); to.Computed != nil {
				continue
			}
			if output.Channel != "" {
				if err := w.table.checkTarget(output.Channel, m); err != nil {
					w.engine.ruleError(w.rules[r.number], r, m, fmt.Errorf("on_gap: %w", err))
					continue
				}
			}
			w.send(output)
		}
	}
}

// silence returns what of a rule's sources a gap without connection is of.
func silence(gap *filterd.Gap) func(r *rule) []string {
	silent := make(map[string]bool, len(gap.Channels))
	for _, channel := range gap.Channels {
		silent[channel] = true
	}
	return func(r *rule) []string {
		sources := r.From
		if gap.Sharded {
			sources = r.Sharded
		}
		return slices.DeleteFunc(slices.Clone(sources), func(from string) bool { return !silent[from] })
	}
}
