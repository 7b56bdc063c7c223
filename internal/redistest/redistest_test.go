package redistest

import (
	"net"
	"strings"
	"testing"
	"time"
)

func TestStartStopRestart(t *testing.T) {
	s := Start(t)
	if got := s.Do("SET", "k", "v"); got != "OK" {
		t.Errorf("SET: got %q", got)
	}
	if got := s.Do("CONFIG", "GET", "save"); got != "save\n" {
		t.Errorf("CONFIG GET save: got %q, want no persistence", got)
	}
	addr := s.Addr
	s.Stop()
	s.Stop() // harmless
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		conn.Close()
		t.Error("the server still listens after Stop")
	}
	s.Restart()
	if s.Addr != addr || s.URL() != "redis://"+addr {
		t.Errorf("address after Restart: %s, want %s", s.Addr, addr)
	}
	if got := s.Do("EXISTS", "k"); got != "0" {
		t.Errorf("EXISTS after Restart: got %q, want 0", got)
	}
}

func TestPauseResume(t *testing.T) {
	s := Start(t)
	s.Pause()
	answered := make(chan string, 1)
	go func() { // ends when the server answers, or with the connection's deadline
		reply, _ := do(s.Addr, "PING")
		answered <- reply
	}()
	select {
	case reply := <-answered:
		t.Errorf("a paused server answered %q", reply)
	case <-time.After(200 * time.Millisecond):
	}
	s.Resume()
	if reply := <-answered; reply != "PONG" {
		t.Errorf("after Resume: got %q, want PONG", reply)
	}
}

func TestStartWithPassword(t *testing.T) {
	s := Start(t, "--requirepass", "secret")
	if _, err := do(s.Addr, "GET", "k"); err == nil || err.Error() != "NOAUTH Authentication required." {
		t.Errorf("GET: got %v, want NOAUTH", err)
	}
}

func TestStopFindsPausedServer(t *testing.T) {
	s := Start(t)
	s.Pause()
	s.Stop()
}

func TestSentinelAndCluster(t *testing.T) {
	master := Start(t)
	sentinel := StartSentinel(t, "prices", master)
	if got := sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "prices"); got != "127.0.0.1\n"+master.Port() {
		t.Errorf("the sentinel's master: got %q", got)
	}
	servers := StartCluster(t)
	if got := strings.Count(servers[2].Do("CLUSTER", "SLOTS"), "\n127.0.0.1\n"); got != 3 {
		t.Errorf("CLUSTER SLOTS: got %d masters, want 3", got)
	}
}
