package pubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// A transaction of XADD and XACK is not enough for "once": a consumer that was
// stopped for a while and the one that has claimed its entry would both write.
// So a script writes what became of an entry only if that is still pending, and
// acknowledges it.
//
// It writes first and acknowledges then, and takes back what it has written if
// the entry turns out not to be pending, or a write fails: XADD is refused when
// memory is short, XACK is not, and a script isn't rolled back. Nobody sees
// anything in between.
//
// What becomes of an entry of which a target refuses something is not decided
// here: it may become a dead letter first. So that is written without a script,
// as what goes to channels, and may be written twice.
//
// KEYS are the entry's stream and the targets; ARGV the group, then for each
// target the length that its stream is trimmed to, or 0, then for each entry its
// ID and the number of writes, and for each of these the number of its target and
// the payload. The reply is how many entries were treated if all were written;
// else for each of them 1, 0 if it was not pending, the text of why something
// could not be written, or a list with the text of why it could not be
// acknowledged.
var guardScript = newScript(`
local call, argv, keys, last = redis.pcall, ARGV, KEYS, #ARGV
local source, group, at, count, fine, results = keys[1], argv[1], 1 + #keys, 0, true, {}
local streams, ids = {}, {}
while at < last do
	local id, writes, written, failure = argv[at], tonumber(argv[at+1]), 0, nil
	at = at + 2
	for i = 1, writes do
		if not failure then
			local target, reply = 1 + argv[at], nil
			if argv[target] == '0' then
				reply = call('XADD', keys[target], '*', 'event', argv[at+1])
			else
				reply = call('XADD', keys[target], 'MAXLEN', '~', argv[target], '*', 'event', argv[at+1])
			end
			if type(reply) == 'table' then
				failure = reply.err
			else
				written = written + 1
				streams[written], ids[written] = keys[target], reply
			end
		end
		at = at + 2
	end
	local pending = 0
	if not failure then
		pending = call('XACK', source, group, id)
		if pending == 0 then
			local reply = call('XPENDING', source, group)
			failure = reply.err and {reply.err}
		elseif type(pending) == 'table' then
			failure = {pending.err}
		end
	end
	if failure or pending == 0 then
		for i = 1, written do
			call('XDEL', streams[i], ids[i])
		end
		fine = false
	end
	count = count + 1
	results[count] = failure or pending
end
if fine then
	return count
end
return results
`)

// The bounds of one run of the script, which nothing else runs beside.
const (
	maxGuardArgs  = 2048
	maxGuardBytes = 1 << 20
)

// guards returns how many of the first deliveries of a batch one run of the
// script can write: those made of entries of one stream and group; 0 if it
// can't. The streams must be on the server that the entries come from, and on a
// Cluster in one slot, which is so if their names have the same hash tag.
func (a appender) guards(batch []filterd.Delivery) (n int) {
	first := batch[0].Entry
	if first == nil || first.Server != any(a.rdb) {
		return 0
	}
	_, cluster := a.rdb.(*redis.ClusterClient)
	if _, single := a.rdb.(*redis.Client); !single && !cluster {
		return 0
	}
	args, bytes := 0, 0
	for n < len(batch) {
		e := batch[n].Entry
		if e == nil || e.Server != first.Server || e.Stream != first.Stream || e.Group != first.Group {
			break
		}
		end := n
		for end < len(batch) && batch[end].Entry == e {
			if cluster && hashTag(batch[end].Channel) != hashTag(e.Stream) {
				return n
			}
			args, bytes = args+2, bytes+len(batch[end].Payload)
			end++
		}
		if args += 2; n > 0 && (args > maxGuardArgs || bytes > maxGuardBytes) {
			break
		}
		n = end
	}
	return n
}

// hashTag returns the part of a key that Redis Cluster finds its slot by.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// guard writes deliveries of whole entries, and acknowledges these.
func (a appender) guard(ctx context.Context, batch []filterd.Delivery) {
	var entries [][]filterd.Delivery
	for begin, end := 0, 0; begin < len(batch); begin = end {
		for end < len(batch) && batch[end].Entry == batch[begin].Entry {
			end++
		}
		entries = append(entries, batch[begin:end])
	}
	results, err := a.run(ctx, batch[0].Entry, entries)
	if refuses(err) {
		a.apart(ctx, entries)
		return
	}
	for i, of := range entries {
		failure := err
		if err == nil {
			failure = guardError(results[i])
		}
		switch {
		case failure == nil || errors.Is(failure, filterd.ErrTaken):
			of[0].Entry.Acknowledge()
		case len(of) > 1 && errors.Is(failure, filterd.ErrRefused): // but which of them?
			a.append(ctx, of)
			continue
		}
		for j := range of {
			if of[j].Receivers, of[j].Err = 0, nil; failure != nil {
				failAppend(&of[j], failure)
			}
		}
	}
}

// guardError returns what the script's result for an entry means.
func guardError(result any) error {
	switch result := result.(type) {
	case int64:
		if result == 0 {
			return filterd.ErrTaken
		}
		return nil
	case []any:
		return replyError(fmt.Append(nil, result...)) // which is not about what was to be written
	}
	text := fmt.Sprint(result)
	if strings.HasPrefix(text, "@user_script") { // Redis before 7 says where
		_, said, _ := strings.Cut(text, ": -")
		text = strings.TrimSpace(said)
	}
	return judged(replyError([]byte(text)))
}

// apart writes what the server has not let the script write, as it may not write
// to all of the streams: of which entry is not known. Where it may not run at
// all, that says nothing of the entries.
func (a appender) apart(ctx context.Context, entries [][]filterd.Delivery) {
	_, err := a.run(ctx, entries[0][0].Entry, nil)
	for _, of := range entries {
		switch {
		case err != nil:
			for i := range of {
				failAppend(&of[i], err)
			}
		case len(entries) > 1:
			a.guard(ctx, of)
		default:
			a.append(ctx, of)
		}
	}
}

// run runs the script for entries of one stream and group, one of which is
// given. It returns a result for each of them.
func (a appender) run(ctx context.Context, one *filterd.Entry, entries [][]filterd.Delivery) ([]any, error) {
	type target struct {
		stream string
		maxLen int64
	}
	var targets []target
	args := make([]any, 0, 16+4*len(entries))
	for _, of := range entries {
		args = append(args, &of[0].Entry.ID, len(of))
		for i := range of {
			d := &of[i]
			to := target{d.Channel, d.MaxLen}
			n := slices.Index(targets, to)
			if n < 0 {
				n = len(targets)
				targets = append(targets, to)
			}
			args = append(args, n+1, (*written)(d))
		}
	}
	head := []any{1 + len(targets), one.Stream}
	for _, to := range targets {
		head = append(head, to.stream)
	}
	head = append(head, one.Group)
	for _, to := range targets {
		head = append(head, to.maxLen)
	}
	reply, err := guardScript.run(ctx, a.rdb, append(head, args...))
	if err != nil {
		return nil, err
	}
	switch reply := reply.(type) {
	case int64:
		if int(reply) == len(entries) {
			return slices.Repeat([]any{int64(1)}, len(entries)), nil
		}
	case []any:
		if len(reply) == len(entries) {
			return reply, nil
		}
	}
	return nil, fmt.Errorf("unexpected reply: %v", reply)
}

// written is the payload of a delivery as an argument: a pointer needs no memory
// of its own.
type written filterd.Delivery

// MarshalBinary implements [encoding.BinaryMarshaler].
func (w *written) MarshalBinary() ([]byte, error) { return w.Payload, nil }
