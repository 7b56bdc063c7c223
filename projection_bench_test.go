package filterd_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// trade is an event of 324 bytes.
const trade = `{"specversion":"1.0","id":"000000000001","source":"/exchange/feed","type":"com.example.trade.v1","datacontenttype":"application/json","time":"2026-11-23T12:00:00.000000Z","data":{"symbol":"BTC-USD","side":"buy","price":60000.5,"qty":2,"venue":"example","trade":1,"note":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}`

// tradeOf returns a trade of a size, raw or an event, whose data has the
// members that are read before or behind all others.
func tradeOf(size int, event, last bool) []byte {
	const read = `"symbol":"BTC-USD","price":60000.5,"qty":2`
	head, tail := "{", "}"
	if event {
		head, tail = `{"specversion":"1.0","id":"000000000001","source":"/feed","type":"com.example.trade.v1","time":"2026-11-23T12:00:00Z","data":{`, "}}"
	}
	var rest strings.Builder
	for i := 0; ; i++ {
		member := fmt.Sprintf(`"level%d":{"side":"buy","price":%d.25,"sizes":[1,20,300],"open":true}`, i, 60000+i)
		if i%2 == 1 {
			member = fmt.Sprintf(`"venue%d":"exchange number %d"`, i, i)
		}
		left := size - len(head) - len(read) - len(tail) - rest.Len() - len(`,"note":""`)
		if len(member)+1 > left {
			fmt.Fprintf(&rest, `,"note":"%s"`, strings.Repeat("x", left))
			break
		}
		rest.WriteString("," + member)
	}
	if last {
		return []byte(head + rest.String()[1:] + "," + read + tail)
	}
	return []byte(head + read + rest.String() + tail)
}

var tradePaths = []filterd.Path{"data.symbol", "data.price", "data.qty"}

// BenchmarkMessage measures a message's check and three lookups, beside what
// encoding/json alone takes.
func BenchmarkMessage(b *testing.B) {
	payloads := map[string][]byte{"324B": []byte(trade)}
	names := []string{"324B"}
	for _, size := range []int{230, 1000, 4000} {
		for _, last := range []bool{false, true} {
			for _, event := range []bool{false, true} {
				name := fmt.Sprintf("%dB/%s/%s", size, map[bool]string{false: "raw", true: "event"}[event], map[bool]string{false: "first", true: "last"}[last])
				payloads[name] = tradeOf(size, event, last)
				names = append(names, name)
			}
		}
	}
	p := filterd.NewProjection(tradePaths)
	slots := p.Slots(tradePaths)
	var none *filterd.Registry
	for _, name := range names {
		payload := payloads[name]
		b.Run(name+"/filterd", func(b *testing.B) {
			m := &filterd.Message{Channel: "trades"}
			m.Bind(p)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				m.Reset(payload)
				if err := none.Check(m); err != nil {
					b.Fatal(err)
				}
				for _, slot := range slots {
					if m.Lookup(slot).Kind == filterd.FieldMissing {
						b.Fatal("missing")
					}
				}
			}
		})
		b.Run(name+"/encodingjson", func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				var document any
				if err := json.Unmarshal(payload, &document); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestMessageAllocates nothing, if it is used again and usual.
func TestMessageAllocates(t *testing.T) {
	p := filterd.NewProjection(tradePaths)
	many := make([]filterd.Path, 100)
	for i := range many {
		many[i] = filterd.Path(fmt.Sprintf("data.p%d", i))
	}
	extended := strings.Replace(trade, `"data":`, `"filterdhops":1,"tenant":"é","urgent":true,"none":null,"dataschema":"https://example.com/a.json","subject":"s","data":`, 1)
	for name, payload := range map[string]string{"event": trade, "extensions": extended, "raw": string(tradeOf(230, false, true)), "null": `null`, "large": string(tradeOf(4000, true, true))} {
		for _, p := range []*filterd.Projection{p, filterd.NewProjection(tradePaths, many), nil} {
			m := &filterd.Message{Channel: "trades"}
			m.Bind(p)
			r := registry(t, filterd.Contract{Channel: "trades"})
			text := []byte(payload)
			if n := testing.AllocsPerRun(100, func() {
				m.Reset(text)
				if err := r.Check(m); err != nil {
					t.Fatal(err)
				}
				if p != nil {
					for slot := range 3 {
						m.Lookup(slot)
					}
				}
			}); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
}
