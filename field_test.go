package filterd_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

func TestParsePath(t *testing.T) {
	for text, want := range map[string]string{
		`data`:                      `data`,
		`event.type`:                `event.type`,
		`data["symbol"]`:            `data.symbol`,
		`data["odd key"][0].x`:      `data["odd key"][0].x`,
		`data [ 0 ]`:                `path "data [ 0 ]", byte 1: want data or event`,
		`data[ 0 ]`:                 `path "data[ 0 ]", byte 8: want ]`,
		`data["a\u0062"]`:           `data.ab`,
		`data.`:                     `path "data.", byte 6: want a name after the dot`,
		`data.1`:                    `path "data.1", byte 6: want a name after the dot`,
		`data[`:                     `path "data[", byte 6: want a string or an index`,
		`data[-1]`:                  `path "data[-1]", byte 6: want an index from 0`,
		`data[1.5]`:                 `path "data[1.5]", byte 6: want an index from 0`,
		`data[true]`:                `path "data[true]", byte 6: want a string or an index`,
		`data["a"`:                  `path "data[\"a\"", byte 9: want ]`,
		`data.a b`:                  `path "data.a b", byte 7: want . or [`,
		`channel`:                   `path "channel", byte 1: want data or event`,
		``:                          `path "", byte 1: want data or event`,
		strings.Repeat(`data`, 300): `path of 1200 bytes is over the limit of 1024`,
	} {
		path, err := filterd.ParsePath(text)
		got := string(path)
		if err != nil {
			got = err.Error()
		}
		same(t, text, got, want)
		if err == nil {
			again, err := filterd.ParsePath(got)
			if err != nil || again != path {
				t.Errorf("%s is not canonical: %s, %v", got, again, err)
			}
		}
	}
}

func TestFields(t *testing.T) {
	event := ` {"specversion":"1.0","id":"1","source":"s","type":"t\u0021","n":7,"subject":null,"data": {"a":1.5,"b":"x\n","c":[0,{"d":null}, true ],"a":-2e3,"e e":{}} } `
	base64 := `{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"eyJhIjoxfQ=="}`
	for _, test := range []struct {
		payload, path, want string
		envelope            filterd.Envelope
	}{
		{event, "data.a", "3 -2e3 -2000", ""},
		{event, "data.b", "4 x\n NaN", ""},
		{event, `data["e e"]`, "6 {} NaN", ""},
		{event, "data.c", `5 [0,{"d":null}, true ] NaN`, ""},
		{event, "data.c[0]", "3 0 0", ""},
		{event, "data.c[1].d", "1 null NaN", ""},
		{event, "data.c[2]", "2 true NaN", ""},
		{event, "data.c[3]", "0  NaN", ""},
		{event, "data.c.d", "0  NaN", ""},
		{event, "data.a.b", "0  NaN", ""},
		{event, "data[0]", "0  NaN", ""},
		{event, "event.type", "4 t! NaN", ""},
		{event, "event.n", "3 7 7", ""},
		{event, "event.subject", "0  NaN", ""},
		{event, "event.data", "0  NaN", ""},
		{base64, "data", `4 {"a":1} NaN`, ""},
		{base64, "data.a", "0  NaN", ""},
		{base64, "event.data_base64", "0  NaN", ""},
		{`{"a":1}`, "data.a", "3 1 1", ""},
		{`{"a":1}`, "event.a", "0  NaN", ""},
		{` 5 `, "data", "3 5 5", ""},
		{`x{`, "data", "4 x{ NaN", filterd.EnvelopeBytes},
		{`x{`, "data", "0  NaN", ""},
		{`{"a":{"b":1},"a":{}}`, "data.a.b", "0  NaN", ""},
	} {
		r := registry(t, filterd.Contract{Channel: "c", Envelope: test.envelope})
		m := &filterd.Message{Channel: "c", Payload: []byte(test.payload)}
		valid := r.Check(m) == nil
		p := filterd.NewProjection([]filterd.Path{filterd.PathChannel, filterd.Path(test.path)})
		m.Bind(p)
		f := m.Lookup(1)
		number := fmt.Sprint(f.Float())
		if math.IsNaN(f.Float()) {
			number = "NaN"
		}
		same(t, test.payload+" "+test.path, fmt.Sprintf("%d %s %s", f.Kind, f.AppendBytes(nil), number), test.want)
		if f.Bool() != (f.Kind == filterd.FieldBool) {
			t.Errorf("%s: %v", test.path, f.Bool())
		}
		if !valid {
			continue
		}
		decoded, err := m.Field(1)
		if err != nil {
			t.Fatal(err)
		}
		var want any
		if f.Plain {
			want = string(f.Text)
		} else if f.Kind != filterd.FieldMissing {
			_ = json.Unmarshal(f.Text, &want)
		}
		if test.path != "event.data" && !reflect.DeepEqual(decoded, want) {
			t.Errorf("%s: decoded %v, looked up %v", test.path, decoded, want)
		}
	}
	m := &filterd.Message{Channel: "c"}
	m.Bind(filterd.NewProjection([]filterd.Path{filterd.PathChannel}))
	if f := m.Lookup(0); string(f.AppendBytes(nil)) != "c" || f.Kind != filterd.FieldString {
		t.Errorf("channel: %v", f)
	}
}
