package resp

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestNextEntries(t *testing.T) {
	const entry = "*2\r\n$3\r\n1-1\r\n*2\r\n$5\r\nevent\r\n$2\r\n\r\n\r\n"
	const two = "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n" + entry + "*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\na\r\n$0\r\n\r\n$1\r\nb\r\n$1\r\nc\r\n"
	for _, test := range []struct{ name, text, want string }{
		{"entries", two, `1-1["event" "\r\n"] 1-2["a" "" "b" "c"] ` + "0"},
		{"none", "*-1\r\n", "0"},
		{"an error", "-NOGROUP no\r\n", "5 NOGROUP no"},
		{"two replies", "*-1\r\n" + two, "0 " + `1-1["event" "\r\n"] 1-2["a" "" "b" "c"] ` + "0"},
		{"a number", ":1\r\n", `the server does not speak RESP2: want a list of streams`},
		{"no pair", "*1\r\n*3\r\n", `the server does not speak RESP2: want a pair`},
		{"no ID", "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n:1\r\n", `the server does not speak RESP2: want an ID`},
	} {
		for _, buffer := range []int{64, 4096} {
			for mode, from := range map[string]io.Reader{"whole": strings.NewReader(test.text), "bytes": iotest.OneByteReader(strings.NewReader(test.text))} {
				r := NewReader(from, buffer, 1<<20)
				var got []string
				var entries Entries
				for {
					var f Frame
					ok, err := r.NextEntries(&entries, &f)
					if err == nil && !ok {
						if err = r.Fill(); err == nil {
							continue
						}
					}
					if err == io.EOF {
						break
					}
					if err != nil {
						text, _, _ := strings.Cut(err.Error(), ", got")
						got = append(got, text)
						break
					}
					for i, e := range entries.List {
						got = append(got, fmt.Sprintf("%s%q", e.ID, entries.Fields(i)))
					}
					text := fmt.Sprint(f.Kind)
					if f.Kind == Error {
						text += " " + string(f.Payload)
					}
					got = append(got, text)
				}
				if got := strings.Join(got, " "); got != test.want {
					t.Errorf("%s, %s, %d:\ngot  %s\nwant %s", test.name, mode, buffer, got, test.want)
				}
			}
		}
	}
}
