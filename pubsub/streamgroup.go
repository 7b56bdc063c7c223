package pubsub

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// do sends a command about the stream, which is never sent twice.
func (r *streamReader) do(ctx context.Context, args ...any) (any, error) {
	command := newOnce(ctx, r.stream.Name, args...)
	_ = r.rdb.Process(ctx, command) // the command has the error
	return command.Result()
}

// join makes the group where it is missing: at first from the oldest entry;
// where Redis has lost it, with the stream or without it, from what has been
// treated, since "$" would skip entries. Who has entries in hand takes the group
// back to the oldest of them.
func (r *streamReader) join(ctx context.Context) error {
	oldest := r.oldestOpen()
	from := "0"
	switch {
	case oldest != "":
		from = idBefore(oldest)
	case r.last != "":
		from = r.last
	}
	_, err := r.do(ctx, "xgroup", "create", r.stream.Name, r.stream.Group, from, "mkstream")
	made := err == nil
	switch {
	case redis.HasErrorPrefix(err, "BUSYGROUP"):
		if err = nil; r.lost && oldest != "" { // somebody was faster
			err = r.takeGroupBack(ctx, from)
		}
	case made && from != "0":
		from, err = r.fromTheStart(ctx, from)
	}
	if err != nil {
		return err
	}
	if r.joined && (made || r.lost) {
		r.source.options.Logger.Warn("the group was gone", "stream", r.stream.Name, "group", r.stream.Group, "made", made, "from", from)
		r.mu.Lock()
		clear(r.again) // they are new entries again
		r.mu.Unlock()
		if r.last = from; from == "0" {
			r.last = ""
		}
	}
	r.joined, r.lost = true, false
	return nil
}

// errOtherGroup says that a group was lost, and made again by another consumer.
var errOtherGroup = errors.New("the group is another one")

// sameGroup returns errOtherGroup where this consumer, which has entries, is not
// known.
func (r *streamReader) sameGroup(ctx context.Context) error {
	reply, err := r.do(ctx, "xgroup", "createconsumer", r.stream.Name, r.stream.Group, r.source.options.Consumer)
	switch {
	case reply == int64(1):
		return errOtherGroup
	case redis.HasErrorPrefix(err, "ERR"): // Redis before 6.2 knows no such command
		return nil
	}
	return err
}

// takeGroupBack takes a group that another consumer has made back to an ID,
// unless it is before that.
func (r *streamReader) takeGroupBack(ctx context.Context, to string) error {
	groups, err := r.rdb.XInfoGroups(ctx, r.stream.Name).Result()
	if err != nil {
		return err
	}
	for _, group := range groups {
		if group.Name == r.stream.Group && compareIDs(group.LastDeliveredID, to) <= 0 {
			return nil
		}
	}
	_, err = r.do(ctx, "xgroup", "setid", r.stream.Name, r.stream.Group, to)
	return err
}

// fromTheStart takes a new group to the start of its stream if that is another
// one, whose entries are older than those we know, and returns where it stands.
func (r *streamReader) fromTheStart(ctx context.Context, from string) (string, error) {
	reply, err := r.do(ctx, "xinfo", "stream", r.stream.Name)
	if err != nil {
		return from, err
	}
	newest, ok := property(reply, "last-generated-id").(string)
	if !ok || compareIDs(newest, from) >= 0 {
		return from, nil
	}
	_, err = r.do(ctx, "xgroup", "setid", r.stream.Name, r.stream.Group, "0")
	return "0", err
}

// property returns a value of a map, as RESP 2 or 3 has it; nil if there is
// none.
func property(reply any, name string) any {
	switch reply := reply.(type) {
	case map[any]any:
		return reply[name]
	case []any:
		for i := 0; i+1 < len(reply); i += 2 {
			if reply[i] == name {
				return reply[i+1]
			}
		}
	}
	return nil
}

// oldestOpen returns the ID of the oldest entry that is not done; empty if
// there is none.
func (r *streamReader) oldestOpen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := slices.AppendSeq(slices.Collect(maps.Keys(r.again)), r.held())
	if len(ids) == 0 {
		return ""
	}
	return slices.MinFunc(ids, compareIDs)
}

// acknowledge acknowledges what is done.
func (r *streamReader) acknowledge(ctx context.Context) error {
	r.acking.Lock()
	defer r.acking.Unlock()
	for {
		r.mu.Lock()
		ids := r.done[:min(len(r.done), maxAcknowledged)]
		r.mu.Unlock()
		if len(ids) == 0 {
			return nil
		}
		args := append(make([]any, 0, 3+len(ids)), "xack", r.stream.Name, r.stream.Group)
		for _, id := range ids {
			args = append(args, id)
		}
		reply, err := r.do(ctx, args...)
		if err != nil {
			return err
		}
		if n, ok := reply.(int64); ok {
			r.acknowledged.Add(uint64(n))
		}
		r.mu.Lock()
		if r.done = r.done[len(ids):]; len(r.done) == 0 {
			r.done = nil
		}
		r.mu.Unlock()
	}
}

// maxAcknowledged bounds the entries of one XACK.
const maxAcknowledged = 1024

// keep acknowledges, until ctx ends, what is let go of while the reader waits
// for new entries, and keeps what the handler has from getting idle.
func (r *streamReader) keep(ctx context.Context) {
	refresh := time.NewTicker(r.stream.ClaimIdle / 4)
	defer refresh.Stop()
	for {
		var err error
		select {
		case <-r.settled:
			rest(ctx, ackDelay)
			err = r.acknowledge(ctx)
		case <-refresh.C:
			err = r.refresh(ctx)
		case <-ctx.Done():
			return
		}
		if err != nil { // the reader meets with the same, and says so
			rest(ctx, minBackoff)
			r.wake()
		}
	}
}

func (r *streamReader) wake() {
	select {
	case r.settled <- struct{}{}:
	default: // keep is about to look
	}
}

// refresh keeps what the handler has, and what is to be delivered again, from
// getting idle, unless another consumer has it by now.
func (r *streamReader) refresh(ctx context.Context) error {
	r.mu.Lock()
	held := r.inHand()
	for id := range r.again { // what waits for a target may wait for long
		held[id] = true
	}
	r.mu.Unlock()
	if len(held) == 0 {
		return nil
	}
	for start := "-"; ctx.Err() == nil; {
		page, err := r.pending(ctx, start, 0, r.source.options.Consumer)
		if err != nil || len(page) == 0 {
			return err
		}
		start = "(" + page[len(page)-1].id
		args := []any{"xclaim", r.stream.Name, r.stream.Group, r.source.options.Consumer, 0}
		before := len(args)
		for _, e := range page {
			if held[e.id] {
				args = append(args, e.id)
			}
		}
		if len(args) > before {
			if _, err := r.do(ctx, append(args, "justid")...); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetConsumer removes this consumer from the group, if nothing is pending
// for it: that would be lost with it.
func (r *streamReader) forgetConsumer(ctx context.Context) {
	pending, err := r.pending(ctx, "-", 0, r.source.options.Consumer)
	if err != nil || len(pending) > 0 {
		return
	}
	_, _ = r.do(ctx, "xgroup", "delconsumer", r.stream.Name, r.stream.Group, r.source.options.Consumer) // it does no harm there
}
