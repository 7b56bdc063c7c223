//go:build !wasip1

package guest

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Test stands for the host in a handler's unit test. It exists outside of
// WebAssembly only. A Test is for one goroutine at a time.
type Test struct {
	// Now is when the next message is received. Default: 2024-01-01 UTC. What
	// is kept with a TTL grows old by it.
	Now time.Time
	// Refuse makes Emit to a channel fail: [ErrNotAllowed] or
	// [ErrBreaksContract].
	Refuse map[string]error

	handler Handler
	host    *host
}

// A TestResult is what a handler made of a message.
type TestResult struct {
	Verdict string // drop, pass, replace or error
	Payload string // for replace
	Err     error  // for error
	Emitted []TestMessage
	Logs    []string // as in "warn: text"
}

// A TestMessage is an emitted message.
type TestMessage struct{ Channel, Payload string }

// NewTest calls setup with a configuration, a JSON object or "", and returns
// its error, or what calls its handler.
func NewTest(setup Setup, config string) (*Test, error) {
	if config == "" {
		config = "{}"
	}
	t := &Test{Now: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), host: &host{kv: map[string]kept{}}}
	t.host.test = t
	handler, err := configure(setup, &Config{json: []byte(config), host: t.host})
	t.handler = handler
	return t, err
}

// Process calls the handler with a message.
func (t *Test) Process(channel, payload string) TestResult {
	h := t.host
	h.name, h.result = channel, TestResult{Logs: h.result.Logs}
	defer func() { h.result.Logs = nil }()
	h.event, h.data = parts(payload)
	m := Message{payload: []byte(payload), host: h, unselected: -1}
	verdict, err := t.handler(&m)
	result := h.result
	switch {
	case err != nil:
		return TestResult{Verdict: "error", Err: err, Logs: result.Logs}
	case verdict == replaced:
		result.Verdict = "replace"
	case verdict == Pass:
		result.Verdict = "pass"
	default:
		result.Verdict = "drop"
	}
	if verdict != replaced {
		result.Payload = ""
	}
	return result
}

func register(Setup) {}

// A host is the test's.
type host struct {
	test   *Test
	fields [][]any // steps after the root: names and indices
	kv     map[string]kept

	// Of the current message.
	name        string
	event, data json.RawMessage
	result      TestResult
}

type kept struct {
	value   string
	expires time.Time // zero: never
}

// parts takes an event apart; another document is all data.
func parts(payload string) (event, data json.RawMessage) {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(payload), &members) != nil || members["specversion"] == nil {
		return json.RawMessage("{}"), json.RawMessage(payload)
	}
	data = members["data"]
	delete(members, "data")
	event, _ = json.Marshal(members)
	return event, data
}

func (h *host) field(path string) Field {
	steps, ok := parsePath(path)
	if !ok {
		return -1
	}
	h.fields = append(h.fields, steps)
	return Field(len(h.fields) - 1)
}

func parsePath(path string) (steps []any, ok bool) {
	end := strings.IndexAny(path+".", ".[")
	root, rest := path[:end], path[end:]
	if root != "data" && root != "event" {
		return nil, false
	}
	steps = append(steps, root)
	for rest != "" {
		dot := rest[0] == '.'
		var inner string
		if rest = rest[1:]; dot {
			inner = rest[:strings.IndexAny(rest+".", ".[")]
			if rest = rest[len(inner):]; inner == "" {
				return nil, false
			}
			steps = append(steps, inner)
			continue
		}
		if inner = rest[:valueLength([]byte(rest))]; !strings.HasPrefix(rest[len(inner):], "]") {
			return nil, false
		}
		rest = rest[len(inner)+1:]
		if name, isName := unquote([]byte(inner)); isName {
			steps = append(steps, name)
		} else if index, err := strconv.ParseUint(inner, 10, 31); err == nil {
			steps = append(steps, int(index))
		} else {
			return nil, false
		}
	}
	return steps, true
}

// lookup returns the field's JSON, nil if it is missing.
func (h *host) lookup(f Field) json.RawMessage {
	steps := h.fields[f]
	at := h.data
	if steps[0] == "event" {
		at = h.event
	}
	for _, step := range steps[1:] {
		switch step := step.(type) {
		case string:
			var members map[string]json.RawMessage
			if json.Unmarshal(at, &members) != nil {
				return nil
			}
			at = members[step]
		case int:
			var elements []json.RawMessage
			if json.Unmarshal(at, &elements) != nil || step >= len(elements) {
				return nil
			}
			at = elements[step]
		}
	}
	return bytes.TrimSpace(at)
}

func (h *host) kind(f Field) Kind {
	at := h.lookup(f)
	switch {
	case len(at) == 0:
		return Missing
	case at[0] == 'n':
		return Null
	case at[0] == 't' || at[0] == 'f':
		return Bool
	case at[0] == '"':
		return String
	case at[0] == '[':
		return Array
	case at[0] == '{':
		return Object
	}
	return Number
}

func (h *host) float(f Field) float64 {
	if number, ok := number(h.lookup(f)); ok {
		return number
	}
	return math.NaN()
}

func (h *host) bool(f Field) bool { return string(h.lookup(f)) == "true" }

func (h *host) appendText(dst []byte, f Field) []byte {
	var text string
	if h.kind(f) == String && json.Unmarshal(h.lookup(f), &text) == nil {
		return append(dst, text...)
	}
	return append(dst, h.lookup(f)...)
}

func (h *host) choose(int32)           {}
func (h *host) channel() []byte        { return []byte(h.name) }
func (h *host) now() int64             { return h.test.Now.UnixNano() }
func (h *host) replace(payload []byte) { h.result.Payload = string(payload) }

func (h *host) emit(channel string, payload []byte) int32 {
	switch err := h.test.Refuse[channel]; {
	case err == ErrNotAllowed:
		return -1
	case len(h.result.Emitted) == 32:
		return -2
	case err != nil:
		return -3
	}
	h.result.Emitted = append(h.result.Emitted, TestMessage{channel, string(payload)})
	return 0
}

func (h *host) log(level Level, text string) {
	names := []string{"debug", "info", "warn", "error"}
	h.result.Logs = append(h.result.Logs, names[max(0, min(int(level), 3))]+": "+text)
}

func (h *host) kvGet(key string) ([]byte, bool) {
	entry, ok := h.kv[key]
	if ok && !entry.expires.IsZero() && !h.test.Now.Before(entry.expires) {
		delete(h.kv, key)
		ok = false
	}
	if !ok {
		return nil, false
	}
	return slices.Clone([]byte(entry.value)), true
}

func (h *host) kvSet(key string, value []byte, ttl int32) int32 {
	entry := kept{value: string(value)}
	if ttl > 0 {
		entry.expires = h.test.Now.Add(time.Duration(ttl) * time.Millisecond)
	}
	h.kv[key] = entry
	return 0
}

func (h *host) kvIncr(key string, delta int64, ttl int32) int64 {
	value, found := h.kvGet(key)
	if !found {
		h.kvSet(key, []byte("0"), ttl)
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if found && err != nil {
		panic("guest: KVIncr of a key whose value is no whole number: " + key)
	}
	entry := h.kv[key]
	entry.value = strconv.FormatInt(n+delta, 10)
	h.kv[key] = entry
	return n + delta
}
