package pubsub

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
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
// KEYS are the entry's stream and those written to; ARGV the group, then for
// each entry its ID and the number of writes, then for each of these the number
// of its key, the length that its stream is trimmed to, or 0, and the payload.
// The reply is how many entries were treated if all were written; else for each
// of them 1, 0 if it was not pending, or the text of what went wrong.
const guardScript = `
local source, group, at, count, fine, results = KEYS[1], ARGV[1], 2, 0, true, {}
local call, argv, keys = redis.pcall, ARGV, KEYS
while at < #argv do
	local id, writes, written, failure = argv[at], tonumber(argv[at+1]), {}, nil
	at = at + 2
	for i = 1, writes do
		if not failure then
			local key, reply = keys[tonumber(argv[at])], nil
			if argv[at+1] == '0' then
				reply = call('XADD', key, '*', 'event', argv[at+2])
			else
				reply = call('XADD', key, 'MAXLEN', '~', argv[at+1], '*', 'event', argv[at+2])
			end
			if type(reply) == 'table' then
				failure = reply.err
			else
				written[i] = key
				written[-i] = reply
			end
		end
		at = at + 3
	end
	local pending = 0
	if not failure then
		pending = call('XACK', source, group, id)
		if pending == 0 then
			local reply = call('XPENDING', source, group)
			failure = reply.err
		elseif type(pending) == 'table' then
			failure = pending.err
		end
	end
	if failure or pending == 0 then
		for i = 1, #written do
			call('XDEL', written[i], written[-i])
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
`

var guardHash = func() string {
	sum := sha1.Sum([]byte(guardScript))
	return hex.EncodeToString(sum[:])
}()

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
			args, bytes = args+3, bytes+len(batch[end].Payload)
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
	entry := batch[0].Entry
	keys := []any{entry.Stream}
	argv := make([]any, 0, 1+5*len(batch))
	argv = append(argv, entry.Group)
	entries := 0
	for i := 0; i < len(batch); entries++ {
		e := batch[i].Entry
		count := len(argv) + 1
		argv = append(argv, e.ID, 0)
		first := i
		for ; i < len(batch) && batch[i].Entry == e; i++ {
			d := &batch[i]
			key := 1 + slices.Index(keys, any(d.Channel))
			if key == 0 {
				keys = append(keys, d.Channel)
				key = len(keys)
			}
			argv = append(argv, key, d.MaxLen, d.Payload)
		}
		argv[count] = i - first
	}
	reply, err := a.eval(ctx, keys, argv)
	results, each := reply.([]any)
	if n, all := reply.(int64); err == nil && !(all && int(n) == entries) && !(each && len(results) == entries) {
		err = fmt.Errorf("unexpected reply: %v", reply)
	}
	for i := 0; i < len(batch); {
		e := batch[i].Entry
		result := any(int64(1))
		if each {
			result, results = results[0], results[1:]
		}
		failure := err
		switch result {
		case int64(1):
		case int64(0):
			failure = filterd.ErrTaken
		default:
			failure = replyError(fmt.Append(nil, result))
		}
		if failure == nil || errors.Is(failure, filterd.ErrTaken) {
			e.Acknowledge()
		}
		for ; i < len(batch) && batch[i].Entry == e; i++ {
			if batch[i].Receivers, batch[i].Err = 0, nil; failure != nil {
				failAppend(&batch[i], failure)
			}
		}
	}
}

// eval runs the script, and sends it if the server does not know it.
func (a appender) eval(ctx context.Context, keys, argv []any) (any, error) {
	args := make([]any, 3, 3+len(keys)+len(argv))
	args[0], args[1], args[2] = "evalsha", guardHash, len(keys)
	args = append(append(args, keys...), argv...)
	for {
		command := redis.NewCmd(ctx, args...)
		command.SetFirstKeyPos(3)
		_ = a.rdb.Process(ctx, once{command}) // the command has the error
		reply, err := command.Result()
		if args[0] == "eval" || !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return reply, err
		}
		args[0], args[1] = "eval", guardScript
	}
}
