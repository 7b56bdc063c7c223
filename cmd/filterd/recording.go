package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/filterd/filterd"
)

// A recording is NDJSON: a start, then messages and gaps as they came, then an
// end. Where the end is missing, so may be messages. What has no kind is a
// message, so that a list of channels and payloads is a recording as well.

// recordingVersion is the version of the format. A recording of another one is
// not read.
const recordingVersion = 1

// The kinds of records.
const (
	recordMessage = ""
	recordStart   = "start"
	recordGap     = "gap"
	recordEnd     = "end"
)

// A record is a line of a recording.
type record struct {
	Kind string    `json:"record,omitempty"`
	Time time.Time `json:"time,omitzero"` // when a message was received; when the others were written

	// Of a message.
	Channel       string  `json:"channel,omitempty"`
	Pattern       string  `json:"pattern,omitempty"` // the glob it came through
	Sharded       string  `json:"sharded,omitempty"` // instead of channel
	Stream        string  `json:"stream,omitempty"`  // instead of channel
	ID            string  `json:"id,omitempty"`      // of the stream's entry
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`

	Version  int       `json:"version,omitempty"`  // of a start
	Channels []string  `json:"channels,omitempty"` // of a start, and those of a gap
	From     time.Time `json:"from,omitzero"`      // of a gap
	To       time.Time `json:"to,omitzero"`        // of a gap
	Reason   string    `json:"reason,omitempty"`   // of a gap, and of an end
	Messages *uint64   `json:"messages,omitempty"` // of an end: how many there are
	Gaps     *uint64   `json:"gaps,omitempty"`     // of an end: how many there are
}

// newRecord makes the record of a message.
func newRecord(m *filterd.Message) record {
	r := record{Time: m.Received, Channel: m.Channel, Pattern: m.Pattern}
	if m.Sharded {
		r.Channel, r.Sharded = "", m.Channel
	}
	if m.ID != "" {
		r.Channel, r.Stream, r.ID = "", m.Channel, m.ID
	}
	r.Payload, r.PayloadBase64 = textOrBase64(m.Payload)
	return r
}

// textOrBase64 returns a payload as a text, or as it is if it is none.
func textOrBase64(payload []byte) (*string, []byte) {
	if !utf8.Valid(payload) {
		return nil, payload
	}
	text := string(payload)
	return &text, nil
}

// message returns the message that a record holds.
func (r *record) message() (*filterd.Message, error) {
	m := &filterd.Message{Channel: r.Channel, Pattern: r.Pattern, Payload: r.PayloadBase64, Received: r.Time}
	if r.Sharded != "" {
		m.Channel, m.Sharded = r.Sharded, true
	}
	if r.Stream != "" {
		m.Channel, m.Pattern, m.ID = r.Stream, "", cmp.Or(r.ID, offlineID)
	}
	if r.Payload != nil {
		m.Payload = []byte(*r.Payload)
	}
	switch {
	case m.Channel == "":
		return nil, errors.New("the record has no channel (--channel takes lines as payloads)")
	case m.Payload == nil:
		return nil, errors.New("the record has no payload")
	}
	return m, nil
}

// text returns the line that a record is.
func (r record) text() ([]byte, error) {
	var b bytes.Buffer
	err := printJSON(&b, r)
	return b.Bytes(), err
}

// isZstd reports whether a file's name asks for compression.
func isZstd(name string) bool {
	return strings.HasSuffix(name, ".zst") || strings.HasSuffix(name, ".zstd")
}

// A recordingFile is one file of records that is being written. It belongs to
// one goroutine at a time.
type recordingFile struct {
	name   string // for errors
	file   *os.File
	buffer *bufio.Writer // of what goes to the file
	zstd   *zstd.Encoder // on top of the buffer; nil writes plain text
	// written counts the bytes that have left for the file, pending bounds
	// those that have not.
	written, pending int64
}

// endSize is more than what ends a file: its last record, and zstd's frame.
const endSize = 512

// createRecording makes a file, which must not exist unless it may be
// overwritten. Only its owner may read it: payloads may be secret.
func createRecording(name string, overwrite bool) (*recordingFile, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if overwrite {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	file, err := os.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, usage("%s exists: --force overwrites it", name)
	} else if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	f := &recordingFile{name: name, file: file}
	f.to(file)
	if isZstd(name) {
		// One goroutine compresses while another one reads: this is no
		// place to take all cores from those who do the work.
		f.zstd, err = zstd.NewWriter(f.buffer, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

// to makes the file write plain text.
func (f *recordingFile) to(w io.Writer) {
	f.buffer = bufio.NewWriterSize(writerFunc(func(b []byte) (int, error) {
		n, err := w.Write(b)
		f.written += int64(n)
		return n, err
	}), 64<<10)
}

// write writes text. The file has it after the next flush.
func (f *recordingFile) write(text []byte) error {
	f.pending += int64(len(text))
	var err error
	if f.zstd != nil {
		_, err = f.zstd.Write(text)
	} else {
		_, err = f.buffer.Write(text)
	}
	return f.failure(err)
}

// flush hands over everything, so that it can be read whatever happens to this
// process.
func (f *recordingFile) flush() error {
	var err error
	if f.zstd != nil {
		err = f.zstd.Flush()
	}
	err = errors.Join(err, f.buffer.Flush())
	f.pending = 0
	return f.failure(err)
}

// close ends the file, and waits until the disk has it.
func (f *recordingFile) close() error {
	var err error
	if f.zstd != nil {
		err = f.zstd.Close()
	}
	err = errors.Join(err, f.buffer.Flush())
	if f.file != nil {
		err = errors.Join(err, f.file.Sync(), f.file.Close())
	}
	return f.failure(err)
}

// failure names the file where the error doesn't.
func (f *recordingFile) failure(err error) error {
	var named *fs.PathError
	if err == nil || errors.As(err, &named) {
		return err
	}
	return fmt.Errorf("write %s: %w", f.name, err)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// maxZstdWindow bounds the memory for reading zstd, in bytes.
const maxZstdWindow = 128 << 20

// uncompressed returns a reader of what r holds: itself, or, if it begins as zstd
// does, the text that was compressed. stop frees what it takes.
func uncompressed(r io.Reader) (_ io.Reader, stop func(), err error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	const magic = "\x28\xb5\x2f\xfd"
	start, _ := buffered.Peek(1) // an error comes again
	if string(start) == magic[:1] {
		start, _ = buffered.Peek(len(magic)) // no line begins like this, so it waits for no other
	}
	if string(start) != magic {
		return buffered, func() {}, nil
	}
	d, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return nil, nil, err
	}
	return zstdReader{d}, d.Close, nil
}

// A zstdReader says that errors are zstd's, and what a cut means.
type zstdReader struct{ decoder *zstd.Decoder }

func (r zstdReader) Read(b []byte) (int, error) {
	n, err := r.decoder.Read(b)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("zstd: the file ends in the middle: this line and all behind it are lost")
	case err != nil && err != io.EOF:
		err = fmt.Errorf("zstd: %w", err)
	}
	return n, err
}
