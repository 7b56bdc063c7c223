package filterd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
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

// FuzzStamp compares the stamp that is found on the way of the check with that of
// the decoded event, and that with what encoding/json says.
func FuzzStamp(f *testing.F) {
	for _, extensions := range []string{
		`"producer":"p","sequence":"00000000000000000042"`, `"producer":"p","sequence":7`, `"producer":"q","producer":"p","sequence":1`,
		`"producer":"p","sequence":"4611686018427387905"`, `"sequence":"1"`, `"producer":"p\u00e9","sequence":"\u0031"`, `"producer":"é","sequence":-0`,
		`"producer":"p","sequence":null,"sequence":"3"`, `"producer":"p","sequence":"3","sequence":null`, `"produce\u0072":"p","sequence":"3"`,
	} {
		f.Add([]byte(`{` + extensions + `,"specversion":"1.0","id":"1","source":"s","type":"t","data":1}`))
		f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":1,"k":2,"l":3,"m":4,"n":5,"o":6,"p":7,"q":8,"type":"t",` + extensions + `}`))
	}
	registry, err := NewRegistry(Contract{Channel: "c", Stamped: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		m := &Message{Channel: "c", Payload: payload}
		_ = registry.Check(m) // what is invalid may have a stamp
		producer, sequence, ok := m.Stamp()
		got := stamp{bytes.Clone(producer), sequence, ok}
		e, err := DecodeEvent(payload)
		if err != nil {
			return
		}
		decoded, want := stampOf(e), plainStamp(t, payload)
		for name, s := range map[string]stamp{"found": got, "decoded": decoded} {
			if s.found != want.found || want.found && (string(s.producer) != string(want.producer) || s.sequence != want.sequence) {
				t.Fatalf("%s: %+v, want %+v", name, s, want)
			}
		}
	})
}

// plainStamp finds a stamp in a valid event the plain way.
func plainStamp(t *testing.T, payload []byte) (s stamp) {
	var members map[string]any
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&members); err != nil {
		t.Fatal(err)
	}
	producer, _ := members["producer"].(string)
	n, ok := new(big.Int).SetString(fmt.Sprint(members["sequence"]), 10)
	if text, isText := members["sequence"].(string); isText {
		ok = ok && len(text) <= 20 && strings.Trim(text, "0123456789") == ""
	}
	if !ok || producer == "" || len(producer) > 64 || n.Sign() < 0 || n.Cmp(big.NewInt(1<<62)) > 0 {
		return stamp{}
	}
	return stamp{[]byte(producer), n.Uint64(), true}
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
