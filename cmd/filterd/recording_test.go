package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/filterd/filterd"
)

// filterdOf runs a command and returns its exit code and what it printed.
func filterdOf(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"filterd"}, args...), strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// newTestRecorder returns a recorder that has begun, and why it ended.
func newTestRecorder(t *testing.T, r *recorder) (_ *recorder, ended *string) {
	t.Helper()
	ended = new(string)
	r.stop = func(why string) { *ended = why }
	if err := r.next(); err != nil {
		t.Fatal(err)
	}
	return r, ended
}

// A file never gets larger than it may, and many files are one recording.
func TestRecordingSizes(t *testing.T) {
	for _, test := range []struct {
		ending string
		keep   int
	}{{".ndjson", 1}, {".ndjson.zst", 1}, {".ndjson", 1000}, {".ndjson.zst", 1000}, {".ndjson.zst", 3}} {
		t.Run(fmt.Sprintf("%d%s", test.keep, test.ending), func(t *testing.T) {
			const maxSize = 20 << 10
			dir := t.TempDir()
			r, ended := newTestRecorder(t, &recorder{name: filepath.Join(dir, "rec"+test.ending), maxSize: maxSize, keep: test.keep})
			random := rand.New(rand.NewPCG(1, 2))
			var sent []string
			for i := 0; i < 6000 && *ended == ""; i++ {
				payload := fmt.Sprintf(`{"n":%d,"noise":"%x"}`, i, random.Uint64())
				r.Messages(context.Background(), []*filterd.Message{{Channel: "prices", Payload: []byte(payload), Received: time.Now()}})
				sent = append(sent, payload)
			}
			recorded := r.messages
			if err := r.end(*ended); err != nil {
				t.Fatal(err)
			}
			if got, want := *ended == "size", test.keep == 1; got != want {
				t.Errorf("ended by %q", *ended)
			}
			if test.keep == 3 && (len(r.names) != 3 || r.part < 4) {
				t.Errorf("files %v, the last one was number %d", r.names, r.part)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*"))
			if diff := cmp.Diff(files, r.names); diff != "" {
				t.Errorf("files that are there, and should be:\n%s", diff)
			}
			args := []string{"replay", "-c", rulesFile(t, `rules: {all: {from: prices, to: copies}}`)}
			for i, name := range files {
				info, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				if info.Size() > maxSize || i < len(files)-1 && info.Size() < maxSize*3/4 {
					t.Errorf("%s has %d bytes of %d", name, info.Size(), maxSize)
				}
				args = append(args, name)
			}
			code, stdout, stderr := filterdOf("", args...)
			if code != 0 || strings.Contains(stderr, "recording") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			var got []string
			for line := range strings.Lines(stdout) {
				var d delivery
				if err := json.Unmarshal([]byte(line), &d); err != nil {
					t.Fatal(err)
				}
				got = append(got, *d.Payload)
			}
			if want := sent[:recorded]; test.keep == 3 && len(got) > 100 && len(got) < len(want) {
				sent, recorded = want[len(want)-len(got):], uint64(len(got)) // the oldest were removed
			}
			if diff := cmp.Diff(sent[:recorded], got); diff != "" {
				t.Errorf("recorded and replayed:\n%s", diff)
			}
		})
	}
}

func rulesFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A message that no file can hold goes into one of its own.
func TestRecordingOfLargeMessages(t *testing.T) {
	r, ended := newTestRecorder(t, &recorder{name: filepath.Join(t.TempDir(), "rec.ndjson"), maxSize: 4 << 10, keep: 5})
	for range 3 {
		r.Messages(context.Background(), []*filterd.Message{{Channel: "c", Payload: bytes.Repeat([]byte("x"), 8<<10)}})
	}
	if err := r.end("signal"); err != nil || *ended != "" || len(r.names) != 3 {
		t.Errorf("%v, ended by %q, files %v", err, *ended, r.names)
	}
}

// A disk that is full ends the recording, and says so.
func TestRecordingFailures(t *testing.T) {
	for _, ending := range []string{".ndjson", ".ndjson.zst"} {
		name := filepath.Join(t.TempDir(), "rec"+ending)
		r, ended := newTestRecorder(t, &recorder{name: name, keep: 1})
		_ = r.file.file.Close() // from now on nothing can be written
		r.Messages(context.Background(), []*filterd.Message{{Channel: "c", Payload: []byte("x")}})
		if r.file.zstd != nil {
			r.mu.Lock()
			r.try(r.file.flush())
			r.mu.Unlock()
		}
		if err := r.end("error"); *ended != "error" || !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: ended by %q with %v", ending, *ended, err)
		}
	}
}

func TestNumbered(t *testing.T) {
	for name, want := range map[string]string{
		"rec.ndjson.zst":   "rec.000007.ndjson.zst",
		"a.b/rec":          "a.b/rec.000007",
		"a.b/.rec.ndjson":  "a.b/.rec.000007.ndjson",
		"/tmp/rec.ndjson":  "/tmp/rec.000007.ndjson",
		"2026-01-01.jsonl": "2026-01-01.000007.jsonl",
	} {
		if got := numbered(name, 7); got != want {
			t.Errorf("numbered(%q) = %q, want %q", name, got, want)
		}
	}
}

// What can't be read is said, and all before it is replayed.
func TestFaultyRecordings(t *testing.T) {
	const start = `{"record":"start","version":1,"channels":["prices"]}` + "\n"
	const message = `{"channel":"prices","payload":"1"}` + "\n"
	const end = `{"record":"end"}` + "\n"
	compressed := func(text string) string {
		name := filepath.Join(t.TempDir(), "rec.zst")
		f, err := createRecording(name, false)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if err := errors.Join(f.write([]byte(line)), f.flush()); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.close(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	whole := compressed(start + message + message)
	rules := rulesFile(t, `rules: {all: {from: prices, to: copies}}`)
	for _, test := range []struct {
		name, input string
		code, lines int // of standard output
		want        string
	}{
		{"whole", start + message + end, 0, 1, "lines=1 matched=1 invalid=0 errors=0\n"},
		{"no end", start + message, 0, 1,
			"line 2: the recording has no end: what came behind this line is lost\nlines=1 matched=1 invalid=0 errors=0\n"},
		{"half a line", start + message + `{"channel":"pri`, 1, 1,
			"line 3: not a record {\"channel\", \"payload\"}: unexpected end of JSON input (--channel takes lines as payloads)\n" +
				"line 3: the recording has no end: what came behind this line is lost\nlines=2 matched=1 invalid=1 errors=0\n"},
		{"another version", `{"record":"start","version":2}` + "\n" + message, 2, 0,
			"filterd: the recording has version 2 of the format, and this filterd reads 1: take the filterd that recorded it, or a newer one\n"},
		{"another kind", `{"record":"pause"}` + "\n" + message, 1, 1,
			"line 1: a record of kind \"pause\": want start, gap, end, or none for a message\nlines=2 matched=1 invalid=1 errors=0\n"},
		{"truncated zstd", whole[:len(whole)-12], 1, 1,
			"lines=1 matched=1 invalid=0 errors=0\nfilterd: read line 3: zstd: the file ends in the middle: this line and all behind it are lost\n"},
		{"damaged zstd", whole[:len(whole)-2] + "xx", 1, 2,
			"lines=2 matched=2 invalid=0 errors=0\nfilterd: read line 4: zstd: CRC check failed\n"},
		{"two recordings", compressed(start+message+end) + compressed(start+message+end), 0, 2,
			"lines=2 matched=2 invalid=0 errors=0\n"},
		{"nothing", "", 0, 0, "lines=0 matched=0 invalid=0 errors=0\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := filterdOf(test.input, "replay", "-c", rules)
			if code != test.code || strings.Count(stdout, "\n") != test.lines || stderr != test.want {
				t.Errorf("exit code %d, output %s\n%s", code, stdout, cmp.Diff(test.want, stderr))
			}
		})
	}
}

func TestPace(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 5, 0)
	for _, test := range []struct {
		name string
		pace pace
		want []time.Duration // of messages a second apart, the third of which has no time
	}{
		{"max", pace{}, []time.Duration{0, 0, 0, 0}},
		{"as it was", pace{factor: 1}, []time.Duration{0, time.Second, 0, 3 * time.Second}},
		{"twice as fast", pace{factor: 2}, []time.Duration{0, time.Second / 2, 0, 3 * time.Second / 2}},
		{"by rate", pace{rate: 100}, []time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond}},
	} {
		for i, want := range test.want {
			received := begin.Add(time.Duration(i) * time.Second)
			if i == 2 {
				received = time.Time{}
			}
			if got := test.pace.delay(received, now); got != want {
				t.Errorf("%s: message %d waits %v, want %v", test.name, i, got, want)
			}
		}
		if late := test.pace.delay(begin.Add(4*time.Second), now.Add(time.Hour)); late > 0 {
			t.Errorf("%s: a message that is late waits %v", test.name, late)
		}
	}
}
