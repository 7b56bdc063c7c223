package pubsub

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// What goes to a stream keeps the contract of its name, and is what a source of
// the stream takes. What is invalid or refused keeps nothing else back.
func TestAppendBatch(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	registry, err := filterd.NewRegistry(
		filterd.Contract{Channel: "raw", Envelope: filterd.EnvelopeRaw, MaxSize: 10},
		filterd.Contract{Channel: "stamped", Stamped: true},
	)
	if err != nil {
		t.Fatal(err)
	}
	p := NewPublisher(rdb, registry, PublisherOptions{Source: "/test"})
	server.Do("SET", "text", "x")
	results := p.AppendBatch(deadline(t), []Appending{
		{Stream: "raw", Data: 1},
		{Stream: "raw", Data: "much too long"},
		{Stream: "raw", Data: 2, Field: "body"},
		{Stream: "text", Data: 3},
		{Stream: "", Data: 4},
		{Stream: "raw", Data: make(chan int)},
		{Stream: "raw", Data: 5, MaxLen: -1},
		{Stream: "a*", Event: &filterd.Event{ID: "7", Data: []byte("7")}},
		{Stream: "stamped", Data: 8},
	})
	var outcomes []string
	for _, r := range results {
		switch {
		case r.Err != nil && r.ID == "":
			outcomes = append(outcomes, r.Err.Error())
		case r.Err == nil && r.ID != "":
			outcomes = append(outcomes, "+")
		}
	}
	want := `+
raw: size: 15 bytes are over the limit of 10
+
append to stream "text": WRONGTYPE Operation against a key holding the wrong kind of value
append: no stream given
append to stream "raw": encode data: json: unsupported type: chan int
append to stream "raw": maxlen -1: want 1 or more
+
+`
	if got := strings.Join(outcomes, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !errors.Is(results[1].Err, filterd.ErrInvalid) || !errors.Is(results[3].Err, filterd.ErrRefused) {
		t.Errorf("%v, %v", results[1].Err, results[3].Err)
	}
	entries := func(stream string) string {
		found, err := rdb.XRange(deadline(t), stream, "-", "+").Result()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range found {
			all = append(all, fmt.Sprint(e.ID == results[0].ID, e.Values))
		}
		return strings.Join(all, " ")
	}
	if got := entries("raw"); got != "true map[event:1] false map[body:2]" {
		t.Error(got)
	}
	if got := entries("a*"); !strings.Contains(got, `"id":"7","source":"/test","type":"a*"`) {
		t.Error(got)
	}
	if got := entries("stamped"); !strings.Contains(got, `"data":8`) || strings.Contains(got, filterd.ProducerAttribute) {
		t.Error(got)
	}

	many := make([]Appending, 500)
	for i := range many {
		many[i] = Appending{Stream: "bounded", Data: i, MaxLen: 100}
	}
	last := ""
	for i, r := range p.AppendBatch(deadline(t), many) {
		if r.Err != nil || compareIDs(last, r.ID) >= 0 {
			t.Fatalf("%d: %+v after %s", i, r, last)
		}
		last = r.ID
	}
	if n := rdb.XLen(deadline(t), "bounded").Val(); n < 100 || n > 200 { // Redis trims by the hundred
		t.Errorf("%d entries are kept", n)
	}
	if got := p.AppendBatch(deadline(t), nil); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	server.Stop()
	if got := p.AppendBatch(deadline(t), many[:2]); got[0].Err == nil || got[1].Err == nil || errors.Is(got[0].Err, filterd.ErrRefused) {
		t.Errorf("without a server: %v", got)
	}
}
