package wasmfilter

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Error numbers of WASI.
const (
	wasiSuccess = 0
	wasiBadFile = 8
	wasiFault   = 21
	wasiInvalid = 28
)

// wasiFromWazero lists what is taken from wazero as it is: functions that do
// the same work whatever a guest asks for. Its clocks are fake, and there are
// no arguments and no environment.
var wasiFromWazero = []string{
	"args_get", "args_sizes_get", "environ_get", "environ_sizes_get",
	"clock_res_get", "clock_time_get", "sched_yield",
	"fd_fdstat_get", "fd_filestat_get",
}

// buildWASI builds the part of WASI preview 1 that the runtimes of languages
// need to start: Go's, before all. There are no files and no sockets, and
// standard output and standard error go to the log.
//
// What works by length is our own, since it has to be paid for: wazero's
// functions for paths clean a path of any length before they look at the file
// it is relative to.
func (r *Runtime) buildWASI(ctx context.Context) (err error) {
	own := []hostFunction{
		{"fd_read", []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32}, (*instance).fdRead},
		{"fd_write", []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32}, (*instance).fdWrite},
		{"poll_oneoff", []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32}, (*instance).pollOneoff},
		{"proc_exit", []api.ValueType{i32}, nil, (*instance).procExit},
		{"random_get", []api.ValueType{i32, i32}, []api.ValueType{i32}, (*instance).randomGet},
	}
	const name = wasi_snapshot_preview1.ModuleName
	builder := r.wazero.NewHostModuleBuilder(name)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(builder)
	all, err := builder.Compile(ctx) // for the names and types alone
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.Close(ctx)) }()
	functions := own
	for export, definition := range all.ExportedFunctions() {
		if !slices.ContainsFunc(own, func(f hostFunction) bool { return f.name == export }) {
			functions = append(functions, hostFunction{export, definition.ParamTypes(), definition.ResultTypes(), noFile})
		}
	}
	r.know(name, functions)
	for _, f := range functions {
		if !slices.Contains(wasiFromWazero, f.name) {
			builder.NewFunctionBuilder().WithGoFunction(f.function(), f.params, f.results).Export(f.name)
		}
	}
	_, err = builder.Instantiate(ctx)
	return err
}

// noFile is every function about something that isn't there.
func noFile(_ *instance, stack []uint64) {
	if len(stack) > 0 {
		stack[0] = wasiBadFile
	}
}

// maxVectors is how many buffers one call may name.
const maxVectors = 1024

// fdWrite is fd_write(fd, iovs, iovs_len, result.nwritten) -> errno.
func (i *instance) fdWrite(stack []uint64) {
	fd, count := uint32(stack[0]), uint32(stack[2])
	if fd != 1 && fd != 2 {
		stack[0] = wasiBadFile
		return
	}
	if count > maxVectors {
		stack[0] = wasiInvalid
		return
	}
	vectors := i.view("fd_write", stack[1], uint64(count)*8)
	written := 0
	for ; len(vectors) > 0; vectors = vectors[8:] {
		b := i.view("fd_write", uint64(binary.LittleEndian.Uint32(vectors)), uint64(binary.LittleEndian.Uint32(vectors[4:])))
		i.charge(costLog/10 + int64(len(b)))
		i.stdout[fd-1].write(b, func(line []byte) { i.printed(fd, line) })
		written += len(b)
	}
	i.returnU32(stack, stack[3], uint32(written))
}

// returnU32 ends a function of WASI that writes its result to memory.
func (i *instance) returnU32(stack []uint64, pointer uint64, value uint32) {
	if !i.memory.WriteUint32Le(uint32(pointer), value) {
		stack[0] = wasiFault
		return
	}
	stack[0] = wasiSuccess
}

// printed takes a line that the guest wrote to a stream.
func (i *instance) printed(fd uint32, line []byte) {
	if fd == 2 && (i.ended == "" || strings.HasPrefix(string(line), "panic: ") && !strings.HasPrefix(i.ended, "panic: ")) {
		i.ended = escape(line)
	}
	i.charge(costLog)
	i.module.guestLog(slog.LevelInfo, line)
}

// flush ends the lines that the guest has begun.
func (i *instance) flush() {
	for fd := range i.stdout {
		i.stdout[fd].flush(func(line []byte) { i.printed(uint32(fd)+1, line) })
	}
}

// fdRead is fd_read(fd, iovs, iovs_len, result.nread) -> errno: standard input
// is at its end.
func (i *instance) fdRead(stack []uint64) {
	if uint32(stack[0]) != 0 {
		stack[0] = wasiBadFile
		return
	}
	i.returnU32(stack, stack[3], 0)
}

// procExit is proc_exit(code). The module is not closed here, as wazero's
// would: its memory is read once more, for a batch's verdicts.
func (i *instance) procExit(stack []uint64) {
	i.trap(FaultExit, "exited with code %d%s", uint32(stack[0]), i.lastWords())
}

// lastWords returns what the guest has written about its end.
func (i *instance) lastWords() string {
	i.flush()
	if i.ended == "" {
		return ""
	}
	return ": " + i.ended
}

// randomGet is random_get(buf, buf_len) -> errno. The bytes are the same for
// every instance.
func (i *instance) randomGet(stack []uint64) {
	b := i.view("random_get", stack[0], stack[1])
	i.charge(int64(len(b)))
	if i.random == nil {
		i.random = rand.NewChaCha8([32]byte{})
	}
	_, _ = i.random.Read(b) // it never fails
	stack[0] = wasiSuccess
}

// pollOneoff is poll_oneoff(in, out, nsubscriptions, result.nevents) -> errno.
// Clocks are fake: everything that is waited for has happened.
func (i *instance) pollOneoff(stack []uint64) {
	const subscription, event = 48, 32
	count := uint32(stack[2])
	if count == 0 || count > maxVectors {
		stack[0] = wasiInvalid
		return
	}
	in := i.view("poll_oneoff", stack[0], uint64(count)*subscription)
	out := i.view("poll_oneoff", stack[1], uint64(count)*event)
	i.charge(int64(count) * 10)
	for n := range int(count) {
		subscribed, happened := in[n*subscription:], out[n*event:][:event]
		var userdata [8]byte // in and out may overlap
		copy(userdata[:], subscribed)
		kind := subscribed[8]
		clear(happened)
		copy(happened, userdata[:])
		happened[10] = kind
		if kind != 0 { // of a file
			happened[8] = wasiBadFile
		}
	}
	i.returnU32(stack, stack[3], count)
}
