package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

const (
	testToken = "0123456789abcdef0123456789abcdef"
	// adminSection makes a file's admin server listen where a test finds it.
	adminSection = "server: {listen: \"127.0.0.1:0\", token: \"${file:token}\", probe: \"127.0.0.1:0\"}\n"
)

// serving returns the URL of one of the daemon's servers, of its section key.
func (d *daemon) serving(key string) string {
	d.Helper()
	for _, line := range d.log.lines("serving") {
		if line["section"] == key {
			return fmt.Sprint(line["url"])
		}
	}
	d.Fatalf("nothing is served by %s\n%s", key, d.log)
	return ""
}

// newAdminDaemon starts a daemon with an admin server.
func newAdminDaemon(t *testing.T, rules string) (d *daemon, url string) {
	d = newDaemon(t)
	d.write("token", testToken+"\n")
	d.write("filterd.yaml", "redis: {url: \"${REDIS_URL}\"}\n"+adminSection+rules)
	d.start()
	return d, d.serving("server.listen")
}

// A request is what a test asks of an admin server.
type request struct {
	method, url string // method is GET by default
	body        string
	token       string // none by default
	header      map[string]string
}

// do sends a request.
func (r request) do(t testing.TB) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	method := r.method
	if method == "" {
		method = "GET"
	}
	req, err := http.NewRequestWithContext(ctx, method, r.url, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if method == "POST" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	for name, value := range r.header {
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// get returns the status and the body.
func (r request) get(t testing.TB) (int, string) {
	t.Helper()
	response := r.do(t)
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// getJSON decodes a body.
func getJSON[T any](t testing.TB, r request) (body T) {
	t.Helper()
	status, text := r.get(t)
	if err := json.Unmarshal([]byte(text), &body); err != nil || status >= 300 {
		t.Fatalf("%s: %d %s", r.url, status, text)
	}
	return body
}

// A tapReader reads what a tap shows.
type tapReader struct {
	testing.TB
	lines *bufio.Scanner
}

func openTap(t testing.TB, url string) *tapReader {
	t.Helper()
	response := request{url: url, token: testToken}.do(t)
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		t.Fatalf("%s: %d %s", url, response.StatusCode, body)
	}
	r := &tapReader{t, bufio.NewScanner(response.Body)}
	r.lines.Buffer(nil, 1<<20)
	if !r.lines.Scan() { // the first is a sign of life: the tap is there
		t.Fatal(r.lines.Err())
	}
	return r
}

// next returns the next message, and its line.
func (r *tapReader) next() (line adminTapped, text string) {
	r.Helper()
	for r.lines.Scan() {
		line = adminTapped{}
		if err := json.Unmarshal(r.lines.Bytes(), &line); err != nil {
			r.Fatal(err)
		}
		if line.Outcome != "" {
			return line, r.lines.Text()
		}
	}
	r.Fatalf("the tap has ended: %v", r.lines.Err())
	return line, ""
}
