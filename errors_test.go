package filterd_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/filterd/filterd"
)

func TestValidationError(t *testing.T) {
	err := &filterd.ValidationError{Channel: "prices", Reason: filterd.ReasonSchema, Failures: []filterd.Failure{
		{Pointer: "/data/price", Detail: "got string, want number"},
		{Detail: "and 3 more failures"},
	}}
	same(t, "text", err.Error(), "prices: schema: /data/price: got string, want number; and 3 more failures")
	same(t, "pointer", err.Pointer(), "/data/price")
	wrapped := fmt.Errorf("publish: %w", err)
	same(t, "is invalid", errors.Is(wrapped, filterd.ErrInvalid), true)
	same(t, "is no event", errors.Is(wrapped, filterd.ErrNoEvent), false)
	var found *filterd.ValidationError
	same(t, "as", errors.As(wrapped, &found) && found == err, true)
	same(t, "reasons", fmt.Sprint(filterd.Reasons), "[size malformed envelope schema entry poison]")
}

func TestSourceError(t *testing.T) {
	const source = "a > 1\nand é == \"ü\"\r\n\tor x"
	for _, c := range []struct {
		offset, line, column int
	}{
		{0, 1, 1},
		{4, 1, 5},
		{5, 1, 6}, // the line break belongs to its line
		{6, 2, 1},
		{10, 2, 5},
		{13, 2, 7}, // é is two bytes and one character
		{22, 3, 1},
		{23, 3, 2},
		{len(source), 3, 6},
		{len(source) + 9, 3, 6},
	} {
		err := &filterd.SourceError{Source: source, Offset: c.offset, Message: "m"}
		line, column := err.Position()
		same(t, fmt.Sprintf("position of byte %d", c.offset), [2]int{line, column}, [2]int{c.line, c.column})
	}
	same(t, "text", (&filterd.SourceError{Source: "a + + b", Offset: 4, Length: 1, Message: "unexpected +"}).Error(), "1:5: unexpected +")
	same(t, "text with a hint", (&filterd.SourceError{Source: "pirce", Message: "unknown name pirce", Hint: "did you mean price?"}).Error(),
		"1:1: unknown name pirce (did you mean price?)")
	same(t, "text without a source", (&filterd.SourceError{Message: "empty"}).Error(), "1:1: empty")
}
