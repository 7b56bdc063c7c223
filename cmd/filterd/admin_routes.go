package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/filters/wasmfilter"
)

// openAPI describes the server. It is generated of adminRoutes when the tests
// run with -update; tests hold it against them, and against what is answered.
//
//go:embed openapi.json
var openAPI []byte

// An adminRoute is a path of the admin server, with its documentation.
type adminRoute struct {
	method, path string
	summary      string
	token        bool // needs one, wherever the server listens
	public       bool // never needs one
	query        []adminParameter
	body         any         // of the request; nil if there is none
	answers      map[int]any // by status; a mediaType is one that is not JSON
	handle       func(*admin, http.ResponseWriter, *http.Request)
}

// An adminParameter is a parameter of a query.
type adminParameter struct {
	name, kind, description string
}

// A mediaType is that of an answer that is no JSON document. Of lines of JSON,
// line is what each of them is.
type mediaType struct {
	name string
	line any
}

var plainText = mediaType{name: "text/plain"}

// adminRoutes lists the paths of the admin server.
func adminRoutes() []*adminRoute {
	return []*adminRoute{
		{
			method: "GET", path: "/livez", public: true, summary: "Whether the daemon lives",
			answers: map[int]any{200: plainText}, handle: (*admin).livez,
		},
		{
			method: "GET", path: "/readyz", public: true, summary: "Whether the daemon does its work: Redis is reachable, all subscriptions are confirmed, all streams can be read, no rule has halted it, and it leads or stands by",
			answers: map[int]any{200: adminReadiness{}, 503: adminReadiness{}}, handle: (*admin).readyz,
		},
		{
			method: "GET", path: "/metrics", summary: "Metrics for Prometheus",
			answers: map[int]any{200: plainText}, handle: func(a *admin, w http.ResponseWriter, r *http.Request) { a.metrics.ServeHTTP(w, r) },
		},
		{
			method: "GET", path: "/api/v1/openapi.json", summary: "This description",
			answers: map[int]any{200: mediaType{name: "application/openapi+json"}}, handle: (*admin).openAPI,
		},
		{
			method: "GET", path: "/api/v1/status", summary: "The state of the daemon",
			answers: map[int]any{200: adminStatus{}}, handle: (*admin).status,
		},
		{
			method: "GET", path: "/api/v1/rules", summary: "Every rule, how it is found, and what it has done",
			answers: map[int]any{200: adminRules{}}, handle: (*admin).rules,
		},
		{
			method: "GET", path: "/api/v1/rules/{rule}", summary: "One rule",
			answers: map[int]any{200: adminRule{}, 404: adminError{}}, handle: (*admin).rule,
		},
		{
			method: "GET", path: "/api/v1/rules/{rule}/tap", token: true, summary: "What the rule makes of messages as they come: a sample, as lines of JSON, until the client leaves",
			query: []adminParameter{
				{"outcome", "string", "The outcomes to show, with commas between: kept, not_kept, filtered, failed, invalid. Default: all."},
				{"rate", "integer", "The most messages in a second, from 1 to 1000: the first ones of each. Default: 100."},
			},
			answers: map[int]any{200: mediaType{"application/x-ndjson", adminTapped{}}, 400: adminError{}, 404: adminError{}, 429: adminError{}}, handle: (*admin).tap,
		},
		{
			method: "POST", path: "/api/v1/rules/{rule}/explain", token: true, summary: "What the rule makes of a message, and why; nothing is sent, and no module runs",
			body:    adminExplain{},
			answers: map[int]any{200: explanation{}, 400: adminError{}, 404: adminError{}, 413: adminError{}}, handle: (*admin).explain,
		},
		{
			method: "GET", path: "/api/v1/channels", summary: "The messages of every channel",
			answers: map[int]any{200: []adminChannel{}}, handle: (*admin).channels,
		},
		{
			method: "GET", path: "/api/v1/streams", summary: "The entries of every stream, and what its group has before it",
			answers: map[int]any{200: []adminStream{}}, handle: (*admin).streamsNow,
		},
		{
			method: "GET", path: "/api/v1/gaps", summary: "Spans in which messages may have been missed",
			answers: map[int]any{200: adminGaps{}}, handle: (*admin).gaps,
		},
		{
			method: "POST", path: "/api/v1/reload", token: true, summary: "Loads the config file anew, as SIGHUP does, and answers when the new rules are at work",
			answers: map[int]any{200: adminReloaded{}, 422: adminError{}, 503: adminError{}}, handle: (*admin).reloadNow,
		},
		{
			method: "GET", path: "/debug/pprof/{profile}", token: true, summary: "A profile of the process, as Go's net/http/pprof has them",
			query:   []adminParameter{{"seconds", "integer", "For how long to look, where the profile takes time: at most 60."}, {"debug", "integer", "1 or 2 for text."}},
			answers: map[int]any{200: mediaType{name: "application/octet-stream"}, 400: adminError{}, 404: adminError{}}, handle: (*admin).profile,
		},
	}
}

// handler serves every route, and refuses what is none.
func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range adminRoutes() {
		handle := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { route.handle(a, w, r) })
		mux.Handle(route.method+" "+route.path, a.guard(route, handle))
		mux.Handle(route.path, a.guard(route, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", route.method)
			writeError(w, http.StatusMethodNotAllowed, "want "+route.method)
		})))
	}
	mux.Handle("/", a.guard(nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "there is no such path: /api/v1/openapi.json lists what there is")
	})))
	return mux
}

// probe serves what orchestrators ask for. It has nothing to protect but
// itself.
func (a *admin) probe() http.Handler {
	mux := http.NewServeMux()
	deadline := func(handle http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(adminAnswer))
			r.Body = http.MaxBytesReader(w, r.Body, 0)
			handle(w, r)
		})
	}
	mux.Handle("GET /livez", deadline(a.livez))
	mux.Handle("GET /readyz", deadline(a.readyz))
	mux.Handle("GET /metrics", deadline(a.metrics.ServeHTTP))
	return mux
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = printJSON(w, body) // whoever asked has left
}

func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, adminError{Error: text})
}

func (a *admin) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

func (a *admin) readiness() adminReadiness {
	err := a.ready()
	if err == nil {
		return adminReadiness{true, []string{}}
	}
	return adminReadiness{false, strings.Split(err.Error(), "\n")}
}

func (a *admin) readyz(w http.ResponseWriter, _ *http.Request) {
	readiness := a.readiness()
	status := http.StatusOK
	if !readiness.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, readiness)
}

func (a *admin) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(openAPI)
}

func (a *admin) status(w http.ResponseWriter, _ *http.Request) {
	s, c := a.engine.Stats(), a.config()
	status := adminStatus{
		adminReadiness: a.readiness(),
		Version:        version(), Config: c.Path, Started: a.started, Uptime: time.Since(a.started).Seconds(),
		Generation: s.Generation, Reloads: s.Reloads, RefusedReloads: s.RefusedReloads, LastRefusal: newAdminRefusal(s.LastRefusal),
		Rules: len(c.Rules), Linear: s.Linear,
		Evaluations: adminEvaluations(s.Evaluations), Channels: newAdminChannels(&s), Streams: newAdminStreams(a.streams), Modules: []adminModule{}, Webhooks: newAdminWebhooks(c.Webhooks),
		DeadLetters: s.DeadLetters, DeadLettersLost: s.DeadLettersLost, Unrouted: s.Unrouted, Refused: s.Refused, Taken: s.Taken,
		Gaps: s.Gaps, GapTime: s.GapTime.Seconds(), HA: newAdminHA(a.lease), Taps: a.taps.Load(),
	}
	for _, m := range c.Modules() {
		status.Modules = append(status.Modules, newAdminModule(m))
	}
	writeJSON(w, http.StatusOK, status)
}

func (a *admin) rules(w http.ResponseWriter, _ *http.Request) {
	c := a.config()
	rules, err := a.describe(c, c.Rules)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, rules)
}

// describe describes rules of a config.
func (a *admin) describe(c *config.Config, rules []engine.Rule) (adminRules, error) {
	s, now := a.engine.Stats(), time.Now()
	found, err := a.access(c)
	if err != nil {
		return adminRules{}, err
	}
	index := make(map[string]access, len(found))
	for _, f := range found {
		index[f.Rule] = f
	}
	described := adminRules{Generation: s.Generation, Time: now, Rules: []adminRule{}}
	for _, r := range rules {
		rule := newAdminRule(r, index[r.Name], &s)
		rule.Rates = a.rates.of(r.Name, s.Rules[r.Name], now)
		described.Rules = append(described.Rules, rule)
	}
	return described, nil
}

// ruleOf returns the rule that a request's path names, or answers that there is
// none.
func (a *admin) ruleOf(w http.ResponseWriter, r *http.Request) (*config.Config, engine.Rule, bool) {
	c, name := a.config(), r.PathValue("rule")
	i := slices.IndexFunc(c.Rules, func(r engine.Rule) bool { return r.Name == name })
	if i < 0 {
		writeError(w, http.StatusNotFound, fmt.Sprintf("there is no rule %q%s", name, didYouMean(name, c.Table.Rules())))
		return nil, engine.Rule{}, false
	}
	return c, c.Rules[i], true
}

func (a *admin) rule(w http.ResponseWriter, r *http.Request) {
	c, rule, ok := a.ruleOf(w, r)
	if !ok {
		return
	}
	rules, err := a.describe(c, []engine.Rule{rule})
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, rules.Rules[0])
}

func (a *admin) channels(w http.ResponseWriter, _ *http.Request) {
	s := a.engine.Stats()
	writeJSON(w, http.StatusOK, newAdminChannels(&s))
}

func (a *admin) streamsNow(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, newAdminStreams(a.streams))
}

func (a *admin) gaps(w http.ResponseWriter, _ *http.Request) {
	s := a.engine.Stats()
	writeJSON(w, http.StatusOK, newAdminGaps(&s, a.engine.Gaps()))
}

func (a *admin) reloadNow(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(5 * time.Minute)) // it compiles, tests, and waits for messages
	done, err := a.reload(r.Context())
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, done)
	case errors.Is(err, context.Canceled):
		writeError(w, http.StatusServiceUnavailable, "filterd is being stopped")
	default:
		text, problems := refusalText(err)
		writeJSON(w, http.StatusUnprocessableEntity, adminError{text, problems})
	}
}

// tapSign is how often a tap that has nothing to show gives a sign of life.
const tapSign = 5 * time.Second

func (a *admin) tap(w http.ResponseWriter, r *http.Request) {
	_, rule, ok := a.ruleOf(w, r)
	if !ok {
		return
	}
	options := engine.TapOptions{Rule: rule.Name}
	query := r.URL.Query()
	if rate := query.Get("rate"); rate != "" {
		var err error
		if options.Rate, err = strconv.Atoi(rate); err != nil || options.Rate < 1 || options.Rate > 1000 {
			writeError(w, http.StatusBadRequest, "rate: want a number from 1 to 1000")
			return
		}
	}
	if outcomes := query.Get("outcome"); outcomes != "" {
		for outcome := range strings.SplitSeq(outcomes, ",") {
			if !slices.Contains(engine.TapOutcomes[:], engine.TapOutcome(outcome)) {
				writeError(w, http.StatusBadRequest, "outcome: want kept, not_kept, filtered, failed or invalid, with commas between")
				return
			}
			options.Outcomes = append(options.Outcomes, engine.TapOutcome(outcome))
		}
	}
	tap, err := a.engine.Tap(options)
	switch {
	case errors.Is(err, engine.ErrTooManyTaps):
		writeError(w, http.StatusTooManyRequests, err.Error())
		return
	case err != nil: // a reload has just taken it away
		writeError(w, http.StatusNotFound, err.Error())
		return
	}
	defer tap.Close()
	a.taps.Add(1)
	w.Header().Set("Content-Type", "application/x-ndjson")
	response := http.NewResponseController(w)
	sign := time.NewTicker(tapSign)
	defer sign.Stop()
	line := adminTapped{}
	for {
		// Who takes nothing for so long has left, or is too slow.
		if response.SetWriteDeadline(time.Now().Add(adminAnswer)) != nil || printJSON(w, line) != nil || response.Flush() != nil {
			return
		}
		select {
		case seen := <-tap.Seen():
			line = newAdminTapped(seen, tap.Skipped())
		case <-sign.C:
			line = adminTapped{Skipped: tap.Skipped()}
		case <-r.Context().Done():
			return
		}
	}
}

func (a *admin) explain(w http.ResponseWriter, r *http.Request) {
	c, rule, ok := a.ruleOf(w, r)
	if !ok {
		return
	}
	var asked adminExplain
	body := json.NewDecoder(r.Body)
	body.DisallowUnknownFields()
	var large *http.MaxBytesError
	switch err := body.Decode(&asked); {
	case errors.As(err, &large):
		writeError(w, http.StatusRequestEntityTooLarge, tooLarge)
		return
	case err != nil:
		writeError(w, http.StatusBadRequest, "the body: "+err.Error())
		return
	}
	explained, err := a.explainAsked(c, rule, &asked)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, explained)
}

func (a *admin) explainAsked(c *config.Config, rule engine.Rule, asked *adminExplain) (*explanation, error) {
	channel := asked.Channel
	if channel == "" {
		only := slices.DeleteFunc(slices.Clone(rule.From), filterd.IsGlob)
		for _, s := range rule.Streams {
			only = append(only, s.Name)
		}
		only = append(only, rule.Sharded...)
		if len(only) != 1 {
			return nil, fmt.Errorf("channel: the rule takes messages of %s: name one", strings.Join(rule.Sources(), ", "))
		}
		channel = only[0]
	}
	if !takes(rule, channel) {
		return nil, fmt.Errorf("channel: the rule takes no messages of %q, but of %s", channel, strings.Join(rule.Sources(), ", "))
	}
	payload := asked.PayloadBase64
	if asked.Payload != nil {
		payload = []byte(*asked.Payload)
	}
	if asked.Data != nil && payload == nil {
		payload = withEvent(c.Registry, channel, asked.Data)
	} else if asked.Data != nil || payload == nil || asked.Payload != nil && asked.PayloadBase64 != nil {
		return nil, errors.New("want one of payload, payload_base64 and data")
	}
	found, err := a.access(c)
	if err != nil {
		return nil, err
	}
	e := &explanation{access: found[slices.IndexFunc(found, func(f access) bool { return f.Rule == rule.Name })]}
	module, _ := rule.Stage.(*wasmfilter.Module)
	rule.Stage, rule.Key = nil, nil // the module may change its store, which is at work
	m := &filterd.Message{Channel: channel, Payload: payload}
	comeFrom(rule, m)
	if e.Message, err = explainMessage(c.Registry, rule, m); err != nil {
		return nil, err
	}
	if module != nil && !e.Message.Contract.Refused && (e.Message.When == nil || e.Message.When.Kept) {
		e.Message.Stage = &explainedStage{Module: module.Info().Name, Verdict: "not_run", Fields: []explainedField{}}
		e.Message.Outputs, e.Message.Lost, e.Message.Error, e.Message.OnError = []explainedOutput{}, nil, "", ""
	}
	return e, nil
}

// profile serves what net/http/pprof has.
func (a *admin) profile(w http.ResponseWriter, r *http.Request) {
	seconds := 0
	if text := r.URL.Query().Get("seconds"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil || seconds < 0 || seconds > 60 {
			writeError(w, http.StatusBadRequest, "seconds: want a number from 0 to 60")
			return
		}
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Duration(cmp.Or(seconds, 30))*time.Second + adminAnswer))
	switch name := r.PathValue("profile"); name {
	case "profile":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	case "allocs", "block", "goroutine", "heap", "mutex", "threadcreate":
		pprof.Handler(name).ServeHTTP(w, r)
	default:
		writeError(w, http.StatusNotFound, "there is no such profile: want allocs, block, goroutine, heap, mutex, profile, threadcreate or trace")
	}
}
