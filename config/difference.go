package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/filterd/filterd"
)

// A Difference is a place where a payload is not the one that a test expects.
type Difference struct {
	// Target is where the payload went: a channel or a stream, a webhook, a
	// callback, or the log.
	Target string `json:"target"`
	// Path is the place, as an expression has it: data.items[0].price; below
	// payload if a whole event was expected.
	Path string `json:"path"`
	// Want and Got are JSON on one line, and empty for what is not there. Of a
	// payload itself they are texts, from shortly before the first byte that
	// differs.
	Want string `json:"want"`
	Got  string `json:"got"`
}

// String says it on one line, as in "data.price: want 10, got 11".
func (d Difference) String() string {
	return fmt.Sprintf("%s: want %s, got %s", d.Path, orNothing(d.Want), orNothing(d.Got))
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// difference compares a payload that went to a target.
func (c *Content) difference(target string, payload []byte) []Difference {
	if c.Raw {
		return textDifference(target, c.Text, payload)
	}
	want, err := decode(c.Text)
	if err != nil {
		panic(err) // it was written as JSON
	}
	d := differ{target: target}
	got, err := decode(payload)
	if err != nil {
		d.add("payload", string(c.Text), strconv.Quote(string(payload))+", which is not JSON")
		return d.found
	}
	path := "payload"
	if _, whole := specVersion(want); !whole {
		path = string(filterd.PathData)
		if event, ok := specVersion(got); ok {
			data, ok := event["data"]
			if !ok {
				d.add(path, string(c.Text), "")
				return d.found
			}
			got = data
		}
	}
	d.compare(path, want, got)
	return d.found
}

// decode decodes JSON whose numbers keep their digits.
func decode(text []byte) (value any, err error) {
	if !json.Valid(text) {
		return nil, fmt.Errorf("this is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&value)
	return value, err
}

// specVersion returns a document as an object if it is an event.
func specVersion(document any) (map[string]any, bool) {
	event, _ := document.(map[string]any)
	_, ok := event["specversion"]
	return event, ok
}

// A differ finds the differences of two documents.
type differ struct {
	target string
	found  []Difference
}

func (d *differ) add(path, want, got string) {
	d.found = append(d.found, Difference{d.target, path, want, got})
}

func (d *differ) compare(path string, want, got any) {
	switch want := want.(type) {
	case map[string]any:
		if got, ok := got.(map[string]any); ok {
			all := maps.Clone(want)
			maps.Copy(all, got)
			for _, name := range slices.Sorted(maps.Keys(all)) {
				w, wanted := want[name]
				g, given := got[name]
				below := memberOf(path, name)
				switch {
				case !wanted:
					d.add(below, "", compact(g))
				case !given:
					d.add(below, compact(w), "")
				default:
					d.compare(below, w, g)
				}
			}
			return
		}
	case []any:
		if got, ok := got.([]any); ok {
			for i := range max(len(want), len(got)) {
				below := element(path, i)
				switch {
				case i >= len(want):
					d.add(below, "", compact(got[i]))
				case i >= len(got):
					d.add(below, compact(want[i]), "")
				default:
					d.compare(below, want[i], got[i])
				}
			}
			return
		}
	case json.Number:
		if got, ok := got.(json.Number); ok && sameNumber(string(want), string(got)) {
			return
		}
	default:
		if want == got { // a text, a bool or null
			return
		}
	}
	d.add(path, compact(want), compact(got))
}

// memberOf returns the path of a member, as an expression has it.
func memberOf(path, name string) string {
	text := "[" + string(filterd.AppendString(nil, name)) + "]"
	if p, err := filterd.ParsePath(string(filterd.PathData) + text); err == nil { // it isn't too long
		text = strings.TrimPrefix(string(p), string(filterd.PathData))
	}
	return path + text
}

// compact writes a value as JSON on one line.
func compact(value any) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err) // it was decoded from JSON
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// sameNumber reports whether two numbers of JSON have one value: 1.50 and 15e-1,
// but not 9007199254740993 and its neighbour.
func sameNumber(a, b string) bool {
	digitsA, exponentA, ok := decimal(a)
	digitsB, exponentB, okB := decimal(b)
	return a == b || ok && okB && digitsA == digitsB && exponentA.Cmp(exponentB) == 0
}

// decimal returns a number as ±digits × 10^exponent, without zeros at either end.
func decimal(number string) (digits string, exponent *big.Int, ok bool) {
	mantissa, power, _ := strings.Cut(strings.ToLower(number), "e")
	if power == "" {
		power = "0"
	}
	if exponent, ok = new(big.Int).SetString(power, 10); !ok {
		return "", nil, false
	}
	sign := ""
	if strings.HasPrefix(mantissa, "-") {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	exponent.Sub(exponent, big.NewInt(int64(len(fraction))))
	trimmed := strings.TrimRight(digits, "0")
	if trimmed == "" {
		return "0", new(big.Int), true
	}
	return sign + trimmed, exponent.Add(exponent, big.NewInt(int64(len(digits)-len(trimmed)))), true
}

// textDifference compares payloads byte for byte.
func textDifference(target string, want, got []byte) []Difference {
	if bytes.Equal(want, got) {
		return nil
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	from := max(0, at-20)
	for from > 0 && !utf8.RuneStart(want[from]) {
		from--
	}
	excerpt := func(text []byte) string {
		quoted := strconv.Quote(string(text[from:min(len(text), from+100)]))
		if from > 0 {
			quoted = "…" + quoted
		}
		if from+100 < len(text) {
			quoted += "…"
		}
		return quoted
	}
	return []Difference{{target, fmt.Sprintf("payload, from byte %d", at), excerpt(want), excerpt(got)}}
}
