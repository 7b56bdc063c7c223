package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"go.uber.org/goleak"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/pubsub"
)

func TestDemoShowsEverythingAtOnce(t *testing.T) {
	for name, path := range map[string]string{"server": os.Getenv("PATH"), "in process": ""} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			temporary(t)
			t.Setenv("PATH", path)
			var stdout, stderr bytes.Buffer
			if code := run([]string{"filterd", "demo", "--for", "3s", "--output", "json"}, strings.NewReader(""), &stdout, &stderr); code != 0 || stderr.Len() > 0 {
				t.Fatalf("exit code %d, stderr %s", code, &stderr)
			}
			seen := make(map[string][]demoEvent)
			var last demoEvent
			for line := range strings.Lines(stdout.String()) {
				last = demoEvent{}
				if err := json.Unmarshal([]byte(line), &last); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				if last.Yours {
					t.Errorf("taken for the user's: %s", line)
				}
				seen[last.Event] = append(seen[last.Event], last)
			}
			for _, event := range []string{demoStarted, demoMatched, demoLogged, demoRejected, demoFailed, demoRefused} {
				if len(seen[event]) == 0 {
					t.Errorf("no event %s:\n%s", event, &stdout)
				}
			}
			if t.Failed() {
				return
			}
			if start := seen[demoStarted][0].Start; len(start.Rules) != 5 || len(start.Try) != 4 || start.Broker == "" {
				t.Errorf("start: %+v", start)
			}
			rules := make(map[string]bool)
			for _, e := range seen[demoMatched] {
				rules[e.Rule] = true
				if e.Rule == "whales" && (e.To != "whale-alerts" || !strings.Contains(e.Payload, `"notional":`)) {
					t.Errorf("a whale: %+v", e)
				}
			}
			if len(rules) != 5 {
				t.Errorf("only these rules matched: %v", rules)
			}
			if e := seen[demoRejected][0]; e.Pointer != "/data/price" || e.Channel != "PRICE_DATA" || !strings.Contains(e.Reason, "want number") {
				t.Errorf("rejected: %+v", e)
			}
			if e := seen[demoRefused][0]; e.Pointer != "/data/price" || e.Bot != "feed" {
				t.Errorf("refused: %+v", e)
			}
			s := last.Summary
			if s == nil {
				t.Fatalf("the last event is %+v", last)
			}
			if s.Matched < 8 || s.Received < 20 || s.Rejected != uint64(len(seen[demoRejected])) || s.Failed != uint64(len(seen[demoFailed])) ||
				s.Refused != uint64(len(seen[demoRefused])) || s.DeadLetters != s.Rejected+s.Failed || len(s.Rules) != 5 {
				t.Errorf("summary: %+v", s)
			}
		})
	}
}

// TestDemoPublishedByTheUser does what the demo says one should try.
func TestDemoPublishedByTheUser(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	temporary(t)
	ctx, quit := context.WithCancel(t.Context())
	defer quit()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := newApp(strings.NewReader(""), w, w).RunContext(ctx, []string{"filterd", "demo"})
		w.Close()
		ended <- err
	}()
	lines := bufio.NewScanner(r)
	await := func(what, pattern string) []string {
		t.Helper()
		for re := regexp.MustCompile(pattern); lines.Scan(); {
			if m := re.FindStringSubmatch(lines.Text()); m != nil {
				return m
			}
		}
		t.Fatalf("no %s: the demo ended: %v", what, <-ended)
		return nil
	}
	command := await("command", `^try: redis-cli -p (\d+) publish (\S+) '(.*)'$`)
	bad := await("bad message", `^try: redis-cli -p (\d+) publish (\S+) '(.*)'$`)
	subscribe := await("subscription", `^try: redis-cli -p (\d+) subscribe (\S+)$`)

	rdb, err := pubsub.Connect(ctx, pubsub.Options{URL: filterd.Secret("redis://127.0.0.1:" + command[1])})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	publish := func(channel, payload string) {
		t.Helper()
		if n, err := rdb.Publish(ctx, channel, payload).Result(); err != nil || n < 2 {
			t.Fatalf("%d receivers, error %v", n, err)
		}
	}
	publish(command[2], command[3])
	await("message", `▶ you: published on PRICE_DATA  symbol=BTC price=90000 qty=5$`)
	await("match", `✓ you: whales → `+subscribe[2]+`  symbol=BTC price=90000 qty=5 notional=450000$`)

	publish(bad[2], bad[3])
	await("message", `▶ you: published on PRICE_DATA  symbol=BTC price=high$`)
	await("rejection", `✗ you: rejected PRICE_DATA  schema: /price: got string, want number`)

	// Nor is a bot's own message a bot's, when the user sends it again.
	sub := rdb.Subscribe(ctx, "PRICE_DATA")
	defer sub.Close()
	whale := ""
	for !strings.Contains(whale, "/demo/feed") || !strings.Contains(whale, "BTC-USD") {
		message, err := sub.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		whale = message.Payload
	}
	whale = strings.Replace(whale, `"symbol":"BTC-USD"`, `"symbol":"DOGE-USD"`, 1)
	publish("PRICE_DATA", whale)
	await("copy", `▶ you: published on PRICE_DATA  symbol=DOGE-USD`)
	await("copy's match", `✓ you: doge-watch → doge-desk  symbol=DOGE-USD`)

	publish("PRICE_DATA", "\x1b[2J\xff\n")
	await("escapes", `▶ you: published on PRICE_DATA  \\x1b\[2J\\xff\\n$`)
	publish("BOT_STATUS", `{"bot":"x","status":"failed"}`)
	await("log line", `✓ you: sick-bots → log error  bot=x status=failed$`)

	quit()
	await("summary", `^in .*: \d+ messages in, \d+ matched, \d+ rejected, \d+ rule errors?, \d+ not sent$`)
	for lines.Scan() {
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestDemoEndsWithItsBroker(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	temporary(t)
	r, w := io.Pipe()
	ended := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		code := run([]string{"filterd", "demo"}, strings.NewReader(""), w, &stderr)
		w.Close()
		ended <- code
	}()
	lines := bufio.NewScanner(r)
	lines.Scan()
	_, url, _ := strings.Cut(lines.Text(), " at ")
	rdb, err := pubsub.Connect(t.Context(), pubsub.Options{URL: filterd.Secret(url)})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	_ = rdb.ShutdownNoSave(t.Context()) // there is no reply
	for lines.Scan() {
	}
	if code := <-ended; code != exitFailed || !strings.Contains(stderr.String(), "has ended") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

func TestDemoRefusesFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--for 0s":     "--for 0s: want more than 0",
		"--for -1s":    "--for -1s: want more than 0",
		"--port 70000": "--port 70000: want a port from 1 to 65535",
		"--port -1":    "--port -1: want a port from 1 to 65535",
		"now":          "demo takes no argument \"now\"\nRun 'filterd demo --help' for usage",
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"filterd", "demo"}, strings.Fields(args)...), nil, &stdout, &stderr)
		if code != exitUsage || stderr.String() != "filterd: "+want+"\n" || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d: %s", args, code, &stderr)
		}
	}
}

// A writer that fails must end the demo, not hang it.
func TestDemoWithoutReader(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	temporary(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var stderr bytes.Buffer
	if code := run([]string{"filterd", "demo"}, nil, w, &stderr); code != exitFailed || stderr.Len() > 0 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

func TestDemoRulesPassTheirTests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "filterd.yaml")
	var printed, stderr bytes.Buffer
	if code := run([]string{"filterd", "demo", "--print-rules"}, nil, &printed, &stderr); code != 0 {
		t.Fatal(stderr.String())
	}
	if !bytes.Equal(printed.Bytes(), demoRules) {
		t.Error("the printed rules are others")
	}
	if err := os.WriteFile(path, printed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "test"} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"filterd", command, "-c", path}, nil, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Errorf("%s: exit code %d: %s%s", command, code, &stdout, &stderr)
		}
	}
	rules, err := loadDemoRules()
	if err != nil {
		t.Fatal(err)
	}
	tested := make(map[string]bool)
	for _, test := range rules.Tests {
		tested[test.Rule] = true
	}
	targets := make(map[string]string)
	for _, rule := range rules.Rules {
		if !tested[rule.Name] {
			t.Errorf("rule %s has no tests", rule.Name)
		}
		// The observer tells rules by their targets.
		for _, to := range rule.To {
			if other := targets[to.Channel]; to.Channel != "" && other != "" {
				t.Errorf("rules %s and %s send to %s", rule.Name, other, to.Channel)
			}
			targets[to.Channel] = rule.Name
		}
	}
}

// fullView has everything in it that a view can show.
func fullView(colour bool) *demoView {
	stats := engine.Stats{
		Channels: map[string]engine.ChannelStats{"PRICE_DATA": {Received: 123456, Invalid: map[filterd.Reason]uint64{filterd.ReasonSchema: 1234}}},
		Rules:    map[string]engine.RuleStats{"whales": {Matched: 98765, Errors: 4321}},
	}
	v := &demoView{stats: func() engine.Stats { return stats }, styles: newViewStyles(colour)}
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	v.add(demoEvent{Time: began, Event: demoStarted, Start: &demoStart{
		Broker: "redis-server 7.0.15", URL: "redis://127.0.0.1:54321",
		Rules: []demoRule{
			{Name: "whales", From: []string{"PRICE_DATA"}, When: `data.symbol startsWith "BTC" and data.price * data.qty > 1_000_000`, To: "whale-alerts"},
			{Name: "a-rule-with-a-long-name", From: []string{"価格", "TRADE_COMMANDS"}, To: "everything"},
		},
		Try: []string{
			`redis-cli -p 54321 publish PRICE_DATA '{"symbol":"BTC","price":90000,"qty":5}'`,
			`redis-cli -p 54321 publish PRICE_DATA '{"symbol":"BTC","price":"high"}'`,
			`redis-cli -p 54321 subscribe whale-alerts`,
			`filterd demo --print-rules > filterd.yaml && filterd run -c filterd.yaml --embedded`,
		},
	}})
	hostile := []byte("\x1b[2J\x07\r\n\t\xff\u202eevil \u200d価格👩‍👩‍👧" + strings.Repeat("x", 300))
	for i := range 300 {
		v.add(demoEvent{Time: began, Event: demoMatched, Rule: "whales", To: fmt.Sprint("whale-alerts-", i)}.with([]byte(`{"symbol":"BTC","note":"two words","n":null,"e":""}`)))
	}
	v.add(demoEvent{Time: began, Event: demoRefused, Channel: "PRICE_DATA", Reason: "schema: /data/price: wrong", Pointer: "/data/price"})
	v.add(demoEvent{Time: began, Event: demoNote, Reason: "a\x1bnote\n"})
	v.add(demoEvent{Time: began, Event: demoPublished, Channel: "PRICE_DATA\x1b", Yours: true}.with(hostile))
	v.add(demoEvent{Time: began, Event: demoFailed, Rule: "whales", Channel: "PRICE_DATA", Reason: "when: \x1b[31m", Yours: true}.with(hostile))
	return v
}

func TestDemoViewFitsEveryTerminal(t *testing.T) {
	for _, colour := range []bool{true, false} {
		v := fullView(colour)
		for _, height := range []int{1, 2, 3, 5, 8, 12, 20, 24, 31, 40, 80} {
			for _, width := range []int{1, 2, 10, 20, 33, 40, 60, 66, 80, 120, 200} {
				lines := v.lines(width, height, v.began.Add(75*time.Second))
				if len(lines) > height {
					t.Errorf("%dx%d: %d lines", width, height, len(lines))
				}
				for _, line := range lines {
					if w := lipgloss.Width(line); w > width {
						t.Errorf("%dx%d: a line of %d cells: %q", width, height, w, line)
					}
					if text := ansi.Strip(line); strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }) {
						t.Errorf("%dx%d: control characters: %q", width, height, text)
					}
					if !colour && regexp.MustCompile(`\x1b\[[\d;]*(3|4|9|10)\d`).MatchString(line) {
						t.Errorf("%dx%d: colour in %q", width, height, line)
					}
				}
			}
		}
	}
}

func TestDemoViewKeepsWhatMatters(t *testing.T) {
	v := fullView(false)
	for size, want := range map[[2]int][]string{
		{80, 24}: {
			"filterd demo  redis-server 7.0.15 at 127.0.0.1:54321", "1:15  q quits", "PRICE_DATA 123456 ✗1234", "not sent 1",
			" 122k   98765   4321", "data.symbol startsWith", "▶ you: published on PRICE_DATA", "✗ you: failed whales", "your last message",
			`redis-cli -p 54321 publish PRICE_DATA '{"symbol":"BTC","price":90000,"qty":5}'`, "redis-cli -p 54321 subscribe whale-alerts",
			"filterd demo --print-rules > filterd.yaml &&\n filterd run -c filterd.yaml --embedded",
		},
		{60, 20}: {"redis-server 7.0.15 port 54321", "redis-cli -p 54321 publish PRICE_DATA \\\n '{\"symbol\":\"BTC\",\"price\":90000,\"qty\":5}'", "✗ you: failed"},
		{120, 40}: {
			"03:04:05 ✓ whales → whale-alerts-299  symbol=BTC note=\"two words\" n=null e=\"\"", "PRICE_DATA → whale-alerts",
			"&& filterd run -c filterd.yaml --embedded", "every message", "価格, TRADE_COMMANDS → everything",
		},
		{40, 8}: {"filterd demo", "✗ you: failed"},
	} {
		var text strings.Builder
		for _, line := range v.lines(size[0], size[1], v.began.Add(75*time.Second)) {
			text.WriteString(strings.TrimRight(ansi.Strip(line), " ") + "\n")
		}
		for _, part := range want {
			if !strings.Contains(text.String(), part) {
				t.Errorf("%dx%d lacks %q:\n%s", size[0], size[1], part, text.String())
			}
		}
	}
}

func TestDemoViewSaysThatNoRuleKeptAMessage(t *testing.T) {
	v := fullView(false)
	v.add(demoEvent{Time: v.began, Event: demoPublished, Channel: "PRICE_DATA", Yours: true}.with([]byte("1")))
	shows := func(after time.Duration) bool {
		return strings.Contains(strings.Join(v.lines(80, 24, v.began.Add(after)), "\n"), "no rule kept it")
	}
	if shows(demoPatience/2) || !shows(2*demoPatience) {
		t.Errorf("soon: %v, later: %v", shows(demoPatience/2), shows(2*demoPatience))
	}
}

func TestBrief(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1.50,"b":"x","c":true,"d":null}`:   `a=1.50 b=x c=true d=null`,
		`{"a":"x y","b":"","c":"1=2","d":"\"q"}`: `a="x y" b="" c="1=2" d="\"q"`,
		`{"a":{"b":1}}`:                          `{"a":{"b":1}}`,
		`{"a":[1]}`:                              `{"a":[1]}`,
		`{}`:                                     `{}`,
		`{"a":1`:                                 `{"a":1`,
		`[1]`:                                    `[1]`,
		``:                                       ``,
		"\x1b[2J\n":                              `\x1b[2J\n`,
		`{"a":"\u001b[2J\u202e"}`:                `a=\x1b[2J\u202e`,
	} {
		if got := brief(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got := brief(strings.Repeat("é", maxBrief)); len(got) > maxBrief+10 || !strings.HasSuffix(got, "…") {
		t.Errorf("a long text became %d bytes", len(got))
	}
}

func TestRecentForgets(t *testing.T) {
	var r recent
	for i := range uint64(3 * demoMemory) {
		if !r.add(i) || r.add(i) {
			t.Fatalf("member %d", i)
		}
	}
	if len(r.members) != demoMemory || r.has(2*demoMemory-1) || !r.has(2*demoMemory) || !r.has(3*demoMemory-1) {
		t.Errorf("%d members", len(r.members))
	}
}
