package filterd

import (
	"strconv"
	"unicode/utf8"

	"github.com/filterd/filterd/internal/projection"
)

// isEvent reports whether a document is a valid event with data, or without
// any: true means that parseEvent has no failure for it. False means that only
// parseEvent can tell. This is on the path of every event: what all documents
// of a shape have is looked at once for all.
func isEvent(document []byte, values []projection.Value, others *projection.Others, shape *projection.Shape) bool {
	if values[0].Kind != projection.Object || others.Count > len(others.List) || !isAbsent(values[nodeDataBase64]) {
		return false
	}
	varies, otherVaries := ^uint32(0), ^uint32(0)
	if shape != nil && shape.Vetted.Load() {
		varies, otherVaries = shape.Varies, shape.OtherVaries
	}
	for n := nodeSpecVersion; n < nodeData; n++ {
		if varies>>n&1 == 0 {
			continue
		}
		v := values[n]
		if isAbsent(v) && n > nodeType {
			continue
		}
		if !isText(document, v) || v.End-v.Start == 2 {
			return false
		}
		text, ok := v.Inside(document), true
		switch n {
		case nodeSpecVersion:
			ok = string(text) == SpecVersion
		case nodeSource:
			_, ok = parseURIReference(text)
		case nodeDataSchema:
			absolute, valid := parseURIReference(text)
			ok = absolute && valid
		case nodeDataContentType:
			ok = isMediaType(text)
		case nodeTime:
			ok = isTimestamp(text)
		}
		if !ok {
			return false
		}
	}
	// An earlier one of several members of one name doesn't count. Where it
	// is valid, it doesn't matter either.
	for i := range others.Count {
		if otherVaries>>i&1 != 0 && !isExtension(document, &others.List[i]) {
			return false
		}
	}
	if shape != nil && !shape.Vetted.Load() {
		shape.Vetted.Store(true)
	}
	return true
}

func isAbsent(v projection.Value) bool {
	return v.Kind == projection.Missing || v.Kind == projection.Null
}

// isText reports whether a value is a CloudEvents String that stands for itself.
func isText(document []byte, v projection.Value) bool {
	if v.Kind != projection.String || v.Flags&projection.Escaped != 0 {
		return false
	}
	if v.Flags == 0 {
		return true
	}
	inside := v.Inside(document)
	return utf8.Valid(inside) && checkText(inside) == ""
}

// isExtension is isEvent for a member that is an extension.
func isExtension(document []byte, m *projection.Other) bool {
	if checkName(document[m.KeyStart:m.KeyEnd]) != "" {
		return false
	}
	switch m.Value.Kind {
	case projection.Null, projection.Bool:
		return true
	case projection.String:
		return isText(document, m.Value)
	case projection.Number:
		_, err := strconv.ParseInt(string(m.Value.Of(document)), 10, 32)
		return err == nil
	}
	return false
}
