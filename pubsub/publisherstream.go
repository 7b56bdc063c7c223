package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/filterd/filterd"
)

// An Appending is one message for a stream.
type Appending struct {
	Stream string
	Data   any            // as for Publish
	Event  *filterd.Event // if not nil, as for PublishEvent; Data is ignored
	// Field is the field of the entry that holds the message. Default
	// [filterd.DefaultField].
	Field string
	// MaxLen is about how many entries the stream keeps; 0 keeps all.
	MaxLen int64
}

// An Appended is what became of a message for a stream.
type Appended struct {
	ID  string // of its entry; empty if Err isn't nil
	Err error  // why there is none, or may be none
}

// AppendBatch appends messages to streams in one pipeline, in order, as entries
// that a [StreamSource] takes. What is sent is what PublishBatch would send by
// the contract of the stream's name, but without stamps: an entry doesn't get
// lost.
//
// There is a result for each message. Unlike in PublishBatch, one that is invalid
// does not keep back the others. Nothing is sent twice: an error that is no reply
// of the server means that the entry may be there.
func (p *Publisher) AppendBatch(ctx context.Context, batch []Appending) []Appended {
	results := make([]Appended, len(batch))
	commands := make([]*xadd, len(batch))
	pipeline := p.sink.streams.rdb.Pipeline()
	for i := range batch {
		a := &batch[i]
		payload, err := p.entry(a)
		if err != nil {
			results[i].Err = err
			continue
		}
		commands[i] = newXAdd(ctx, a.Stream, a.MaxLen, cmp.Or(a.Field, filterd.DefaultField), payload)
		_ = pipeline.Process(ctx, commands[i]) // only queues
	}
	if pipeline.Len() == 0 {
		return results
	}
	_, failure := pipeline.Exec(ctx)
	for i, command := range commands {
		if command == nil {
			continue
		}
		if err := piped(command, command.replied, failure); err != nil {
			results[i].Err = appendError(batch[i].Stream, err)
		} else {
			results[i].ID = command.Val()
		}
	}
	return results
}

// entry makes and checks what goes to a stream.
func (p *Publisher) entry(a *Appending) ([]byte, error) {
	switch {
	case a.Stream == "":
		return nil, errors.New("append: no stream given")
	case a.MaxLen < 0:
		return nil, appendError(a.Stream, fmt.Errorf("maxlen %d: want 1 or more", a.MaxLen))
	}
	contract := *p.registry.Lookup(a.Stream)
	contract.Stamped = false
	payload, err := p.checked(Outgoing{Channel: a.Stream, Data: a.Data, Event: a.Event}, &contract)
	if err != nil && !errors.Is(err, filterd.ErrInvalid) {
		err = appendError(a.Stream, err)
	}
	return payload, err
}
