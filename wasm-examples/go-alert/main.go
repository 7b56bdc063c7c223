// Go-alert is a filterd module that counts events per key in a window and
// emits one alert when there are n. The messages themselves pass.
package main

import (
	"errors"
	"strconv"
	"time"

	"github.com/filterd/filterd/guest"
)

func init() { guest.Handle(setup) }

func main() {} // never called: a module is a library

func setup(c *guest.Config) (guest.Handler, error) {
	var (
		key    = c.Field(c.Text("key", "data.bot"))
		n      = int64(c.Float("n", 3))
		window = time.Duration(c.Float("window_s", 60) * float64(time.Second))
		alerts = c.Text("channel", "alerts")
	)
	if n < 1 || window < time.Millisecond {
		return nil, errors.New("config: n must be 1 or more, window_s 0.001 or more")
	}
	return func(m *guest.Message) (guest.Verdict, error) {
		if m.Kind(key) != guest.String {
			return guest.Drop, errors.New("the key must be a string")
		}
		name := m.Text(key)
		// Windows lie end to end. A counter has its window's number in its key, and goes when it is of no more use.
		number := m.Received().UnixNano() / int64(window)
		count := m.KVIncr(strconv.FormatInt(number, 36)+" "+name, 1, window)
		if count != n {
			return guest.Pass, nil
		}
		alert := guest.AppendJSON([]byte(`{"key":`), name)
		alert = append(alert, `,"count":`...)
		alert = strconv.AppendInt(alert, count, 10)
		alert = append(alert, `,"channel":`...)
		alert = append(guest.AppendJSON(alert, m.Channel()), '}')
		return guest.Pass, m.Emit(alerts, alert)
	}, nil
}
