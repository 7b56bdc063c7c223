package pubsub

import (
	"testing"
	"time"
)

func TestExamine(t *testing.T) {
	const interval = time.Second
	begin := time.Now()
	at := func(ms time.Duration) time.Time { return begin.Add(ms * time.Millisecond) }
	for name, test := range map[string]struct {
		now, seen, waited time.Duration // milliseconds
		open              *command
		stirred, busy     bool

		publishing                bool
		expected, arrived, ponged time.Duration // milliseconds

		probe bool
		wait  time.Duration // milliseconds
		err   string
	}{
		"heard lately":                 {now: 900, seen: 100, wait: 200},
		"silent for an interval":       {now: 1100, seen: 100, probe: true},
		"messages arrive":              {now: 900, seen: 900, stirred: true, probe: true},
		"asked and waiting":            {now: 1500, seen: 100, open: &command{kind: kindPing, sent: at(1100)}, wait: 600},
		"asked while messages arrive":  {now: 1500, seen: 1400, stirred: true, open: &command{kind: kindPing, sent: at(1100)}, wait: 900},
		"silent for two":               {now: 2100, seen: 100, open: &command{kind: kindPing, sent: at(1100)}, err: "no answer to PING within 1s"},
		"silent subscribe":             {now: 1000, seen: 0, open: &command{kind: kindSubscribe, sent: begin}, err: "no answer to SUBSCRIBE within 1s"},
		"no answer but messages":       {now: 14900, seen: 14900, open: &command{kind: kindPing, sent: begin}, wait: 100},
		"never an answer but messages": {now: 15000, seen: 15000, open: &command{kind: kindPing, sent: begin}, err: "no answer to PING within 15s"},
		"busy handler":                 {now: 20000, seen: 1000, busy: true, open: &command{kind: kindPing, sent: begin}, wait: 1000},
		"handler was busy":             {now: 20000, seen: 1000, waited: 19900, open: &command{kind: kindPing, sent: begin}, wait: 900},
		// A probe is under way: nothing else is due.
		"the PUBLISH is not answered":  {now: 1200, seen: 100, stirred: true, publishing: true, wait: 1000},
		"the probe is awaited":         {now: 1600, seen: 1550, stirred: true, expected: 1100, ponged: 1105, wait: 500},
		"the probe came":               {now: 1600, seen: 1550, expected: 1100, arrived: 1100, ponged: 1105, wait: 950},
		"the probe doesn't come":       {now: 2100, seen: 2099, expected: 1100, ponged: 1105, err: "a probe that was published did not arrive within 1s: others may publish to another server"},
		"an earlier one came":          {now: 2100, seen: 2099, expected: 1100, arrived: 100, ponged: 1105, err: "a probe that was published did not arrive within 1s: others may publish to another server"},
		"the reader was behind":        {now: 2100, seen: 2099, expected: 1100, ponged: 2000, wait: 400},
		"it may wait in the socket":    {now: 2100, seen: 2099, busy: true, expected: 1100, ponged: 1105, wait: 125},
		"the PING that follows waits":  {now: 1600, seen: 1550, expected: 1100, open: &command{kind: kindPing, sent: at(1100)}, wait: 950},
		"the PING that follows is due": {now: 2600, seen: 1550, expected: 1100, open: &command{kind: kindPing, sent: at(1100)}, err: "no answer to PING within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSource(nil, SourceOptions{ProbeInterval: interval})
			c := &connection{source: s, begin: begin}
			c.seen.Store(int64(test.seen * time.Millisecond))
			c.waited.Store(int64(test.waited * time.Millisecond))
			c.stirred.Store(test.stirred)
			c.busy.Store(test.busy)
			c.expected.Store(int64(test.expected * time.Millisecond))
			c.arrived.Store(int64(test.arrived * time.Millisecond))
			c.ponged.Store(int64(test.ponged * time.Millisecond))
			if test.publishing {
				c.published = make(chan error)
			}
			if test.open != nil {
				s.ledger.open = []command{*test.open}
			}
			probe, wait, err := c.examine(at(test.now))
			text := ""
			if err != nil {
				text = err.Error()
			}
			if probe != test.probe || !probe && wait != test.wait*time.Millisecond || text != test.err {
				t.Errorf("got %v, %v, %q", probe, wait, text)
			}
		})
	}
}
