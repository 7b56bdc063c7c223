package pubsub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

func TestOptionsErrors(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	const badURL = "redis options: url: want redis://[user[:password]@]host[:port][/db], rediss:// for TLS, or unix:///path; special characters of a password are %-encoded"
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"mode":                 {Options{Mode: "sharded"}, `redis options: mode "sharded": want single, sentinel or cluster`},
		"scheme":               {Options{URL: "http://localhost"}, badURL},
		"password in the port": {Options{URL: "redis://user:se/cret@localhost"}, badURL},
		"password in the path": {Options{URL: "redis://localhost/secret@host"}, badURL},
		"parameters":           {Options{URL: "redis://localhost?max_retries=2"}, "redis options: url: parameters after ? are not supported"},
		"url and host":         {Options{URL: "redis://localhost", Host: "other"}, "redis options: url: can't be given together with addrs, host or port"},
		"addrs and port":       {Options{Addrs: []string{"h:1"}, Port: 1}, "redis options: addrs: can't be given together with host or port"},
		"addresses":            {Options{Mode: ModeCluster, Addrs: []string{"h", "h:0", "h:1", "h:x"}}, "redis options: address \"h\": want host:port\naddress \"h:0\": want host:port\naddress \"h:x\": want host:port"},
		"port":                 {Options{Port: 65536}, "redis options: port 65536: want 1 to 65535"},
		"two servers":          {Options{Addrs: []string{"a:1", "b:1"}}, "redis options: addrs: 2 addresses need mode sentinel or cluster"},
		"no master":            {Options{Mode: ModeSentinel}, "redis options: master: mode sentinel needs the master's name"},
		"sentinel's things":    {Options{Master: "m", SentinelPassword: "p"}, "redis options: master: only mode sentinel has one\nsentinel login: only mode sentinel has one"},
		"db":                   {Options{DB: -1}, "redis options: db -1: want 0 or more"},
		"db of a cluster":      {Options{Mode: ModeCluster, URL: "redis://h/3"}, "redis options: db 3: a cluster has only database 0"},
		"usernames":            {Options{Mode: ModeSentinel, Master: "m", Username: "u", SentinelUsername: "s"}, "redis options: username \"u\": needs a password\nsentinel username \"s\": needs a password"},
		"no CA file":           {Options{TLS: &TLS{CA: "none.pem"}}, "redis options: tls ca: open none.pem: no such file or directory"},
		"no certificate":       {Options{TLS: &TLS{CA: noPEM, Cert: "c"}}, "redis options: tls ca: no certificate in " + noPEM + "\ntls cert: needs a key"},
		"no cert":              {Options{TLS: &TLS{Key: "k"}}, "redis options: tls key: needs a cert"},
		"no key file":          {Options{TLS: &TLS{Cert: "none.pem", Key: "none.key"}}, "redis options: tls cert: open none.pem: no such file or directory"},
		"everything at once":   {Options{Mode: "x", Port: -1, DB: -2}, "redis options: mode \"x\": want single, sentinel or cluster\nport -1: want 1 to 65535\ndb -2: want 0 or more"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.options.Client()
			wantError(t, err, test.want)
			_, err = Connect(t.Context(), test.options)
			wantError(t, err, test.want)
			if errors.Is(err, ErrUnreachable) {
				t.Error("matches ErrUnreachable")
			}
		})
	}
}

func TestOptionsAddress(t *testing.T) {
	for _, test := range []struct {
		options Options
		want    string
	}{
		{Options{}, "localhost:6379"},
		{Options{Mode: ModeSentinel, Master: "m"}, `the master "m" of sentinels localhost:26379`},
		{Options{Mode: ModeCluster, Host: "h"}, "h:6379"},
		{Options{Mode: ModeCluster, Addrs: []string{"a:1", "b:2"}}, "a:1,b:2"},
		{Options{Host: "::1", Port: 7}, "[::1]:7"},
		{Options{URL: "redis://"}, "localhost:6379"},
		{Options{URL: "rediss://u:p%40ss@h:7/2"}, "h:7"},
		{Options{URL: "unix:///run/redis.sock"}, "/run/redis.sock"},
		{Options{Addrs: []string{"/run/redis.sock"}}, "/run/redis.sock"},
	} {
		if got := test.options.address(); got != test.want {
			t.Errorf("%+v: got %s, want %s", test.options, got, test.want)
		}
	}
	u, err := Options{URL: "redis://u:p%40ss@h:7/2", Username: "other", DB: 3}.resolve()
	if err != nil || u.Username != "other" || u.Password != "p@ss" || u.DB != 3 {
		t.Errorf("fields don't overrule the URL: %q, %q, %d, %v", u.Username, u.Password, u.DB, err)
	}
}

// connects checks that options lead to a server.
func connects(t *testing.T, options Options) {
	t.Helper()
	rdb, err := Connect(deadline(t), options)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if _, err := rdb.Publish(t.Context(), "c", "m").Result(); err != nil {
		t.Error(err)
	}
}

func TestConnect(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	server := redistest.Start(t, "--unixsocket", socket)
	host, port, _ := net.SplitHostPort(server.Addr)
	var number int
	fmt.Sscan(port, &number)
	for name, options := range map[string]Options{
		"url":            {URL: filterd.Secret(server.URL())},
		"url with db":    {URL: filterd.Secret(server.URL() + "/1")},
		"host and port":  {Host: host, Port: number, DB: 2},
		"address":        {Addrs: []string{server.Addr}, Mode: ModeSingle},
		"socket":         {Addrs: []string{socket}},
		"socket by url":  {URL: filterd.Secret("unix://" + socket)},
		"name and login": {Addrs: []string{server.Addr}, ClientName: "bot"},
	} {
		t.Run(name, func(t *testing.T) { connects(t, options) })
	}

	rdb, err := Connect(deadline(t), Options{Addrs: []string{server.Addr}, ClientName: "bot"})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if list := server.Do("CLIENT", "LIST"); !strings.Contains(list, " name=bot ") {
		t.Errorf("CLIENT LIST without the name:\n%s", list)
	}
}

func TestConnectLogin(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "default-secret", "--user", "bot", "on", ">bot-secret", "+publish", "+ping", "&*")
	for _, options := range []Options{
		{URL: filterd.Secret("redis://:default-secret@" + server.Addr)},
		{URL: filterd.Secret("redis://bot:bot-secret@" + server.Addr)},
		{Addrs: []string{server.Addr}, Username: "bot", Password: "bot-secret"},
		{URL: filterd.Secret(server.URL()), Password: "default-secret"},
	} {
		connects(t, options)
	}
	const check = " (check username and password)"
	for _, test := range []struct {
		options Options
		want    string
	}{
		{Options{URL: filterd.Secret(server.URL())}, "NOAUTH Authentication required." + check},
		{Options{URL: filterd.Secret("redis://:wrong-secret@" + server.Addr)}, "WRONGPASS invalid username-password pair or user is disabled." + check},
		{Options{Addrs: []string{server.Addr}, Username: "bot", Password: "wrong-secret"}, "WRONGPASS invalid username-password pair or user is disabled." + check},
	} {
		_, err := Connect(deadline(t), test.options)
		wantError(t, err, "redis at "+server.Addr+": "+test.want)
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v does not match ErrUnreachable", err)
		}
	}
}

func TestConnectUnreachable(t *testing.T) {
	addr := "127.0.0.1:" + redistest.FreePort(t)
	_, err := Connect(deadline(t), Options{URL: filterd.Secret("redis://bot:secret@" + addr)})
	wantError(t, err, fmt.Sprintf("redis at %s: dial tcp %[1]s: connect: connection refused (no server listens there: start it or correct the address)", addr))

	silent := redistest.Start(t)
	silent.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = Connect(ctx, Options{Addrs: []string{silent.Addr}})
	if err == nil || !strings.HasPrefix(err.Error(), "redis at "+silent.Addr+": ") ||
		!strings.HasSuffix(err.Error(), " (nothing answered in time: check address and firewall, and that both sides use TLS or none does)") || !errors.Is(err, ErrUnreachable) {
		t.Errorf("a silent server: %v", err)
	}

	_, err = Connect(deadline(t), Options{Mode: ModeSentinel, Master: "prices", Addrs: []string{addr}})
	if want := `redis at the master "prices" of sentinels ` + addr + ": "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), ")") {
		t.Errorf("no sentinel: got %v, want it to begin with %q", err, want)
	}
	_, err = Connect(deadline(t), Options{Mode: ModeCluster, Addrs: []string{addr}})
	if want := "redis at " + addr + ": "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("no cluster: got %v, want it to begin with %q", err, want)
	}
}
