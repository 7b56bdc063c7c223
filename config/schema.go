package config

import (
	"bytes"
	_ "embed"
)

// The schema is generated when the tests run with -update; a test holds it
// against the spec. A program so carries the text, not the generator.
//
//go:embed filterd.schema.json
var schemaText []byte

// Schema returns the JSON Schema (2020-12) of the config file, for editors.
// The caller owns it.
func Schema() []byte { return bytes.Clone(schemaText) }
