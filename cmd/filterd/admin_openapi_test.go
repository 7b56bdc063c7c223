package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	generator "github.com/invopop/jsonschema"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var updateFiles = flag.Bool("update", false, "write openapi.json and the files in docs and deploy instead of comparing with them")

// golden compares a file with what it must be.
func golden(t *testing.T, path string, want []byte) {
	t.Helper()
	if *updateFiles {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date: run go test ./cmd/filterd -run Generated -update (-want +got):\n%s", path, diff)
	}
}

// TestOpenAPIIsGenerated holds the file against the routes.
func TestOpenAPIIsGenerated(t *testing.T) {
	schemas := map[string]any{}
	paths := map[string]map[string]any{}
	for _, r := range adminRoutes() {
		operation := map[string]any{"summary": r.summary, "responses": responses(t, r, schemas)}
		if parameters := parameters(r); len(parameters) > 0 {
			operation["parameters"] = parameters
		}
		if r.body != nil {
			operation["requestBody"] = map[string]any{"required": true, "content": content(t, r.body, schemas)}
		}
		switch {
		case r.public:
			operation["security"] = []any{}
		case !r.token:
			operation["security"] = []any{map[string]any{}, map[string]any{"token": []any{}}}
		}
		if paths[r.path] == nil {
			paths[r.path] = map[string]any{}
		}
		paths[r.path][strings.ToLower(r.method)] = operation
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "filterd admin API", "version": "1",
			"description": "Served by filterd run where its config file has the section server. Times are of RFC 3339, spans are in seconds, " +
				"counters count since the daemon has started. What takes no token on loopback takes one where other machines reach the server. " +
				"The Host header must be localhost, an address of the server, or a name of its certificate; an Origin header must be the server's own.",
		},
		"security":   []any{map[string]any{"token": []any{}}},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas, "securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi.json", text.Bytes())
}

// parameters describes what a route takes in its path and query.
func parameters(r *adminRoute) (list []any) {
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(r.path, -1) {
		list = append(list, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	for _, p := range r.query {
		list = append(list, map[string]any{"name": p.name, "in": "query", "description": p.description, "schema": map[string]any{"type": p.kind}})
	}
	return list
}

// guardAnswers are what guard answers on a route, besides the route itself.
func guardAnswers(r *adminRoute) map[int]string {
	answers := map[int]string{403: "The Host or the Origin is not the server's own, or a token is needed and the config file has none."}
	if !r.public {
		answers[401] = "The token is missing or wrong."
	}
	if r.method == "POST" {
		answers[413] = "The body is too large."
		answers[415] = "The body is no JSON."
	}
	return answers
}

func responses(t *testing.T, r *adminRoute, schemas map[string]any) map[string]any {
	all := map[string]any{"default": map[string]any{"description": "A bug.", "content": content(t, adminError{}, schemas)}}
	for status, body := range r.answers {
		all[strconv.Itoa(status)] = map[string]any{"description": http.StatusText(status), "content": content(t, body, schemas)}
	}
	for status, text := range guardAnswers(r) {
		all[strconv.Itoa(status)] = map[string]any{"description": text, "content": content(t, adminError{}, schemas)}
	}
	return all
}

// content describes a body, and adds its types to the schemas.
func content(t *testing.T, body any, schemas map[string]any) map[string]any {
	if media, ok := body.(mediaType); ok {
		described := map[string]any{}
		if media.line != nil {
			described["schema"] = map[string]any{"type": "string", "description": "Lines of JSON, each as the schema " + addSchema(t, media.line, schemas) + " says."}
		}
		return map[string]any{media.name: described}
	}
	if list := reflect.TypeOf(body); list.Kind() == reflect.Slice {
		name := addSchema(t, reflect.Zero(list.Elem()).Interface(), schemas)
		return map[string]any{"application/json": map[string]any{"schema": map[string]any{"type": "array", "items": reference(name)}}}
	}
	return map[string]any{"application/json": map[string]any{"schema": reference(addSchema(t, body, schemas))}}
}

func reference(name string) map[string]any {
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

func addSchema(t *testing.T, value any, schemas map[string]any) (name string) {
	t.Helper()
	r := &generator.Reflector{Anonymous: true, Namer: schemaName}
	text, err := json.Marshal(r.Reflect(value))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("#/$defs/"), []byte("#/components/schemas/")), &schema); err != nil {
		t.Fatal(err)
	}
	maps.Copy(schemas, schema.Defs)
	return schemaName(reflect.TypeOf(value))
}

// schemaName names a type as those who read the file would.
func schemaName(t reflect.Type) string {
	if t.Name() == "" {
		return ""
	}
	name := strings.TrimPrefix(t.Name(), "admin")
	return strings.ToUpper(name[:1]) + name[1:]
}

// TestAdminAnswersAsDocumented asks a daemon for everything, and holds what it
// answers against openapi.json: no path, status or member that the file has not,
// and none in the file that no answer has.
func TestAdminAnswersAsDocumented(t *testing.T) {
	module, err := filepath.Abs("../../wasm-examples/c-filter/filter.wasm")
	if err != nil {
		t.Fatal(err)
	}
	d, url := newAdminDaemon(t, `
ha: {group: prices}
channels:
  in: {max_size: 1KiB, schema: {required: [n]}, dead_letter: dead}
  numbers: {schema: {type: integer}}
  bytes: {envelope: bytes}
  stamped: {stamped: true}
modules: {m: {path: `+module+`}}
webhooks: {h: {url: "https://hook.invalid"}}
rules:
  r: {from: in, when: data.n > 1, to: [v1, {log: debug}], on_error: dead_letter, dead_letter: dead}
  lossy: {from: in, when: data.n > 1, to: v1, on_error: dead_letter, dead_letter: numbers}
  binary: {from: [bytes, stamped], to: v3}
  staged: {from: in, when: data.n > 1, wasm: m, to: v2}
  shadow: {from: in, when: data.n > 1, to: v1, shadow: true}
  stored: {from: {stream: st, group: g}, to: v4}
  posted: {from: nothing, to: {webhook: h}}
`)
	c := newCoverage(t, url)
	tap := openTap(t, url+"/api/v1/rules/r/tap")
	odd := "\xff"
	for _, payload := range []string{`{"n": 2}`, `{"n": 1}`, `{"n": "x"}`, `{}`, odd} {
		d.must(d.rdb.Publish(t.Context(), "in", payload).Err())
		line, text := tap.next()
		if line.Bytes != len(payload) {
			t.Errorf("%q is shown as %s", payload, text)
		}
		c.observe("Tapped", text)
	}
	binary := openTap(t, url+"/api/v1/rules/binary/tap")
	d.must(d.rdb.Publish(t.Context(), "bytes", odd).Err())
	_, text := binary.next()
	c.observe("Tapped", text)
	for _, sequence := range []int{1, 3} {
		event := fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"s","type":"t","producer":"p","sequence":%[1]d}`, sequence)
		d.must(d.rdb.Publish(t.Context(), "stamped", event).Err())
		binary.next()
	}
	d.must(d.rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
	waitUntil(t, "a gap", func() bool { return getJSON[adminGaps](t, request{url: url + "/api/v1/gaps"}).Gaps > 0 })
	waitUntil(t, "ready again", func() bool { status, _ := request{url: url + "/readyz"}.get(t); return status == 200 })
	waitUntil(t, "the module has been called", func() bool {
		return getJSON[adminStatus](t, request{url: url + "/api/v1/status"}).Modules[0].Messages > 0
	})

	// Everything that does not depend on what comes later.
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/api/v1/openapi.json", "/api/v1/rules", "/api/v1/rules/r", "/api/v1/channels", "/api/v1/streams", "/api/v1/gaps"} {
		c.ask(200, request{url: path})
	}
	explain := request{method: "POST", url: "/api/v1/rules/r/explain", token: testToken}
	for _, body := range []string{`{"payload": "{\"n\": 2}"}`, `{"channel": "in", "payload_base64": "/w=="}`, `{"data": {"n": "x"}}`, `{"data": {}}`} {
		explain.body = body
		c.ask(200, explain)
	}
	explain.body, explain.url = `{"data": {"n": 2}}`, "/api/v1/rules/shadow/explain"
	c.ask(200, explain)
	explain.body, explain.url = `{"data": {"n": "x"}}`, "/api/v1/rules/lossy/explain"
	c.ask(200, explain)
	explain.body, explain.url = `{"channel": "bytes", "payload_base64": "/w=="}`, "/api/v1/rules/binary/explain"
	c.ask(200, explain)
	explain.body, explain.url = `{"data": {"n": 2}}`, "/api/v1/rules/staged/explain"
	c.ask(200, explain)
	explain.body = `{"data": {"n": 2}, "payload": ""}`
	c.ask(400, explain)
	explain.body = `{"payload": "` + strings.Repeat("x", maxAdminBody) + `"}`
	c.ask(413, explain)
	explain.url, explain.body = "/api/v1/rules/none/explain", "{}"
	c.ask(404, explain)
	c.ask(404, request{url: "/api/v1/rules/none"})
	c.ask(404, request{url: "/api/v1/rules/none/tap", token: testToken})
	c.ask(400, request{url: "/api/v1/rules/r/tap?rate=0", token: testToken})
	for range 14 {
		openTap(t, url+"/api/v1/rules/r/tap?outcome=failed&rate=1")
	}
	c.ask(429, request{url: "/api/v1/rules/r/tap", token: testToken})
	c.saw("GET /api/v1/rules/{rule}/tap", 200)
	c.ask(200, request{url: "/debug/pprof/heap", token: testToken})
	c.ask(404, request{url: "/debug/pprof/none", token: testToken})
	c.ask(400, request{url: "/debug/pprof/profile?seconds=61", token: testToken})

	// What the guard refuses, on every path. Where other machines don't reach
	// the server most paths take no token: see TestAdminForOtherMachines.
	for _, r := range adminRoutes() {
		at := request{method: r.method, url: strings.NewReplacer("{rule}", "r", "{profile}", "heap").Replace(r.path), token: testToken}
		at.header = map[string]string{"Host": "evil.example"}
		c.ask(403, at)
		if r.token {
			at.header, at.token = nil, "wrong"
			c.ask(401, at)
		} else if !r.public {
			c.saw(r.method+" "+r.path, 401)
		}
		if r.method == "POST" {
			at.token, at.header = testToken, map[string]string{"Content-Type": "text/plain"}
			c.ask(415, at)
			at.header, at.body = nil, strings.Repeat(" ", maxAdminBody+1)
			c.ask(413, at)
		}
	}

	reload := request{method: "POST", url: "/api/v1/reload", token: testToken}
	file := "redis: {url: \"${REDIS_URL}\"}\n" + adminSection
	d.write("filterd.yaml", file+"rules: {r: {from: in, when: data.n >, to: v1, on_eror: drop}}\n")
	c.ask(422, reload)
	c.ask(200, request{url: "/api/v1/status"})
	d.write("filterd.yaml", file+"rules: {r: {from: in, to: v1}, stored: {from: {stream: other}, to: v4}}\n")
	c.ask(200, reload)
	c.saw("POST /api/v1/reload", 503) // takes a daemon that is being stopped
	d.server.Stop()
	waitUntil(t, "not ready", func() bool { status, _ := request{url: url + "/readyz"}.get(t); return status == 503 })
	c.ask(503, request{url: "/readyz"})
	waitUntil(t, "the stream can't be read", func() bool {
		_, text := request{url: url + "/readyz"}.get(t)
		return strings.Contains(text, `stream \"other\"`)
	})
	c.ask(200, request{url: "/api/v1/streams"})
	c.check()
}

// coverage remembers what of openapi.json was answered.
type coverage struct {
	*testing.T
	url      string
	document map[string]any
	compiler *jsonschema.Compiler
	answered map[string]bool // "GET /path 200"
	members  map[string]bool // "Schema.member"
}

func newCoverage(t *testing.T, url string) *coverage {
	c := &coverage{T: t, url: url, compiler: jsonschema.NewCompiler(), answered: map[string]bool{}, members: map[string]bool{}}
	if err := json.Unmarshal(openAPI, &c.document); err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.compiler.AddResource("openapi.json", document); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *coverage) at(keys ...string) any {
	value := any(c.document)
	for _, key := range keys {
		object, _ := value.(map[string]any)
		value = object[key]
	}
	return value
}

// ask sends a request and holds the answer against the file.
func (c *coverage) ask(status int, r request) {
	c.Helper()
	path, _, _ := strings.Cut(r.url, "?")
	r.url = c.url + r.url
	response := r.do(c)
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		c.Fatal(err)
	}
	if response.StatusCode != status {
		c.Errorf("%s %s: %d %s, want %d", r.method, path, response.StatusCode, body.String(), status)
		return
	}
	var route *adminRoute
	for _, candidate := range adminRoutes() {
		if regexp.MustCompile("^" + regexp.MustCompile(`\{\w+\}`).ReplaceAllString(candidate.path, `[^/]+`) + "$").MatchString(path) {
			route = candidate
		}
	}
	if route == nil {
		c.Fatalf("%s is no path", path)
	}
	answer := c.at("paths", route.path, strings.ToLower(route.method), "responses", strconv.Itoa(status), "content")
	media, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	described, ok := answer.(map[string]any)[media].(map[string]any)
	if !ok {
		c.Errorf("%s %s: %d is %s, and the file says %v", route.method, route.path, status, media, answer)
		return
	}
	c.saw(route.method+" "+route.path, status)
	schema, _ := described["schema"].(map[string]any)
	if items, ok := schema["items"].(map[string]any); ok {
		var list []json.RawMessage
		if err := json.Unmarshal(body.Bytes(), &list); err != nil || len(list) == 0 {
			c.Errorf("%s: no list: %s", path, body.String())
		}
		for _, item := range list {
			c.observe(name(items), string(item))
		}
	} else if schema != nil {
		c.observe(name(schema), body.String())
	}
}

func name(reference map[string]any) string {
	return strings.TrimPrefix(fmt.Sprint(reference["$ref"]), "#/components/schemas/")
}

func (c *coverage) saw(path string, status int) { c.answered[fmt.Sprint(path, " ", status)] = true }

// observe holds a document against its schema, and notes its members.
func (c *coverage) observe(schema, text string) {
	c.Helper()
	compiled, err := c.compiler.Compile("openapi.json#/components/schemas/" + schema)
	if err != nil {
		c.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err == nil {
		err = compiled.Validate(document)
	}
	if err != nil {
		c.Errorf("%s is no %s: %v", text, schema, err)
		return
	}
	c.note(map[string]any{"$ref": "#/components/schemas/" + schema}, document)
}

// note notes the members of a document that a schema names.
func (c *coverage) note(schema map[string]any, document any) {
	if schema["$ref"] != nil {
		at := name(schema)
		schema, _ = c.at("components", "schemas", at).(map[string]any)
		if members, ok := document.(map[string]any); ok {
			for member := range members {
				c.members[at+"."+member] = true
			}
		}
	}
	switch document := document.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for member, value := range document {
			if of, ok := properties[member].(map[string]any); ok {
				c.note(of, value)
			}
		}
	case []any:
		if items, ok := schema["items"].(map[string]any); ok {
			for _, item := range document {
				c.note(items, item)
			}
		}
	}
}

// offline is what only the command explain shows, which runs modules.
var offline = []string{
	"ExplainedField.path", "ExplainedField.value", "ExplainedStage.emitted", "ExplainedStage.error",
	"ExplainedStage.payload", "ExplainedStage.payload_base64", "Delivery.rule", "Delivery.to", "Delivery.payload", "Delivery.payload_base64", "Delivery.shadow",
}

// check reports what of the file nobody has answered.
func (c *coverage) check() {
	for path, operations := range c.at("paths").(map[string]any) {
		for method, operation := range operations.(map[string]any) {
			for status := range operation.(map[string]any)["responses"].(map[string]any) {
				if at := strings.ToUpper(method) + " " + path + " " + status; status != "default" && !c.answered[at] {
					c.Errorf("nobody answers %s", at)
				}
			}
		}
	}
	var missing []string
	for name, schema := range c.at("components", "schemas").(map[string]any) {
		if name == schemaName(reflect.TypeFor[adminExplain]()) {
			continue // it is asked, not answered
		}
		properties, _ := schema.(map[string]any)["properties"].(map[string]any)
		for member := range properties {
			if !c.members[name+"."+member] && !slices.Contains(offline, name+"."+member) {
				missing = append(missing, name+"."+member)
			}
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		c.Errorf("no answer has %s", strings.Join(missing, ", "))
	}
}
