package exprfilter_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

// trade is an event of 324 bytes.
const trade = `{"specversion":"1.0","id":"000000000001","source":"/exchange/feed","type":"com.example.trade.v1","datacontenttype":"application/json","time":"2026-11-23T12:00:00.000000Z","data":{"symbol":"BTC-USD","side":"buy","price":60000.5,"qty":2,"venue":"example","trade":1,"note":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}`

// sized returns a trade of that many bytes, with the fields that rules read
// before or behind the rest of its data.
func sized(size int, last bool) string {
	const head = `{"specversion":"1.0","id":"000000000001","source":"/exchange/feed","type":"com.example.trade.v1","data":{`
	fields := `"symbol":"BTC-USD","price":60000.5,"qty":2`
	var rest strings.Builder
	for i := 0; len(head)+len(fields)+rest.Len() < size-30; i++ {
		fmt.Fprintf(&rest, `,"f%d":{"a":%d.5,"b":"text %d"}`, i, i, i)
	}
	body := fields + rest.String()
	if last && rest.Len() > 0 {
		body = rest.String()[1:] + "," + fields
	}
	pad := max(0, size-len(head)-len(body)-len(`,"p":""}}`))
	return head + body + `,"p":"` + strings.Repeat("x", pad) + `"}}`
}

// workload returns the sources of n rules. All rules of a workload are alike
// but for their constants; one of them matches the trade, unless the workload
// says otherwise.
func workload(name string, n int) []string {
	sources := make([]string, n)
	for i := range sources {
		kind := name
		if name == "W5" { // 60 % equality, 20 range, 10 string, 5 or, 5 not indexable
			kind = [...]string{"W2", "W2", "W2", "W3", "or", "W2", "W2", "W2", "W3", "prefix", "W2", "W2", "W2", "W3", "linear", "W2", "W2", "W2", "W3", "prefix"}[i%20]
		}
		switch kind {
		case "W1":
			sources[i] = `data.symbol == "BTC-USD" && data.price * data.qty > 10000`
		case "W2":
			symbol := fmt.Sprintf("SYM-%d", i)
			if i == n/2/20*20 {
				symbol = "BTC-USD"
			}
			sources[i] = fmt.Sprintf(`data.symbol == "%s" && data.price > 10`, symbol)
		case "W3":
			sources[i] = fmt.Sprintf(`data.price >= %d && data.price < %d`, 60_000-10*(n/2)+10*i, 60_010-10*(n/2)+10*i)
		case "W4":
			sources[i] = fmt.Sprintf(`data.price * data.qty > %d`, 120_000+i)
		case "W6-missing": // all fail
			sources[i] = fmt.Sprintf(`data.absent > %d`, i)
		case "W6-hot": // one value that all rules ask for
			sources[i] = fmt.Sprintf(`data.symbol == "BTC-USD" && data.trade == %d`, i)
		case "W6-overlapping": // ranges within ranges; the trade is in none
			sources[i] = fmt.Sprintf(`data.price > %d && data.price < %d`, 60_001+i, 1_000_000-i)
		case "prefix":
			sources[i] = fmt.Sprintf(`data.venue startsWith "venue-%d"`, i)
		case "or":
			sources[i] = fmt.Sprintf(`data.symbol == "S%d" or data.trade == %d`, i, 10+i)
		case "linear":
			sources[i] = fmt.Sprintf(`data.price > data.qty * %d`, 1_000_000+i)
		}
	}
	return sources
}

func compileAll(b testing.TB, sources []string) filterd.Set {
	b.Helper()
	filters := make([]filterd.Filter, len(sources))
	for i, source := range sources {
		filters[i] = exprfilter.MustCompile(source)
	}
	set, err := exprfilter.Kind{}.Compile(filters)
	if err != nil {
		b.Fatal(err)
	}
	return set
}

// variants returns messages that differ as those of a channel do: in their id,
// time, side, price and quantity, and a few in their symbol and number.
func variants(payload string) [][]byte {
	texts := make([][]byte, 64)
	for i := range texts {
		replace := []string{`"id":"000000000001"`, fmt.Sprintf(`"id":"%012d"`, 1+i), `.000000Z`, fmt.Sprintf(`.%06dZ`, i*i), `"price":60000.5,"qty":2`, fmt.Sprintf(`"price":60000.%d,"qty":%d`, 5+i, 2+i%10)}
		if i%2 == 1 {
			replace = append(replace, `"buy"`, `"sell"`)
		}
		if i == 7 {
			replace = append(replace, `"BTC-USD"`, `"ETH-USD"`, `"trade":1,`, `"trade":2,`)
		}
		texts[i] = []byte(strings.NewReplacer(replace...).Replace(payload))
	}
	return texts
}

// measure measures what it takes to check a message against the contract of
// undeclared channels, and to find the rules that keep it.
func measure(b *testing.B, set filterd.Set, payload string) {
	projection := filterd.NewProjection(set.Paths())
	matcher := set.Bind(projection.Slots(set.Paths()))
	texts := variants(payload)
	m := &filterd.Message{Channel: "PRICE_DATA"}
	m.Bind(projection)
	batch := []*filterd.Message{m}
	var verdicts []filterd.Verdict
	before := set.Evaluations()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Reset(texts[i%len(texts)])
		if err := (*filterd.Registry)(nil).Check(m); err != nil {
			b.Fatal(err)
		}
		verdicts = matcher.Match(batch, verdicts[:0])
	}
	spent := set.Evaluations().Sub(before)
	b.ReportMetric(float64(len(verdicts)), "verdicts/op")
	b.ReportMetric(float64(spent.Compiled)/float64(b.N), "evaluations/op")
	b.ReportMetric(float64(spent.Pruned+spent.Whole)/float64(b.N), "interpreted/op")
}

// measureNaive measures encoding/json and one expression after the other.
func measureNaive(b *testing.B, sources []string, payload string) {
	programs := make([]*vm.Program, len(sources))
	for i, source := range sources {
		var err error
		if programs[i], err = expr.Compile(source, expr.AsBool()); err != nil {
			b.Fatal(err)
		}
	}
	texts := variants(payload)
	var machine vm.VM
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var event map[string]any
		if err := json.Unmarshal(texts[i%len(texts)], &event); err != nil {
			b.Fatal(err)
		}
		env := map[string]any{"data": event["data"]}
		for _, p := range programs {
			_, _ = machine.Run(p, env)
		}
	}
}

// BenchmarkWorkloads measures sets of rules on one message, with the naive
// program beside.
func BenchmarkWorkloads(b *testing.B) {
	for _, w := range []struct {
		name  string
		rules []int
	}{
		{"W1", []int{1}},
		{"W2", []int{1, 100, 10_000, 100_000}},
		{"W3", []int{1, 10_000}},
		{"W4", []int{1, 10_000}},
		{"W5", []int{10_000}},
		{"W6-missing", []int{10_000}},
		{"W6-hot", []int{10_000}},
		{"W6-overlapping", []int{10_000}},
	} {
		for _, n := range w.rules {
			sources := workload(w.name, n)
			b.Run(fmt.Sprintf("%s/rules=%d/filterd", w.name, n), func(b *testing.B) { measure(b, compileAll(b, sources), trade) })
			if n <= 100 || w.name == "W2" && n == 10_000 {
				b.Run(fmt.Sprintf("%s/rules=%d/naive", w.name, n), func(b *testing.B) { measureNaive(b, sources, trade) })
			}
		}
	}
	// Duplicates of a member cost no more than other members.
	duplicates := strings.Replace(trade, `"note":"`, strings.Repeat(`"price":1,`, 20)+`"price":60000.5,"note":"`, 1)
	b.Run("W6-duplicates/rules=10000/filterd", func(b *testing.B) { measure(b, compileAll(b, workload("W2", 10_000)), duplicates) })
}

// BenchmarkSizes measures one rule on messages of several sizes.
func BenchmarkSizes(b *testing.B) {
	for _, size := range []int{230, 1024, 4096} {
		for _, where := range []string{"first", "last"} {
			payload := sized(size, where == "last")
			b.Run(fmt.Sprintf("bytes=%d/fields=%s/filterd", size, where), func(b *testing.B) {
				b.SetBytes(int64(len(payload)))
				measure(b, compileAll(b, workload("W1", 1)), payload)
			})
			b.Run(fmt.Sprintf("bytes=%d/fields=%s/naive", size, where), func(b *testing.B) {
				b.SetBytes(int64(len(payload)))
				measureNaive(b, workload("W1", 1), payload)
			})
		}
	}
}

// BenchmarkBuild measures the building of a set of compiled expressions.
func BenchmarkBuild(b *testing.B) {
	for _, name := range []string{"W2", "W3", "W4", "W5", "W6-hot", "W6-overlapping"} {
		var filters []filterd.Filter
		for _, source := range workload(name, 10_000) {
			filters = append(filters, exprfilter.MustCompile(source))
		}
		b.Run(name+"/rules=10000", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (exprfilter.Kind{}).Compile(filters); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A message that needs no expression library allocates nothing, whatever the
// rules; nor do rules that fail together.
func TestAllocations(t *testing.T) {
	for _, name := range []string{"W1", "W2", "W3", "W4", "W5", "W6-missing", "W6-hot", "W6-overlapping"} {
		set := compileAll(t, workload(name, 2000))
		projection := filterd.NewProjection(set.Paths())
		matcher := set.Bind(projection.Slots(set.Paths()))
		text := []byte(trade)
		m := &filterd.Message{Channel: "PRICE_DATA"}
		m.Bind(projection)
		batch := []*filterd.Message{m}
		var verdicts []filterd.Verdict
		n := testing.AllocsPerRun(100, func() {
			m.Reset(text)
			if err := (*filterd.Registry)(nil).Check(m); err != nil {
				t.Fatal(err)
			}
			verdicts = matcher.Match(batch, verdicts[:0])
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if spent := set.Evaluations(); spent.Pruned+spent.Whole > 0 {
			t.Errorf("%s: expr was asked: %+v", name, spent)
		}
		if spent := set.Evaluations(); name != "W5" && spent.Compiled > 101 {
			t.Errorf("%s: %d rules were evaluated for 101 messages", name, spent.Compiled)
		}
	}
}
