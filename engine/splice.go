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
	*s = splicer{payload: payload, object: s.object[:0], inData: s.inData[:0]}
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
		if m.Name(s.payload) == "data" {
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
	edits := s.edits(0, s.object)
	if len(s.inData) > 0 {
		value := bytes.TrimLeft(s.payload[data:], " \t\r\n")
		if len(value) == 0 || value[0] != '{' {
			return nil, errors.New("data is not an object: only an object has members to set")
		}
		edits = append(edits, s.edits(data, s.inData)...)
		slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	}
	size := len(s.payload)
	for _, e := range edits {
		size += len(e.text)
	}
	out := make([]byte, 0, size)
	at := 0
	for _, e := range edits {
		out = append(out, s.payload[at:e.start]...)
		out = append(out, e.text...)
		at = e.end
	}
	return append(out, s.payload[at:]...), nil
}

// edits returns the edits, by position, that set members of the object at an
// offset.
func (s *splicer) edits(at int, members []memberEdit) []edit {
	if len(members) == 0 {
		return nil
	}
	values := make([]projection.Value, len(members)) // to replace
	last := -1                                       // behind the object's last member
	for m := range projection.Members(s.payload, at) {
		name := m.Name(s.payload)
		for i := range members {
			if members[i].name == name {
				values[i] = m.Value
			}
		}
		last = int(m.Value.End)
	}
	var edits []edit
	var added []byte
	for i, m := range members {
		if values[i].End > 0 {
			edits = append(edits, edit{int(values[i].Start), int(values[i].End), m.text})
			continue
		}
		if last >= 0 || len(added) > 0 {
			added = append(added, ',')
		}
		added = filterd.AppendString(added, m.name)
		added = append(added, ':')
		added = append(added, m.text...)
	}
	if added != nil {
		if last < 0 {
			last = at + bytes.IndexByte(s.payload[at:], '{') + 1
		}
		edits = append(edits, edit{last, last, added})
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	return edits
}

// encode returns a value as compact JSON.
func (s *splicer) encode(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		var unsupported *json.UnsupportedValueError
		if errors.As(err, &unsupported) {
			return nil, fmt.Errorf("the value is %s, which JSON can't express", unsupported.Str)
		}
		return nil, fmt.Errorf("the value can't be expressed in JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
