package comparison

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/filterd/filterd/internal/measure"
	"github.com/filterd/filterd/internal/redistest"
)

// condition keeps the trades that are wanted.
const condition = `data.symbol == "BTC-USD" && data.price * data.qty > 10000`

// manyRules is how many rules there are where there are many.
const manyRules = 10_000

// rulesFile returns a rules file with that many rules, one of which keeps what
// is wanted. The others wait for symbols that don't come.
func rulesFile(rules int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "rules:\n  trades: {from: in, when: '%s', to: out}\n", condition)
	for i := range rules - 1 {
		fmt.Fprintf(&b, "  other%d: {from: in, when: 'data.symbol == \"S%04d-USD\" && data.price * data.qty > %d', to: out}\n", i, i, i)
	}
	return []byte(b.String())
}

// trade returns an event of 324 bytes.
func trade(i int, price float64) []byte {
	text := fmt.Sprintf(`{"specversion":"1.0","id":"%012d","source":"/exchange/feed","type":"com.example.trade.v1","datacontenttype":"application/json","time":"2026-11-23T12:00:00.000000Z","data":{"symbol":"BTC-USD","side":"buy","price":%.1f,"qty":2,"venue":"example","trade":%d,"note":""}}`, i, price, i)
	return []byte(strings.Replace(text, `"note":""`, `"note":"`+strings.Repeat("x", 324-len(text))+`"`, 1))
}

// trades returns messages, every so-many of which is wanted; 0 is none.
func trades(count, every int) []measure.Message {
	messages := make([]measure.Message, count)
	for i := range messages {
		m := &messages[i]
		m.Channel = "in"
		if m.Matched = every > 0 && i%every == 0; m.Matched {
			m.Payload = trade(i, 60000.5)
			m.Outputs = []measure.Output{{Channel: "out", Payload: m.Payload}}
		} else {
			m.Payload = trade(i, 1.5)
		}
	}
	return messages
}

// wanted is what the relays that don't look at data look for.
const wanted = `"price":60000.5`

// relays builds the programs, and returns them by their names: each takes
// trades from the channel in and publishes those that are wanted to out.
func relays(t *testing.T, server *redistest.Server) map[string]measure.Relay {
	t.Helper()
	dir := t.TempDir()
	for name, source := range map[string]string{"filterd": "../../cmd/filterd", "handwritten": "./handwritten", "goredis": "./goredis"} {
		if out, err := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", filepath.Join(dir, name), source).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	file := func(name string, rules int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, rulesFile(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plan, err := json.Marshal(measure.RawPlan{Channel: "in", Word: wanted, To: [][]string{{"out"}}})
	if err != nil {
		t.Fatal(err)
	}
	filterd := filepath.Join(dir, "filterd")
	env := []string{"FILTERD_REDIS=" + server.URL(), "REDIS_URL=" + server.URL()}
	names := []string{"in"}
	run := func(file string) measure.Relay {
		return measure.Relay{Path: filterd, Args: []string{"run", "-c", file, "--output", "json", "--log-memory"}, Env: env, Names: names}
	}
	return map[string]measure.Relay{
		"filterd":      run(file("one.yaml", 1)),
		"10,000 rules": run(file("many.yaml", manyRules)),
		"raw":          {Path: filterd, Args: []string{"raw-relay"}, Env: env, Stdin: plan, Names: names},
		"go-redis":     {Path: filepath.Join(dir, "goredis"), Env: env, Names: names},
		"hand-written": {Path: filepath.Join(dir, "handwritten"), Env: env, Names: names},
	}
}
