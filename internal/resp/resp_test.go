package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// show writes a frame down.
func show(f *Frame) string {
	return fmt.Sprintf("%d %s pattern=%q channel=%q payload=%q number=%d skipped=%d", f.Kind, f.Verb, f.Pattern, f.Channel, f.Payload, f.Number, f.Size)
}

// drain reads everything. The last element is the error.
func drain(r *Reader) []string {
	var all []string
	for {
		var f Frame
		ok, err := r.Next(&f)
		if ok {
			all = append(all, show(&f))
			continue
		}
		if err == nil {
			err = r.Fill()
		}
		if err != nil {
			if wrong, ok := errors.AsType[*ProtocolError](err); ok {
				err = errors.New("want " + wrong.Want) // what came depends on how much did
			}
			return append(all, err.Error())
		}
	}
}

func TestReader(t *testing.T) {
	const limit = 100
	long := strings.Repeat("x", limit)
	for name, test := range map[string]struct {
		stream string
		want   []string
	}{
		"messages": {
			"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\n1\r\n\r\n*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$0\r\n\r\n*3\r\n$8\r\nsmessage\r\n$0\r\n\r\n$1\r\n3\r\n",
			[]string{
				`1 message pattern="" channel="c" payload="1\r\n" number=0 skipped=0`,
				`1 pmessage pattern="c*" channel="c" payload="" number=0 skipped=0`,
				`1 smessage pattern="" channel="" payload="3" number=0 skipped=0`,
				"EOF",
			},
		},
		"confirmations": {
			"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n",
			[]string{
				`2 subscribe pattern="" channel="c" payload="" number=1 skipped=0`,
				`2 punsubscribe pattern="" channel="" payload="" number=0 skipped=0`,
				"EOF",
			},
		},
		"replies": {
			"+PONG\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n-NOPERM no\r\n:-12\r\n+OK\r\n",
			[]string{
				`3  pattern="" channel="" payload="PONG" number=0 skipped=0`,
				`3  pattern="" channel="" payload="" number=0 skipped=0`,
				`5  pattern="" channel="" payload="NOPERM no" number=0 skipped=0`,
				`6  pattern="" channel="" payload="" number=-12 skipped=0`,
				`4  pattern="" channel="" payload="OK" number=0 skipped=0`,
				"EOF",
			},
		},
		"over the limit": {
			"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$100\r\n" + long + "\r\n*4\r\n$8\r\npmessage\r\n$100\r\n" + long + "\r\n$1\r\nc\r\n$1\r\n1\r\n:1\r\n",
			[]string{
				`1 message pattern="" channel="c" payload="" number=0 skipped=100`,
				`1 pmessage pattern="" channel="" payload="" number=0 skipped=100`,
				`6  pattern="" channel="" payload="" number=1 skipped=0`,
				"EOF",
			},
		},
		"half a frame":      {"*3\r\n$7\r\nmess", []string{"unexpected EOF"}},
		"half a skip":       {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$100\r\nx", []string{`1 message pattern="" channel="c" payload="" number=0 skipped=100`, "unexpected EOF"}},
		"a web server":      {"HTTP/1.1 400 Bad Request\r\n", []string{"want an array, a status, an error or a number"}},
		"another array":     {"*1\r\n$4\r\nping\r\n", []string{"want " + known}},
		"a long word":       {"*1\r\n$536870912\r\n", []string{"want " + known}},
		"a wrong line end":  {":1\n", []string{"want a number"}},
		"a wrong length":    {"*3\r\n$7\r\nmessage\r\n$1\r\nchannel\r\n", []string{"want the end of a string"}},
		"no digits":         {"*\r\n", []string{"want an array"}},
		"too many digits":   {":1234567890123456789\r\n", []string{"want a number"}},
		"an endless line":   {"-" + strings.Repeat("x", maxLine), []string{"want a line"}},
		"a name too long":   {"*3\r\n$9\r\nsubscribe\r\n$100\r\n", []string{"want a shorter name"}},
		"no payload at all": {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$-1\r\n", []string{"want a string"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := drain(NewReader(strings.NewReader(test.stream), 1<<10, limit)); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			if got := plain([]byte(test.stream), limit); !slices.Equal(got, test.want) {
				t.Errorf("plain decoder: got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestProtocolErrorIsShort(t *testing.T) {
	r := NewReader(strings.NewReader(strings.Repeat("\x00garbage", 1000)), 1<<10, 1<<20)
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := r.Next(&Frame{})
		const want = `the server does not speak RESP2: want an array, a status, an error or a number, got "\x00garbage\x00garbage\x00garbage\x00garbage"`
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// A frame larger than the buffer gets one of its own, for as long as it takes.
func TestReaderGrowsAndShrinks(t *testing.T) {
	const size = 1 << 10
	large := strings.Repeat("x", 100*size)
	stream := publish("c", "1") + publish("c", large) + publish("c", "2")
	r := NewReader(iotest.HalfReader(strings.NewReader(stream)), size, 1<<20)
	want := []string{"1", large, "2"}
	var f Frame
	for i := 0; i < len(want); {
		ok, err := r.Next(&f)
		if err == nil && !ok {
			err = r.Fill()
		}
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if string(f.Payload) != want[i] {
				t.Errorf("message %d: %d bytes, want %d", i, len(f.Payload), len(want[i]))
			}
			i++
		}
	}
	if err := r.Fill(); err != io.EOF || len(r.buf) != size {
		t.Errorf("%v, a buffer of %d bytes, want EOF and %d", err, len(r.buf), size)
	}
}

// 512 MB that are announced and sent take no more memory than the buffer.
func TestReaderSkipsWithoutMemory(t *testing.T) {
	const announced = 512 << 20
	stream := io.MultiReader(
		strings.NewReader("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$"+strconv.Itoa(announced)+"\r\n"),
		io.LimitReader(zeros{}, announced),
		strings.NewReader("\r\n"+publish("c", "after")),
	)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := drain(NewReader(stream, 256<<10, 64<<20))
	runtime.ReadMemStats(&after)
	want := []string{
		`1 message pattern="" channel="c" payload="" number=0 skipped=536870912`,
		`1 message pattern="" channel="c" payload="after" number=0 skipped=0`,
		"EOF",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes allocated", used)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func publish(channel, payload string) string {
	return fmt.Sprintf("*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(channel), channel, len(payload), payload)
}

func TestReaderAllocations(t *testing.T) {
	stream := strings.NewReader("")
	text := strings.Repeat(publish("trades", strings.Repeat("m", 324)), 100) + "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n+PONG\r\n-ERR\r\n:1\r\n"
	r := NewReader(stream, 4<<10, 1<<20)
	var f Frame
	got := testing.AllocsPerRun(10, func() {
		stream.Reset(text)
		for {
			if ok, err := r.Next(&f); err != nil {
				t.Fatal(err)
			} else if !ok && r.Fill() != nil {
				return
			}
		}
	})
	if got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func TestAppend(t *testing.T) {
	got := string(AppendPublish(AppendCommand([]byte("x"), "SUBSCRIBE", "a", ""), "c", []byte("1\r\n")))
	got = string(AppendSpublish([]byte(got), "c", nil))
	const want = "x*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$0\r\n\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$3\r\n1\r\n\r\n*3\r\n$8\r\nSPUBLISH\r\n$1\r\nc\r\n$0\r\n\r\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzReader compares the reader, with small buffers and its input in pieces,
// with a decoder that has everything at once and takes its time.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		publish("c", "1") + publish("channel", strings.Repeat("x", 50)),
		"*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$0\r\n\r\n*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\n3\r\n",
		"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n",
		"+PONG\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n-NOPERM no\r\n:-12\r\n+OK\r\n",
		publish(strings.Repeat("c", 100), strings.Repeat("x", 50)) + publish("c", strings.Repeat("x", 100)) + ":1\r\n",
		"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$536870912\r\n",
		"HTTP/1.1 400\r\n", "*\r\n", ":1234567890123456789\r\n", "*3\r\n$7\r\nmess",
	} {
		f.Add([]byte(seed), byte(1), byte(80))
		f.Add([]byte(seed), byte(7), byte(120))
	}
	f.Fuzz(func(t *testing.T, stream []byte, piece, limit byte) {
		want := plain(stream, int(limit))
		for _, size := range []int{1, 64, 4 << 10} {
			got := drain(NewReader(&pieces{stream, 1 + int(piece)}, size, int(limit)))
			if !slices.Equal(got, want) {
				t.Fatalf("buffer of %d:\ngot  %q\nwant %q", size, got, want)
			}
		}
		for cut := range min(len(stream), 200) { // every split in two
			from := io.MultiReader(bytes.NewReader(stream[:cut]), bytes.NewReader(stream[cut:]))
			if got := drain(NewReader(from, 256, int(limit))); !slices.Equal(got, want) {
				t.Fatalf("cut at %d:\ngot  %q\nwant %q", cut, got, want)
			}
		}
	})
}

// pieces yields a text, so many bytes at once.
type pieces struct {
	rest []byte
	size int
}

func (p *pieces) Read(into []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:min(len(into), p.size)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// plain decodes a stream the plain way. The last element is the error.
func plain(stream []byte, limit int) (all []string) {
	d := &decoder{rest: string(stream), limit: limit}
	defer func() {
		if cause := recover(); cause != nil {
			all = append(all, cause.(string))
		}
	}()
	for d.rest != "" {
		d.whole = len(d.rest)
		f := &Frame{}
		switch d.rest[0] {
		case '*':
			d.array(f)
		case '+':
			if f.Kind, f.Payload = Status, d.line(); string(f.Payload) == "PONG" {
				f.Kind = Pong
			}
		case '-':
			f.Kind, f.Payload = Error, d.line()
		case ':':
			f.Kind, f.Number = Integer, int64(d.number(":", "a number"))
		default:
			panic("want an array, a status, an error or a number")
		}
		all = append(all, show(f))
		for range d.elements { // of a message that is skipped
			size := d.number(`\$`, "a string")
			if size < 0 {
				panic("want a string")
			}
			d.drop(size + 2)
		}
		d.elements = 0
		if d.lack {
			panic("unexpected EOF")
		}
	}
	return append(all, "EOF")
}

// A decoder panics with the last element.
type decoder struct {
	rest     string
	whole    int // the length of rest when the frame began
	limit    int
	elements int
	lack     bool // what is skipped isn't all there
}

func (d *decoder) drop(n int) {
	if n > len(d.rest) {
		d.lack, n = true, len(d.rest)
	}
	if d.rest = d.rest[n:]; d.lack {
		panic("unexpected EOF")
	}
}

func (d *decoder) number(mark, want string) int {
	if m := regexp.MustCompile(`^` + mark + `(-?[0-9]{1,18})\r\n`).FindStringSubmatch(d.rest); m != nil {
		d.rest = d.rest[len(m[0]):]
		n, _ := strconv.Atoi(m[1])
		return n
	}
	if d.rest == "" || regexp.MustCompile(`^`+mark+`(-?[0-9]{0,18}|-?[0-9]{1,18}\r)$`).MatchString(d.rest) {
		panic("unexpected EOF")
	}
	panic("want " + want)
}

func (d *decoder) text(size int) []byte {
	if size < 0 {
		panic("want a string")
	}
	if len(d.rest) < size+2 {
		panic("unexpected EOF")
	}
	text := d.rest[:size]
	if d.rest[size:size+2] != "\r\n" {
		panic("want the end of a string")
	}
	d.rest = d.rest[size+2:]
	return []byte(text)
}

func (d *decoder) line() []byte {
	text, rest, ok := strings.Cut(d.rest, "\n")
	switch {
	case len(text) >= maxLine || ok && !strings.HasSuffix(text, "\r"):
		panic("want a line")
	case !ok:
		panic("unexpected EOF")
	}
	d.rest = rest
	return []byte(text[1 : len(text)-1])
}

func (d *decoder) array(f *Frame) {
	count := d.number(`\*`, "an array")
	size := d.number(`\$`, "the array's first string")
	if size > maxVerb {
		panic("want " + known)
	}
	verb := string(d.text(size))
	parts := map[string]int{"message": 3, "pmessage": 4, "smessage": 3, "pong": 2}
	f.Kind = Message
	for _, name := range []string{"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"} {
		if parts[name] = 3; verb == name {
			f.Kind = Confirmation
		}
	}
	if parts[verb] == 0 || parts[verb] != count {
		panic("want " + known)
	}
	places := []*[]byte{&f.Channel, &f.Payload}
	switch verb {
	case "pmessage":
		places = []*[]byte{&f.Pattern, &f.Channel, &f.Payload}
	case "pong":
		f.Kind, places = Pong, places[1:]
	}
	if f.Kind != Pong {
		f.Verb = verb
	}
	if f.Kind == Confirmation {
		places = places[:1]
	}
	for i, place := range places {
		size := d.number(`\$`, "a string")
		switch {
		case size < 0 && f.Kind == Confirmation:
			continue
		case size < 0:
			panic("want a string")
		case d.whole-len(d.rest)+size+2 <= d.limit:
			*place = d.text(size)
		case f.Kind != Message:
			panic("want a shorter name")
		default:
			f.Skipped, f.Size, d.elements = true, int64(size), len(places)-i-1
			if d.lack = size+2 > len(d.rest); d.lack {
				d.rest, d.elements = "", 0
				return
			}
			d.rest = d.rest[size+2:]
			return
		}
	}
	if f.Kind == Confirmation {
		f.Number = int64(d.number(":", "a number of subscriptions"))
	}
}
