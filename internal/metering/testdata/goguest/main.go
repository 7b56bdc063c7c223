// Command goguest is a Go guest for the tests of package metering: some
// ordinary work, exported.
package main

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"sort"
	"strings"
)

const message = `{"specversion":"1.0","id":"7f4c","source":"/exchange/kraken","type":"com.example.trade","datacontenttype":"application/json",` +
	`"time":"2026-03-01T12:00:00Z","data":{"symbol":"BTC-USD","side":"buy","price":64250.5,"qty":0.25,"venue":"kraken","seq":918273,"tags":["spot","maker"]}}`

// buffer is what a host would write a message into.
var buffer = []byte(message)

// scan looks for a byte sequence by hand and adds up the bytes on the way.
//
//go:wasmexport scan
func scan() int32 {
	sum := int32(0)
	for i, c := range buffer {
		sum += int32(c)
		if c == '"' && i+6 < len(buffer) && string(buffer[i:i+6]) == `"price` {
			sum ^= int32(i)
		}
	}
	return sum
}

// decode decodes the message.
//
//go:wasmexport decode
func decode() int32 {
	var m struct {
		Data struct {
			Symbol string
			Price  float64
			Qty    float64
			Tags   []string
		}
	}
	if err := json.Unmarshal(buffer, &m); err != nil {
		return -1
	}
	return int32(m.Data.Price*m.Data.Qty) + int32(len(m.Data.Symbol)+len(m.Data.Tags))
}

// sorted sorts n pseudo-random words.
//
//go:wasmexport sorted
func sorted(n int32) int32 {
	words := make([]string, n)
	x := uint32(1)
	for i := range words {
		x = x*1664525 + 1013904223
		words[i] = fmt.Sprintf("%08x", x)
	}
	sort.Strings(words)
	return int32(crc32.ChecksumIEEE([]byte(strings.Join(words, ","))))
}

// counted counts words in a map.
//
//go:wasmexport counted
func counted(n int32) int32 {
	counts := make(map[string]int)
	x := uint32(1)
	for range n {
		x = x*1664525 + 1013904223
		counts[fmt.Sprint(x>>26)]++
	}
	most := 0
	for _, c := range counts {
		most = max(most, c)
	}
	return int32(most)<<16 | int32(len(counts))
}

// fib is the naive recursion.
//
//go:wasmexport fib
func fib(n int32) int32 {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

// deep recurses n deep.
//
//go:wasmexport deep
func deep(n int32) int32 {
	if n == 0 {
		return 0
	}
	return deep(n-1) + 1
}

// endless never returns.
//
//go:wasmexport endless
func endless() {
	for x := uint32(1); ; x = x*1664525 + 1013904223 {
		buffer[x%uint32(len(buffer))]++
	}
}

func main() {}
