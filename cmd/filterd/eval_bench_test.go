package main

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"testing"
)

// BenchmarkEval filters 64 MB of events, of which few match, on one core and
// on all, with jq beside.
func BenchmarkEval(b *testing.B) {
	var input bytes.Buffer
	for i := 0; input.Len() < 64<<20; i++ {
		fmt.Fprintf(&input, `{"specversion":"1.0","id":"%012d","source":"/exchange/feed","type":"com.example.trade.v1","datacontenttype":"application/json","time":"2026-11-23T12:00:00.000000Z","data":{"symbol":"SYM-%03d","side":"buy","price":%d.5,"qty":2,"venue":"example","trade":%d,"note":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}`+"\n",
			i, i%200, i%70_000, i)
	}
	filterd := func(b *testing.B) {
		b.SetBytes(int64(input.Len()))
		for b.Loop() {
			if code := run([]string{"filterd", "eval", `data.symbol == "SYM-007" and data.price * data.qty > 100000`}, bytes.NewReader(input.Bytes()), io.Discard, io.Discard); code != 0 {
				b.Fatal(code)
			}
		}
	}
	b.Run("filterd/cores=1", func(b *testing.B) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		filterd(b)
	})
	b.Run("filterd/cores=all", filterd)
	b.Run("jq", func(b *testing.B) {
		jq, err := exec.LookPath("jq")
		if err != nil {
			b.Skip("jq is not installed")
		}
		b.SetBytes(int64(input.Len()))
		for b.Loop() {
			c := exec.Command(jq, "-c", `select(.data.symbol == "SYM-007" and .data.price * .data.qty > 100000)`)
			c.Stdin = bytes.NewReader(input.Bytes())
			if err := c.Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
