// Goguest is a guest in Go, as the tests build it: it keeps events by some of
// their bytes, as decide.c does, or by all, and panics on demand.
package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"time"
	"unsafe"
)

var buffer []byte

//go:wasmexport filterd_abi_v1
func version() {}

//go:wasmexport filterd_buffer
func filterdBuffer(n uint32) uint32 {
	if int(n)+16 > len(buffer) {
		buffer = make([]byte, n+16)
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(buffer)))
	buffer = buffer[(16-at%16)%16:]
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(buffer))))
}

//go:wasmexport filterd_process
func filterdProcess(n uint32) int32 {
	payload := buffer[:n]
	if len(payload) > 0 && payload[0] == ' ' {
		return scan(payload)
	}
	if len(payload) >= 64 {
		at := payload[len(payload)/2:][:16]
		if binary.LittleEndian.Uint64(at) != 0x4242424242424242 && binary.LittleEndian.Uint64(at[8:]) != 0x4242424242424242 {
			return 1
		}
		return 0
	}
	switch {
	case bytes.HasPrefix(payload, []byte("panic")):
		panic(string(payload))
	case bytes.HasPrefix(payload, []byte("exit")):
		os.Exit(3)
	case bytes.HasPrefix(payload, []byte("print")):
		println(string(payload))
	case bytes.HasPrefix(payload, []byte("file")):
		if _, err := os.ReadFile("/etc/passwd"); err == nil {
			return 17
		}
		if n, err := os.Stdin.Read(buffer); n != 0 || err != io.EOF {
			return 17
		}
		if len(os.Args) > 1 || len(os.Environ()) > 0 {
			return 17
		}
	case bytes.HasPrefix(payload, []byte("sleep")):
		begin := time.Now()
		time.Sleep(50 * time.Millisecond)
		if time.Since(begin) < 50*time.Millisecond {
			return 17
		}
	}
	return 0
}

// scan looks at every byte: it keeps what has a price.
func scan(payload []byte) int32 {
	kept := int32(0)
	for i, c := range payload {
		if c == '"' && i+7 <= len(payload) && string(payload[i:i+7]) == `"price"` {
			kept = 1
		}
	}
	return kept
}

func main() {}
