package filterd

import (
	"fmt"
	"strings"
	"testing"
)

func TestStamp(t *testing.T) {
	stamped, err := NewRegistry(Contract{Channel: "c", Stamped: true, Schema: mustSchema(t, `{"type": "number"}`)})
	if err != nil {
		t.Fatal(err)
	}
	unstamped, err := NewRegistry(Contract{Channel: "c"})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("p", maxProducer)
	for extensions, want := range map[string]string{
		`"producer":"p","sequence":"00000000000000000042"`:       "p 42",
		`"sequence":"0","producer":"` + long + `"`:               long + " 0",
		`"producer":"p","sequence":7`:                            "p 7",
		`"producer":"p","sequence":"4611686018427387904"`:        "p 4611686018427387904",
		`"producer":"q","producer":"p","sequence":1`:             "p 1",
		`"producer":"p","sequence":"4611686018427387905"`:        "none",
		`"producer":"p","sequence":"000000000000000000042"`:      "none",
		`"producer":"p","sequence":"x"`:                          "none",
		`"producer":"p","sequence":"-1"`:                         "none",
		`"producer":"p","sequence":-1`:                           "none",
		`"producer":"p","sequence":""`:                           "none",
		`"producer":"p","sequence":true`:                         "none",
		`"producer":"p"`:                                         "none",
		`"sequence":"1"`:                                         "none",
		`"producer":"","sequence":"1"`:                           "none",
		`"producer":7,"sequence":"1"`:                            "none",
		`"producer":"p` + long + `","sequence":"1"`:              "none",
		`"producer":"p","sequence":"1","producer":null`:          "none",
		`"producer":"p","sequence":"99999999999999999999999999"`: "none",
	} {
		event := func(data, more string) []byte {
			return []byte(`{` + extensions + `,"specversion":"1.0","id":"1","source":"s","type":"t"` + more + `,"data":` + data + `}`)
		}
		more := "" // so that there are more extensions than the quick check reads
		for i := range 20 {
			more += fmt.Sprintf(`,"x%d":1`, i)
		}
		for name, test := range map[string]struct {
			registry *Registry
			payload  []byte
			want     string
		}{
			"quick":      {stamped, event("1", ""), want},
			"slow":       {stamped, event("1", more), want},
			"invalid":    {stamped, event(`"x"`, ""), want}, // it came all the same
			"not asked":  {unstamped, event("1", ""), "none"},
			"no event":   {stamped, []byte(`{` + extensions + `}`), "none"},
			"no JSON":    {stamped, []byte(`{` + extensions), "none"},
			"not binary": {stamped, []byte(strings.Replace(string(event(`"AA=="`, "")), `"data"`, `"data_base64"`, 1)), want},
		} {
			m := &Message{Channel: "c", Payload: test.payload}
			_, _ = m.Data() // before anybody asked for a stamp
			_ = test.registry.Check(m)
			got := "none"
			if producer, sequence, ok := m.Stamp(); ok {
				got = fmt.Sprintf("%s %d", producer, sequence)
			}
			if got != test.want {
				t.Errorf("%s, %s: got %s, want %s", extensions, name, got, test.want)
			}
			m.Reset([]byte("1"))
			if _ = test.registry.Check(m); m.view.stamp.found {
				t.Errorf("%s, %s: the next message has the stamp", extensions, name)
			}
		}
	}
}

func mustSchema(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := ParseSchema("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStampAllocations(t *testing.T) {
	r, err := NewRegistry(Contract{Channel: "c", Stamped: true})
	if err != nil {
		t.Fatal(err)
	}
	var payloads [][]byte // of a shape that is learned
	for n := range 200 {
		payloads = append(payloads, fmt.Appendf(nil, `{"producer":"p%d","sequence":"%020d","specversion":"1.0","id":"1","source":"s","type":"t","data":1}`, n/50, n))
	}
	m, want := &Message{Channel: "c"}, uint64(0)
	if n := testing.AllocsPerRun(190, func() {
		m.Reset(payloads[want])
		if err := r.Check(m); err != nil {
			t.Fatal(err)
		}
		if producer, n, _ := m.Stamp(); n != want || producer[1] != '0'+byte(n/50) {
			t.Fatal(n)
		}
		want++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestStampedContract(t *testing.T) {
	_, err := NewRegistry(Contract{Channel: "c", Stamped: true, Envelope: EnvelopeRaw})
	if want := `contract "c": stamped: envelope raw has no events, which stamps are a part of`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
