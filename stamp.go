package filterd

import "github.com/filterd/filterd/internal/projection"

// StampsChannel is where publishers tell, now and then, how far the sequences of
// their stamps have come, so that the loss of what they sent last is noticed as
// well.
const StampsChannel = "__filterd:stamps"

// The extensions that are a stamp. The producer is one life of a publisher; its
// events on one channel have the sequence 1, 2, and so on.
const (
	ProducerAttribute = "producer"
	SequenceAttribute = "sequence"
)

// maxProducer is the longest name of a producer, in bytes.
const maxProducer = 64

// A stamp is what a view has found of one.
type stamp struct {
	producer []byte // aliases the document
	sequence uint64
	found    bool
}

// Stamp returns the stamp of an event: who published it, and its number among
// that producer's events on the channel. It is read only of messages that were
// checked against a contract that is Stamped. The producer may alias the
// payload.
func (m *Message) Stamp() (producer []byte, sequence uint64, ok bool) {
	s := &m.view.stamp
	return s.producer, s.sequence, s.found
}

// readStamp looks for a stamp among the extensions of an event.
func (v *view) readStamp(others *projection.Others) {
	var s stamp
	counted := false
	for i := range others.Count {
		o := &others.List[i]
		switch string(v.document[o.KeyStart:o.KeyEnd]) {
		case ProducerAttribute:
			if s.producer = nil; o.Value.Kind == projection.String {
				s.producer = o.Value.Inside(v.document)
			}
		case SequenceAttribute:
			text := o.Value.Of(v.document)
			if o.Value.Kind == projection.String {
				text = o.Value.Inside(v.document)
			} else if string(text) == "-0" { // 0, as a decoded event has it
				text = text[1:]
			}
			s.sequence, counted = parseSequence(text)
		}
	}
	s.found = counted && len(s.producer) > 0 && len(s.producer) <= maxProducer
	v.stamp = s
}

// stampOf is readStamp for an event that was decoded.
func stampOf(e *Event) (s stamp) {
	producer, _ := e.Extensions[ProducerAttribute].(string)
	switch sequence := e.Extensions[SequenceAttribute].(type) {
	case string:
		s.sequence, s.found = parseSequence([]byte(sequence))
	case int32:
		s.sequence, s.found = uint64(sequence), sequence >= 0
	}
	s.producer = []byte(producer)
	s.found = s.found && len(producer) > 0 && len(producer) <= maxProducer
	return s
}

// maxSequence bounds sequences, so that counting with them is safe.
const maxSequence = 1 << 62

// parseSequence parses a number in decimal digits, leading zeros allowed.
func parseSequence(text []byte) (n uint64, ok bool) {
	if len(text) == 0 || len(text) > 20 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' || n > maxSequence/10 {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, n <= maxSequence
}
