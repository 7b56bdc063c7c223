package ledger

import (
	"fmt"
	"strings"
	"testing"
)

func TestLedger(t *testing.T) {
	l, err := New("r", 2, []byte(`{ "a" : 1 }`))
	if err != nil {
		t.Fatal(err)
	}
	payloads := make(map[string]string)
	for range 6 {
		payload, m := l.Next()
		payloads[fmt.Sprint(m.Key, m.N)] = string(payload)
	}
	if got := payloads["0 1"]; got != `{"ledger":{"run":"r","key":0,"n":1},"a":1}` {
		t.Error(got)
	}
	l.Refuse(Mark{"r", 0, 3})
	l.Doubt(Mark{"r", 1, 3})
	for _, payload := range []string{
		payloads["0 2"], payloads["1 1"], payloads["0 1"], payloads["1 1"], `{"data":` + payloads["1 3"] + `}`,
		`{"ledger":{"run":"x","key":0,"n":1}}`, `{"ledger":{"run":"r","key":0,"n":4}}`, `{"ledger":{"run":"r","key":2,"n":1}}`, `x`, `{}`,
	} {
		l.Receive([]byte(payload))
	}
	if got := fmt.Sprintf("%+v %v", l.Report(), l.Report().Clean()); got != "{Published:4 Unsure:1 Received:4 Lost:1 Duplicated:1 Reordered:1 Foreign:5 Missing:[{Run:r Key:1 N:2}]} false" {
		t.Error(got)
	}
	l.Receive([]byte(payloads["1 2"]))
	if r := l.Report(); r.Lost != 0 || r.Reordered != 2 {
		t.Errorf("%+v", r)
	}
	for _, data := range []string{`[1]`, `{`, `{"ledger":1}`, `null`} {
		if _, err := New("r", 1, []byte(data)); err == nil || !strings.HasPrefix(err.Error(), "the data ") {
			t.Errorf("%s: %v", data, err)
		}
	}
}
