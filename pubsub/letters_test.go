package pubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// letters makes the dead letters of a stream with n entries.
func letters(t *testing.T, rdb redis.UniversalClient, stream string, n int) (*Letters, []string) {
	t.Helper()
	l := NewLetters(rdb, stream)
	t.Cleanup(func() { _ = l.Close() })
	var ids []string
	for i := range n {
		id, err := rdb.XAdd(deadline(t), &redis.XAddArgs{Stream: stream, Values: []any{"event", fmt.Sprint(i)}}).Result()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return l, ids
}

func TestLetters(t *testing.T) {
	ctx := deadline(t)
	rdb := client(t, redistest.Start(t).Addr)
	l, ids := letters(t, rdb, "dead", 5)
	if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: "dead", Values: []any{"other", "x"}}).Err(); err != nil {
		t.Fatal(err)
	}
	to := filterd.Delivery{Channel: "trades", Stream: true, Payload: []byte("again")}
	steps := []struct {
		id   string
		d    filterd.Delivery
		keep bool
		want string
	}{
		{ids[0], to, false, ""},
		{ids[0], to, false, "there is no such letter"},
		{ids[1], to, true, ""},
		{ids[1], to, false, "it is replayed already"},
		{ids[2], filterd.Delivery{Channel: "nobody", Payload: []byte("x")}, false, "nobody is subscribed to it"},
		{ids[3], filterd.Delivery{Channel: "text", Stream: true, Payload: []byte("x")}, false, "WRONGTYPE Operation against a key holding the wrong kind of value"},
		{ids[3], to, false, ""}, // what was refused can be tried again
	}
	if err := rdb.Set(ctx, "text", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for i, step := range steps {
		err := l.Replay(ctx, step.id, step.d, "body", step.keep)
		if got := fmt.Sprint(err); got != step.want && (err != nil || step.want != "") && !strings.HasPrefix(got, step.want) {
			t.Errorf("%d: %v, want %s", i, err, step.want)
		}
	}
	var left []string
	found, err := l.Read(ctx, "-", "+", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, letter := range found {
		left = append(left, fmt.Sprintf("%s %v", letter.Payload, letter.Replayed))
	}
	if got := strings.Join(left, ", "); got != "1 true, 2 false, 4 false,  false" {
		t.Error(got)
	}
	entries, err := rdb.XRange(ctx, "trades", "-", "+").Result()
	if err != nil || len(entries) != 3 || entries[0].Values["body"] != "again" {
		t.Errorf("%v %v", entries, err)
	}
	if last, err := l.Last(ctx); err != nil || last != found[3].ID {
		t.Errorf("%s %v", last, err)
	}
	if page, err := l.Read(ctx, "("+ids[1], "+", 1); err != nil || len(page) != 1 || page[0].ID != ids[2] {
		t.Errorf("%v %v", page, err)
	}
}

// However many replay, and whatever they see before, no letter goes out twice.
func TestLettersAreReplayedOnce(t *testing.T) {
	rdb := client(t, redistest.Start(t).Addr)
	const n = 200
	_, ids := letters(t, rdb, "dead", n)
	var done, refused atomic.Int64
	var replaying sync.WaitGroup
	for range 4 {
		replaying.Go(func() {
			l := NewLetters(rdb, "dead")
			defer l.Close()
			for i, id := range ids {
				err := l.Replay(deadline(t), id, filterd.Delivery{Channel: "trades", Stream: true, Payload: []byte("x")}, "event", i%2 == 0)
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, ErrReplayed) || errors.Is(err, ErrNoLetter):
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	replaying.Wait()
	if sent := rdb.XLen(deadline(t), "trades").Val(); done.Load() != n || sent != n || refused.Load() != 3*n {
		t.Errorf("%d done, %d sent, %d refused", done.Load(), sent, refused.Load())
	}
	if left, claimed := rdb.XLen(deadline(t), "dead").Val(), rdb.SCard(deadline(t), "{dead}:replayed").Val(); left != n/2 || claimed != n/2 {
		t.Errorf("%d left, %d claimed", left, claimed)
	}
}

// A reply that is lost leaves the letter, and nobody sends it a second time.
func TestLetterOfUnknownFate(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	l, ids := letters(t, rdb, "dead", 1)
	ctx, cancel := context.WithCancel(deadline(t))
	if err := l.claim(ctx, ids[0]); err != nil { // and then the process ends
		t.Fatal(err)
	}
	cancel()
	other := NewLetters(rdb, "dead")
	defer other.Close()
	if err := other.Replay(deadline(t), ids[0], filterd.Delivery{Channel: "trades", Stream: true}, "event", false); !errors.Is(err, ErrReplayed) {
		t.Error(err)
	}
	if found, err := other.Read(deadline(t), "-", "+", 1); err != nil || len(found) != 1 || !found[0].Replayed {
		t.Errorf("%v %v", found, err)
	}
}

// A server of a Cluster counts the subscribers that it has itself: that there are
// none says something of sharded channels only.
func TestLettersToChannelsOfACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	rdb := clientWith(t, Options{Mode: "cluster", Addrs: []string{nodes[0].Addr}})
	channels := []string{"a", "b", "c", "d"} // of all servers
	subscription := client(t, nodes[0].Addr).Subscribe(deadline(t), channels...)
	defer subscription.Close()
	for range channels {
		if _, err := subscription.Receive(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	l, ids := letters(t, rdb, "dead", 5)
	for i, channel := range channels {
		if err := l.Replay(deadline(t), ids[i], filterd.Delivery{Channel: channel, Payload: []byte(channel)}, "event", false); err != nil {
			t.Errorf("%s: %v", channel, err)
		}
	}
	for _, channel := range channels {
		if m, err := subscription.ReceiveMessage(deadline(t)); err != nil || !slices.Contains(channels, m.Payload) || m.Channel != m.Payload {
			t.Errorf("%s: %v %v", channel, m, err)
		}
	}
	err := l.Replay(deadline(t), ids[4], filterd.Delivery{Channel: "a", Sharded: true, Payload: []byte("x")}, "event", false)
	if !errors.Is(err, ErrNoReceivers) {
		t.Errorf("sharded: %v", err)
	}
	if found, err := l.Read(deadline(t), "-", "+", 9); err != nil || len(found) != 1 || found[0].ID != ids[4] || found[0].Replayed {
		t.Errorf("%v %v", found, err)
	}
}

// On a Cluster the claims are beside the stream, wherever messages go.
func TestLettersOnACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	rdb := clientWith(t, Options{Mode: "cluster", Addrs: []string{nodes[0].Addr}})
	for _, stream := range []string{"dead", "{tag}dead", "dead{tag"} {
		l, ids := letters(t, rdb, stream, 2)
		for i, to := range []string{"a", "b"} {
			if err := l.Replay(deadline(t), ids[i], filterd.Delivery{Channel: to, Stream: true, Payload: []byte("x")}, "event", i == 0); err != nil {
				t.Errorf("%s: %v", stream, err)
			}
		}
		if found, err := l.Read(deadline(t), "-", "+", 9); err != nil || len(found) != 1 || !found[0].Replayed {
			t.Errorf("%s: %v %v", stream, found, err)
		}
	}
}
