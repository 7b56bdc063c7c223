package pubsub

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/resp"
)

// A streamEntry is one entry as Redis replied it.
type streamEntry struct {
	id        string
	fields    [][]byte // names and values in turn; nil if the entry was deleted
	size      string   // why the entry is too large to be read, or empty; then it has no fields
	delivered int64    // how often before
	poison    bool     // too often
}

func (e *streamEntry) deleted() bool { return e.fields == nil && e.size == "" }

// message returns the message of an entry of a stream. If it holds none,
// there is a fault, and the payload is the whole entry as JSON, for whoever
// reads its dead letter.
func (e *streamEntry) message(stream, field string) (payload []byte, fault *filterd.ValidationError) {
	switch {
	case e.size != "":
		return nil, entryFault(stream, filterd.ReasonSize, e.size)
	case len(e.fields) == 2 && string(e.fields[0]) == field:
		return e.fields[1], nil
	}
	var names []string
	fields := make(map[string]string)
	for i := 0; i+1 < len(e.fields); i += 2 {
		name, value := string(e.fields[i]), string(e.fields[i+1])
		names = append(names, strconv.Quote(name))
		fields[name] = value
	}
	const most = 8
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	payload, err := json.Marshal(fields)
	if err != nil {
		payload = nil // texts marshal
	}
	return payload, entryFault(stream, filterd.ReasonEntry, fmt.Sprintf("want one field, %q, not %s", field, strings.Join(names, ", ")))
}

// bound takes the fields of an entry that is larger than limit bytes, or has
// too many of them.
func (e *streamEntry) bound(limit int) {
	size, largest := 0, 0
	for _, field := range e.fields {
		size, largest = size+len(field), max(largest, len(field))
	}
	switch {
	case len(e.fields) > resp.MaxFields:
		e.fields, e.size = nil, tooLarge(0, limit)
	case size > limit+besides:
		e.fields, e.size = nil, tooLarge(int64(largest), limit)
	}
}

// tooLarge says why an entry is not read that has size bytes, or too many
// fields if that is 0.
func tooLarge(size int64, limit int) string {
	if size == 0 {
		return fmt.Sprintf("it has more than %d fields", resp.MaxFields/2)
	}
	return fmt.Sprintf("%d bytes of an entry are over the limit of %d", size, limit)
}

// entryFault says what is wrong with an entry.
func entryFault(stream string, reason filterd.Reason, detail string) *filterd.ValidationError {
	return &filterd.ValidationError{Channel: stream, Reason: reason, Failures: []filterd.Failure{{Detail: detail}}}
}

var errStreamReply = errors.New("unexpected reply about a stream")

// parseStreams parses the reply to an XREADGROUP of one stream, as RESP 2 or 3
// has it.
func parseStreams(reply any) ([]streamEntry, error) {
	switch reply := reply.(type) {
	case []any:
		if len(reply) == 1 {
			if pair, ok := reply[0].([]any); ok && len(pair) == 2 {
				return parseEntries(pair[1])
			}
		}
	case map[any]any:
		for _, entries := range reply {
			return parseEntries(entries)
		}
	}
	return nil, errStreamReply
}

// parseEntries parses a list of entries.
func parseEntries(reply any) ([]streamEntry, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, errStreamReply
	}
	entries := make([]streamEntry, 0, len(list))
	for _, element := range list {
		if element == nil { // deleted; Redis before 7
			continue
		}
		pair, ok := element.([]any)
		if !ok || len(pair) < 2 {
			return nil, errStreamReply
		}
		id, ok := pair[0].(string)
		if !ok {
			return nil, errStreamReply
		}
		e := streamEntry{id: id}
		fields, _ := pair[1].([]any) // nil for one that was deleted
		for _, field := range fields {
			text, ok := field.(string)
			if !ok {
				return nil, errStreamReply
			}
			e.fields = append(e.fields, []byte(text))
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// foundEntries returns entries whose fields are where they were read.
func foundEntries(found *resp.Entries, limit int) []streamEntry {
	entries := make([]streamEntry, len(found.List))
	var ids []byte
	for _, e := range found.List {
		ids = append(ids, e.ID...)
	}
	text, at := string(ids), 0 // one for all of them
	for i, e := range found.List {
		entries[i] = streamEntry{id: text[at : at+len(e.ID)], fields: found.Fields(i)}
		if e.Skipped {
			entries[i].size = tooLarge(e.Size, limit)
		}
		at += len(e.ID)
	}
	return entries
}

// parsePending parses the reply to XPENDING with a range.
func parsePending(reply any) ([]pendingEntry, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, errStreamReply
	}
	entries := make([]pendingEntry, len(list))
	for i, element := range list {
		parts, ok := element.([]any)
		if !ok || len(parts) != 4 {
			return nil, errStreamReply
		}
		id, okID := parts[0].(string)
		consumer, okConsumer := parts[1].(string)
		delivered, okDelivered := parts[3].(int64)
		if !okID || !okConsumer || !okDelivered {
			return nil, errStreamReply
		}
		entries[i] = pendingEntry{id, consumer, delivered}
	}
	return entries, nil
}

// splitID returns both parts of an ID.
func splitID(id string) (milliseconds, sequence uint64) {
	first, second, _ := strings.Cut(id, "-")
	milliseconds, _ = strconv.ParseUint(first, 10, 64) // Redis made it
	sequence, _ = strconv.ParseUint(second, 10, 64)
	return milliseconds, sequence
}

func compareIDs(a, b string) int {
	ms, seq := splitID(a)
	ms2, seq2 := splitID(b)
	return cmp.Or(cmp.Compare(ms, ms2), cmp.Compare(seq, seq2))
}

// idBefore returns the greatest ID below another.
func idBefore(id string) string {
	ms, seq := splitID(id)
	switch {
	case seq > 0:
		seq--
	case ms > 0:
		ms, seq = ms-1, math.MaxUint64
	}
	return fmt.Sprintf("%d-%d", ms, seq)
}

// idTime returns when an entry was made, if its ID says so, or else now.
func idTime(id string, now time.Time) time.Time {
	ms, _ := splitID(id)
	if t := time.UnixMilli(int64(min(ms, math.MaxInt64))); t.Before(now) {
		return t
	}
	return now
}
