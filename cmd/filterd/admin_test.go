package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

// Who may ask what.
func TestAdminRefuses(t *testing.T) {
	d, url := newAdminDaemon(t, "rules: {r: {from: in, to: v1}}\n")
	host := strings.TrimPrefix(url, "http://")
	_, port, _ := net.SplitHostPort(host)
	header := func(pairs ...string) map[string]string {
		h := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = pairs[i+1]
		}
		return h
	}
	for _, test := range []struct {
		request
		status int
		text   string
	}{
		{request{url: "/api/v1/status"}, 200, `"ready":true`},
		{request{url: "/api/v1/status", header: header("Host", "localhost:"+port)}, 200, `"ready":true`},
		{request{url: "/api/v1/status", header: header("Host", "[::1]:"+port)}, 200, `"ready":true`},
		{request{url: "/api/v1/status", header: header("Host", "LOCALHOST")}, 200, `"ready":true`},
		{request{url: "/livez", header: header("Host", "evil.example:"+port)}, 403, "the Host header names another server"},
		{request{url: "/", header: header("Host", "10.0.0.1")}, 403, "the Host header names another server"},
		{request{url: "/livez", header: header("Host", "localhost.evil.example")}, 403, "the Host header names another server"},
		{request{url: "/api/v1/status", header: header("Origin", url)}, 200, `"ready":true`},
		{request{url: "/api/v1/status", header: header("Origin", "https://evil.example")}, 403, "pages of other origins"},
		{request{url: "/api/v1/status", header: header("Origin", "null")}, 403, "pages of other origins"},
		{request{url: "/api/v1/status", header: header("Origin", "https://"+host)}, 403, "pages of other origins"},
		{request{method: "POST", url: "/api/v1/reload"}, 401, "send Authorization: Bearer TOKEN"},
		{request{method: "POST", url: "/api/v1/reload", token: testToken[1:]}, 401, "the token is wrong"},
		{request{method: "POST", url: "/api/v1/reload", token: testToken + "0"}, 401, "the token is wrong"},
		{request{method: "POST", url: "/api/v1/reload", header: header("Authorization", "Basic "+testToken)}, 401, "send Authorization"},
		{request{method: "POST", url: "/api/v1/reload", header: header("Cookie", "token="+testToken)}, 401, "send Authorization"},
		{request{method: "POST", url: "/api/v1/reload?token=" + testToken}, 401, "send Authorization"},
		{request{method: "POST", url: "/api/v1/reload", token: testToken, header: header("Content-Type", "application/x-www-form-urlencoded")}, 415, "application/json"},
		{request{url: "/api/v1/reload", token: testToken}, 405, "want POST"},
		{request{method: "DELETE", url: "/api/v1/rules"}, 405, "want GET"},
		{request{url: "/api/v1/rules/r/tap"}, 401, "token"},
		{request{method: "POST", url: "/api/v1/rules/r/explain"}, 401, "token"},
		{request{url: "/debug/pprof/heap"}, 401, "token"},
		{request{url: "/debug/pprof/cmdline", token: testToken}, 404, "no such profile"},
		{request{url: "/api/v2/rules"}, 404, "/api/v1/openapi.json lists"},
		{request{url: "/api/v1/rules/R"}, 404, `there is no rule \"R\": did you mean r?`},
		{request{url: "/livez"}, 200, "ok"},
	} {
		test.url = url + test.url
		status, body := test.get(t)
		if status != test.status || !strings.Contains(body, test.text) {
			t.Errorf("%s %s %v: %d %s, want %d %s", test.method, test.url, test.header, status, body, test.status, test.text)
		}
	}
	answer := request{url: url + "/api/v1/status", header: header("Origin", url)}.do(t)
	for name := range answer.Header {
		if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" {
			t.Errorf("the answer has %s", name)
		}
	}
	if strings.Contains(d.log.String(), testToken) {
		t.Error("the log shows the token")
	}

	// The probe's server has nothing else, and asks nobody who he is.
	probe := d.serving("server.probe")
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200, "/api/v1/status": 404, "/debug/pprof/heap": 404} {
		if status, _ := (request{url: probe + path, token: testToken, header: header("Host", "10.1.2.3")}).get(t); status != want {
			t.Errorf("the probe's %s: %d, want %d", path, status, want)
		}
	}
}

// Bodies that are too large are neither read nor kept.
func TestAdminRefusesLargeBodies(t *testing.T) {
	d, url := newAdminDaemon(t, "rules: {r: {from: in, to: v1}}\n")
	for name, head := range map[string]string{
		"4 GB":        "Content-Length: 4294967296\r\n",
		"endless":     "Transfer-Encoding: chunked\r\n",
		"4 GB, probe": "Content-Length: 4294967296\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			at, want := url, "413 "
			line := "POST /api/v1/rules/r/explain"
			if strings.HasSuffix(name, "probe") {
				at, line, want = d.serving("server.probe"), "GET /livez", "200 "
			}
			conn, err := net.Dial("tcp", strings.TrimPrefix(at, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s\r\n", line, testToken, head)
			sent := make(chan int)
			go func() { // ends when the server closes
				n := 0
				for part := []byte("100000\r\n" + strings.Repeat(" ", 1<<20) + "\r\n"); ; n++ {
					if _, err := conn.Write(part); err != nil {
						break
					}
				}
				sent <- n
			}()
			status, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.Contains(status, want) {
				t.Errorf("%q, %v; want %s", status, err, want)
			}
			if n := <-sent; n > 32 {
				t.Errorf("the server has taken %d MiB", n)
			}
		})
	}
	if status, _ := (request{url: url + "/readyz"}).get(t); status != 200 {
		t.Errorf("/readyz: %d", status)
	}
	d.serves("v1")
}

// Connections that say nothing have their time, and their number.
func TestAdminBoundsConnections(t *testing.T) {
	a := newTestAdmin(t)
	var idle []net.Conn
	defer func() {
		for _, conn := range idle {
			_ = conn.Close()
		}
	}()
	a.patience = 100 * time.Millisecond
	listener := a.listen(t)
	for range 3 * maxAdminConns {
		conn, err := net.Dial("tcp", listener)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
		idle = append(idle, conn)
	}
	if status, body := (request{url: "http://" + listener + "/livez"}).get(t); status != 200 {
		t.Errorf("behind %d connections that say nothing: %d %s", len(idle), status, body)
	}
}

// newTestAdmin makes an admin server of this process, of an engine without
// Redis.
func newTestAdmin(t testing.TB) *admin {
	t.Helper()
	c, err := config.Parse("filterd.yaml", []byte("rules: {r: {from: in, to: out}}\nserver: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Engine(engine.Config{Logger: slog.New(slog.DiscardHandler), Sink: filterd.SinkFunc(nil)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	a := &admin{
		logger: slog.New(slog.DiscardHandler), engine: e,
		config:  func() *config.Config { return c },
		waiting: func() error { return errors.New("not connected") },
		streams: pubsub.NewStreamSource(nil, pubsub.StreamOptions{}),
	}
	t.Cleanup(a.close)
	return a
}

// listen starts the server and returns its address.
func (a *admin) listen(t testing.TB) string {
	t.Helper()
	var log bytes.Buffer
	a.logger = slog.New(slog.NewJSONHandler(&log, nil))
	if err := a.start(&config.Server{Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	a.logger = slog.New(slog.DiscardHandler)
	var line struct{ URL string }
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(line.URL, "http://")
}

// A reload that is asked for answers what came of it. The token is that of the
// new file.
func TestAdminReload(t *testing.T) {
	d, url := newAdminDaemon(t, "rules: {r: {from: in, to: v1}}\n")
	file := func(rules string) string { return "redis: {url: \"${REDIS_URL}\"}\n" + adminSection + rules }
	reload := request{method: "POST", url: url + "/api/v1/reload", token: testToken}
	d.serves("v1")

	d.write("filterd.yaml", file("rules: {r: {from: in, to: v2}, s: {from: other, to: v3}}\n"))
	status, body := reload.get(t)
	if status != 200 || body != `{"generation":2,"rules":2,"added":["s"],"changed":["r"],"removed":[],"files":["`+d.path("filterd.yaml")+`"]}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
	d.serves("v2")

	d.write("filterd.yaml", file("rules: {r: {from: in, when: data.a >, to: v2}}\n"))
	status, body = reload.get(t)
	if status != 422 || !strings.Contains(body, `1 problem: the rules stay as they are`) || !strings.Contains(body, `"key":"rules.r.when"`) {
		t.Errorf("%d %s", status, body)
	}
	d.serves("v2")
	state := getJSON[adminStatus](t, request{url: url + "/api/v1/status"})
	if state.Generation != 2 || state.RefusedReloads == 0 || state.LastRefusal == nil || state.LastRefusal.Problems[0].Key != "rules.r.when" {
		t.Errorf("the state is %+v", state)
	}

	const other = "another token that is long enough"
	d.write("token", strings.ReplaceAll(other, " ", "-"))
	d.write("filterd.yaml", file("rules: {r: {from: in, to: v4}}\n"))
	if status, body := reload.get(t); status != 200 && status != 401 { // unless the file has been seen first
		t.Errorf("%d %s", status, body)
	}
	d.becomes("v4", "v2")
	waitUntil(t, "the old token is refused", func() bool { status, _ := reload.get(t); return status == 401 })
	reload.token = strings.ReplaceAll(other, " ", "-")
	if status, body := reload.get(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// writeCertificate makes a certificate for names, and writes it with its key.
func writeCertificate(t *testing.T, cert, key string, names ...string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A server that other machines reach encrypts, and wants its token for all but
// its health.
func TestAdminForOtherMachines(t *testing.T) {
	d := newDaemon(t)
	d.write("token", testToken)
	writeCertificate(t, d.path("cert.pem"), d.path("key.pem"), "filterd.test")
	d.write("filterd.yaml", `redis: {url: "${REDIS_URL}"}
server: {listen: "0.0.0.0:0", token: "${file:token}", tls: {cert: cert.pem, key: key.pem}}
rules: {r: {from: in, to: v1}}
`)
	d.start()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(d.serving("server.listen"), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name, path, token string) (int, error) {
		roots := x509.NewCertPool()
		cert, err := os.ReadFile(d.path("cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		roots.AppendCertsFromPEM(cert)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}}
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://127.0.0.1:"+port+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = name
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return response.StatusCode, err
	}
	for _, r := range adminRoutes() {
		if r.method != "GET" || r.token {
			continue
		}
		path := strings.ReplaceAll(r.path, "{rule}", "r")
		without, withWrong, with := 401, 401, 200
		if r.public {
			without, withWrong = 200, 200
		}
		for token, want := range map[string]int{"": without, "wrong": withWrong, testToken: with} {
			if status, err := ask("filterd.test", path, token); status != want {
				t.Errorf("%s with token %q: %d, %v; want %d", path, token, status, err, want)
			}
		}
	}
	if status, err := ask("filterd.test", "/none", ""); status != 401 {
		t.Errorf("a path that there is not: %d, %v", status, err)
	}
	if conn, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is good enough")
	}
	writeCertificate(t, d.path("cert.pem"), d.path("key.pem"), "new.test")
	if status, err := ask("new.test", "/livez", ""); status != 200 {
		t.Errorf("with another certificate: %d, %v", status, err)
	}
	if status, err := ask("filterd.test", "/livez", ""); err == nil {
		t.Errorf("with the old name: %d", status)
	}
}

// What a daemon can't serve it says at the start.
func TestAdminCannotListen(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file := filepath.Join(t.TempDir(), "filterd.yaml")
	text := "redis: {url: \"redis://127.0.0.1:1\"}\nserver: {listen: \"" + listener.Addr().String() + "\"}\nrules: {r: {from: a, to: b}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	if code := run([]string{"filterd", "run", "-c", file}, nil, io.Discard, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "server.listen: listen tcp") {
		t.Errorf("exit code %d\n%s", code, stderr.String())
	}
}
