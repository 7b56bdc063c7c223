package pubsub

import (
	"errors"
	"sync"

	"github.com/filterd/filterd/internal/resp"
	"github.com/redis/go-redis/v9"
)

// What waits between a redis.PubSub and the source's reader. It only has to
// make batches: what doesn't fit waits in the socket.
const (
	relayedFrames = 1024
	relayedBytes  = 16 << 20
)

// relayed is the transport through a redis.PubSub, for clients that choose
// their connections themselves: those of a Cluster, a Ring, or somebody's own.
// A goroutine receives into a bounded list, which fill takes as a whole.
type relayed struct {
	pubsub *redis.PubSub
	taken  []resp.Frame // what next returns; the reader's own
	ended  chan struct{}

	mu      sync.Mutex // guards what follows
	changed sync.Cond
	waiting []resp.Frame
	bytes   int   // of their payloads
	err     error // why nothing comes any more
}

func newRelayed(pubsub *redis.PubSub) *relayed {
	r := &relayed{pubsub: pubsub, ended: make(chan struct{})}
	r.changed.L = &r.mu
	return r
}

// run receives until the connection ends.
func (r *relayed) run() {
	defer close(r.ended)
	for {
		f, err := r.receive()
		r.mu.Lock()
		for r.err == nil && len(r.waiting) > 0 && (len(r.waiting) == relayedFrames || r.bytes+len(f.Payload) > relayedBytes) {
			r.changed.Wait()
		}
		if err == nil {
			r.waiting, r.bytes = append(r.waiting, f), r.bytes+len(f.Payload)
		}
		if r.err == nil {
			r.err = err
		}
		err = r.err
		r.mu.Unlock()
		r.changed.Broadcast()
		if err != nil {
			return
		}
	}
}

// receive makes a frame of what go-redis has read.
func (r *relayed) receive() (resp.Frame, error) {
	reply, err := r.pubsub.Receive(offline)
	if err != nil {
		var answer redis.Error
		if errors.As(err, &answer) {
			return resp.Frame{Kind: resp.Error, Payload: []byte(answer.Error())}, nil
		}
		return resp.Frame{}, err
	}
	switch reply := reply.(type) {
	case *redis.Message:
		f := resp.Frame{Kind: resp.Message, Verb: "message", Channel: []byte(reply.Channel), Payload: []byte(reply.Payload)}
		if reply.Pattern != "" {
			f.Verb, f.Pattern = "pmessage", []byte(reply.Pattern)
		}
		return f, nil
	case *redis.Subscription:
		return resp.Frame{Kind: resp.Confirmation, Verb: reply.Kind, Channel: []byte(reply.Channel), Number: int64(reply.Count)}, nil
	default:
		return resp.Frame{Kind: resp.Pong}, nil // there is nothing else
	}
}

func (r *relayed) ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) > 0
}

func (r *relayed) fill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.taken)
	for len(r.waiting) == 0 && r.err == nil {
		r.changed.Wait()
	}
	if len(r.waiting) == 0 {
		return r.err
	}
	r.taken, r.waiting, r.bytes = r.waiting, nil, 0
	r.changed.Broadcast()
	return nil
}

func (r *relayed) next(f *resp.Frame) (bool, error) {
	if len(r.taken) == 0 {
		return false, nil
	}
	*f, r.taken = r.taken[0], r.taken[1:]
	return true, nil
}

func (r *relayed) send(name string, args ...string) error {
	switch name {
	case "PING":
		return r.pubsub.Ping(offline)
	case "SUBSCRIBE":
		return r.pubsub.Subscribe(offline, args...)
	case "PSUBSCRIBE":
		return r.pubsub.PSubscribe(offline, args...)
	case "UNSUBSCRIBE":
		return r.pubsub.Unsubscribe(offline, args...)
	default:
		return r.pubsub.PUnsubscribe(offline, args...)
	}
}

// close doesn't wait for a reader that is behind: run ends all the same.
func (r *relayed) close() error {
	r.mu.Lock()
	if r.err == nil {
		r.err = errors.New("the connection was closed")
	}
	r.mu.Unlock()
	r.changed.Broadcast()
	err := r.pubsub.Close()
	<-r.ended
	return err
}
