package filterd_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

func TestLookup(t *testing.T) {
	var contracts []filterd.Contract
	for _, name := range []string{"prices.*", "*", "prices.btc", "prices.b*", "[pq]rices.*", "p*", `lit\*eral`, "late?", "prices.?*"} {
		contracts = append(contracts, filterd.Contract{Channel: name})
	}
	r := registry(t, contracts...)
	for channel, want := range map[string]string{
		"prices.btc":  "prices.btc", // exact before all globs
		"prices.bch":  "prices.b*",  // the longest literal prefix
		"prices.eth":  "prices.*",   // of two as long, the one declared first
		"prices.":     "prices.*",
		"price":       "p*",
		"qrices.x":    "*",        // a class is no literal
		"prices.*":    "prices.*", // the name of a channel, though one of its bytes is a star
		"lit*eral":    `lit\*eral`,
		"lit.eral":    "*",
		"later":       "late?",
		"anything":    "*",
		"Prices.btc":  "*",
		"prices.b\n*": "prices.b*",
		"":            "", // matches no pattern in Redis
	} {
		same(t, channel, r.Lookup(channel).Channel, want)
	}
}

func TestLookupUndeclared(t *testing.T) {
	var none *filterd.Registry
	for _, r := range []*filterd.Registry{none, {}, registry(t), registry(t, filterd.Contract{Channel: "a"})} {
		c := r.Lookup("b")
		same(t, "contract", *c, filterd.Contract{Envelope: filterd.EnvelopeAuto, Validate: filterd.ValidateOff, MaxSize: 1 << 20})
		same(t, "check", text(r.Check(&filterd.Message{Channel: "b", Payload: []byte(`{"a":1}`)})), "")
		same(t, "check", text(r.Check(&filterd.Message{Channel: "b", Payload: []byte(`a`)})),
			"b: malformed: not JSON: invalid character 'a' looking for beginning of value at byte 1")
	}
	same(t, "contracts of none", none.Contracts(), []*filterd.Contract(nil))
}

func TestContractDefaults(t *testing.T) {
	given := []filterd.Contract{{Channel: "z"}, {Channel: "b*"}, {Channel: "a*x"}, {Channel: "y", MaxSize: 5, Envelope: filterd.EnvelopeRaw}}
	r := registry(t, given...)
	same(t, "contracts", r.Contracts(), []*filterd.Contract{
		{Channel: "y", MaxSize: 5, Envelope: filterd.EnvelopeRaw, Validate: filterd.ValidateEnforce},
		{Channel: "z", MaxSize: 1 << 20, Envelope: filterd.EnvelopeAuto, Validate: filterd.ValidateEnforce},
		{Channel: "a*x", MaxSize: 1 << 20, Envelope: filterd.EnvelopeAuto, Validate: filterd.ValidateEnforce},
		{Channel: "b*", MaxSize: 1 << 20, Envelope: filterd.EnvelopeAuto, Validate: filterd.ValidateEnforce},
	})
	same(t, "what was given", given[0], filterd.Contract{Channel: "z"})
}

// TestNewRegistryErrors checks that every fault is reported, at once.
func TestNewRegistryErrors(t *testing.T) {
	r, err := filterd.NewRegistry(
		filterd.Contract{},
		filterd.Contract{Channel: "a", Envelope: "json", Validate: "always", MaxSize: -1, DeadLetter: "bad.*"},
		filterd.Contract{Channel: "b", Validate: filterd.ValidateSample},
		filterd.Contract{Channel: "c", Validate: filterd.ValidateSample, SampleRate: 1.5},
		filterd.Contract{Channel: "d", Validate: filterd.ValidateSample, SampleRate: math.NaN()},
		filterd.Contract{Channel: "e*"},
		filterd.Contract{Channel: "e*"},
		filterd.Contract{Channel: "f", Validate: filterd.ValidateSample, SampleRate: 1},
		filterd.Contract{Channel: "g", DeadLetter: "dead", DeadLetterMaxLen: 7},
		filterd.Contract{Channel: "h", DeadLetter: "dead", DeadLetterStream: true, DeadLetterMaxLen: -1},
	)
	if r != nil {
		t.Error("a registry despite the faults")
	}
	same(t, "error", text(err), strings.Join([]string{
		`contract "": a contract needs a channel`,
		`contract "a": unknown envelope "json": want auto, cloudevents, raw or bytes`,
		`unknown validation mode "always": want enforce, sample or off`,
		`maximum size -1: want more than 0 bytes`,
		`dead letter "bad.*": want a channel, not a pattern`,
		`contract "b": sample rate 0: want more than 0 and at most 1`,
		`contract "c": sample rate 1.5: want more than 0 and at most 1`,
		`contract "d": sample rate NaN: want more than 0 and at most 1`,
		`contract "e*": declared twice`,
		`contract "g": dead letter: maxlen 7: want 1 or more, and a stream`,
		`contract "h": dead letter: maxlen -1: want 1 or more, and a stream`,
	}, "\n"))
}

func TestCheckSize(t *testing.T) {
	r := registry(t, filterd.Contract{Channel: "small", MaxSize: 3, Envelope: filterd.EnvelopeBytes}, filterd.Contract{Channel: "default"})
	check := func(channel string, size int) string {
		return text(r.Check(&filterd.Message{Channel: channel, Payload: []byte(strings.Repeat("1", size))}))
	}
	same(t, "3 of 3", check("small", 3), "")
	same(t, "4 of 3", check("small", 4), "small: size: 4 bytes are over the limit of 3")
	same(t, "the default and one", check("default", 1<<20+1), "default: size: 1048577 bytes are over the limit of 1048576")
	same(t, "undeclared", check("other", 1<<20+1), "other: size: 1048577 bytes are over the limit of 1048576")
}

// TestCheckOrder checks that size comes before JSON, JSON before the envelope,
// that before the schema, and that all failures of the first are reported.
func TestCheckOrder(t *testing.T) {
	s := schema(t, `{"type":"object","required":["p"]}`)
	r := registry(t, filterd.Contract{Channel: "c", MaxSize: 100, Envelope: filterd.EnvelopeCloudEvents, Schema: s})
	for payload, want := range map[string]string{
		"{" + strings.Repeat(" ", 100):                              "size: 101 bytes are over the limit of 100",
		`{"specversion":"2.0",`:                                     "malformed: not JSON: unexpected end of JSON input at byte 21",
		eventWith("specversion", `"2.0"`, "id", `""`, "data", `[]`): `envelope: /specversion: want "1.0", got "2.0"; /id: must not be empty`,
		eventWith("data", `[]`):                                     "schema: /data: got array, want object",
		eventWith("data", `{"p":1}`):                                "",
	} {
		same(t, payload, complaint(t, r.Check(&filterd.Message{Channel: "c", Payload: []byte(payload)})), want)
	}
}

func TestValidationModes(t *testing.T) {
	s := schema(t, `{"type":"string"}`)
	r := registry(t,
		filterd.Contract{Channel: "enforce", Schema: s},
		filterd.Contract{Channel: "off", Schema: s, Validate: filterd.ValidateOff},
		filterd.Contract{Channel: "all", Schema: s, Validate: filterd.ValidateSample, SampleRate: 1},
		filterd.Contract{Channel: "half", Schema: s, Validate: filterd.ValidateSample, SampleRate: 0.5},
		filterd.Contract{Channel: "none", Schema: s, Validate: filterd.ValidateSample, SampleRate: math.SmallestNonzeroFloat64},
	)
	refused := func(channel string, check func(*filterd.Message) error) int {
		n := 0
		for range 1000 {
			if complaint(t, check(&filterd.Message{Channel: channel, Payload: []byte(`1`)})) != "" {
				n++
			}
		}
		return n
	}
	for channel, want := range map[string]int{"enforce": 1000, "off": 0, "all": 1000, "none": 0} {
		same(t, channel, refused(channel, r.Check), want)
		same(t, channel+" as a whole", refused(channel, r.CheckWhole), 1000)
	}
	// 500 on average; beyond these bounds once in 10^20 runs.
	if n := refused("half", r.Check); n < 350 || n > 650 {
		t.Errorf("half a sample refused %d of 1000", n)
	}
	err := r.Check(&filterd.Message{Channel: "off", Payload: []byte(`{`)})
	same(t, "JSON is checked even so", complaint(t, err), "malformed: not JSON: unexpected end of JSON input at byte 1")
}

func TestMessageChecked(t *testing.T) {
	s := schema(t, `{"type":"string"}`)
	r := registry(t, filterd.Contract{Channel: "off", Schema: s, Validate: filterd.ValidateOff}, filterd.Contract{Channel: "plain"})
	m := &filterd.Message{Channel: "off", Payload: []byte(`"x"`)}
	checked := func() bool { return m.Checked(r.Lookup(m.Channel)) }
	same(t, "before", checked(), false)
	same(t, "check", text(r.Check(m)), "")
	same(t, "but for the schema", checked(), false)
	same(t, "check", text(r.CheckWhole(m)), "")
	same(t, "as a whole", checked(), true)
	m.Reset([]byte(`1`))
	same(t, "after Reset", checked(), false)
	same(t, "check", complaint(t, r.CheckWhole(m)), "schema: got number, want string")
	same(t, "after a failure", checked(), false)
	m.Channel = "plain"
	same(t, "check", text(r.Check(m)), "")
	same(t, "without a schema", checked(), true)
}

func TestRegistryIsConcurrent(t *testing.T) {
	r := registry(t, filterd.Contract{Channel: "c*", Schema: schema(t, `{"type":"object","additionalProperties":false}`)})
	done := make(chan string)
	for range 4 {
		go func() {
			var err error
			for range 200 {
				err = errors.Join(err, r.Check(&filterd.Message{Channel: "c", Payload: []byte(`{}`)}))
			}
			refusal := r.Check(&filterd.Message{Channel: "c", Payload: []byte(`{"b":1,"a":2}`)})
			done <- text(err) + text(refusal)
		}()
	}
	for range 4 {
		same(t, "outcome", <-done, "c: schema: additional properties 'a', 'b' not allowed")
	}
}
