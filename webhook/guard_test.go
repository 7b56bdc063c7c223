package webhook

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

func TestGuard(t *testing.T) {
	office := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd12::/16")}
	for _, test := range []struct {
		address string
		guard   guard
		allowed bool
	}{
		{"8.8.8.8", guard{}, true},
		{"2606:4700::1111", guard{}, true},
		{"0.0.0.0", guard{}, false},
		{"0.1.2.3", guard{}, false},
		{"10.1.2.3", guard{}, false},
		{"100.64.0.1", guard{}, false},
		{"100.128.0.1", guard{}, true},
		{"127.0.0.1", guard{}, false},
		{"127.9.9.9", guard{}, false},
		{"168.63.129.16", guard{}, false},
		{"169.254.169.254", guard{}, false},
		{"172.15.0.1", guard{}, true},
		{"172.31.255.255", guard{}, false},
		{"172.32.0.1", guard{}, true},
		{"192.0.0.192", guard{}, false},
		{"192.0.2.1", guard{}, false},
		{"192.168.1.1", guard{}, false},
		{"198.18.0.1", guard{}, false},
		{"224.0.0.1", guard{}, false},
		{"255.255.255.255", guard{}, false},
		{"::", guard{}, false},
		{"::1", guard{}, false},
		{"::7f00:1", guard{}, false},
		{"::ffff:127.0.0.1", guard{}, false},
		{"::ffff:169.254.169.254", guard{}, false},
		{"::ffff:8.8.8.8", guard{}, true},
		{"64:ff9b::a9fe:a9fe", guard{}, false},
		{"64:ff9b::7f00:1", guard{}, false},
		{"64:ff9b::808:808", guard{}, true},
		{"64:ff9b:1::808:808", guard{}, false},
		{"100::1", guard{}, false},
		{"2001::1", guard{}, false},
		{"2001:db8::1", guard{}, false},
		{"2002:7f00:1::", guard{}, false},
		{"fc00::1", guard{}, false},
		{"fd00:ec2::254", guard{}, false},
		{"fe80::1%eth0", guard{}, false},
		{"fec0::1", guard{}, false},
		{"ff02::1", guard{}, false},
		{"10.1.2.3", guard{allow: office}, true},
		{"::ffff:10.1.2.3", guard{allow: office}, true},
		{"10.2.2.3", guard{allow: office}, false},
		{"fd12::7", guard{allow: office}, true},
		{"fd13::7", guard{allow: office}, false},
		{"8.8.8.8", guard{allow: office}, true},
		{"8.8.8.8", guard{allow: office, only: true}, false},
		{"10.1.2.3", guard{allow: office, only: true}, true},
	} {
		err := test.guard.control("tcp", net.JoinHostPort(test.address, "443"), nil)
		var blocked *blockedError
		if test.allowed != (err == nil) || err != nil && !errors.As(err, &blocked) {
			t.Errorf("%s, %v: %v", test.address, test.guard, err)
		}
	}
}

// resolver answers every question with the next of some addresses, and then
// with the last.
func resolver(answers ...string) *net.Resolver {
	next := 0
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe() // no packets: DNS as over TCP
		address := netip.MustParseAddr(answers[min(next, len(answers)-1)])
		go func() { // ends with the question's connection
			defer theirs.Close()
			for {
				var size [2]byte
				if _, err := io.ReadFull(theirs, size[:]); err != nil {
					return
				}
				question := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(theirs, question); err != nil {
					return
				}
				answer := answerTo(question, address)
				if _, err := theirs.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		}()
		return ours, nil
	}}
}

// answerTo answers a question of DNS: with the address if it is of the kind that
// is asked for.
func answerTo(question []byte, address netip.Addr) []byte {
	end := 12 + slices.Index(question[12:], 0) + 5 // of the name, its type and class
	kind := binary.BigEndian.Uint16(question[end-4:])
	answer := slices.Clone(question[:end])
	answer[2], answer[3] = 0x81, 0x80                              // an answer, without an error
	copy(answer[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})             // one question
	if kind == 1 && address.Is4() || kind == 28 && address.Is6() { // A, AAAA
		answer[7] = 1
		answer = append(answer, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(address.BitLen()/8))
		answer = append(answer, address.AsSlice()...)
	}
	return answer
}

// A name counts for what it is resolved to when the connection is made.
func TestNamesAreGuarded(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254"} {
		e := endpoint(t, Options{URL: "https://rebound.test/hook", Attempts: 3})
		e.link = newLink(e.options, guard{resolver: resolver(address)})
		err := e.Post(t.Context(), "r", message(event))
		var failure *Error
		if !errors.As(err, &failure) || failure.Reason != ReasonBlocked || failure.Attempts != 1 ||
			!strings.HasSuffix(err.Error(), "is not one of the public internet: list its network under allow if messages may go there") {
			t.Errorf("%s: %v", address, err)
		}
		if s := e.Stats(); s.Failed[ReasonBlocked] != 1 || s.Breaker != "closed" {
			t.Errorf("%s: %+v", address, s)
		}
	}
}

// Written as an address, in whatever way, it is no other thing.
func TestAddressesAreGuarded(t *testing.T) {
	s := newServer(t, answer(200, ""))
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"} {
		e := endpoint(t, Options{URL: filterd.Secret("https://" + net.JoinHostPort(strings.Trim(host, "[]"), port)), Attempts: 1})
		var failure *Error
		if err := e.Post(t.Context(), "r", message(event)); !errors.As(err, &failure) || failure.Reason != ReasonBlocked {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := len(s.take()); n != 0 {
		t.Errorf("%d requests", n)
	}
	// What is allowed is there.
	e := endpoint(t, Options{URL: filterd.Secret("http://allowed.test:" + port), Allow: loopback})
	e.link = newLink(e.options, guard{allow: loopback, only: true, resolver: resolver("127.0.0.1")})
	defer e.Close()
	if err := e.Post(t.Context(), "r", message(event)); err != nil {
		t.Error(err)
	}
	if got := s.take(); len(got) != 1 || got[0].header.Get("Content-Type") == "" {
		t.Errorf("%v", got)
	}
}
