package resp

// Entries is a part of a list of entries of a stream. Its memory is used again;
// what it points to is the reader's, and holds until the next Fill.
type Entries struct {
	List []Entry
	// Left is how many entries of the list are still to come.
	Left   int64
	fields [][]byte // of all entries
}

// An Entry is one entry of a stream.
type Entry struct {
	ID []byte
	// Skipped says that the entry is larger than the reader's limit, or has more
	// than MaxFields names and values. It has no fields then, but Size, which is
	// that of the field that was too large, in bytes, or 0.
	Skipped bool
	Size    int64

	first, count int // of its fields
}

// MaxFields is how many names and values an entry may have, together.
const MaxFields = 1 << 10

// Fields returns the names and values of an entry, in turn; nil if it was
// deleted, as Redis before 7 says.
func (e *Entries) Fields(i int) [][]byte {
	entry := &e.List[i]
	if entry.count == 0 {
		return nil
	}
	return e.fields[entry.first : entry.first+entry.count : entry.first+entry.count]
}

// NextEntries finds the next entries of a list in what was read: all of them,
// or as many as there are when the usual buffer is full. It returns false if
// there is none yet: then it is time to Fill. Named lists stand beside their
// stream, as the reply to an XREADGROUP has it; that to an XCLAIM is the list
// only. What is no list because there is nothing has no entries. A server's
// error is in f, whose Kind is Error; else that is 0.
func (r *Reader) NextEntries(to *Entries, f *Frame, named bool) (bool, error) {
	to.List, to.fields, to.Left = to.List[:0], to.fields[:0], 0
	*f = Frame{}
	if ok, err := r.discard(); !ok {
		return false, err
	}
	c := cursor{data: r.buf[r.begin:r.end]}
	left := r.entries
	switch {
	case left > 0:
	case len(c.data) == 0:
		r.need = 0
		return false, nil
	case c.data[0] == '-':
		f.Kind, f.Payload = Error, c.line()
	case !named:
		left = c.number('*', "a list of entries")
	case c.number('*', "a list of streams") > 0:
		c.pair()
		c.name("a stream", r.limit)
		left = c.number('*', "a list of entries")
	}
	if left, ok := r.gather(to, &c, left); ok {
		r.need, r.begin, r.entries = 0, r.begin+c.pos, max(left, 0)
		to.Left = r.entries
		return true, nil
	}
	r.need = c.need
	return false, c.failure()
}

// gather reads entries while there are whole ones, and returns how many are
// left, and false if it is too early to return those.
func (r *Reader) gather(to *Entries, c *cursor, left int64) (int64, bool) {
	for left > 0 && !c.stopped() {
		begin, fields := c.pos, len(to.fields)
		entry, deleted := r.entry(to, c)
		if c.stopped() {
			room := r.end-r.begin < len(r.base) && c.need <= len(r.base)
			if to.fields = to.fields[:fields]; len(to.List) == 0 || c.bad == nil && room {
				break
			}
			c.pos, c.need, c.bad = begin, 0, nil // it comes next time
			return left, true
		}
		if left--; !deleted {
			to.List = append(to.List, entry)
		}
		if entry.Skipped { // the rest of it comes first
			return left, true
		}
	}
	return left, !c.stopped()
}

// entry reads an entry, and reports whether there is only a mark that it was
// deleted.
func (r *Reader) entry(to *Entries, c *cursor) (entry Entry, deleted bool) {
	begin := c.pos
	if c.pos < len(c.data) && c.data[c.pos] == '$' {
		if c.number('$', "an entry") != -1 {
			c.refuse("an entry")
		}
		return Entry{}, true
	}
	c.pair()
	entry = Entry{ID: c.name("an ID", maxID), first: len(to.fields)}
	count := c.number('*', "the fields of an entry")
	if c.stopped() {
		return entry, false
	}
	if count > MaxFields {
		entry.Skipped, r.elements = true, int(count)
		return entry, false
	}
	for left := count; left > 0; left-- {
		size := c.number('$', "a field")
		if !c.stopped() && size >= 0 && size > int64(r.limit-(c.pos-begin)-2) { // text refuses the others
			entry.Skipped, entry.Size, entry.count = true, size, 0
			r.skip, r.elements = size+2, int(left-1)
			return entry, false
		}
		field := c.text(size)
		if c.stopped() {
			return entry, false
		}
		to.fields = append(to.fields, field)
		entry.count++
	}
	return entry, false
}

// maxID is the length of the longest ID: two numbers of 64 bits.
const maxID = 41

// name reads a string of at most limit bytes.
func (c *cursor) name(want string, limit int) []byte {
	before := c.pos
	size := c.number('$', want)
	if size > int64(limit) {
		c.pos = before
		c.refuse(want)
	}
	return c.text(size)
}

// pair reads the head of an array of two.
func (c *cursor) pair() {
	if n := c.number('*', "a pair"); n != 2 {
		c.refuse("a pair")
	}
}
