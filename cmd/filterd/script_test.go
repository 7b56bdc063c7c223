package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
//	subscribed CHANNEL N   waits until a channel, or sharded:CHANNEL, has N subscribers
//	entries STREAM N       waits until a stream has N entries
//	pending STREAM N       waits until so many entries are pending in the group filterd
//	patterns N             waits until that many patterns have subscribers
//	cut N                  waits until Redis has processed N more commands, then cuts its youngest subscriber off
//	ids STREAM             sets ID1, ID2, … to the IDs of a stream's entries
//	tapped N               waits until the daemon at $ADMIN has been asked for N taps
//	refused N              waits until it has refused N reloads
//	gap                    waits until it has seen a gap, and is ready again
//	answering              waits until it answers
//	sigterm                sends SIGTERM to the last command in the background
//	assemble FROM TO       writes the bytes that a text lists: see assemble
//	runs CODE CMD OUT      runs a command of a document: see TestDocuments
//	logged FILE TEXT       waits until a file has a text
//
// $ADMIN is an address that is free, $EXAMPLES is the folder wasm-examples, $PROBE a module for tests, $BIN that of the command filterd.
func TestScripts(t *testing.T) {
	testscript.Run(t, scriptParams(t, testscript.Params{Dir: "testdata/script"}))
}

// scriptParams adds what scripts find around them.
func scriptParams(t *testing.T, p testscript.Params) testscript.Params {
	p.Setup = func(env *testscript.Env) error {
		server := redistest.Start(t)
		rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
		env.Defer(func() { _ = rdb.Close(); server.Stop() })
		env.Values["redis"] = rdb
		env.Setenv("REDIS_URL", server.URL())
		env.Setenv("REDIS_ADMIN", "http://"+server.Addr)
		env.Setenv("ADMIN", freeAddress(t))
		examples, err := filepath.Abs("../../wasm-examples")
		env.Setenv("EXAMPLES", examples)
		env.Setenv("PROBE", filepath.Join(filepath.Dir(examples), "filters/wasmfilter/testdata/probe.wasm"))
		env.Setenv("BIN", filepath.SplitList(env.Getenv("PATH"))[0])
		return err
	}
	p.Cmds = map[string]func(*testscript.TestScript, bool, []string){
		"exits":      exits,
		"redis":      redisCommand,
		"subscribed": subscribed,
		"entries":    entries,
		"pending":    pending,
		"blocked":    blocked,
		"patterns":   patterns,
		"cut":        cut,
		"sigterm":    sigterm,
		"ids":        ids,
		"tapped":     tapped,
		"refused":    refused,
		"gap":        gapSeen,
		"answering":  answering,
		"assemble":   assembleCommand,
		"runs":       runs,
		"logged":     logged,
	}
	return p
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

func ids(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ids STREAM")
	}
	entries, err := ts.Value("redis").(*redis.Client).XRange(context.Background(), args[0], "-", "+").Result()
	ts.Check(err)
	for i, entry := range entries {
		ts.Setenv(fmt.Sprint("ID", i+1), entry.ID)
	}
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
	until(ts, "subscribers of "+args[0], args[1], func() (any, error) {
		count, channel := rdb.PubSubNumSub, args[0]
		if name, sharded := strings.CutPrefix(channel, "sharded:"); sharded {
			count, channel = rdb.PubSubShardNumSub, name
		}
		n, err := count(context.Background(), channel).Result()
		return n[channel], err
	})
}

func entries(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: entries STREAM N")
	}
	rdb := ts.Value("redis").(*redis.Client)
	until(ts, "entries of "+args[0], args[1], func() (any, error) { return rdb.XLen(context.Background(), args[0]).Result() })
}

// blocked waits until a client waits for an entry.
func blocked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: blocked")
	}
	until(ts, "a client waits", "true", func() (any, error) {
		info, err := ts.Value("redis").(*redis.Client).Info(context.Background(), "clients").Result()
		return strings.Contains(info, "blocked_clients:1"), err
	})
}

func pending(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pending STREAM N")
	}
	rdb := ts.Value("redis").(*redis.Client)
	until(ts, "pending of "+args[0], args[1], func() (any, error) {
		summary, err := rdb.XPending(context.Background(), args[0], "filterd").Result()
		if err != nil {
			return nil, err
		}
		return summary.Count, nil
	})
}

func patterns(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: patterns N")
	}
	rdb := ts.Value("redis").(*redis.Client)
	until(ts, "patterns", args[0], func() (any, error) { return rdb.PubSubNumPat(context.Background()).Result() })
}

// until waits until a figure is what it should be.
func until(ts *testscript.TestScript, what, want string, figure func() (any, error)) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, err := figure()
		ts.Check(err)
		if fmt.Sprint(got) == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s: %v, want %s", what, got, want)
		}
	}
}

func logged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: logged FILE TEXT")
	}
	until(ts, args[1]+" in "+args[0], "true", func() (any, error) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return strings.Contains(string(text), args[1]), err
	})
}

func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cut N")
	}
	rdb, ctx := ts.Value("redis").(*redis.Client), context.Background()
	more, err := strconv.Atoi(args[0])
	ts.Check(err)
	processed := func() int {
		info, err := rdb.Info(ctx, "stats").Result()
		ts.Check(err)
		_, number, _ := strings.Cut(info, "total_commands_processed:")
		number, _, _ = strings.Cut(number, "\r")
		n, err := strconv.Atoi(number)
		ts.Check(err)
		return n
	}
	before := processed()
	until(ts, fmt.Sprintf("%d more commands", more), "true", func() (any, error) { return processed() >= before+more, nil })
	clients, err := rdb.Do(ctx, "CLIENT", "LIST", "TYPE", "pubsub").Text()
	ts.Check(err)
	youngest := 0
	for line := range strings.Lines(clients) {
		id := 0
		if _, err := fmt.Sscanf(line, "id=%d", &id); err == nil {
			youngest = max(youngest, id)
		}
	}
	ts.Check(rdb.Do(ctx, "CLIENT", "KILL", "ID", youngest).Err())
}

func assembleCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: assemble FROM TO")
	}
	code, rest, err := assemble(ts.ReadFile(args[0]))
	if err == nil && rest != "" {
		err = errors.New("a ) too many")
	}
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), code, 0o600))
}

// assemble returns what a text lists up to its end or its closing parenthesis,
// and the text behind that: bytes in hexadecimal, texts in quotes, and, in
// parentheses, what stands behind its own length. A comment begins with ;.
func assemble(text string) (code []byte, rest string, err error) {
	for {
		text = strings.TrimLeft(text, " \t\n")
		switch {
		case text == "":
			return code, "", nil
		case text[0] == ')':
			return code, text, nil
		case text[0] == ';':
			_, text, _ = strings.Cut(text, "\n")
		case text[0] == '"':
			word, behind, _ := strings.Cut(text[1:], `"`)
			code, text = append(code, word...), behind
		case text[0] == '(':
			inner, behind, err := assemble(text[1:])
			if err != nil {
				return nil, "", err
			}
			code = append(binary.AppendUvarint(code, uint64(len(inner))), inner...)
			text = strings.TrimPrefix(behind, ")")
		default:
			var b byte
			if _, err := fmt.Sscanf(text, "%2x", &b); err != nil {
				return nil, "", fmt.Errorf("%.20q: %w", text, err)
			}
			code, text = append(code, b), text[2:]
		}
	}
}
