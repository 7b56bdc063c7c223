package filterd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A Schema is a compiled JSON Schema, of draft 2020-12 unless its $schema says
// otherwise. "format" is asserted. It is immutable and safe for concurrent
// use.
type Schema struct {
	compiled *jsonschema.Schema
	name     string
}

// The most that the failures of one message may say.
const (
	maxFailures       = 100
	maxFailurePointer = 1024 // bytes
	maxFailureDetail  = 256  // bytes
)

// A failureList collects failures up to the maximum and counts the rest.
type failureList struct {
	failures []Failure
	more     int
}

// full reports whether the list takes no more failures, and if so counts one.
func (l *failureList) full() bool {
	if len(l.failures) < maxFailures {
		return false
	}
	l.more++
	return true
}

// add adds a failure to a list that may be full.
func (l *failureList) add(pointer, detail string) {
	if !l.full() {
		l.failures = append(l.failures, Failure{
			Pointer: truncate(pointer, maxFailurePointer),
			Detail:  truncate(detail, maxFailureDetail),
		})
	}
}

// all returns the failures, the last of which tells how many more there are in
// the value at the pointer at. It is nil if there are none.
func (l *failureList) all(at string) []Failure {
	if l.more == 0 {
		return l.failures
	}
	return append(l.failures, Failure{Pointer: at, Detail: fmt.Sprintf("and %d more failures", l.more)})
}

// schemaRoot is the base of every schema's URL, so that a $ref is relative to
// the folder that the schema is in. Nothing is ever fetched from it.
const schemaRoot = "filterd:///"

// LoadSchema loads a schema from a file. Its $refs may lead to other files of
// the same folder and the folders below it, and nowhere else.
func LoadSchema(file string) (*Schema, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	folder, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return compileSchema(filepath.Base(file), text, folder.FS())
}

// ParseSchema compiles a schema. The name stands for it in errors. Its $refs
// may lead to its own parts and the meta-schemas only.
func ParseSchema(name string, text []byte) (*Schema, error) {
	return compileSchema(name, text, nil)
}

// ParseSchemaIn is [ParseSchema] for a schema whose $refs may lead to files in
// the folder and below it.
func ParseSchemaIn(folder, name string, text []byte) (*Schema, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return compileSchema(name, text, root.FS())
}

func compileSchema(name string, text []byte, folder fs.FS) (*Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, errors.New(malformed(text, err).Failures[0].Detail))
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.UseLoader(schemaLoader{folder})
	location := schemaRoot + url.PathEscape(name)
	if err := c.AddResource(location, document); err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	compiled, err := c.Compile(location)
	if err != nil {
		return nil, schemaError(name, err)
	}
	return &Schema{compiled: compiled, name: name}, nil
}

// String returns the schema's name.
func (s *Schema) String() string { return s.name }

// schemaLoader resolves the $refs of a schema.
type schemaLoader struct{ folder fs.FS }

func (l schemaLoader) Load(location string) (any, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	if u.Scheme+":///" != schemaRoot || u.Host != "" {
		return nil, fmt.Errorf("%s: a $ref stays within the schema's folder", location)
	}
	if l.folder == nil {
		return nil, fmt.Errorf("%s: a $ref of this schema stays within it", strings.TrimPrefix(location, schemaRoot))
	}
	text, err := fs.ReadFile(l.folder, path.Clean(strings.TrimPrefix(u.Path, "/")))
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}

// schemaError says what is wrong with a schema, without our private URLs.
func schemaError(name string, err error) error {
	var invalid *jsonschema.SchemaValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("schema %s: %s", name, strings.ReplaceAll(err.Error(), schemaRoot, ""))
	}
	var cause *jsonschema.ValidationError
	if !errors.As(invalid.Err, &cause) {
		return fmt.Errorf("schema %s: %s", name, strings.ReplaceAll(invalid.Err.Error(), schemaRoot, ""))
	}
	var texts []string
	for _, f := range schemaFailures(cause, "") {
		texts = append(texts, f.String())
	}
	return fmt.Errorf("schema %s is not a valid JSON Schema: %s", name, strings.Join(texts, "; "))
}

// check returns what is wrong with a value that stands at the pointer at.
func (s *Schema) check(value any, at string) []Failure {
	err := s.compiled.Validate(value)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return []Failure{{Pointer: at, Detail: err.Error()}}
	}
	return schemaFailures(invalid, at)
}

// schemaFailures returns the leaves of the library's tree of causes, each
// once: several branches of an anyOf tend to say the same.
func schemaFailures(invalid *jsonschema.ValidationError, at string) []Failure {
	var failures []Failure
	seen := make(map[Failure]bool)
	var walk func(unit *jsonschema.OutputUnit)
	walk = func(unit *jsonschema.OutputUnit) {
		for i := range unit.Errors {
			walk(&unit.Errors[i])
		}
		if unit.Error == nil {
			return
		}
		f := Failure{Pointer: at + unit.InstanceLocation, Detail: truncate(unit.Error.String(), maxFailureDetail)}
		if !seen[f] {
			seen[f] = true
			failures = append(failures, f)
		}
	}
	walk(invalid.DetailedOutput())
	slices.SortStableFunc(failures, func(a, b Failure) int { return strings.Compare(a.Pointer, b.Pointer) })
	if more := len(failures) - maxFailures; more > 0 {
		failures = append(failures[:maxFailures], Failure{Pointer: at, Detail: fmt.Sprintf("and %d more failures", more)})
	}
	return failures
}

// truncate shortens a text to at most limit bytes and an ellipsis, between
// characters.
func truncate(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
