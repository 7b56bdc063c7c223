package filterd

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// A Schema is a compiled JSON Schema, of draft 2020-12 unless its $schema says
// otherwise. "format" is asserted. It is immutable and safe for concurrent
// use.
type Schema struct {
	compiled *jsonschema.Schema
	quick    *quick
	name     string
}

// The most that the failures of one message may say.
const (
	maxFailures       = 100
	maxFailurePointer = 1024 // bytes
	maxFailureDetail  = 256  // bytes
)

// maxSchemaDepth is how deep data may be nested that is held against a schema.
// The library copies the path of every failure: where a schema refers to
// itself, deep data with many failures would take the square of its size.
const maxSchemaDepth = 128

// shallow reports whether a value is nested at most that many levels deep.
func shallow(value any, levels int) bool {
	switch value := value.(type) {
	case map[string]any:
		for _, member := range value {
			if levels == 0 || !shallow(member, levels-1) {
				return false
			}
		}
	case []any:
		for _, element := range value {
			if levels == 0 || !shallow(element, levels-1) {
				return false
			}
		}
	}
	return true
}

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

// schemaRoot is the URL that stands for the folder that a schema is in, so that
// a $ref is relative to that. It is below the top, lest a URL that leads out of
// the folder is cut down to one that does not. Nothing is ever fetched from it.
const (
	schemaTop  = "filterd://"
	schemaRoot = schemaTop + "/schema/"
)

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
	return &Schema{compiled: compiled, quick: newQuick(compiled), name: name}, nil
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
	if l.folder == nil {
		return nil, errors.New("a $ref of this schema stays within it")
	}
	// A path is not cleaned: an escaped .. is no step up for URLs.
	file, ok := strings.CutPrefix(u.Scheme+"://"+u.Host+u.Path, schemaRoot)
	if !ok || !fs.ValidPath(file) {
		return nil, errors.New("a $ref stays within the schema's folder")
	}
	text, err := fs.ReadFile(l.folder, file)
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) {
			err = failed.Err // without the file's name, which we say ourselves
		}
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New(malformed(text, err).Failures[0].Detail)
	}
	return document, nil
}

// schemaError says what is wrong with a schema, without our private URLs.
func schemaError(name string, err error) error {
	ours := strings.NewReplacer(schemaRoot+url.PathEscape(name), name, schemaRoot, "", schemaTop, "")
	var load *jsonschema.LoadURLError
	if errors.As(err, &load) {
		return fmt.Errorf("schema %s: %s: %w", name, ours.Replace(load.URL), load.Err)
	}
	var invalid *jsonschema.SchemaValidationError
	var cause *jsonschema.ValidationError
	if !errors.As(err, &invalid) || !errors.As(invalid.Err, &cause) {
		return fmt.Errorf("schema %s: %s", name, ours.Replace(err.Error()))
	}
	var texts []string
	for _, f := range schemaFailures(cause, "") {
		texts = append(texts, f.String())
	}
	return fmt.Errorf("schema %s is not a valid JSON Schema: %s", name, strings.Join(texts, "; "))
}

// check returns what is wrong with a value that stands at the pointer at.
func (s *Schema) check(value any, at string) []Failure {
	if !shallow(value, maxSchemaDepth) {
		return []Failure{{Pointer: at, Detail: fmt.Sprintf("nested more than %d levels deep: a schema checks no more", maxSchemaDepth)}}
	}
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

// schemaFailures returns the leaves of the library's tree of causes, in the
// order of their pointers, each once: several branches of an anyOf tend to say
// the same. (The library's own flat forms spell out the pointer of every
// failure, which a hostile message can make many and long.)
func schemaFailures(invalid *jsonschema.ValidationError, at string) []Failure {
	leaves := appendLeaves(nil, invalid)
	slices.SortStableFunc(leaves, func(a, b *jsonschema.ValidationError) int {
		return slices.CompareFunc(a.InstanceLocation, b.InstanceLocation, comparePointerTokens)
	})
	var list failureList
	seen := make(map[Failure]bool)
	for _, leaf := range leaves {
		if list.full() {
			continue
		}
		f := Failure{Pointer: at + pointerTo(leaf.InstanceLocation...), Detail: schemaDetail(leaf.ErrorKind)}
		if !seen[f] {
			seen[f] = true
			list.add(f.Pointer, f.Detail)
		}
	}
	// The library goes through maps: what it says of one value has no order.
	for start := 0; start < len(list.failures); {
		end := start + 1
		for end < len(list.failures) && list.failures[end].Pointer == list.failures[start].Pointer {
			end++
		}
		slices.SortFunc(list.failures[start:end], func(a, b Failure) int { return strings.Compare(a.Detail, b.Detail) })
		start = end
	}
	return list.all(at)
}

// appendLeaves appends the causes of a failure that have no causes themselves.
func appendLeaves(leaves []*jsonschema.ValidationError, e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	// What is wrong with a name stands at the object, but its causes don't.
	if _, isName := e.ErrorKind.(*kind.PropertyNames); isName || len(e.Causes) == 0 {
		return append(leaves, e)
	}
	for _, cause := range e.Causes {
		leaves = appendLeaves(leaves, cause)
	}
	return leaves
}

// schemaDetail returns what the library says of a failure, always in the same
// words.
func schemaDetail(failure jsonschema.ErrorKind) string {
	if additional, ok := failure.(*kind.AdditionalProperties); ok {
		slices.Sort(additional.Properties)
	}
	leaf := jsonschema.ValidationError{ErrorKind: failure}
	return leaf.BasicOutput().Error.String()
}

// comparePointerTokens orders indexes by their value and before names.
func comparePointerTokens(a, b string) int {
	switch x, y := isIndex(a), isIndex(b); {
	case x && y:
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	case x:
		return -1
	case y:
		return 1
	}
	return strings.Compare(a, b)
}

// isIndex reports whether a token is a number as a JSON Pointer has it.
func isIndex(token string) bool {
	for _, c := range []byte(token) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return token == "0" || token != "" && token[0] != '0'
}

// truncate shortens a text to at most limit bytes and an ellipsis, between
// characters.
func truncate(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
