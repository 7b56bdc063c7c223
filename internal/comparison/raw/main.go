// Command raw is the floor: a relay that knows where its messages begin and end,
// and nothing else. It reads the socket, finds the payloads, and publishes those
// that hold what it was told to look for, without a rule, a check or a count. It
// is here to be measured against.
package main

import (
	"bytes"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
)

func main() {
	address := strings.TrimPrefix(os.Getenv("REDIS_URL"), "redis://")
	in, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	out, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // the replies
	if _, err := io.WriteString(in, "*2\r\n$9\r\nSUBSCRIBE\r\n$2\r\nin\r\n"); err != nil {
		log.Fatal(err)
	}
	relay(in, out, []byte(`"price":60000.5`))
}

// relay reads messages of one channel, whose frames begin alike.
func relay(in io.Reader, out io.Writer, wanted []byte) {
	const head = "*3\r\n$7\r\nmessage\r\n$2\r\nin\r\n$"
	buffer, have := make([]byte, 256<<10), 0
	var frames []byte
	confirmed := false
	for {
		n, err := in.Read(buffer[have:])
		if err != nil {
			log.Fatal(err)
		}
		have += n
		rest := buffer[:have]
		if !confirmed {
			end := bytes.Index(rest, []byte(":1\r\n"))
			if end < 0 {
				continue
			}
			rest, confirmed = rest[end+len(":1\r\n"):], true
		}
		for len(rest) > len(head) {
			line := bytes.IndexByte(rest[len(head):], '\r')
			if line < 0 {
				break
			}
			size, err := strconv.Atoi(string(rest[len(head) : len(head)+line]))
			if err != nil {
				log.Fatal(err)
			}
			begin := len(head) + line + 2
			if len(rest) < begin+size+2 {
				break
			}
			if payload := rest[begin : begin+size]; bytes.Contains(payload, wanted) {
				frames = append(frames, "*3\r\n$7\r\nPUBLISH\r\n$3\r\nout\r\n$"...)
				frames = strconv.AppendInt(frames, int64(size), 10)
				frames = append(frames, "\r\n"...)
				frames = append(frames, payload...)
				frames = append(frames, "\r\n"...)
			}
			rest = rest[begin+size+2:]
		}
		have = copy(buffer, rest)
		if len(frames) > 0 {
			if _, err := out.Write(frames); err != nil {
				log.Fatal(err)
			}
			frames = frames[:0]
		}
	}
}
