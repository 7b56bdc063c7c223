package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// StartSentinel starts a sentinel that watches the master under a name, and
// waits until it knows the master. It calls a master down that has been
// silent for a second.
func StartSentinel(t testing.TB, name string, master *Server) *Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s 1\nsentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 5000\n",
		name, master.Port(), name, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, []string{file, "--sentinel"}, nil)
	s.await("flags\nmaster", "SENTINEL", "MASTER", name)
	return s
}

// StartCluster starts a cluster of three masters without replicas, and waits
// until every one of them calls it complete.
func StartCluster(t testing.TB, args ...string) []*Server {
	t.Helper()
	var servers []*Server
	for _, slots := range []string{"0 5460", "5461 10922", "10923 16383"} {
		// The default bus port, 10000 above the other, may not exist.
		s := Start(t, append([]string{"--cluster-enabled", "yes", "--cluster-port", FreePort(t), "--cluster-node-timeout", "5000"}, args...)...)
		s.Do(append([]string{"CLUSTER", "ADDSLOTSRANGE"}, strings.Fields(slots)...)...)
		servers = append(servers, s)
	}
	for i, s := range servers {
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
	}
	for _, other := range servers[1:] {
		servers[0].Do("CLUSTER", "MEET", "127.0.0.1", other.Port(), other.busPort())
	}
	for _, s := range servers {
		s.await("cluster_state:ok", "CLUSTER", "INFO")
		s.await("cluster_known_nodes:3", "CLUSTER", "INFO")
		s.await("cluster_slots_ok:16384", "CLUSTER", "INFO")
	}
	return servers
}

// busPort returns the port of the cluster bus.
func (s *Server) busPort() string {
	for i, arg := range s.args {
		if arg == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}

// await waits until a command's reply contains a text.
func (s *Server) await(want string, args ...string) {
	s.t.Helper()
	var reply string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if reply = s.Do(args...); strings.Contains(reply, want) {
			return
		}
	}
	s.t.Fatalf("%s: want %q within %v, got:\n%s", strings.Join(args, " "), want, patience, reply)
}

// MoveSlot gives a slot of a cluster, which has no keys, to one of its servers,
// and waits until all of them know. The servers are all masters.
func MoveSlot(t testing.TB, servers []*Server, slot int, to *Server) {
	t.Helper()
	id := to.Do("CLUSTER", "MYID")
	to.Do("CLUSTER", "SETSLOT", fmt.Sprint(slot), "NODE", id) // first, so that somebody has it at any time
	for _, s := range servers {
		if s != to {
			s.Do("CLUSTER", "SETSLOT", fmt.Sprint(slot), "NODE", id)
		}
	}
}

// StartReplica starts a replica of a cluster's master, and waits until all know
// it.
func StartReplica(t testing.TB, servers []*Server, master *Server, args ...string) *Server {
	t.Helper()
	s := Start(t, append([]string{"--cluster-enabled", "yes", "--cluster-port", FreePort(t)}, args...)...)
	s.Do("CLUSTER", "MEET", "127.0.0.1", master.Port(), master.busPort())
	for _, other := range servers {
		s.await(other.Do("CLUSTER", "MYID"), "CLUSTER", "NODES")
	}
	id := master.Do("CLUSTER", "MYID")
	s.await("cluster_state:ok", "CLUSTER", "INFO")
	s.Do("CLUSTER", "REPLICATE", id)
	s.await("master_link_status:up", "INFO", "replication")
	own := s.Do("CLUSTER", "MYID")
	for _, other := range servers {
		other.await(own, "CLUSTER", "SLOTS")
	}
	return s
}
