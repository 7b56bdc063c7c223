package resp

// Entries is a list of entries of a stream. Its memory is used again; what it
// points to is the reader's, and holds until the next Fill.
type Entries struct {
	List   []Entry
	fields [][]byte // of all entries
}

// An Entry is one entry of a stream.
type Entry struct {
	ID           []byte
	first, count int // of its fields
}

// Fields returns the names and values of an entry, in turn.
func (e *Entries) Fields(i int) [][]byte {
	entry := &e.List[i]
	return e.fields[entry.first : entry.first+entry.count : entry.first+entry.count]
}

// NextEntries finds the reply to an XREADGROUP of one stream in what was read.
// It returns false if it isn't whole yet: then it is time to Fill. The list is
// empty if there was no entry. A server's error is in f, whose Kind is Error;
// else that is 0.
func (r *Reader) NextEntries(to *Entries, f *Frame) (bool, error) {
	to.List, to.fields = to.List[:0], to.fields[:0]
	*f = Frame{}
	c := cursor{data: r.buf[r.begin:r.end]}
	if len(c.data) == 0 {
		r.need = 0
		return false, nil
	}
	if c.data[0] == '-' {
		f.Kind, f.Payload = Error, c.line()
	} else if c.number('*', "a list of streams") > 0 {
		c.pair()
		c.text(c.number('$', "a stream"))
		c.entries(to)
	}
	r.need = c.need
	if c.need > 0 || c.bad != nil {
		return false, c.failure()
	}
	r.begin += c.pos
	return true, nil
}

// pair reads the head of an array of two.
func (c *cursor) pair() {
	if n := c.number('*', "a pair"); n != 2 {
		c.refuse("a pair")
	}
}

func (c *cursor) entries(to *Entries) {
	for left := c.number('*', "a list of entries"); left > 0 && !c.stopped(); left-- {
		c.pair()
		entry := Entry{ID: c.text(c.number('$', "an ID")), first: len(to.fields)}
		for fields := c.number('*', "the fields of an entry"); fields > 0 && !c.stopped(); fields-- {
			to.fields = append(to.fields, c.text(c.number('$', "a field")))
			entry.count++
		}
		to.List = append(to.List, entry)
	}
}
