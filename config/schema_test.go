package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	generator "github.com/invopop/jsonschema"
)

var update = flag.Bool("update", false, "write the golden files and the JSON Schema instead of comparing with them")

const schemaFile = "filterd.schema.json"

func TestSchemaIsGenerated(t *testing.T) {
	want := generateSchema(t)
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), string(Schema())); diff != "" {
		t.Errorf("%s is not what spec.go says: run go test ./config -update (-want +got):\n%s", schemaFile, diff)
	}
}

// TestEveryKeyIsRead puts a value of no use to anyone under every key of the
// spec: one that nobody reads would go unnoticed.
func TestEveryKeyIsRead(t *testing.T) {
	for _, section := range []struct {
		key, text string
		keys      []string
	}{
		{"", "%s: [[1]]\n", fileKeys},
		{"redis.", "redis: {%s: [[1]]}\n", redisKeys},
		{"redis.tls.", "redis: {tls: {%s: [[1]]}}\n", tlsKeys},
		{"server.", "server: {%s: [[1]]}\n", serverKeys},
		{"ha.", "ha: {%s: [[1]]}\n", haKeys},
		{"traces.", "traces: {%s: [[1]]}\n", tracesKeys},
		{"server.tls.", "server: {tls: {%s: [[1]]}}\n", serverTLSKeys},
		{"channels.c.", "channels: {c: {%s: [[1]]}}\n", channelKeys},
		{"channels.c.validate.", "channels: {c: {validate: {%s: [[1]]}}}\n", validateKeys},
		{"modules.m.", "modules: {m: {%s: [[.nan]]}}\n", moduleKeys},
		{"rules.r.", "rules: {r: {%s: [[1]]}}\n", ruleKeys},
		{"rules.r.to.", "rules: {r: {to: {%s: [[1]]}}}\n", targetKeys},
		{"rules.r.tests[0].", "rules: {r: {tests: [{%s: [[.nan]]}]}}\n", testKeys},
	} {
		for _, key := range section.keys {
			_, err := parse(fmt.Sprintf(section.text, key))
			var of *Error
			found := errors.As(err, &of) && slices.ContainsFunc(of.Problems, func(p Problem) bool {
				return strings.HasPrefix(p.Key, section.key+key) && p.Message != "unknown key"
			})
			if !found {
				t.Errorf("%s%s: %v", section.key, key, err)
			}
		}
	}
}

// generateSchema makes the JSON Schema of the spec's types.
func generateSchema(t *testing.T) []byte {
	t.Helper()
	s := object(&fileSpec{})
	s.Version = generator.Version
	s.Title = "filterd"
	s.Description = "The rules of filterd, and what they need: where Redis is, and what the messages of channels must be."
	if channels, ok := s.Properties.Get("channels"); ok {
		channels.AdditionalProperties = anyOf(channels.AdditionalProperties, &generator.Schema{Type: "null"}) // declared, and no more
	}
	if rules, ok := s.Properties.Get("rules"); ok {
		rules.MinProperties = pointer(1)
	}
	var undocumented func(key string, s *generator.Schema)
	undocumented = func(key string, s *generator.Schema) {
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			if p.Value.Description == "" {
				t.Errorf("%s.%s has no description", key, p.Key)
			}
			undocumented(key+"."+p.Key, p.Value)
		}
		if s.AdditionalProperties != nil {
			undocumented(key+".*", s.AdditionalProperties)
		}
	}
	undocumented("", s)
	compact, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(indented.Bytes(), '\n')
}

// What the Go types of the spec can't say.

func (word) JSONSchema() *generator.Schema { return anyText() }

func (password) JSONSchema() *generator.Schema {
	return &generator.Schema{Type: "string", Pattern: reference}
}

func (secrets) JSONSchema() *generator.Schema {
	key := password("").JSONSchema()
	return anyOf(key, &generator.Schema{Type: "array", Items: key, MinItems: pointer(1), MaxItems: pointer(2)})
}

func (headers) JSONSchema() *generator.Schema {
	return &generator.Schema{Type: "object", AdditionalProperties: anyOf(password("").JSONSchema())}
}

func (boolean) JSONSchema() *generator.Schema {
	return orReference(&generator.Schema{Type: "boolean"})
}
func (integer) JSONSchema() *generator.Schema {
	return orReference(&generator.Schema{Type: "integer", Minimum: "0"})
}
func (redisMode) JSONSchema() *generator.Schema    { return orReference(oneOf(redisModes)) }
func (envelope) JSONSchema() *generator.Schema     { return orReference(oneOf(envelopes)) }
func (contractName) JSONSchema() *generator.Schema { return orReference(oneOf(contractNames)) }
func (profile) JSONSchema() *generator.Schema      { return oneOf(profiles) }
func (onError) JSONSchema() *generator.Schema      { return oneOf(onErrors) }
func (overflow) JSONSchema() *generator.Schema     { return oneOf(overflows) }
func (kv) JSONSchema() *generator.Schema           { return oneOf(kvs) }
func (loop) JSONSchema() *generator.Schema         { return oneOf(loops) }
func (traceparent) JSONSchema() *generator.Schema  { return orReference(oneOf(traceparents)) }
func (logLevel) JSONSchema() *generator.Schema     { return oneOf(logLevels) }
func (duration) JSONSchema() *generator.Schema     { return orReference(durationText()) }
func (names) JSONSchema() *generator.Schema        { return oneOrMore(anyText()) }
func (anything) JSONSchema() *generator.Schema     { return &generator.Schema{} }

func (condition) JSONSchema() *generator.Schema {
	return anyOf(anyText(), &generator.Schema{Type: "boolean"})
}

func (schemaSource) JSONSchema() *generator.Schema {
	return anyOf(anyText(), &generator.Schema{Type: "object"})
}

func (validateMode) JSONSchema() *generator.Schema {
	return anyOf(orReference(oneOf([]string{"enforce", "off"})), object(&sampleSpec{}))
}

func (byteSize) JSONSchema() *generator.Schema {
	return anyOf(
		&generator.Schema{Type: "integer", Minimum: "1"},
		&generator.Schema{Type: "string", Pattern: `^[0-9_]+ *(B|KiB|MiB)?$`},
		&generator.Schema{Type: "string", Pattern: reference},
	)
}

func (members) JSONSchema() *generator.Schema {
	return &generator.Schema{
		Type:          "object",
		MinProperties: pointer(1),
		AdditionalProperties: anyOf(anyText(), &generator.Schema{Type: "number"}, &generator.Schema{Type: "boolean"},
			&generator.Schema{Type: "null"}),
	}
}

func (sources) JSONSchema() *generator.Schema {
	return oneOrMore(anyOf(anyText(), object(&streamSourceSpec{}), object(&shardedSourceSpec{})))
}

func (deadLetter) JSONSchema() *generator.Schema {
	return anyOf(anyText(), object(&deadLetterSpec{}))
}

func durationText() *generator.Schema {
	return &generator.Schema{Type: "string", Pattern: `^([0-9.]+(ms|s|m|h))+$`}
}

func (targets) JSONSchema() *generator.Schema {
	s := oneOrMore(anyOf(anyText(), object(&streamSpec{}), object(&shardedSpec{}), object(&webhookTargetSpec{}), object(&callbackSpec{}), object(&logSpec{})))
	s.AnyOf[len(s.AnyOf)-1].MaxItems = pointer(32)
	return s
}

func (outcome) JSONSchema() *generator.Schema {
	s := anyOf(anyText(), &generator.Schema{Type: "object", AdditionalProperties: &generator.Schema{}})
	s.AnyOf = append(s.AnyOf, &generator.Schema{Type: "array", Items: anyOf(s.AnyOf...)})
	return s
}

func (attributes) JSONSchema() *generator.Schema {
	return &generator.Schema{Type: "object", AdditionalProperties: anyOf(&generator.Schema{Type: "string"}, &generator.Schema{Type: "integer"}, &generator.Schema{Type: "boolean"})}
}

func (instant) JSONSchema() *generator.Schema {
	return &generator.Schema{Type: "string", Format: "date-time"}
}

const reference = `\$\{.+\}`

func anyText() *generator.Schema {
	return &generator.Schema{Type: "string", MinLength: pointer(1)}
}

func pointer(n uint64) *uint64 { return &n }

// anyOf joins alternatives, one level deep.
func anyOf(schemas ...*generator.Schema) *generator.Schema {
	var flat []*generator.Schema
	for _, s := range schemas {
		if s.AnyOf != nil {
			flat = append(flat, s.AnyOf...)
		} else {
			flat = append(flat, s)
		}
	}
	return &generator.Schema{AnyOf: flat}
}

func oneOf(words []string) *generator.Schema {
	s := &generator.Schema{Type: "string"}
	for _, w := range words {
		s.Enum = append(s.Enum, w)
	}
	return s
}

// orReference adds references to variables to what is not free text.
func orReference(s *generator.Schema) *generator.Schema {
	return anyOf(s, &generator.Schema{Type: "string", Pattern: reference})
}

func oneOrMore(s *generator.Schema) *generator.Schema {
	return anyOf(s, &generator.Schema{Type: "array", Items: s, MinItems: pointer(1)})
}

func object(spec any) *generator.Schema {
	s := (&generator.Reflector{DoNotReference: true, Anonymous: true}).Reflect(spec)
	s.Version = ""
	addDefaults(s, reflect.TypeOf(spec))
	return s
}

// addDefaults copies the spec's tags. The generator has its own, but only for
// plain types.
func addDefaults(s *generator.Schema, spec reflect.Type) {
	for spec.Kind() == reflect.Pointer || spec.Kind() == reflect.Map || spec.Kind() == reflect.Slice {
		if spec.Kind() == reflect.Map && s != nil {
			s = s.AdditionalProperties
		} else if spec.Kind() == reflect.Slice && s != nil {
			s = s.Items
		}
		spec = spec.Elem()
	}
	if s == nil || spec.Kind() != reflect.Struct {
		return
	}
	for i := range spec.NumField() {
		field := spec.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		property, ok := s.Properties.Get(name)
		if !ok {
			continue
		}
		if text, ok := field.Tag.Lookup("default"); ok {
			if err := json.Unmarshal([]byte(text), &property.Default); err != nil {
				property.Default = text
			}
		}
		addDefaults(property, field.Type)
	}
}
