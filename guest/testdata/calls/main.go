// Calls does what data.do says, by every call of the SDK: see sdk_test.go.
package main

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/filterd/filterd/guest"
)

func init() { guest.Handle(setup) }

func main() {}

func setup(c *guest.Config) (guest.Handler, error) {
	what, v := c.Field("data.do"), c.Field(`data["v"][0]`)
	number, word := c.Float("number", 7), c.Text("word", "-")
	c.Bool("flag", true)
	if !bytes.Contains(c.JSON(), []byte("{")) {
		return nil, errors.New("json")
	}
	c.Log(guest.Debug, "configured")
	return func(m *guest.Message) (guest.Verdict, error) {
		replace := func(text string) (guest.Verdict, error) { return m.Replace([]byte(text)), nil }
		switch m.Text(what) {
		case "pass":
			return guest.Pass, nil
		case "drop":
			return guest.Drop, nil
		case "fail":
			return guest.Pass, errors.New(m.Text(v))
		case "payload":
			return m.Replace(m.Payload()), nil
		case "channel":
			return replace(m.Channel())
		case "now":
			return replace(strconv.FormatInt(m.Received().UnixNano(), 10))
		case "kind":
			return replace(strconv.Itoa(int(m.Kind(v))))
		case "text":
			if m.Kind(v) == guest.Missing {
				return replace("missing" + m.Text(v))
			}
			return m.Replace(m.AppendText([]byte("x"), v)[1:]), nil
		case "bool":
			if m.Bool(v) {
				return replace("1")
			}
			return replace("0")
		case "number":
			if math.IsNaN(m.Float(v)) {
				return replace("NaN")
			}
			return replace(strconv.FormatInt(int64(m.Float(v)*1000), 10))
		case "config":
			return replace(strconv.FormatInt(int64(number*1000), 10) + " " + word)
		case "emit":
			side, closed := m.Emit("side", []byte(m.Text(v))), m.Emit("closed", []byte(m.Text(v)))
			return replace(strconv.Itoa(code(side)*10 + code(closed)))
		case "emit33":
			var err error
			for range 33 {
				err = m.Emit("side", []byte("7"))
			}
			return replace(strconv.Itoa(code(err)))
		case "log":
			m.Log(guest.Warn, m.Text(v))
			return guest.Drop, nil
		case "set":
			if err := m.KVSet("key", []byte(m.Text(v)), time.Minute); err != nil {
				return guest.Drop, err
			}
			return replace("0")
		case "get":
			value, ok := m.KVGet("key")
			if !ok {
				return replace("missing")
			}
			return m.Replace(value), nil
		case "incr":
			return replace(strconv.FormatInt(m.KVIncr("count", -2, 0), 10))
		case "json":
			return m.Replace(guest.AppendJSON(nil, m.Text(v))), nil
		case "panic":
			panic("as told")
		}
		return guest.Drop, errors.New("unknown")
	}, nil
}

func code(err error) int {
	switch err {
	case nil:
		return 0
	case guest.ErrNotAllowed:
		return -1
	case guest.ErrTooMany:
		return -2
	}
	return -3
}
