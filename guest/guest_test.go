//go:build !wasip1

package guest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd/guest"
)

// expensive keeps messages with a price above min.
func expensive(c *guest.Config) (guest.Handler, error) {
	price := c.Field("data.price")
	min := c.Float("min", 100)
	return func(m *guest.Message) (guest.Verdict, error) {
		switch p := m.Float(price); {
		case math.IsNaN(p):
			return guest.Drop, errors.New("price must be a number")
		case p > min:
			return guest.Pass, nil
		}
		return guest.Drop, nil
	}, nil
}

// A handler is tested without WebAssembly.
func ExampleTest() {
	test, err := guest.NewTest(expensive, `{"min": 1000}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, payload := range []string{`{"price": 60000}`, `{"price": 3.5}`, `{"price": "60000"}`} {
		result := test.Process("PRICE_DATA", payload)
		fmt.Println(payload, result.Verdict, result.Err)
	}
	// Output:
	// {"price": 60000} pass <nil>
	// {"price": 3.5} drop <nil>
	// {"price": "60000"} error price must be a number
}

// handle makes a test of a handler of one field.
func handle(t *testing.T, path string, handler func(m *guest.Message, f guest.Field) (guest.Verdict, error)) *guest.Test {
	t.Helper()
	test, err := guest.NewTest(func(c *guest.Config) (guest.Handler, error) {
		f := c.Field(path)
		return func(m *guest.Message) (guest.Verdict, error) { return handler(m, f) }, nil
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	return test
}

func TestFields(t *testing.T) {
	const event = `{"specversion":"1.0","id":"7","data":{"a":{"b c":[1,{"d":"\u00fc"}]},"t":true,"n":null}}`
	for _, test := range []struct{ path, payload, want string }{
		{`data.a["b c"][1].d`, event, "4 ü NaN false"},
		{`data.a["b c"][0]`, event, "3 1 1 false"},
		{`data.a["b c"][2]`, event, "0  NaN false"},
		{`data.a["b c"]`, event, `5 [1,{"d":"\u00fc"}] NaN false`},
		{`data.a`, event, `6 {"b c":[1,{"d":"\u00fc"}]} NaN false`},
		{`data.t`, event, "2 true NaN true"},
		{`data.n`, event, "1 null NaN false"},
		{`data.n.deeper`, event, "0  NaN false"},
		{`event.id`, event, "4 7 NaN false"},
		{`event.data`, event, "0  NaN false"},
		{`event.id`, `{"id":"7"}`, "0  NaN false"},
		{`data.id`, `{"id":"7"}`, "4 7 NaN false"},
		{`data`, ` -2.5e1 `, "3 -2.5e1 -25 false"},
		{`data[0]`, `[[]]`, "5 [] NaN false"},
		{`data.a`, `not JSON`, "0  NaN false"},
	} {
		got := handle(t, test.path, func(m *guest.Message, f guest.Field) (guest.Verdict, error) {
			return m.Replace(fmt.Append(nil, m.Kind(f), " ", m.Text(f), " ", m.Float(f), " ", m.Bool(f))), nil
		}).Process("c", test.payload)
		if got.Payload != test.want {
			t.Errorf("%s of %s: %s, want %s", test.path, test.payload, got.Payload, test.want)
		}
	}
	for _, path := range []string{"", "x", "channel", "data.", "data..a", "data[", "data[x]", "data[-1]", `data["a"`, "data[0]a", "database.a"} {
		_, err := guest.NewTest(func(c *guest.Config) (guest.Handler, error) {
			c.Field(path)
			return func(*guest.Message) (guest.Verdict, error) { return guest.Pass, nil }, nil
		}, "")
		if want := "not a path: " + path; err == nil || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestVerdicts(t *testing.T) {
	test := handle(t, "data", func(m *guest.Message, f guest.Field) (guest.Verdict, error) {
		m.Log(guest.Warn, "seen "+m.Channel())
		if err := m.Emit("side", []byte(m.Text(f))); err != nil {
			return guest.Drop, err
		}
		switch string(m.Payload()) {
		case "1":
			return guest.Pass, nil
		case "2":
			return m.Replace([]byte("two")), nil
		case "3":
			m.Replace([]byte("forgotten"))
			return guest.Drop, nil
		}
		return guest.Pass, errors.New("odd")
	})
	side := func(payload string) []guest.TestMessage {
		return []guest.TestMessage{{Channel: "side", Payload: payload}}
	}
	logs := []string{"warn: seen c"}
	for payload, want := range map[string]guest.TestResult{
		"1": {Verdict: "pass", Emitted: side("1"), Logs: logs},
		"2": {Verdict: "replace", Payload: "two", Emitted: side("2"), Logs: logs},
		"3": {Verdict: "drop", Emitted: side("3"), Logs: logs},
		"4": {Verdict: "error", Err: errors.New("odd"), Logs: logs},
	} {
		got := test.Process("c", payload)
		if diff := cmp.Diff(want, got, cmp.Transformer("error", func(err error) string { return fmt.Sprint(err) })); diff != "" {
			t.Errorf("%s: %s", payload, diff)
		}
	}
	for _, want := range []error{guest.ErrNotAllowed, guest.ErrBreaksContract} {
		test.Refuse = map[string]error{"side": want}
		if got := test.Process("c", "1"); !errors.Is(got.Err, want) || got.Emitted != nil {
			t.Errorf("%+v", got)
		}
	}
}

func TestEmitLimit(t *testing.T) {
	result := handle(t, "data", func(m *guest.Message, _ guest.Field) (guest.Verdict, error) {
		for {
			if err := m.Emit("side", nil); err != nil {
				return guest.Pass, err
			}
		}
	}).Process("c", "1")
	if !errors.Is(result.Err, guest.ErrTooMany) {
		t.Errorf("%+v", result)
	}
}

func TestKV(t *testing.T) {
	var steps []string
	test := handle(t, "data", func(m *guest.Message, _ guest.Field) (guest.Verdict, error) {
		value, ok := m.KVGet("value")
		steps = append(steps, fmt.Sprintf("%s %t %d", value, ok, m.KVIncr("count", 2, time.Second)))
		return guest.Pass, m.KVSet("value", m.Received().AppendFormat(nil, "05.0"), 1500*time.Millisecond)
	})
	for range 5 {
		test.Process("c", "1")
		test.Now = test.Now.Add(800 * time.Millisecond)
	}
	test.Now = test.Now.Add(time.Second)
	test.Process("c", "1")
	// The counter begins anew a second after it began, not after it was counted.
	want := " false 2, 00.0 true 4, 00.8 true 2, 01.6 true 4, 02.4 true 2,  false 2"
	if got := strings.Join(steps, ", "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestNoHandler(t *testing.T) {
	for want, setup := range map[string]guest.Setup{
		"no handler: call guest.Handle in an init function": nil,
		"no handler: the setup function returned nil":       func(*guest.Config) (guest.Handler, error) { return nil, nil },
		"refused": func(*guest.Config) (guest.Handler, error) { return nil, errors.New("refused") },
		"config: a must be true or false\nconfig: b must be a string\nconfig: c must be a number": func(c *guest.Config) (guest.Handler, error) {
			c.Bool("a", true)
			c.Text("b", "")
			c.Float("c", 1)
			return nil, nil
		},
	} {
		if _, err := guest.NewTest(setup, `{"a":0,"b":0,"c":"0"}`); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Nothing in a configuration is a crash, and any string in one is read as it
// was written.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, ` { "b" : [ {"a":"}"} ] , "a" : "\ud83d\ude00\n" } `, `{"a":"\ud83d"}`, `{"a`, `{"a":"\`, `{"a":"\u12`, `[1]`, ``, "\"\\\x00ü😀<",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got string
		setup := func(c *guest.Config) (guest.Handler, error) {
			c.Float("a", 1)
			c.Bool("a", false)
			got = c.Text("a", "")
			return func(*guest.Message) (guest.Verdict, error) { return guest.Pass, nil }, nil
		}
		_, _ = guest.NewTest(setup, text)

		text = strings.ToValidUTF8(text, "\uFFFD")
		marshalled, err := json.Marshal(map[string]string{"Z": text, "a": text})
		if err != nil {
			t.Fatal(err)
		}
		for _, config := range []string{string(marshalled), string(guest.AppendJSON([]byte(`{"a":`), text)) + "}"} {
			_, _ = guest.NewTest(setup, config)
			if got != text {
				t.Errorf("%s is read as %q", config, got)
			}
		}
	})
}
