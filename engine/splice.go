package engine

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/projection"
)

// A splicer changes members of a JSON object in place: every byte that isn't
// the value of a changed member stays. Members that are there already keep
// their place; new ones follow the last member, in the order in which they
// are set. Where a name occurs twice the last one is changed, since the last
// one counts.
type splicer struct {
	payload []byte // a valid JSON document
	object  []memberEdit
	inData  []memberEdit

	// Memory that is used again.
	encoder *json.Encoder // into texts
	texts   bytes.Buffer
	values  []projection.Value
	changes []edit
	added   []byte
}

type memberEdit struct {
	name string
	text []byte // compact JSON
}

// An edit replaces payload[start:end] by text.
type edit struct {
	start, end int
	text       []byte
}

func (s *splicer) reset(payload []byte) {
	if s.encoder == nil {
		s.encoder = json.NewEncoder(&s.texts)
		s.encoder.SetEscapeHTML(false)
	}
	s.payload, s.object, s.inData = payload, s.object[:0], s.inData[:0]
	s.texts.Reset()
	s.changes, s.added = s.changes[:0], s.added[:0]
}

// member sets a member of the document.
func (s *splicer) member(name string, text []byte) {
	s.object = append(s.object, memberEdit{name, text})
}

// dataMember sets a member of the data, which starts where finish is told.
func (s *splicer) dataMember(name string, text []byte) {
	s.inData = append(s.inData, memberEdit{name, text})
}

// data returns where the data of an event starts.
func (s *splicer) data() (int, error) {
	at := -1
	for m := range projection.Members(s.payload, 0) {
		if m.Is(s.payload, "data") {
			at = int(m.Value.Start)
		}
	}
	if at < 0 {
		return 0, errors.New("the event has no data member to set members of")
	}
	return at, nil
}

// finish returns the changed document. The data starts at offset data.
func (s *splicer) finish(data int) ([]byte, error) {
	s.edits(0, s.object)
	if len(s.inData) > 0 {
		value := bytes.TrimLeft(s.payload[data:], " \t\r\n")
		if len(value) == 0 || value[0] != '{' {
			return nil, errors.New("data is not an object: only an object has members to set")
		}
		s.edits(data, s.inData)
	}
	slices.SortStableFunc(s.changes, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	size := len(s.payload)
	for _, e := range s.changes {
		size += len(e.text)
	}
	out := make([]byte, 0, size)
	at := 0
	for _, e := range s.changes {
		out = append(out, s.payload[at:e.start]...)
		out = append(out, e.text...)
		at = e.end
	}
	return append(out, s.payload[at:]...), nil
}

// edits adds the changes that set members of the object at an offset.
func (s *splicer) edits(at int, members []memberEdit) {
	if len(members) == 0 {
		return
	}
	s.values = slices.Grow(s.values[:0], len(members))[:len(members)] // to replace
	clear(s.values)
	last := -1 // behind the object's last member
	for m := range projection.Members(s.payload, at) {
		for i := range members {
			if m.Is(s.payload, members[i].name) {
				s.values[i] = m.Value
			}
		}
		last = int(m.Value.End)
	}
	mark := len(s.added)
	for i, m := range members {
		if v := s.values[i]; v.End > 0 {
			s.changes = append(s.changes, edit{int(v.Start), int(v.End), m.text})
			continue
		}
		if last >= 0 || len(s.added) > mark {
			s.added = append(s.added, ',')
		}
		s.added = filterd.AppendString(s.added, m.name)
		s.added = append(s.added, ':')
		s.added = append(s.added, m.text...)
	}
	if len(s.added) > mark {
		if last < 0 {
			last = at + bytes.IndexByte(s.payload[at:], '{') + 1
		}
		s.changes = append(s.changes, edit{last, last, s.added[mark:]})
	}
}

// encode returns a value as compact JSON. It is valid until reset.
func (s *splicer) encode(value any) ([]byte, error) {
	mark := s.texts.Len()
	if err := s.encoder.Encode(value); err != nil {
		var unsupported *json.UnsupportedValueError
		if errors.As(err, &unsupported) {
			return nil, fmt.Errorf("the value is %s, which JSON can't express", unsupported.Str)
		}
		return nil, fmt.Errorf("the value can't be expressed in JSON: %w", err)
	}
	return bytes.TrimSuffix(s.texts.Bytes()[mark:], []byte("\n")), nil
}
