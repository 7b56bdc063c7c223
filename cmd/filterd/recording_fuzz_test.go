package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/filterd/filterd"
)

// FuzzRecording compares what is read of a recording, in pieces and compressed,
// with what reading it all at once gives; what is a message is the same when it
// is recorded again.
func FuzzRecording(f *testing.F) {
	for _, seed := range []string{
		`{"record":"start","version":1,"channels":["a"]}` + "\n" + `{"channel":"a","payload":"1"}` + "\r\n\n" + `{"record":"end","messages":1}`,
		`{"record":"start","version":1}` + "\n" + `{"record":"gap","channels":["a","b"],"from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:06Z","reason":"x\n"}` + "\n" + `{"chan`,
		`{"record":"start","version":2}`, `{"record":"pause"}`, `{"payload":"1"}` + "\n" + `{"channel":"a"}`, `[]`, "null\n\"\"", "\x28\xb5\x2f\xfd", "\x28\xb5\n",
		`{"time":"2026-01-02T03:04:05.678+02:00","sharded":"s","payload_base64":"/w=="}` + "\n" + `{"stream":"s","id":"1-2","pattern":"x*","payload":""}` + "\n" + `{"stream":"s","payload":"1"}`,
		`{"channel":"a","pattern":"a*","payload":"é\u0000\ud800","payload_base64":""}`,
	} {
		f.Add([]byte(seed), byte(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, piece byte) {
		if len(text) > 1<<16 {
			return
		}
		got := readRecording(t, &slowly{text, 1 + int(piece)})
		if len(text) > 0 && text[0] == 0x28 {
			return // it may be compressed
		}
		want := readAtOnce(text)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("read at once, and in pieces of %d (-want +got):\n%s", 1+int(piece), diff)
		}
		encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		packed := encoder.EncodeAll(text, nil)
		if err := encoder.Close(); err != nil {
			t.Fatal(err)
		}
		if len(text) > 0 {
			if diff := cmp.Diff(want, readRecording(t, &slowly{packed, 1 + int(piece)})); diff != "" {
				t.Fatalf("compressed (-want +got):\n%s", diff)
			}
		}
		cut := readRecording(t, iotest.OneByteReader(bytes.NewReader(packed[:len(packed)*int(piece)/256])))
		for i := range min(len(cut.messages), len(want.messages)) {
			if cut.messages[i] != want.messages[i] {
				t.Fatalf("of a file that was cut: %s, want %s", cut.messages[i], want.messages[i])
			}
		}
	})
}

// slowly yields a text, so many bytes at once.
type slowly struct {
	rest []byte
	size int
}

func (s *slowly) Read(into []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:min(len(into), s.size)], s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// A recordingRead is what was read of a recording.
type recordingRead struct {
	messages       []string // with their lines' numbers
	lines, invalid int
	reports        int
	version        int  // that can't be read; then nothing else counts
	unended        bool // the last part has a start, and no end
}

func (r recordingRead) Equal(o recordingRead) bool {
	return fmt.Sprintf("%+v", r) == fmt.Sprintf("%+v", o)
}

func readRecording(t *testing.T, from io.Reader) (got recordingRead) {
	t.Helper()
	var reports bytes.Buffer
	in := &replayInput{tally: testTally(&reports)}
	err := in.read(t.Context(), from, func(n int, m *filterd.Message) error {
		got.messages = append(got.messages, describeRecorded(n, m))
		if m.ID == "" { // record writes nothing of streams
			again := newRecord(m)
			text, err := again.text()
			if err != nil {
				return err
			}
			back, err := in.message(n, text)
			if err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
			if is, was := describeRecorded(n, back), describeRecorded(n, m); is != was {
				return fmt.Errorf("%s became %s", was, is)
			}
		}
		return nil
	})
	if other, ok := errors.AsType[*versionError](err); ok {
		return recordingRead{version: other.version}
	}
	if err != nil && !strings.Contains(err.Error(), "zstd: ") {
		t.Fatal(err)
	}
	got.lines, got.invalid, got.reports, got.unended = in.tally.Lines, in.tally.Invalid, strings.Count(reports.String(), "\n"), in.recording
	return got
}

func describeRecorded(n int, m *filterd.Message) string {
	return fmt.Sprintf("%d: %q %q %v %q %q %s", n, m.Channel, m.Pattern, m.Sharded, m.ID, m.Payload, m.Received.Format("2006-01-02T15:04:05.999999999Z07:00"))
}

// readAtOnce reads the lines of a recording the plain way.
func readAtOnce(text []byte) (all recordingRead) {
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		all.lines++
		var r record
		err := json.Unmarshal([]byte(strings.TrimSuffix(line, "\r")), &r)
		switch {
		case err != nil:
		case r.Kind == "start" && r.Version != 1:
			return recordingRead{version: r.Version}
		case r.Kind == "start" || r.Kind == "end" || r.Kind == "gap":
			all.lines--
			if r.Kind != "gap" {
				all.unended = r.Kind == "start"
			} else {
				all.reports++
			}
			continue
		case r.Kind != "":
			err = errors.New("unknown kind")
		default:
			m := &filterd.Message{Channel: r.Channel, Pattern: r.Pattern, Received: r.Time, Payload: r.PayloadBase64}
			if r.Sharded != "" {
				m.Channel, m.Sharded = r.Sharded, true
			}
			if r.Stream != "" {
				m.Channel, m.Pattern, m.ID = r.Stream, "", offlineID
				if r.ID != "" {
					m.ID = r.ID
				}
			}
			if r.Payload != nil {
				m.Payload = []byte(*r.Payload)
			}
			if m.Channel == "" || m.Payload == nil {
				err = errors.New("no channel or payload")
				break
			}
			all.messages = append(all.messages, describeRecorded(i+1, m))
		}
		if err != nil {
			all.invalid++
			all.reports++
		}
	}
	if all.unended {
		all.reports++
	}
	return all
}
