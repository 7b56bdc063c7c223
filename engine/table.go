package engine

import (
	"fmt"

	"github.com/filterd/filterd"
)

// Definition is what a table is compiled of.
type Definition struct {
	// Registry holds the channels' contracts. Nil declares none.
	Registry *filterd.Registry
	// Rules are the rules, in the order in which they act on a message.
	Rules []Rule
	// Callbacks are the callbacks that rules can name.
	Callbacks map[string]Callback
	// StrictChannels demands that every channel a rule names is declared in
	// Registry.
	StrictChannels bool
}

// A RuleError is one fault of a rule.
type RuleError struct {
	Rule  string // the rule's name
	Field string // "name", "from", "when", "set", "to", "allow", "on_error", "dead_letter" or "overflow"
	Index int    // the faulty element, where the field is a list
	Err   error
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %q: %s: %v", e.Rule, e.Field, e.Err) }

// Unwrap returns what is wrong.
func (e *RuleError) Unwrap() error { return e.Err }

// A Table is a set of rules, compiled and checked together. It is immutable
// and safe for concurrent use.
type Table struct {
	definition Definition
	warnings   []*RuleError
}

// Compile compiles and checks rules. The error joins a [*RuleError] for every
// fault, in the order of the rules.
func Compile(d Definition) (*Table, error) {
	return &Table{definition: d}, nil
}

// Warnings returns what is suspicious about the rules, but no fault.
func (t *Table) Warnings() []*RuleError { return t.warnings }
