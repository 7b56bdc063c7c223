package wasmfilter

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/filterd/filterd/internal/metering"
)

// A FaultKind says what went wrong in a guest. There are few of them, so that
// they can serve as metric labels.
type FaultKind string

// The kinds of faults.
const (
	FaultTrap  FaultKind = "trap"  // the guest trapped: unreachable, memory out of bounds, division by zero
	FaultFuel  FaultKind = "fuel"  // it ran longer than its budget
	FaultStack FaultKind = "stack" // it called too deep
	FaultExit  FaultKind = "exit"  // it ended itself, as a Go guest that panics; or refused its configuration
	FaultABI   FaultKind = "abi"   // it broke the interface: a bad pointer, an unknown verdict
	FaultHost  FaultKind = "host"  // a host function failed
)

// FaultKinds lists every FaultKind.
var FaultKinds = [...]FaultKind{FaultTrap, FaultFuel, FaultStack, FaultExit, FaultABI, FaultHost}

// A Fault is the end of an instance: what the guest did can't be gone on from.
// The message it was about gets it as its error.
type Fault struct {
	Module string
	Kind   FaultKind
	Text   string // what happened, and where; printable
	Err    error  // of a host function; nil otherwise
}

func (f *Fault) Error() string { return fmt.Sprintf("module %q: %s", f.Module, f.Text) }

// Unwrap returns the error of the host function that failed.
func (f *Fault) Unwrap() error { return f.Err }

// A GuestError is the error that a guest reports about a message.
type GuestError struct {
	Module string
	Code   int32  // below zero
	Text   string // what the guest said by fail; printable, at most 1 KiB
}

func (e *GuestError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("module %q: error %d", e.Module, e.Code)
	}
	return fmt.Sprintf("module %q: %s", e.Module, e.Text)
}

// interrupted is why a guest was stopped that did nothing wrong: its caller's
// context ended.
type interrupted struct{ err error }

func (i interrupted) Error() string { return i.err.Error() }

// Unwrap makes the context's error visible.
func (i interrupted) Unwrap() error { return i.err }

// trap ends the call that the host function was called from.
func (i *instance) trap(kind FaultKind, format string, args ...any) {
	panic(i.module.fault(kind, format, args...))
}

func (m *Module) fault(kind FaultKind, format string, args ...any) *Fault {
	return &Fault{Module: m.name, Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// fault turns the error of a call into a [*Fault], or, if the guest is not to
// blame, into another error.
func (i *instance) fault(err error) error {
	var fault *Fault
	var stop interrupted
	text, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n\t")
	switch {
	case errors.As(err, &stop):
		return fmt.Errorf("module %q: stopped: %w", i.module.name, stop.err)
	case errors.As(err, &fault):
		if fault.Kind == FaultExit {
			return fault // where it is in the runtime of its language says nothing
		}
	default:
		if trapped, ok := strings.CutPrefix(text, "wasm error: "); ok {
			fault = i.module.fault(FaultTrap, "trapped: %s%s", escape(trapped), i.lastWords())
		} else if text == "stack overflow" {
			fault = i.module.fault(FaultStack, "stack overflow")
		} else {
			text, _, _ = strings.Cut(text, "\n")
			fault = i.module.fault(FaultHost, "a host function panicked: %s", escape(strings.TrimSuffix(text, " (recovered by wazero)")))
		}
	}
	if where := i.module.frames(trace); where != "" {
		fault.Text += " (in " + where + ")"
	}
	return fault
}

// maxFrames is how many functions a fault's text names.
const maxFrames = 4

// frames names the guest's functions in a stack trace of wazero, innermost
// first.
func (m *Module) frames(trace string) string {
	var names []string
	slow := false // the next frame is the meter's, which may have no name
	for line := range strings.SplitSeq(trace, "\n") {
		line = strings.TrimPrefix(line, "\t")
		if line == "" || strings.HasPrefix(line, "...") {
			break
		}
		// A line is module.name(parameters) results; names may have
		// parentheses of their own.
		if end := parameters.FindStringIndex(line); end != nil {
			line = line[:end[0]]
		}
		module, name, ok := strings.Cut(line, ".")
		if !ok || module != "" || slow {
			slow = module == metering.ImportModule
			continue // of the host
		}
		if len(names) == maxFrames {
			names = append(names, "…")
			break
		}
		names = append(names, truncate(escape(m.original(name)), maxName))
	}
	return strings.Join(names, " < ")
}

// parameters matches what follows a function's name in a stack trace.
var parameters = regexp.MustCompile(`\([a-z0-9, ]*\)( [a-z0-9]+| \([a-z0-9, ]*\))?$`)

// original returns the name of a function as it was before metering. One
// without a name is called by its number, which the meter's imports move.
func (m *Module) original(name string) string {
	number, err := strconv.Atoi(strings.TrimPrefix(name, "$"))
	if !strings.HasPrefix(name, "$") || err != nil || number < m.imports+meterImports {
		return name
	}
	return "$" + strconv.Itoa(number-meterImports)
}

// meterImports is how many functions the meter imports: refuel and overflow.
const meterImports = 2

const (
	maxText = 1 << 10 // of what a guest says, in bytes
	maxName = 64
)

// escape returns what a guest wrote as printable text: control characters and
// what isn't UTF-8 appear as escapes. It is at most maxText long.
func escape[T string | []byte](text T) string {
	s := string(text[:min(len(text), maxText)])
	cut := len(s) < len(text)
	var b strings.Builder
	for at := 0; at < len(s); {
		r, size := utf8.DecodeRuneInString(s[at:])
		if cut && r == utf8.RuneError && !utf8.FullRuneInString(s[at:]) {
			break // the cut went through it
		}
		part := s[at : at+size]
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			part = strconv.QuoteToASCII(part)
			part = part[1 : len(part)-1]
		}
		if b.Len()+len(part) > maxText {
			break
		}
		b.WriteString(part)
		at += size
	}
	return b.String()
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
