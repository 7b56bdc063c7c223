package main

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// freeAddress returns an address of this machine that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// adminUntil asks the script's daemon until something holds.
func adminUntil(ts *testscript.TestScript, path string, body any, holds func() bool) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		response, err := http.Get("http://" + ts.Getenv("ADMIN") + path)
		if err != nil {
			continue
		}
		err = json.NewDecoder(response.Body).Decode(body)
		_ = response.Body.Close()
		if err == nil && holds() {
			return
		}
	}
	ts.Fatalf("the daemon does not come to it: %s", path)
}

func number(ts *testscript.TestScript, args []string) uint64 {
	if len(args) != 1 {
		ts.Fatalf("want a number")
	}
	n, err := strconv.ParseUint(args[0], 10, 64)
	ts.Check(err)
	return n
}

func tapped(ts *testscript.TestScript, _ bool, args []string) {
	n := number(ts, args)
	var status adminStatus
	adminUntil(ts, "/api/v1/status", &status, func() bool { return status.Taps >= n })
}

func refused(ts *testscript.TestScript, _ bool, args []string) {
	n := number(ts, args)
	var status adminStatus
	adminUntil(ts, "/api/v1/status", &status, func() bool { return status.RefusedReloads >= n })
}

func gapSeen(ts *testscript.TestScript, _ bool, _ []string) {
	var status adminStatus
	adminUntil(ts, "/api/v1/status", &status, func() bool { return status.Gaps > 0 && status.Ready })
}

func answering(ts *testscript.TestScript, _ bool, _ []string) {
	var status adminStatus
	adminUntil(ts, "/api/v1/status", &status, func() bool { return len(status.Reasons) > 0 })
}
