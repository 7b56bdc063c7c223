package pubsub

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
	"github.com/redis/go-redis/v9"
)

func TestSink(t *testing.T) {
	server := redistest.Start(t)
	rdb := client(t, server.Addr)
	source, r, _ := start(t, rdb, SourceOptions{}, []string{"a", "b"}, []string{"a*"})
	ready(t, source)
	batch := []filterd.Delivery{
		{Channel: "a", Payload: []byte("1")},
		{Channel: "nobody", Payload: []byte("2"), Receivers: 7, Err: errors.New("of before")},
		{Channel: "b", Payload: []byte("3\x00\r\n")},
		{Channel: "a", Payload: nil},
	}
	sink := NewSink(rdb)
	sink.Deliver(t.Context(), batch)
	for i, want := range []int64{2, 0, 1, 2} {
		if batch[i].Receivers != want || batch[i].Err != nil {
			t.Errorf("delivery %d: got %d receivers, %v, want %d", i, batch[i].Receivers, batch[i].Err, want)
		}
	}
	r.want(t, "a 1", "a<a* 1", "b 3\x00\r\n", "a ", "a<a* ")

	sink.Deliver(t.Context(), nil) // nothing to do

	server.Stop()
	sink.Deliver(t.Context(), batch)
	for i, d := range batch {
		want := fmt.Sprintf("publish to %q: ", d.Channel)
		if d.Err == nil || !strings.HasPrefix(d.Err.Error(), want) || d.Receivers != 0 {
			t.Errorf("delivery %d without a server: got %d receivers, %v", i, d.Receivers, d.Err)
		}
	}
}

func TestSinkConcurrently(t *testing.T) {
	server := redistest.Start(t)
	sink := NewSink(client(t, server.Addr))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				batch := []filterd.Delivery{{Channel: "a", Payload: []byte("m")}, {Channel: "b", Payload: []byte("m")}}
				sink.Deliver(context.Background(), batch)
				if batch[0].Err != nil || batch[1].Err != nil {
					t.Error(batch[0].Err, batch[1].Err)
				}
			}
		})
	}
	all.Wait()
}

func TestSinkRefusedChannel(t *testing.T) {
	server := redistest.Start(t)
	batch := []filterd.Delivery{{Channel: "open", Payload: []byte("1")}, {Channel: "closed", Payload: []byte("2")}, {Channel: "open", Payload: []byte("3")}}
	NewSink(reader(t, server, "+publish", "&open")).Deliver(t.Context(), batch)
	if batch[0].Err != nil || batch[2].Err != nil {
		t.Errorf("open channel: %v, %v", batch[0].Err, batch[2].Err)
	}
	wantError(t, batch[1].Err, `publish to "closed": `+noChannel)
}

// breaker is a server that ends a connection instead of answering the PUBLISH
// with that number. It returns what was published to it.
func breaker(t *testing.T, number int) (addr string, published func() []string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards got
	var got []string
	serve := func(conn net.Conn) {
		defer conn.Close()
		in := bufio.NewReader(conn)
		for {
			command, err := readCommand(in)
			if err != nil {
				return
			}
			reply := "-ERR unknown command\r\n"
			if strings.EqualFold(command[0], "publish") {
				mu.Lock()
				got = append(got, command[2])
				last := len(got) == number
				mu.Unlock()
				if last {
					return
				}
				reply = ":1\r\n"
			}
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
	}
	var running sync.WaitGroup
	running.Go(func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(conn) }) // ends with the connection
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

func readCommand(in *bufio.Reader) ([]string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	count, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil {
		return nil, err
	}
	var command []string
	for range count {
		if line, err = in.ReadString('\n'); err != nil {
			return nil, err
		}
		size, err := strconv.Atoi(strings.TrimSpace(line[1:]))
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		command = append(command, string(text[:size]))
	}
	return command, nil
}

// A connection that breaks between the replies: what was answered counts, the
// rest is unknown, and nothing is sent twice, not even by a client that
// retries.
func TestSinkNeverSendsTwice(t *testing.T) {
	for name, newClient := range map[string]func(addr string) redis.UniversalClient{
		"our client":        func(addr string) redis.UniversalClient { return client(t, addr) },
		"go-redis defaults": func(addr string) redis.UniversalClient { return redis.NewClient(&redis.Options{Addr: addr}) },
	} {
		t.Run(name, func(t *testing.T) {
			addr, published := breaker(t, 3)
			rdb := newClient(addr)
			defer rdb.Close()
			batch := make([]filterd.Delivery, 4)
			for i := range batch {
				batch[i] = filterd.Delivery{Channel: "c", Payload: []byte(strconv.Itoa(i))}
			}
			NewSink(rdb).Deliver(t.Context(), batch)
			for i, d := range batch {
				answered := i < 2
				if (d.Err == nil) != answered || (d.Receivers == 1) != answered {
					t.Errorf("delivery %d: got %d receivers, %v", i, d.Receivers, d.Err)
				}
			}
			if got := published(); !slices.Equal(got, []string{"0", "1", "2"}) {
				t.Errorf("the server got %q, want each message once", got)
			}
			if _, err := NewPublisher(rdb, nil, PublisherOptions{}).Publish(t.Context(), "c", 1); err != nil {
				t.Errorf("the next message: %v", err)
			}
		})
	}
}
