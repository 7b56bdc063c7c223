package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/filterd/filterd/internal/redistest"
	"github.com/filterd/filterd/internal/resp"
)

// TestMain is also the raw relay, when it is told to be.
func TestMain(m *testing.M) {
	url := os.Getenv("MEASURE_RAW")
	if url == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var plan RawPlan
	err := json.NewDecoder(os.Stdin).Decode(&plan)
	if err == nil {
		err = RawRelay(ctx, url, plan)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// relayOf returns this program as the raw relay with a plan.
func relayOf(t *testing.T, server *redistest.Server, plan RawPlan) Relay {
	t.Helper()
	stdin, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Relay{Path: program, Env: []string{"MEASURE_RAW=" + server.URL()}, Stdin: stdin, Names: []string{plan.Channel}}
}

// threeOfFour has a message without outputs, one with an unknown payload, and
// one with two outputs.
func threeOfFour(t *testing.T) (*Load, RawPlan) {
	t.Helper()
	load, err := NewLoad([]Message{
		{Channel: "in", Payload: []byte("drop"), Outputs: nil},
		{Channel: "in", Payload: []byte("one"), Matched: true, Outputs: []Output{{Channel: "a", Payload: []byte("one")}}},
		{Channel: "in", Payload: []byte("two"), Matched: true, Outputs: []Output{{Channel: "a", Payload: []byte("two")}, {Channel: "b", Payload: []byte("two")}}},
		{Channel: "in", Payload: []byte("new"), Matched: true, Outputs: []Output{{Channel: "b"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return load, RawPlan{Channel: "in", To: [][]string{{}, {"a"}, {"a", "b"}, {"b"}}}
}

func TestRun(t *testing.T) {
	server := redistest.Start(t)
	load, plan := threeOfFour(t)
	for name, o := range map[string]Options{
		"closed": {Count: 10_002},
		"window": {Count: 10_002, Window: 100},
		"open":   {Count: 1_002, Rate: 5000},
	} {
		t.Run(name, func(t *testing.T) {
			o.URL, o.Patience = server.URL(), time.Minute
			parts := []float64{}
			o.Progress = func(part float64) { parts = append(parts, part) }
			r, err := Run(t.Context(), relayOf(t, server, plan), load, o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Messages != o.Count || r.Published <= o.Count || r.Matched != o.Count/4*3+1 || r.Out != o.Count/4*4+1 {
				t.Errorf("measured %d of %d messages, %d matched, %d came out", r.Messages, r.Published, r.Matched, r.Out)
			}
			if r.Lost() != 0 || r.Extra() != 0 {
				t.Errorf("lost %d, and %d more than expected: %v", r.Lost(), r.Extra(), r.Channels)
			}
			if len(parts) == 0 || !slices.IsSorted(parts) || parts[len(parts)-1] != 1 {
				t.Errorf("progress: %v", parts)
			}
			if r.Elapsed <= 0 || r.CPU <= 0 {
				t.Errorf("elapsed %v, CPU time %v", r.Elapsed, r.CPU)
			}
			if o.Rate == 0 {
				if r.Latency != nil {
					t.Error("a closed loop has latencies")
				}
				return
			}
			if r.Latency.Count() != r.Out {
				t.Errorf("%d latencies of %d outputs", r.Latency.Count(), r.Out)
			}
			if least := at(o.Count-1, o.Rate); r.Elapsed < least {
				t.Errorf("%d messages at %v per second took %v", o.Count, o.Rate, r.Elapsed)
			}
			if p50, most := r.Latency.Quantile(0.5), r.Latency.Max(); p50 <= 0 || p50 > most || most > r.Elapsed {
				t.Errorf("latencies: p50 %v, max %v", p50, most)
			}
		})
	}
}

// TestLosses runs relays that lose, invent, stop and fail.
func TestLosses(t *testing.T) {
	server := redistest.Start(t)
	load, plan := threeOfFour(t)
	o := Options{URL: server.URL(), Count: 2000, Patience: 200 * time.Millisecond}
	run := func(t *testing.T, to [][]string) *Result {
		t.Helper()
		lossy := plan
		lossy.To = to
		r, err := Run(t.Context(), relayOf(t, server, lossy), load, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Run("lost", func(t *testing.T) {
		r := run(t, [][]string{{}, {"a"}, {"a"}, {"b"}})
		if want := r.Published / 4; r.Lost() != want || r.Channels["b"].Arrived != want || r.Extra() != 0 {
			t.Errorf("lost %d, want %d: %v", r.Lost(), want, r.Channels)
		}
	})
	t.Run("extra", func(t *testing.T) {
		r := run(t, [][]string{{"a"}, {"a"}, {"a", "b"}, {"b"}})
		if want := r.Published / 4; r.Extra() != want || r.Lost() != 0 {
			t.Errorf("%d more than expected, want %d: %v", r.Extra(), want, r.Channels)
		}
	})
	t.Run("all lost in a window", func(t *testing.T) {
		o.Window = 100
		defer func() { o.Window = 0 }()
		r := run(t, [][]string{{}})
		if r.Published >= warmUp || r.Lost() == 0 {
			t.Errorf("%d published, %d lost", r.Published, r.Lost())
		}
	})
	t.Run("vague", func(t *testing.T) {
		vague, err := NewLoad([]Message{{Channel: "in", Payload: []byte("x"), Outputs: []Output{{Channel: "a", Vague: true}, {Channel: "b", Vague: true}}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(t.Context(), relayOf(t, server, RawPlan{Channel: "in", To: [][]string{{"a"}}}), vague, o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Lost() != 0 || r.Out != o.Count || r.Channels["b"].Arrived != 0 {
			t.Errorf("lost %d, %d came out: %v", r.Lost(), r.Out, r.Channels)
		}
	})
	t.Run("ends", func(t *testing.T) {
		_, err := Run(t.Context(), relayOf(t, server, RawPlan{Channel: "in"}), load, o)
		if want := "the relay ended: exit status 1; it said:\na raw relay needs to know where messages go"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := o
		o.Count, o.For, o.Progress = 0, time.Hour, func(float64) { cancel() }
		if _, err := Run(ctx, relayOf(t, server, plan), load, o); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context canceled", err)
		}
	})
}

// TestRawRelay gives the raw relay its messages byte by byte, and one that is
// larger than its buffer.
func TestRawRelay(t *testing.T) {
	for name, test := range map[string]struct {
		large int
		slow  func(io.Reader) io.Reader
	}{
		"bytes": {100, iotest.OneByteReader},
		"large": {300 << 10, iotest.HalfReader},
	} {
		large := strings.Repeat("x", test.large) + "yes"
		var in bytes.Buffer
		in.WriteString("*3\r\n$9\r\nsubscribe\r\n$2\r\nin\r\n:1\r\n")
		for _, payload := range []string{"yes 1", "no 2", "yes 3", large} {
			fmt.Fprintf(&in, "*3\r\n$7\r\nmessage\r\n$2\r\nin\r\n$%d\r\n%s\r\n", len(payload), payload)
		}
		var want, out bytes.Buffer
		for _, to := range [][2]string{{"a", "yes 1"}, {"a", "yes 3"}, {"b", large}, {"c", large}} {
			want.Write(resp.AppendPublish(nil, to[0], []byte(to[1])))
		}
		err := relayRaw(test.slow(&in), &out, RawPlan{Channel: "in", Word: "yes", To: [][]string{{"a"}, {"b", "c"}, {"a"}, {"b", "c"}}})
		if err != io.EOF || out.String() != want.String() {
			t.Errorf("%s: %v, %d bytes published, want %d", name, err, out.Len(), want.Len())
		}
	}
}

// TestHistogram compares quantiles with those of the sorted values.
func TestHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	h := new(Histogram)
	var all []time.Duration
	for range 100_000 {
		d := time.Duration(random.Uint64() >> (random.UintN(62) + 1))
		all = append(all, d)
		h.Add(d)
	}
	slices.Sort(all)
	for _, part := range []float64{0.001, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[int(part*float64(len(all)))-1]
		if got := h.Quantile(part); got < want || float64(got) > float64(want)*(1+1/128.0)+1 {
			t.Errorf("quantile %v is %v, want %v", part, got, want)
		}
	}
	if h.Max() != all[len(all)-1] || h.Count() != 100_000 || new(Histogram).Quantile(0.5) != 0 {
		t.Errorf("max %v of %d", h.Max(), h.Count())
	}
}

// TestReport reads filterd's log.
func TestReport(t *testing.T) {
	var r Report
	for line := range strings.Lines(`not JSON "msg":"rule"
{"level":"INFO","msg":"message","payload":"\"msg\":\"rule\""}
{"level":"INFO","msg":"memory","heap":10,"allocations":100}
{"level":"INFO","msg":"channel","channel":"in","received":7,"invalid_schema":2,"invalid_size":1}
{"level":"INFO","msg":"rule","rule":"100%","matched":3,"undelivered":2,"dropped":1}
{"level":"INFO","msg":"memory","heap":20,"allocations":200}
{"level":"INFO","msg":"stopped","gaps":1,"dead_letters_lost":0}
`) {
		r.Line([]byte(strings.TrimSpace(line)))
	}
	got := fmt.Sprint(r)
	want := `{7 3 map[100%:{3 0 0 0 0 2 1}] [10 20] [100 200] [rule 100% could not deliver 2 1 times the connection to Redis broke] [100%]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
