package filterd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestDataType: what is known of the member "x", and of the data itself.
func TestDataType(t *testing.T) {
	for _, test := range []struct{ schema, want string }{
		{`true`, "any; x: open any"},
		{`{}`, "any; x: open any"},
		{`{"type": "object"}`, "object; x: open any"},
		{`{"properties": {"x": {"type": "integer"}}}`, "any; x: known number"},
		{`{"properties": {"x": {"type": ["string", "null"]}}, "required": ["x"]}`, "any; x: known required null string"},
		{`{"properties": {"y": true}}`, "any; x: unnamed any"},
		{`{"properties": {"y": true}, "additionalProperties": true}`, "any; x: unnamed any"},
		{`{"properties": {"y": true}, "additionalProperties": false}`, "any; x: excluded any"},
		{`{"properties": {"y": true}, "additionalProperties": {"type": "number"}}`, "any; x: known number"},
		{`{"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": false}`, "any; x: known string"},
		{`{"properties": {"x": {"enum": ["a", 1, 2.5, null, true]}}}`, "any; x: known null bool number string [a 1 2.5 <nil> true]"},
		{`{"properties": {"x": {"enum": ["a", "b"], "const": "b"}}}`, "any; x: known string [b]"},
		{`{"properties": {"x": {"enum": ["a", {}]}}}`, "any; x: known string object"},
		{`{"properties": {"x": {"anyOf": [{"const": 1}, {"enum": ["a"]}]}}}`, "any; x: known number string [1 a]"},
		{`{"properties": {"x": {"oneOf": [{"const": 1}, {"type": "string"}]}}}`, "any; x: known number string"},
		{`{"properties": {"x": {"not": {"type": "string"}}}}`, "any; x: known any"},
		{`{"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/b"}}}, "b": {"type": "string"}}}`, "any; x: known string"},
		{`{"allOf": [{"properties": {"x": {"type": ["string", "number"]}}}, {"properties": {"x": {"type": ["number", "null"]}}, "required": ["x"]}]}`, "any; x: known required number"},
		{`{"allOf": [{"properties": {"x": true}}, {"properties": {"y": true}, "additionalProperties": false}]}`, "any; x: excluded any"},
		{`{"allOf": [{"properties": {"y": true}}], "unevaluatedProperties": false}`, "any; x: excluded any"},
		{`{"anyOf": [{"properties": {"x": {"type": "string"}}}, {"required": ["y"]}], "unevaluatedProperties": false}`, "any; x: known any"},
		{`{"allOf": [{"dependentSchemas": {"y": {"properties": {"x": true}}}}], "unevaluatedProperties": false}`, "any; x: open any"},
		{`{"type": "object", "anyOf": [{"properties": {"x": {"type": "string"}}, "required": ["x"]}, {"properties": {"x": {"type": "number"}}, "required": ["x"]}]}`, "object; x: known required number string"},
		{`{"anyOf": [{"type": "string"}, {"type": "object", "properties": {"x": {"type": "number"}}}]}`, "string object; x: known number"},
		{`{"anyOf": [{"properties": {"y": true}, "additionalProperties": false}, {"properties": {"z": true}, "additionalProperties": false}]}`, "any; x: excluded any"},
		{`{"anyOf": [{"properties": {"y": true}, "additionalProperties": false}, {}]}`, "any; x: open any"},
		{`{"if": {"required": ["y"]}, "then": {"properties": {"x": {"type": "string"}}}}`, "any; x: known any"},
		{`{"if": {"required": ["y"]}, "then": {"properties": {"x": {"type": "string"}}}, "else": {"properties": {"x": {"type": "null"}}}}`, "any; x: known null string"},
		{`{"properties": {"x": {"type": "array", "items": {"type": "string"}}}}`, "any; x: known array of string"},
		{`{"properties": {"x": {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}}}}`, "any; x: known array of null string"},
		{`{"properties": {"x": {"type": "array", "prefixItems": [{"type": "string"}]}}}`, "any; x: known array of any"},
		{`{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"x": {"type": "array", "items": {"type": "string"}}}}`, "any; x: known array of string"},
		{`{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"x": {"type": "array", "items": [{"type": "string"}]}}}`, "any; x: known array of any"},
		{`{"type": "string", "const": 5}`, "nothing []; x: open any"},
		{`{"properties": {"x": {"$ref": "#"}}, "allOf": [{"$ref": "#/properties/x"}]}`, "any; x: known any"},
	} {
		s, err := ParseSchema("test", []byte(test.schema))
		if err != nil {
			t.Error(err)
			continue
		}
		data := (&Contract{Schema: s}).DataType()
		if got := describeType(data) + "; x: " + describeMember(data, "x"); got != test.want {
			t.Errorf("%s\nis %s\nwant %s", test.schema, got, test.want)
		}
	}
}

func describeMember(t *DataType, name string) string {
	of, membership, required := t.Member(name)
	text := map[Membership]string{MemberOpen: "open", MemberKnown: "known", MemberUnnamed: "unnamed", MemberExcluded: "excluded"}[membership]
	if required {
		text += " required"
	}
	return text + " " + describeType(of)
}

func describeType(t *DataType) string {
	var kinds []string
	for kind, name := range []string{"", "null", "bool", "number", "string", "array", "object"} {
		if t.Kinds().Has(FieldKind(kind)) {
			kinds = append(kinds, name)
		}
	}
	text := strings.Join(kinds, " ")
	switch {
	case t.Kinds() == AnyKind:
		text = "any"
	case t.Kinds() == 0:
		text = "nothing"
	case text == "array":
		text += " of " + describeType(t.Element())
	}
	if values, ok := t.Values(); ok {
		text += fmt.Sprint(" ", values)
	}
	return text
}

// TestDataTypeWith: what is added is there, whatever the schema says, and the
// rest is as before.
func TestDataTypeWith(t *testing.T) {
	s, err := ParseSchema("test", []byte(`{"properties": {"x": {"type": "string"}}, "additionalProperties": false}`))
	if err != nil {
		t.Fatal(err)
	}
	before := (&Contract{Schema: s}).DataType()
	with := before.With("x", "y").With("z")
	for name, want := range map[string]string{"x": "known required any", "y": "known required any", "z": "known required any", "u": "excluded any"} {
		if got := describeMember(with, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := with.Names(); !slices.Equal(got, []string{"x", "y", "z"}) {
		t.Error(got)
	}
	if got := describeMember(before, "x") + describeMember(before, "y"); got != "known stringexcluded any" {
		t.Error("With changed its receiver:", got)
	}
}

// TestContractDataType: the envelope says something, too.
func TestContractDataType(t *testing.T) {
	if got := (&Contract{Envelope: EnvelopeCloudEvents}).DataType(); got != nil {
		t.Errorf("nothing is known, but got %s", describeType(got))
	}
	if got := describeType((&Contract{Envelope: EnvelopeBytes}).DataType()); got != "string" {
		t.Errorf("bytes are %s", got)
	}
}
