package filterd_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/filterd/filterd"
)

// checkRaw holds a raw payload against a schema.
func checkRaw(t testing.TB, s *filterd.Schema, payload string) string {
	t.Helper()
	r := registry(t, filterd.Contract{Channel: "c", Envelope: filterd.EnvelopeRaw, Schema: s})
	return complaint(t, r.Check(&filterd.Message{Channel: "c", Payload: []byte(payload)}))
}

const priceSchema = `{
	"type": "object",
	"required": ["symbol", "price"],
	"properties": {
		"symbol": {"type": "string", "minLength": 1, "pattern": "^[A-Z-]+$"},
		"price": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.01},
		"tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
		"a/b~c": {"const": 1}
	},
	"additionalProperties": false
}`

// TestSchemaFailures checks that every failure is reported, at its pointer, in
// the order of the pointers.
func TestSchemaFailures(t *testing.T) {
	s := schema(t, priceSchema)
	for payload, want := range map[string]string{
		`{"symbol":"A","price":0.07}`:          "",
		`{"symbol":"A","price":1e2,"tags":[]}`: "",
		`1`:                                    "got number, want object",
		`{}`:                                   "missing properties 'symbol', 'price'",
		`{"symbol":"A","price":"1"}`:           "/price: got string, want number",
		`{"symbol":"","price":-0.001}`:         "/price: exclusiveMinimum: got -0.001, want 0; /price: multipleOf: got -0.001, want 0.01; /symbol: '' does not match pattern '^[A-Z-]+$'; /symbol: minLength: got 0, want 1",
		`{"symbol":"A","price":1,"a/b~c":2}`:   "/a~1b~0c: value must be 1",
		`{"symbol":"A","price":1,"tags":["a",1,2]}`:     "/tags/1: got number, want string; /tags/2: got number, want string",
		`{"symbol":"A","price":1,"tags":["a","b","a"]}`: "/tags: items at 0 and 2 are equal",
		`{"symbol":"A","price":1,"z":1,"x":1,"y":1}`:    "additional properties 'x', 'y', 'z' not allowed",
		`{"price":1,"x":1,"symbol":7}`:                  "additional properties 'x' not allowed; /symbol: got number, want string",
		`{"symbol":"A","price":1,"tags":[1,2,3,4,5,6,7,8,9,0,1,2]}`: "/tags: items at 0 and 10 are equal; " +
			"/tags/0: got number, want string; /tags/1: got number, want string; /tags/2: got number, want string; " +
			"/tags/3: got number, want string; /tags/4: got number, want string; /tags/5: got number, want string; " +
			"/tags/6: got number, want string; /tags/7: got number, want string; /tags/8: got number, want string; " +
			"/tags/9: got number, want string; /tags/10: got number, want string; /tags/11: got number, want string",
	} {
		if want != "" {
			want = "schema: " + want
		}
		for i := 0; i < 10 && !t.Failed(); i++ { // the library goes through maps
			same(t, payload, checkRaw(t, s, payload), want)
		}
	}
}

// TestSchemaPointers checks that pointers lead into the payload.
func TestSchemaPointers(t *testing.T) {
	s := schema(t, `{"type":"object","required":["p"],"properties":{"p":{"type":"number"}}}`)
	for _, c := range []struct {
		envelope      filterd.Envelope
		payload, want string
	}{
		{filterd.EnvelopeRaw, `{"p":"x"}`, "schema: /p: got string, want number"},
		{filterd.EnvelopeAuto, `{"p":"x"}`, "schema: /p: got string, want number"},
		{filterd.EnvelopeAuto, eventWith("data", `{"p":"x"}`), "schema: /data/p: got string, want number"},
		{filterd.EnvelopeCloudEvents, eventWith("data", `{"p":"x"}`), "schema: /data/p: got string, want number"},
		{filterd.EnvelopeCloudEvents, eventWith("data", `{}`), "schema: /data: missing property 'p'"},
		{filterd.EnvelopeCloudEvents, eventWith("data", `null`), "schema: /data: got null, want object"},
		{filterd.EnvelopeCloudEvents, minimal, "schema: /data: got null, want object"},
		{filterd.EnvelopeCloudEvents, eventWith("data_base64", `"AA=="`), "schema: /data_base64: got string, want object"},
		{filterd.EnvelopeRaw, `"x"`, "schema: got string, want object"},
		{filterd.EnvelopeBytes, `{"p":1}`, "schema: got string, want object"},
	} {
		r := registry(t, filterd.Contract{Channel: "c", Envelope: c.envelope, Schema: s})
		same(t, c.payload, complaint(t, r.Check(&filterd.Message{Channel: "c", Payload: []byte(c.payload)})), c.want)
	}
}

// TestSchemaComposition has the keywords that hold schemas.
func TestSchemaComposition(t *testing.T) {
	for _, c := range []struct{ schema, payload, want string }{
		{`{"anyOf":[{"type":"string"},{"type":"string","minLength":2}]}`, `1`, "got number, want string"},
		{`{"anyOf":[{"required":["a"]},{"properties":{"b":{"const":1}},"required":["b"]}]}`, `{"b":2}`, "missing property 'a'; /b: value must be 1"},
		{`{"oneOf":[{"type":"number"},{"type":"integer"}]}`, `1`, "'oneOf' failed, subschemas 0, 1 matched"},
		{`{"not":{"type":"number"}}`, `1`, "'not' failed"},
		{`{"properties":{"a":false}}`, `{"a":1}`, "/a: false schema"},
		{`{"propertyNames":{"maxLength":1}}`, `{"ab":1}`, "invalid propertyName 'ab'"},
		{`{"propertyNames":{"maxLength":1,"pattern":"^a$"}}`, `{"bc":1,"a":2}`, "invalid propertyName 'bc'"},
		{`{"dependentRequired":{"a":["b"],"c":["d"]}}`, `{"a":1,"c":1}`,
			"properties 'b' required, if 'a' exists; properties 'd' required, if 'c' exists"},
		{`{"$defs":{"n":{"type":"number"}},"items":{"$ref":"#/$defs/n"}}`, `["a",1]`, "/0: got string, want number"},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"properties":{"next":{"$ref":"#/$defs/a"}},"required":["v"]}}}`, `{"v":1,"next":{"v":1,"next":{}}}`, "/next/next: missing property 'v'"},
		{`{"unevaluatedProperties":false,"properties":{"a":{}}}`, `{"a":1,"b":1}`, "/b: false schema"},
		{`{"prefixItems":[{"type":"string"}],"items":false}`, `["a",1]`, "/1: false schema"},
		{`true`, `1`, ""},
		{`false`, `1`, "false schema"},
		{`{"const":9007199254740993}`, `9007199254740992`, "value must be 9007199254740993"},
		{`{"type":"integer"}`, `1.0`, ""},
	} {
		want := c.want
		if want != "" {
			want = "schema: " + want
		}
		for i := 0; i < 10 && !t.Failed(); i++ {
			same(t, c.schema+" "+c.payload, checkRaw(t, schema(t, c.schema), c.payload), want)
		}
	}
}

// TestSchemaFormats checks that formats are asserted.
func TestSchemaFormats(t *testing.T) {
	for _, c := range []struct{ format, valid, invalid, want string }{
		{"date-time", "2024-02-29T12:00:00Z", "2024-02-30T12:00:00Z", "'2024-02-30T12:00:00Z' is not valid date-time: invalid date element: parsing time \"2024-02-30\": day out of range"},
		{"email", "a@b.example", "a", "'a' is not valid email: missing @"},
		{"uuid", "6e8bc430-9c3a-11d9-9669-0800200c9a66", "6e8b", "'6e8b' is not valid uuid: must have 5 elements"},
		{"ipv4", "127.0.0.1", "127.0.0", "'127.0.0' is not valid ipv4: expected four decimals"},
	} {
		s := schema(t, `{"format":"`+c.format+`"}`)
		same(t, c.format, checkRaw(t, s, `"`+c.valid+`"`), "")
		same(t, c.format, checkRaw(t, s, `"`+c.invalid+`"`), "schema: "+c.want)
		same(t, c.format, checkRaw(t, s, `1`), "")
	}
}

// TestSchemaCaps checks what a hostile message can make an error say.
func TestSchemaCaps(t *testing.T) {
	numbers := "[" + strings.Repeat("1,", 9_999) + "1]"
	got := checkRaw(t, schema(t, `{"items":{"type":"string"}}`), numbers)
	same(t, "failures", strings.Count(got, "got number, want string"), 100)
	if want := "/99: got number, want string; and 9900 more failures"; !strings.HasSuffix(got, want) {
		t.Errorf("ends in %q, want %q", got[len(got)-60:], want)
	}

	long := strings.Repeat("x", 100_000)
	got = checkRaw(t, schema(t, `{"pattern":"^y"}`), `"`+long+`"`)
	same(t, "long value", got, "schema: '"+long[:255]+"…")
	got = checkRaw(t, schema(t, `{"additionalProperties":{"type":"string"}}`), `{"`+long+`":1}`)
	same(t, "long name", got, "schema: /"+long[:1023]+"…: got number, want string")

	// Ten thousand failures, each at a pointer of 500 kB.
	s := schema(t, `{"additionalProperties":{"items":{"type":"string"}}}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got = checkRaw(t, s, `{"`+strings.Repeat(long, 5)+`":`+numbers+`}`)
	runtime.ReadMemStats(&after)
	if n := len(got); n > 120_000 {
		t.Errorf("an error of %d bytes", n)
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 200<<20 {
		t.Errorf("%d MiB for the error of a message of 520 kB", spent>>20)
	}
}

// folder writes files and returns their folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLoadSchema(t *testing.T) {
	root := folder(t, map[string]string{
		"a b/price.json":     `{"properties":{"p":{"$ref":"parts/num.json#/$defs/n"},"q":{"$ref":"parts/str.json"},"r":{"$ref":"./price.json#/$defs/s"}},"$defs":{"s":{"const":1}}}`,
		"a b/parts/num.json": `{"$defs":{"n":{"type":"number"}}}`,
		"a b/parts/str.json": `{"$ref":"../strings.json"}`,
		"a b/strings.json":   `{"type":"string"}`,
	})
	s, err := filterd.LoadSchema(filepath.Join(root, "a b", "price.json"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "name", s.String(), "price.json")
	same(t, "valid", checkRaw(t, s, `{"p":1,"q":"x","r":1}`), "")
	same(t, "invalid", checkRaw(t, s, `{"p":"x","q":1,"r":2}`), "schema: /p: got string, want number; /q: got number, want string; /r: value must be 1")

	s, err = filterd.ParseSchemaIn(filepath.Join(root, "a b"), "inline", []byte(`{"$ref":"parts/num.json#/$defs/n"}`))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "invalid", checkRaw(t, s, `"x"`), "schema: got string, want number")
}

// TestSchemaConfinement checks that no $ref leads out of the folder.
func TestSchemaConfinement(t *testing.T) {
	root := folder(t, map[string]string{
		"secret.json":             `{"const":"leaked"}`,
		"schemas/secret.json":     `{"const":"another"}`,
		"schemas/sub/secret.json": `{"const":"another"}`,
	})
	inside := filepath.Join(root, "schemas")
	if err := os.Symlink(filepath.Join(root, "secret.json"), filepath.Join(inside, "link.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(inside, "up")); err != nil {
		t.Fatal(err)
	}
	absolute := filepath.ToSlash(filepath.Join(root, "secret.json"))
	for _, ref := range []string{
		"../secret.json",
		"sub/../../secret.json",
		"%2e%2e/secret.json",
		"..%2fsecret.json",
		"sub/..%2f..%2fsecret.json",
		absolute,
		"file://" + absolute,
		"//" + absolute,
		"link.json",
		"up/secret.json",
		"http://127.0.0.1:1/secret.json",
		"https://example.com/secret.json",
		"urn:secret",
		"filterd:///../secret.json",
		"filterd://host/secret.json",
		`..\\secret.json`,
	} {
		source := []byte(`{"$ref":"` + ref + `"}`)
		if _, err := filterd.ParseSchemaIn(inside, "test.json", source); err == nil {
			t.Errorf("$ref %s was followed", ref)
		} else if strings.Contains(err.Error(), "filterd:///") {
			t.Errorf("$ref %s: a private URL in %q", ref, err)
		}
		if _, err := filterd.ParseSchema("test.json", source); err == nil {
			t.Errorf("$ref %s was followed without a folder", ref)
		}
	}
}

func TestSchemaErrors(t *testing.T) {
	for source, want := range map[string]string{
		``:                    "test/a b.json: not JSON: the payload is empty",
		`{`:                   "test/a b.json: not JSON: it ends too early",
		`{"type":"object",}`:  "test/a b.json: not JSON: invalid character '}' looking for beginning of object key string at byte 18",
		`{"type":"object"} x`: "test/a b.json: not JSON: invalid character after top-level value",
		`1`:                   "test/a b.json is not a valid JSON Schema: got number, want boolean or object",
		`{"type":"text"}`: "test/a b.json is not a valid JSON Schema: /type: got string, want array; " +
			"/type: value must be one of 'array', 'boolean', 'integer', 'null', 'number', 'object', 'string'",
		`{"minLength":-1,"required":1}`: "test/a b.json is not a valid JSON Schema: /minLength: minimum: got -1, want 0; /required: got number, want array",
		`{"pattern":"("}`: "test/a b.json is not a valid JSON Schema: " +
			"/pattern: '(' is not valid regex: error parsing regexp: missing closing ): `(`",
		`{"$ref":"#/$defs/x"}`:  `test/a b.json: json-pointer in "test/a b.json#/$defs/x" not found`,
		`{"$ref":"other.json"}`: "test/a b.json: other.json: a $ref of this schema stays within it",
		`{"$ref":"../up.json"}`: "test/a b.json: /up.json: a $ref of this schema stays within it",
		`{"$ref":"http://x/y"}`: "test/a b.json: http://x/y: a $ref of this schema stays within it",
	} {
		_, err := filterd.ParseSchema("test/a b.json", []byte(source))
		same(t, source, text(err), "schema "+want)
	}
}

func TestLoadSchemaErrors(t *testing.T) {
	root := folder(t, map[string]string{
		"a.json":      `{"$ref":"b.json"}`,
		"broken.json": `{"$ref":"half.json"}`,
		"half.json":   `{`,
		"up.json":     `{"$ref":"../b.json"}`,
		"web.json":    `{"$ref":"http://x/y"}`,
	})
	for name, want := range map[string]string{
		"a.json":       "schema a.json: b.json: no such file or directory",
		"broken.json":  "schema broken.json: half.json: not JSON: it ends too early",
		"half.json":    "schema half.json: not JSON: it ends too early",
		"up.json":      "schema up.json: /b.json: a $ref stays within the schema's folder",
		"web.json":     "schema web.json: http://x/y: a $ref stays within the schema's folder",
		"missing.json": "open ROOT/missing.json: no such file or directory",
	} {
		_, err := filterd.LoadSchema(filepath.Join(root, name))
		same(t, name, strings.ReplaceAll(text(err), root, "ROOT"), want)
		same(t, name+" is missing", errors.Is(err, fs.ErrNotExist), strings.HasSuffix(want, "no such file or directory"))
	}
	_, err := filterd.ParseSchemaIn(filepath.Join(root, "none"), "x", []byte(`{}`))
	same(t, "no folder", strings.ReplaceAll(text(err), root, "ROOT"), "open ROOT/none: no such file or directory")
}

// Data that is nested deeply fails where the schema refers to itself, in time
// and memory that grow as the payload does.
func TestSchemaRecursion(t *testing.T) {
	s, err := filterd.ParseSchema("tree", []byte(`{"type":"array","items":{"$ref":"#"}}`))
	if err != nil {
		t.Fatal(err)
	}
	registry, err := filterd.NewRegistry(filterd.Contract{Channel: "c", Schema: s})
	if err != nil {
		t.Fatal(err)
	}
	nested := func(levels int) []byte {
		return []byte(strings.Repeat(`[1,`, levels) + `[]` + strings.Repeat(`]`, levels))
	}
	for levels, want := range map[int]string{
		2:    "c: schema: /0: got number, want array; /1/0: got number, want array",
		129:  "c: schema: nested more than 128 levels deep: a schema checks no more",
		9000: "c: schema: nested more than 128 levels deep: a schema checks no more",
	} {
		if err := registry.Check(&filterd.Message{Channel: "c", Payload: nested(levels)}); err == nil || err.Error() != want {
			t.Errorf("%d levels: %v", levels, err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	payload := nested(127)
	if err := registry.Check(&filterd.Message{Channel: "c", Payload: payload}); err == nil {
		t.Error("127 levels: no failure")
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > uint64(4000*len(payload)) {
		t.Errorf("%d bytes for a payload of %d", grown, len(payload))
	}
}
