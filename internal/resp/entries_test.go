package resp

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// drainEntries reads lists until something goes wrong, which is the last
// element.
func drainEntries(r *Reader, named bool) (all []string) {
	var entries Entries
	for {
		var f Frame
		ok, err := r.NextEntries(&entries, &f, named)
		if err == nil && !ok {
			if err = r.Fill(); err == nil {
				continue
			}
		}
		if err != nil {
			text, _, _ := strings.Cut(err.Error(), ", got")
			return append(all, text)
		}
		for i, e := range entries.List {
			if all = append(all, fmt.Sprintf("%s%q", e.ID, entries.Fields(i))); e.Skipped {
				all[len(all)-1] = fmt.Sprintf("%s skipped %d", e.ID, e.Size)
			}
		}
		switch {
		case f.Kind == Error:
			all = append(all, "-"+string(f.Payload))
		case entries.Left == 0:
			all = append(all, "end")
		}
	}
}

func list(entries ...string) string {
	return fmt.Sprintf("*%d\r\n", len(entries)) + strings.Join(entries, "")
}

func texts(all ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(all))
	for _, text := range all {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(text), text)
	}
	return b.String()
}

func listed(id string, fields ...string) string {
	return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n", len(id), id) + texts(fields...)
}

const stream = "*1\r\n*2\r\n$1\r\ns\r\n"

func TestNextEntries(t *testing.T) {
	const bad = "the server does not speak RESP2: want "
	two := list(listed("1-1", "event", "\r\n"), listed("1-2", "a", "", "b", "c"))
	large := list(listed("1-1", "event", "x"), listed("1-2", "event", strings.Repeat("x", 300), "more", "y"), listed("1-3", "event", "z"))
	for _, test := range []struct {
		name, text string
		named      bool
		want       string
	}{
		{"entries", stream + two, true, `1-1["event" "\r\n"] 1-2["a" "" "b" "c"] end EOF`},
		{"claimed", two, false, `1-1["event" "\r\n"] 1-2["a" "" "b" "c"] end EOF`},
		{"none", "*-1\r\n", true, "end EOF"},
		{"none claimed", "*0\r\n", false, "end EOF"},
		{"deleted", list("$-1\r\n", "*2\r\n$3\r\n1-1\r\n*-1\r\n", listed("1-2", "a", "b")), false, `1-1[] 1-2["a" "b"] end EOF`},
		{"an error", "-NOGROUP no\r\n", true, "-NOGROUP no EOF"},
		{"two replies", "*-1\r\n" + stream + two, true, `end 1-1["event" "\r\n"] 1-2["a" "" "b" "c"] end EOF`},
		{"too large", stream + large + "*-1\r\n", true, `1-1["event" "x"] 1-2 skipped 300 1-3["event" "z"] end end EOF`},
		{"too many fields", list(listed("1-1", slices.Repeat([]string{"x"}, MaxFields+1)...), listed("1-2", "a", "b")), false, `1-1 skipped 0 1-2["a" "b"] end EOF`},
		{"a number", ":1\r\n", true, bad + "a list of streams"},
		{"no list", "$1\r\n", false, bad + "a list of entries"},
		{"no pair", "*1\r\n*3\r\n", true, bad + "a pair"},
		{"no ID", stream + "*1\r\n*2\r\n:1\r\n", true, bad + "an ID"},
		{"a long stream", "*1\r\n*2\r\n$1000000000000\r\n", true, bad + "a stream"},
		{"a long ID", "*1\r\n*2\r\n$42\r\n", false, bad + "an ID"},
		{"no entry", list(listed("1-1", "a", "b"), "$1\r\n"), false, `1-1["a" "b"] ` + bad + "an entry"},
	} {
		for _, buffer := range []int{48, 64, 100} {
			for _, piece := range []int{1, 7, 1 << 10} {
				r := NewReader(&pieces{[]byte(test.text), piece}, buffer, 200)
				if got := strings.Join(drainEntries(r, test.named), " "); got != test.want {
					t.Errorf("%s, %d of %d:\ngot  %s\nwant %s", test.name, piece, buffer, got, test.want)
				}
			}
		}
	}
}

// A list may be as long as it likes, and an entry as large: there is never more
// of it in memory than the buffer and one entry.
func TestNextEntriesMemory(t *testing.T) {
	const buffer = 4 << 10
	entry := listed("1-1", "event", strings.Repeat("x", 1000))
	head := "*1000\r\n"
	skipped := "*2\r\n$3\r\n2-2\r\n*2\r\n$5\r\nevent\r\n$100000000\r\n"
	from := io.MultiReader(strings.NewReader(head), strings.NewReader(strings.Repeat(entry, 999)+skipped), io.LimitReader(zeros{}, 100_000_000), strings.NewReader("\r\n"))
	r := NewReader(from, buffer, 64<<10)
	var entries Entries
	count, skips, parts := 0, 0, 0
	for left := int64(1000); left > 0 || skips == 0; {
		var f Frame
		ok, err := r.NextEntries(&entries, &f, false)
		if err == nil && !ok {
			err = r.Fill()
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(r.buf) != buffer {
			t.Fatalf("a buffer of %d", len(r.buf))
		}
		if !ok {
			continue
		}
		parts++
		count += len(entries.List)
		left = entries.Left
		for _, e := range entries.List {
			if e.Skipped {
				skips++
			}
		}
	}
	if count != 1000 || skips != 1 || parts < 200 || parts > 500 {
		t.Errorf("%d entries, %d skipped, in %d parts", count, skips, parts)
	}
}

// FuzzEntries compares what the reader makes of lists, with small buffers and
// its input in pieces, with a decoder that has everything at once.
func FuzzEntries(f *testing.F) {
	large := listed("1-2", "event", strings.Repeat("x", 300), "more", "y")
	for _, seed := range []string{
		stream + list(listed("1-1", "event", "x"), large, listed("1-3", "event", "z")) + "*-1\r\n",
		list("$-1\r\n", "*2\r\n$3\r\n1-1\r\n*-1\r\n", listed("1-2", "a", "b")),
		list(listed("1-1", slices.Repeat([]string{"x"}, MaxFields+1)...), listed("1-2", "a", "b")),
		"-NOGROUP no\r\n*0\r\n", "*1\r\n*3\r\n", list("*2\r\n:1\r\n"), "*2\r\n*2\r\n$3\r\n1-1\r\n*1\r\n$536870912\r\nx",
	} {
		f.Add([]byte(seed), byte(1), byte(80), true)
		f.Add([]byte(seed), byte(7), byte(120), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, piece, limit byte, named bool) {
		want := plainEntries(text, int(limit), named)
		// Of what breaks off, what was whole may wait for the rest of the buffer;
		// and the end of a list whose last entry is skipped comes before the rest
		// of that.
		same := func(got []string) bool {
			last := len(got) - 1
			if want[len(want)-1] == "EOF" || got[last] != want[len(want)-1] {
				return slices.Equal(got, want)
			}
			if last > 0 && got[last-1] == "end" {
				last--
			}
			return last < len(want) && slices.Equal(got[:last], want[:last])
		}
		for _, size := range []int{1, 64, 4 << 10} {
			if got := drainEntries(NewReader(&pieces{text, 1 + int(piece)}, size, int(limit)), named); !same(got) {
				t.Fatalf("buffer of %d:\ngot  %q\nwant %q", size, got, want)
			}
		}
		for cut := range min(len(text), 200) { // every split in two
			from := io.MultiReader(bytes.NewReader(text[:cut]), bytes.NewReader(text[cut:]))
			if got := drainEntries(NewReader(from, 256, int(limit)), named); !same(got) {
				t.Fatalf("cut at %d:\ngot  %q\nwant %q", cut, got, want)
			}
		}
	})
}

// plainEntries decodes lists the plain way. The last element is the error.
func plainEntries(text []byte, limit int, named bool) (all []string) {
	d := &decoder{rest: string(text), limit: limit}
	defer func() {
		if cause := recover(); cause != nil {
			if all = append(all, cause.(string)); strings.HasPrefix(cause.(string), "want") {
				all[len(all)-1] = "the server does not speak RESP2: " + cause.(string)
			}
		}
	}()
	pair := func() {
		if d.number(`\*`, "a pair") != 2 {
			panic("want a pair")
		}
	}
	for d.rest != "" {
		if d.rest[0] == '-' {
			all = append(all, "-"+string(d.line()))
			continue
		}
		left := 0
		if !named {
			left = d.number(`\*`, "a list of entries")
		} else if d.number(`\*`, "a list of streams") > 0 {
			pair()
			d.name("a stream", limit)
			left = d.number(`\*`, "a list of entries")
		}
		for ; left > 0; left-- {
			if strings.HasPrefix(d.rest, "$") {
				if d.number(`\$`, "an entry") != -1 {
					panic("want an entry")
				}
				continue
			}
			d.entry(&all, pair)
		}
		all = append(all, "end")
	}
	return append(all, "EOF")
}

func (d *decoder) name(want string, limit int) string {
	size := d.number(`\$`, want)
	if size > limit {
		panic("want " + want)
	}
	return string(d.text(size))
}

func (d *decoder) entry(all *[]string, pair func()) {
	d.whole = len(d.rest)
	pair()
	id := d.name("an ID", maxID)
	count := d.number(`\*`, "the fields of an entry")
	skip := func(count int) {
		for ; count > 0; count-- {
			size := d.number(`\$`, "a string")
			if size < 0 {
				panic("want a string")
			}
			d.drop(size + 2)
		}
	}
	if count > MaxFields {
		*all = append(*all, id+" skipped 0")
		skip(count)
		return
	}
	var fields []string
	for ; count > 0; count-- {
		size := d.number(`\$`, "a field")
		if size >= 0 && d.whole-len(d.rest)+size+2 > d.limit {
			*all = append(*all, fmt.Sprintf("%s skipped %d", id, size))
			d.drop(size + 2)
			skip(count - 1)
			return
		}
		fields = append(fields, string(d.text(size)))
	}
	*all = append(*all, fmt.Sprintf("%s%q", id, fields))
}
