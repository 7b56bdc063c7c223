package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/filterd/filterd/internal/redistest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"filterd": main})
}

// TestScripts runs the commands as a user does. Beside testscript's own
// commands there are:
//
//	exits CODE COMMAND…    runs a command that must exit with that code
//	redis COMMAND…         sends a command to the script's own Redis
//	subscribed CHANNEL N   waits until a channel has N subscribers
//	sigterm                sends SIGTERM to the last command in the background
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			server := redistest.Start(t)
			rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
			env.Defer(func() { _ = rdb.Close(); server.Stop() })
			env.Values["redis"] = rdb
			env.Setenv("REDIS_URL", server.URL())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"redis":      redisCommand,
			"subscribed": subscribed,
			"sigterm":    sigterm,
		},
		RequireExplicitExec: false,
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func redisCommand(ts *testscript.TestScript, neg bool, args []string) {
	values := make([]any, len(args))
	for i, arg := range args {
		values[i] = arg
	}
	reply, err := ts.Value("redis").(*redis.Client).Do(context.Background(), values...).Result()
	if (err != nil) != neg {
		ts.Fatalf("redis %s: %v, %v", strings.Join(args, " "), reply, err)
	}
	ts.Logf("%v", reply)
}

func sigterm(ts *testscript.TestScript, neg bool, args []string) {
	running := ts.BackgroundCmds()
	if neg || len(args) > 0 || len(running) == 0 {
		ts.Fatalf("usage: sigterm, with a command in the background")
	}
	ts.Check(running[len(running)-1].Process.Signal(syscall.SIGTERM))
}

func subscribed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: subscribed CHANNEL N")
	}
	rdb := ts.Value("redis").(*redis.Client)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n, err := rdb.PubSubNumSub(context.Background(), args[0]).Result()
		ts.Check(err)
		if fmt.Sprint(n[args[0]]) == args[1] {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s has %d subscribers, want %s", args[0], n[args[0]], args[1])
		}
	}
}
