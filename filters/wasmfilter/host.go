package wasmfilter

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"time"
	"unicode/utf8"

	"github.com/tetratelabs/wazero/api"

	"github.com/filterd/filterd"
)

// hostModule is the module that guests import from.
const hostModule = "filterd"

// The bounds of what a guest asks for about one message.
const (
	maxEmitted      = 32
	maxEmittedBytes = 4 << 20
	// maxOutput bounds what is held for all messages of a call, in bytes.
	maxOutput = 64 << 20
	// maxFields is how many fields a module declares at most.
	maxFields = 256
	// maxChannel is the longest name of a channel, in bytes.
	maxChannel = 1 << 10
)

// What host functions cost in fuel: some three for a nanosecond. The meter
// charges for leaving the guest.
const (
	costEmit     = 1000
	costEmitByte = 32 // the contract's check reads the whole
	costLog      = 2000
	costKV       = 300
	costStore    = 100_000 // a KV elsewhere: bounds the calls rather than their time
)

func costCopy(n int) int64 { return int64(n) / 8 }

// buildHost builds what guests import.
func (r *Runtime) buildHost(ctx context.Context) error {
	functions := []hostFunction{
		{"replace", []api.ValueType{i32, i32}, nil, (*instance).replace},
		{"emit", []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32}, (*instance).emit},
		{"fail", []api.ValueType{i32, i32}, nil, (*instance).fail},
		{"log", []api.ValueType{i32, i32, i32}, nil, (*instance).log},
		{"channel", []api.ValueType{i32, i32}, []api.ValueType{i32}, (*instance).channel},
		{"field", []api.ValueType{i32, i32}, []api.ValueType{i32}, (*instance).field},
		{"field_kind", []api.ValueType{i32}, []api.ValueType{i32}, (*instance).fieldKind},
		{"field_f64", []api.ValueType{i32}, []api.ValueType{f64}, (*instance).fieldF64},
		{"field_bool", []api.ValueType{i32}, []api.ValueType{i32}, (*instance).fieldBool},
		{"field_bytes", []api.ValueType{i32, i32, i32}, []api.ValueType{i32}, (*instance).fieldBytes},
		{"now_ns", nil, []api.ValueType{i64}, (*instance).nowNS},
		{"kv_get", []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32}, (*instance).kvGet},
		{"kv_set", []api.ValueType{i32, i32, i32, i32, i32}, []api.ValueType{i32}, (*instance).kvSet},
		{"kv_incr", []api.ValueType{i32, i32, i64, i32}, []api.ValueType{i64}, (*instance).kvIncr},
		{"select", []api.ValueType{i32}, nil, (*instance).selectMessage},
	}
	r.know(hostModule, functions)
	_, err := r.build(ctx, hostModule, functions)
	return err
}

// about returns what the guest has asked for about the current message.
func (i *instance) about(function string) *work {
	switch {
	case i.phase == phaseConfigure && function == "fail":
		return &i.work[0]
	case i.phase != phaseProcess:
		i.trap(FaultABI, "%s: there is no message: not in %s", function, exportProcess)
	case i.current < 0:
		i.trap(FaultABI, "%s: no message of the batch is selected", function)
	}
	return &i.work[i.current]
}

// message returns the current message.
func (i *instance) message(function string) *filterd.Message {
	i.about(function)
	return i.messages[i.current]
}

// selectMessage is filterd.select(i).
func (i *instance) selectMessage(stack []uint64) {
	at := uint32(stack[0])
	switch {
	case i.phase != phaseProcess:
		i.trap(FaultABI, "select: not in %s", exportBatch)
	case int64(at) >= int64(len(i.messages)):
		i.trap(FaultABI, "select: message %d of %d", at, len(i.messages))
	}
	i.choose(int(at))
}

// choose makes a message the current one.
func (i *instance) choose(at int) {
	i.current = at
	i.epoch++
}

// hold accounts for memory that is kept for the engine.
func (i *instance) hold(function string, n int) {
	if i.output += n; i.output > maxOutput {
		i.trap(FaultABI, "%s: more than %d bytes of output in one call", function, maxOutput)
	}
}

// replace is filterd.replace(ptr, len).
func (i *instance) replace(stack []uint64) {
	payload := i.view("replace", stack[0], stack[1])
	w := i.about("replace")
	i.charge(int64(len(payload)))
	i.hold("replace", len(payload)-len(w.payload))
	// The first one of a message is allocated at its length; the engine owns it.
	if w.payload == nil {
		w.payload = make([]byte, 0, len(payload))
	}
	w.payload, w.replaced = append(w.payload[:0], payload...), true
}

// The results of emit.
const (
	emitted      = 0
	emitDenied   = -1
	emitTooMuch  = -2
	emitContract = -3
)

func result32(stack []uint64, value int32) { stack[0] = uint64(uint32(value)) }

// emit is filterd.emit(chan_ptr, chan_len, ptr, len) -> i32.
func (i *instance) emit(stack []uint64) {
	channel := i.view("emit", stack[0], stack[1])
	payload := i.view("emit", stack[2], stack[3])
	w := i.about("emit")
	i.charge(costEmit)
	m := i.module
	switch {
	case len(channel) > maxChannel || !m.publishes(channel):
		m.warn("emit: the channel is not allowed by publish", "channel", slog.StringValue(escape(channel)))
		result32(stack, emitDenied)
		return
	case len(w.emitted) >= maxEmitted || w.bytes+len(payload) > maxEmittedBytes:
		m.warn("emit: too many messages, or too large", "messages", slog.IntValue(len(w.emitted)), "bytes", slog.IntValue(w.bytes+len(payload)))
		result32(stack, emitTooMuch)
		return
	}
	i.charge(costEmitByte * int64(len(payload)))
	message := filterd.Message{Channel: string(channel), Payload: bytes.Clone(payload)}
	if message.Payload == nil {
		message.Payload = []byte{}
	}
	if err := m.registry.CheckWhole(&message); err != nil {
		m.warn("emit: the message breaks its contract", "channel", slog.StringValue(escape(channel)), "error", slog.StringValue(escape(err.Error())))
		result32(stack, emitContract)
		return
	}
	i.hold("emit", len(payload))
	w.bytes += len(payload)
	w.emitted = append(w.emitted, filterd.Delivery{Channel: message.Channel, Payload: message.Payload})
	result32(stack, emitted)
}

// fail is filterd.fail(ptr, len).
func (i *instance) fail(stack []uint64) {
	text := i.view("fail", stack[0], stack[1])
	w := i.about("fail")
	i.charge(costLog)
	w.text = escape(text)
}

var levels = [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

// log is filterd.log(level, ptr, len).
func (i *instance) log(stack []uint64) {
	level := uint32(stack[0])
	text := i.view("log", stack[1], stack[2])
	if level >= uint32(len(levels)) {
		i.trap(FaultABI, "log: there is no level %d", level)
	}
	i.charge(costLog)
	i.module.guestLog(levels[level], text)
}

// channel is filterd.channel(ptr, cap) -> i32.
func (i *instance) channel(stack []uint64) {
	i.scratch = append(i.scratch[:0], i.message("channel").Channel...)
	stack[0] = i.give("channel", i.scratch, stack[0], stack[1])
}

// field is filterd.field(path_ptr, path_len) -> i32.
func (i *instance) field(stack []uint64) {
	text := i.view("field", stack[0], stack[1])
	if i.phase != phaseConfigure {
		i.trap(FaultABI, "field: fields are declared in %s", exportConfigure)
	}
	i.charge(costLog)
	path, err := filterd.ParsePath(string(text[:min(len(text), math.MaxUint16)]))
	if err != nil {
		i.module.warn("field: a bad path", "error", slog.StringValue(escape(err.Error())))
		result32(stack, -1)
		return
	}
	for id, declared := range i.declared {
		if declared == path {
			stack[0] = uint64(id)
			return
		}
	}
	if len(i.declared) == maxFields {
		i.trap(FaultABI, "field: more than %d fields", maxFields)
	}
	i.declared = append(i.declared, path)
	stack[0] = uint64(len(i.declared) - 1)
}

// lookup returns the value of a declared field in the current message. The
// first time for a message the payload is read, and paid for.
func (i *instance) lookup(function string, id uint64) filterd.Field {
	m := i.message(function)
	if uint32(id) >= uint32(len(i.slots)) {
		i.trap(FaultABI, "%s: there is no field %d", function, int32(id))
	}
	cached := &i.fields[uint32(id)]
	if cached.epoch != i.epoch {
		i.charge(int64(len(m.Payload)))
		cached.Field, cached.epoch = m.Lookup(i.slots[uint32(id)]), i.epoch
	}
	return cached.Field
}

// fieldKind is filterd.field_kind(id) -> i32.
func (i *instance) fieldKind(stack []uint64) {
	stack[0] = uint64(i.lookup("field_kind", stack[0]).Kind)
}

// fieldF64 is filterd.field_f64(id) -> f64.
func (i *instance) fieldF64(stack []uint64) {
	f := i.lookup("field_f64", stack[0])
	i.charge(int64(len(f.Text)))
	stack[0] = math.Float64bits(f.Float())
}

// fieldBool is filterd.field_bool(id) -> i32.
func (i *instance) fieldBool(stack []uint64) {
	stack[0] = bit(i.lookup("field_bool", stack[0]).Bool())
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// fieldBytes is filterd.field_bytes(id, ptr, cap) -> i32.
func (i *instance) fieldBytes(stack []uint64) {
	f := i.lookup("field_bytes", stack[0])
	if f.Kind == filterd.FieldMissing {
		result32(stack, -1)
		return
	}
	text, plain := plainText(f)
	if !plain {
		i.charge(costEmitByte * int64(len(f.Text)))
		i.scratch = f.AppendBytes(i.scratch[:0])
		text = i.scratch
	}
	stack[0] = i.give("field_bytes", text, stack[1], stack[2])
}

// plainText returns what a guest is given of a field, where it stands so in
// the payload: always but for strings with escapes and such that aren't UTF-8.
func plainText(f filterd.Field) (text []byte, plain bool) {
	if f.Kind != filterd.FieldString || f.Plain {
		return f.Text, true
	}
	inside := f.Text[1 : len(f.Text)-1]
	return inside, bytes.IndexByte(inside, '\\') < 0 && utf8.Valid(inside)
}

// nowNS is filterd.now_ns() -> i64.
func (i *instance) nowNS(stack []uint64) {
	m, w := i.message("now_ns"), i.about("now_ns")
	switch {
	case !m.Received.IsZero():
		w.now = m.Received.UnixNano()
	case w.now == 0: // nobody read it: it is received now
		w.now = time.Now().UnixNano()
	}
	stack[0] = uint64(w.now)
}

// key returns the key of a KV function.
func (i *instance) key(function string, stack []uint64) []byte {
	key := i.view(function, stack[0], stack[1])
	if len(key) > maxKVKey {
		i.trap(FaultABI, "%s: a key of %d bytes, at most %d are allowed", function, len(key), maxKVKey)
	}
	i.charge(costKV)
	return key
}

// kvCall is a call of the KV, with a deadline if it can take long.
func (i *instance) kvCall(function string, call func(ctx context.Context) error) {
	ctx := i.ctx
	if !i.module.memoryKV {
		i.charge(costStore)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, kvTimeout)
		defer cancel()
	}
	if err := call(ctx); err != nil {
		i.hostFailed(function, err)
	}
}

// hostFailed ends the call that a host function failed in.
func (i *instance) hostFailed(function string, err error) {
	if ended := i.ctx.Err(); ended != nil { // which is why, and nobody's fault
		panic(interrupted{ended})
	}
	f := i.module.fault(FaultHost, "%s: %s", function, escape(err.Error()))
	f.Err = err
	panic(f)
}

// kvGet is filterd.kv_get(k, klen, ptr, cap) -> i32: the value's full length,
// -1 for a missing key.
func (i *instance) kvGet(stack []uint64) {
	key := i.key("kv_get", stack)
	found := false
	i.kvCall("kv_get", func(ctx context.Context) (err error) {
		i.scratch, found, err = i.module.kv.Get(ctx, key, i.scratch[:0])
		return err
	})
	if !found {
		result32(stack, -1)
		return
	}
	stack[0] = i.give("kv_get", i.scratch, stack[2], stack[3])
}

func milliseconds(ms uint64) time.Duration { return time.Duration(int32(ms)) * time.Millisecond }

// kvSet is filterd.kv_set(k, klen, v, vlen, ttl_ms) -> i32: 0 stored, -1 no
// room.
func (i *instance) kvSet(stack []uint64) {
	key := i.key("kv_set", stack)
	value := i.view("kv_set", stack[2], stack[3])
	i.charge(int64(len(value)))
	stored := false
	i.kvCall("kv_set", func(ctx context.Context) (err error) {
		stored, err = i.module.kv.Set(ctx, key, value, milliseconds(stack[4]))
		return err
	})
	if stored {
		stack[0] = 0
	} else {
		result32(stack, -1)
	}
}

// kvIncr is filterd.kv_incr(k, klen, delta, ttl_ms) -> i64.
func (i *instance) kvIncr(stack []uint64) {
	key := i.key("kv_incr", stack)
	i.kvCall("kv_incr", func(ctx context.Context) error {
		sum, err := i.module.kv.Incr(ctx, key, int64(stack[2]), milliseconds(stack[3]))
		stack[0] = uint64(sum)
		return err
	})
}
