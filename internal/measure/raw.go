package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/filterd/filterd/internal/resp"
)

// A RawPlan says what the raw relay does.
type RawPlan struct {
	Channel string `json:"channel"` // to read
	// Word is what a payload must hold to be published. Empty: nothing.
	Word string `json:"word"`
	// To says where each message goes: the first one to the channels To[0],
	// and after the last of To it begins again.
	To [][]string `json:"to"`
}

// RawRelay is the floor: a relay that knows where its messages begin and end,
// and nothing else. It reads the socket, finds the payloads, and publishes
// those that hold the plan's word, without a rule, a check or a count. It is
// here to be measured against. It returns nil when ctx ends, and an error when a
// connection does.
func RawRelay(ctx context.Context, url string, plan RawPlan) error {
	if len(plan.To) == 0 {
		return errors.New("a raw relay needs to know where messages go")
	}
	in, err := dial(ctx, url)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := dial(ctx, url)
	if err != nil {
		return err
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() { _ = in.Close() })()
	go func() { _, _ = io.Copy(io.Discard, out) }() // the replies; ends with the connection
	if _, err := in.Write(resp.AppendCommand(nil, "SUBSCRIBE", plan.Channel)); err != nil {
		return err
	}
	if err := relayRaw(in, out, plan); ctx.Err() == nil {
		return err
	}
	return nil
}

// relayRaw reads messages of one channel, whose frames begin alike.
func relayRaw(in io.Reader, out io.Writer, plan RawPlan) error {
	head := fmt.Sprintf("*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$", len(plan.Channel), plan.Channel)
	wanted := []byte(plan.Word)
	heads := make([][]string, len(plan.To)) // of the commands
	for i, to := range plan.To {
		for _, channel := range to {
			heads[i] = append(heads[i], fmt.Sprintf("*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$", len(channel), channel))
		}
	}
	buffer, have := make([]byte, 256<<10), 0
	var frames []byte
	confirmed, at := false, 0
	for {
		if have == len(buffer) {
			buffer = append(buffer, make([]byte, len(buffer))...) // for a message that is larger
		}
		n, err := in.Read(buffer[have:])
		if err != nil {
			return err
		}
		have += n
		rest := buffer[:have]
		if !confirmed {
			end := bytes.Index(rest, []byte(":1\r\n"))
			if end < 0 {
				continue
			}
			rest, confirmed = rest[end+len(":1\r\n"):], true
		}
		for len(rest) > len(head) {
			line := bytes.IndexByte(rest[len(head):], '\r')
			if line < 0 {
				break
			}
			size, err := strconv.Atoi(string(rest[len(head) : len(head)+line]))
			if err != nil {
				return err
			}
			begin := len(head) + line + 2
			if len(rest) < begin+size+2 {
				break
			}
			if payload := rest[begin : begin+size]; bytes.Contains(payload, wanted) {
				for _, head := range heads[at] {
					frames = append(frames, head...)
					frames = strconv.AppendInt(frames, int64(size), 10)
					frames = append(frames, "\r\n"...)
					frames = append(frames, payload...)
					frames = append(frames, "\r\n"...)
				}
			}
			if at++; at == len(heads) {
				at = 0
			}
			rest = rest[begin+size+2:]
		}
		have = copy(buffer, rest)
		if len(frames) > 0 {
			if _, err := out.Write(frames); err != nil {
				return err
			}
			frames = frames[:0]
		}
	}
}
