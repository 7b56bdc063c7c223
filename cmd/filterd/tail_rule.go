package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/engine"
)

// tailRule prints what a rule of a running daemon makes of messages.
func tailRule(c *cli.Context) error {
	for _, name := range []string{"where", "url", "profile"} {
		if c.IsSet(name) {
			return usage("--%s: a rule has its own condition; --outcome chooses what to show", name)
		}
	}
	if c.NArg() > 0 || c.IsSet("stream") || c.IsSet("sharded") {
		return usage("tail --rule takes no channels, and no stream: the rule has its own")
	}
	query := url.Values{}
	if outcome := c.String("outcome"); outcome != "" {
		for word := range strings.SplitSeq(outcome, ",") {
			if !slices.Contains(engine.TapOutcomes[:], engine.TapOutcome(word)) {
				return usage("--outcome %s: want kept, not_kept, filtered, failed or invalid, with commas between", outcome)
			}
		}
		query.Set("outcome", outcome)
	}
	if c.IsSet("rate") {
		if rate := c.Int("rate"); rate < 1 || rate > 1000 {
			return usage("--rate %d: want a number from 1 to 1000", rate)
		}
		query.Set("rate", fmt.Sprint(c.Int("rate")))
	}
	client, err := newAdminClient(c)
	if err != nil {
		return err
	}
	left, skipped := c.Int("count"), uint64(0)
	return client.tap(c.Context, c.String("rule"), query, func(line adminTapped) bool {
		if line.Skipped > skipped {
			fmt.Fprintf(c.App.ErrWriter, "%s came faster than they may be shown\n", count(int(line.Skipped-skipped), "message"))
			skipped = line.Skipped
		}
		if line.Outcome == "" {
			return true
		}
		if asJSON(c) {
			_ = printJSON(c.App.Writer, line)
		} else {
			fmt.Fprint(c.App.Writer, line.text())
		}
		left--
		return left != 0
	})
}

// text shows what became of a message to people.
func (t *adminTapped) text() string {
	var b strings.Builder
	at := ""
	if t.Received != nil {
		at = t.Received.Local().Format("15:04:05.000 ")
	}
	fmt.Fprintf(&b, "%s%-8s %s %s\n", at, strings.ReplaceAll(string(t.Outcome), "_", " "), oneLine(t.Channel), shownPayload(t.Payload, t.PayloadBase64, t.Bytes))
	if t.Error != "" {
		fmt.Fprintf(&b, "    ! %s\n", oneLine(t.Error))
	}
	for _, o := range t.Outputs {
		payload := ""
		switch {
		case o.DeadLetter:
			payload = " (dead letter)"
		case o.Payload == nil || t.Payload == nil || *o.Payload != *t.Payload:
			payload = " " + shownPayload(o.Payload, o.PayloadBase64, o.Bytes)
		}
		fmt.Fprintf(&b, "    → %s%s\n", oneLine(o.To), payload)
	}
	return b.String()
}

// shownPayload shows a payload, or its beginning, in one line.
func shownPayload(text *string, base64 []byte, whole int) string {
	part := string(base64)
	if text != nil {
		part = *text
	}
	line := oneLine(part)
	if more := whole - len(part); more > 0 {
		line += fmt.Sprintf("… and %d bytes more", more)
	}
	return line
}
