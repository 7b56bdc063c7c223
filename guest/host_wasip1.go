package guest

import "unsafe"

// A host is the real one, reached by imports. Its methods are called directly,
// never through an interface, so that the linker imports only what is used.
type host struct{}

//go:wasmimport filterd replace
func hostReplace(payload string)

//go:wasmimport filterd emit
func hostEmit(channel, payload string) int32

//go:wasmimport filterd fail
func hostFail(text string)

//go:wasmimport filterd log
func hostLog(level int32, text string)

//go:wasmimport filterd channel
func hostChannel(out unsafe.Pointer, capacity uint32) int32

//go:wasmimport filterd field
func hostField(path string) int32

//go:wasmimport filterd field_kind
func hostFieldKind(id int32) int32

//go:wasmimport filterd field_f64
func hostFieldF64(id int32) float64

//go:wasmimport filterd field_bool
func hostFieldBool(id int32) int32

//go:wasmimport filterd field_bytes
func hostFieldBytes(id int32, out unsafe.Pointer, capacity uint32) int32

//go:wasmimport filterd now_ns
func hostNowNs() int64

//go:wasmimport filterd kv_get
func hostKVGet(key string, out unsafe.Pointer, capacity uint32) int32

//go:wasmimport filterd kv_set
func hostKVSet(key, value string, ttl int32) int32

//go:wasmimport filterd kv_incr
func hostKVIncr(key string, delta int64, ttl int32) int64

//go:wasmimport filterd select
func hostSelect(i int32)

func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// fill appends what call writes, which returns the whole length, to dst. It
// returns false if that is below 0.
func fill(dst []byte, call func(out unsafe.Pointer, capacity uint32) int32) ([]byte, bool) {
	if cap(dst)-len(dst) < 64 {
		dst = append(make([]byte, 0, 2*len(dst)+64), dst...)
	}
	for {
		room := dst[len(dst):cap(dst)]
		n := int(call(unsafe.Pointer(unsafe.SliceData(room)), uint32(len(room))))
		if n < 0 {
			return dst, false
		}
		if n <= len(room) {
			return dst[:len(dst)+n], true
		}
		dst = append(make([]byte, 0, len(dst)+n), dst...)
	}
}

func (*host) choose(i int32)                      { hostSelect(i) }
func (*host) field(path string) Field             { return Field(hostField(path)) }
func (*host) kind(f Field) Kind                   { return Kind(hostFieldKind(int32(f))) }
func (*host) float(f Field) float64               { return hostFieldF64(int32(f)) }
func (*host) bool(f Field) bool                   { return hostFieldBool(int32(f)) != 0 }
func (*host) now() int64                          { return hostNowNs() }
func (*host) replace(payload []byte)              { hostReplace(view(payload)) }
func (*host) emit(channel string, b []byte) int32 { return hostEmit(channel, view(b)) }
func (*host) log(level Level, text string)        { hostLog(int32(level), text) }

func (*host) channel() []byte {
	name, _ := fill(nil, hostChannel)
	return name
}

func (*host) appendText(dst []byte, f Field) []byte {
	dst, _ = fill(dst, func(out unsafe.Pointer, capacity uint32) int32 { return hostFieldBytes(int32(f), out, capacity) })
	return dst
}

func (*host) kvGet(key string) ([]byte, bool) {
	return fill(nil, func(out unsafe.Pointer, capacity uint32) int32 { return hostKVGet(key, out, capacity) })
}

func (*host) kvSet(key string, value []byte, ttl int32) int32 {
	return hostKVSet(key, view(value), ttl)
}

func (*host) kvIncr(key string, delta int64, ttl int32) int64 { return hostKVIncr(key, delta, ttl) }

// The state of the instance, which has one thread and is never entered twice.
var (
	registered Setup
	handler    Handler
	buffer     []byte // 16-aligned
	message    Message
)

func register(setup Setup) { registered = setup }

// An entry is a message of a batch, as the host writes it.
type entry struct {
	payload, length uint32 // within the buffer
	verdict         int32
	fields          uint32 // where in the buffer the cells are
}

//go:wasmexport filterd_abi_v1
func exportABI() {}

//go:wasmexport filterd_buffer
func exportBuffer(length uint32) unsafe.Pointer {
	if length > 1<<30 {
		return nil
	}
	buffer = make([]byte, length+31)
	start := -uintptr(unsafe.Pointer(&buffer[0])) & 15
	buffer = buffer[start:]
	return unsafe.Pointer(&buffer[0])
}

//go:wasmexport filterd_configure
func exportConfigure(length uint32) int32 {
	h, err := configure(registered, &Config{json: buffer[:length]})
	if err != nil {
		hostFail(err.Error())
		return int32(failed)
	}
	handler = h
	return 0
}

//go:wasmexport filterd_process
func exportProcess(length uint32) int32 {
	message = Message{payload: buffer[:length], unselected: -1}
	return process()
}

//go:wasmexport filterd_process_batch
func exportProcessBatch(n int32) int32 {
	for i, e := range unsafe.Slice((*entry)(unsafe.Pointer(&buffer[0])), n) {
		message = Message{payload: buffer[e.payload:][:e.length:e.length], buffer: buffer, unselected: int32(i)}
		cells := buffer[e.fields:]
		message.cells = unsafe.Slice((*cell)(unsafe.Pointer(&cells[0])), len(cells)/16)
		verdict := process()
		unsafe.Slice((*entry)(unsafe.Pointer(&buffer[0])), n)[i].verdict = verdict
	}
	return 0
}

func process() int32 {
	verdict, err := handler(&message)
	if err != nil {
		message.selected()
		hostFail(err.Error())
		return int32(failed)
	}
	return int32(verdict)
}
