package exprfilter_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

// payload is an event of 324 bytes, as the comparison with other programs
// takes it.
const payload = `{"specversion":"1.0","id":"01978a1e-6f2c-7b3a-9d41-5c8e2f7a1b90","source":"/exchange/binance/spot","type":"com.example.price","subject":"BTC-USD","time":"2026-06-20T12:34:56.789Z","datacontenttype":"application/json","data":{"symbol":"BTC-USD","price":67123.45,"qty":0.25,"side":"buy","venue":"binance","seq":123456789}}`

func workload(name string, n int) []filterd.Filter {
	var filters []filterd.Filter
	for i := range n {
		source := ""
		kind := name
		if name == "W5-mixed" {
			switch {
			case i%20 < 12:
				kind = "W2-equality"
			case i%20 < 16:
				kind = "W3-ranges"
			case i%20 < 18:
				kind = "prefix"
			case i%20 < 19:
				kind = "or"
			default:
				kind = "linear"
			}
		}
		switch kind {
		case "W1-one":
			source = `data.symbol == "BTC-USD" && data.price * data.qty > 10000`
		case "W2-equality":
			source = fmt.Sprintf(`data.symbol == "SYM-%d" && data.price > 10`, i)
		case "W3-ranges":
			source = fmt.Sprintf(`data.price >= %d && data.price < %d`, 10*i, 10*i+10)
		case "W4-arithmetic":
			source = fmt.Sprintf(`data.price * data.qty > %d`, 16780+i*10)
		case "W6-missing":
			source = fmt.Sprintf(`data.absent > %d`, i)
		case "W6-hot":
			source = fmt.Sprintf(`data.symbol == "BTC-USD" && data.seq == %d`, i)
		case "prefix":
			source = fmt.Sprintf(`data.venue startsWith "venue-%d"`, i)
		case "or":
			source = fmt.Sprintf(`data.symbol == "S%d" or data.seq == %d`, i, i)
		case "linear":
			source = fmt.Sprintf(`data.price > data.qty * %d`, 1_000_000+i)
		}
		filters = append(filters, exprfilter.MustCompile(source))
	}
	return filters
}

func BenchmarkSet(b *testing.B) {
	for _, w := range []struct {
		name string
		n    []int
	}{
		{"W1-one", []int{1}},
		{"W2-equality", []int{1, 100, 10_000, 100_000}},
		{"W3-ranges", []int{1, 10_000}},
		{"W4-arithmetic", []int{1, 10_000}},
		{"W5-mixed", []int{10_000}},
		{"W6-missing", []int{10_000}},
		{"W6-hot", []int{10_000}},
	} {
		for _, n := range w.n {
			b.Run(fmt.Sprintf("%s/rules=%d", w.name, n), func(b *testing.B) {
				set, err := exprfilter.Kind{}.Compile(workload(w.name, n))
				if err != nil {
					b.Fatal(err)
				}
				projection := filterd.NewProjection(set.Paths())
				matcher := set.Bind(projection.Slots(set.Paths()))
				text := []byte(payload)
				if strings.HasPrefix(w.name, "W2") && n > 1 {
					text = []byte(strings.ReplaceAll(payload, `"BTC-USD","price"`, `"SYM-77","price"`))
				}
				m := &filterd.Message{Channel: "PRICE_DATA", Payload: text}
				batch := []*filterd.Message{m}
				var verdicts []filterd.Verdict
				b.ReportAllocs()
				for b.Loop() {
					m.Reset(text)
					m.Bind(projection)
					if err := (*filterd.Registry)(nil).Check(m); err != nil {
						b.Fatal(err)
					}
					verdicts = matcher.Match(batch, verdicts[:0])
				}
				b.ReportMetric(float64(len(verdicts)), "verdicts")
			})
		}
	}
}
