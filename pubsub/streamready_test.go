package pubsub

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// A stream that can't be read says why, and that it can once it can.
func TestStreamSourceSaysWhatItCannotRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "bot", "on", ">secret", "~*", "+@all")
	for name, test := range map[string]struct {
		wrong, right []string // commands
		want         string   // after the stream and group
	}{
		"WRONGTYPE": {
			[]string{"SET", "STREAM", "x"}, []string{"DEL", "STREAM"},
			"WRONGTYPE Operation against a key holding the wrong kind of value",
		},
		"NOPERM": {
			[]string{"ACL", "SETUSER", "bot", "-xreadgroup"}, []string{"ACL", "SETUSER", "bot", "+xreadgroup"},
			"NOPERM this user has no permissions to run the 'xreadgroup' command (grant it with ACL SETUSER)",
		},
		"a group that can't be made": {
			[]string{"ACL", "SETUSER", "bot", "-xgroup"}, []string{"ACL", "SETUSER", "bot", "+xgroup"},
			"NOPERM this user has no permissions to run the 'xgroup|create' command (grant it with ACL SETUSER)",
		},
	} {
		t.Run(name, func(t *testing.T) { // not in parallel: they share the user
			stream := strings.ReplaceAll(name, " ", "-")
			do := func(args []string) {
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "STREAM", stream)
				}
				server.Do(args...)
			}
			do(test.wrong)
			h := &streamHandler{}
			s, _ := readStreams(t, clientWith(t, Options{Addrs: []string{server.Addr}, Username: "bot", Password: "secret"}), "me", h, filterd.Stream{Name: stream})
			want := `stream "` + stream + `" in group "filterd": redis at ` + server.Addr + ": " + test.want
			eventually(t, want, func() bool { err := s.Ready(); return err != nil && err.Error() == want })
			if stats := s.Stats(); len(stats) != 1 || stats[0].Err == nil || !strings.HasSuffix(want, stats[0].Err.Error()) {
				t.Errorf("stats: %+v", stats)
			}
			do(test.right)
			ready(t, s)
			add(server, stream, "1")
			h.want(t, "1")
		})
	}
}

// So does one whose server is gone, and one whose group is and can't be made.
func TestStreamSourceSaysWhatItCannotReadAnyMore(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, stop := readStreams(t, client(t, server.Addr), "me", &streamHandler{}, filterd.Stream{Name: "s"})
	ready(t, s)
	server.Do("DEL", "s")
	server.Do("SET", "s", "x")
	eventually(t, "the key is no stream any more", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "WRONGTYPE")
	})
	server.Stop()
	eventually(t, "the server is gone", func() bool {
		err := s.Ready()
		return err != nil && strings.HasSuffix(err.Error(), "(no server listens there: start it or correct the address)")
	})
	server.Restart()
	ready(t, s)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Ready(), `stream "s" in group "filterd": not read yet`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, s.WaitReady(ctx), "stream \"s\" in group \"filterd\": not read yet: context canceled")
	s.Subscribe(filterd.Subscriptions{})
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

// An idle stream is known to be readable before Redis has waited for an entry.
func TestStreamSourceIsReadySoon(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, _ := readStreams(t, client(t, server.Addr), "me", &streamHandler{}, filterd.Stream{Name: "s"})
	ready(t, s)
	if calls := server.Do("INFO", "commandstats"); !strings.Contains(calls, "cmdstat_xreadgroup:calls=") {
		t.Errorf("ready before it has read: %s", calls)
	}
}

// A stream whose entries of the past take their time is read.
func TestStreamSourceIsReadyWhileItClaims(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	add(server, "s", "1")
	server.Do("XGROUP", "CREATE", "s", "filterd", "0")
	server.Do("XREADGROUP", "GROUP", "filterd", "dead", "STREAMS", "s", ">")
	gate := make(chan struct{})
	h := &streamHandler{do: func(*filterd.Message) { <-gate }}
	s, _ := readStreams(t, client(t, server.Addr), "me", h, filterd.Stream{Name: "s", ClaimIdle: time.Millisecond})
	ready(t, s)
	close(gate)
	h.want(t, "1")
}

// What is before a group is asked of Redis no more than every few seconds.
func TestStreamBacklog(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "bot", "on", ">secret", "~*", "+@all", "-xinfo")
	add(server, "s", "1", "2", "3")
	server.Do("XGROUP", "CREATE", "s", "filterd", "0")
	server.Do("XREADGROUP", "GROUP", "filterd", "other", "COUNT", "1", "STREAMS", "s", ">")
	server.Do("XGROUP", "CREATE", "s", "more", "0")
	s := NewStreamSource(client(t, server.Addr), StreamOptions{})
	if got := s.Backlog(); len(got) != 0 {
		t.Errorf("of nothing: %+v", got)
	}
	s.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{{Name: "s"}, {Name: "s", Group: "other"}, {Name: "missing"}}})
	got := s.Backlog()
	if len(got) != 3 || got[0] != (StreamBacklog{Stream: "s", Group: "filterd", Pending: 1, Lag: 2}) {
		t.Fatalf("got %+v", got)
	}
	wantError(t, got[1].Err, `there is no group "other"`)
	wantError(t, got[2].Err, "redis at "+server.Addr+": ERR no such key")
	asked := func() string {
		_, calls, _ := strings.Cut(server.Do("INFO", "commandstats"), "cmdstat_xinfo|groups:calls=")
		calls, _, _ = strings.Cut(calls, ",")
		return calls
	}
	before := asked()
	for range 100 {
		s.Backlog()
	}
	if after := asked(); before != "3" || after != before {
		t.Errorf("asked %s times, then %s", before, after)
	}
	s.backlog.asked = time.Now().Add(-backlogAge)
	server.Stop()
	if got := s.Backlog(); got[0].Err == nil || got[0].Lag != -1 {
		t.Errorf("without a server: %+v", got[0])
	}
	server.Restart()

	server.Do("ACL", "SETUSER", "bot", "on", ">secret", "~*", "+@all", "-xinfo")
	add(server, "s", "1")
	refused := NewStreamSource(clientWith(t, Options{Addrs: []string{server.Addr}, Username: "bot", Password: "secret"}), StreamOptions{})
	refused.Subscribe(filterd.Subscriptions{Streams: []filterd.Stream{{Name: "s"}}})
	wantError(t, refused.Backlog()[0].Err, "redis at "+server.Addr+": NOPERM this user has no permissions to run the 'xinfo|groups' command (grant it with ACL SETUSER)")
}
