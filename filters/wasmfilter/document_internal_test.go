package wasmfilter

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/filterd/filterd/internal/metering"
)

// TestDocument holds the tables of docs/abi.md against what there is: the
// functions that are exported and imported, with their types.
func TestDocument(t *testing.T) {
	const path = "../../docs/abi.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)\\((.*?)\\)(?: -> (.*?))?` \\|").FindAllStringSubmatch(string(text), -1) {
		signature := metering.Signature{Params: valueTypesOf(t, row[2]), Results: valueTypesOf(t, row[3])}
		documented[row[1]] = signature.String()
	}
	runtime, err := NewRuntime(t.Context(), RuntimeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.Close(t.Context())
	there := make(map[string]string)
	for name, signature := range runtime.known[hostModule] {
		there[name] = signature.String()
	}
	for _, e := range exports {
		there[e.name] = e.signature.String()
	}
	for name, signature := range there {
		if documented[name] != signature {
			t.Errorf("%s: %s%s, want %s", path, name, documented[name], signature)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s has %s, which isn't there", path, name)
	}
}

// valueTypesOf reads "name, name i64", where a type that is missing is i32.
func valueTypesOf(t *testing.T, list string) (types []metering.ValueType) {
	if list == "" {
		return nil
	}
	for value := range strings.SplitSeq(list, ", ") {
		_, name, _ := strings.Cut(value, " ")
		known, ok := map[string]metering.ValueType{"": metering.I32, "i64": metering.I64, "f64": metering.F64}[name]
		if !ok {
			t.Fatalf("type of %q", value)
		}
		types = append(types, known)
	}
	return types
}
