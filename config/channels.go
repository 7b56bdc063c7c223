package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/channels"
)

// maxMaxSize is the largest max_size, in bytes: what Redis takes as a string.
const maxMaxSize = 512 << 20

// A loadedSchema is a schema's file, loaded, since several channels may name
// the same.
type loadedSchema struct {
	schema *filterd.Schema
	err    error
}

// channels reads the section channels, which may be missing, and makes the
// registry.
func (l *loader) channels(key string, n *node) {
	var contracts []filterd.Contract
	l.labels = make(map[string]string)
	switch {
	case n == nil:
	case n.kind != mappingNode:
		l.want(key, n, "", "a mapping of channels")
	default:
		for _, e := range n.entries {
			name := e.key.value
			switch {
			case name == "":
				l.fail(key, e.key, "", "a channel needs a name")
			case strings.Contains(name, "${"):
				l.fail(below(key, name), e.key, "write the name itself", "references don't work in keys")
			default:
				contracts = append(contracts, l.contract(below(key, name), name, e))
			}
		}
	}
	registry, err := filterd.NewRegistry(contracts...)
	for _, err := range unjoin(err) {
		l.fail(key, n, "", "%v", err)
	}
	l.config.Registry = registry
}

// hashContracts returns the hash of the section channels, which may be missing,
// and of the files that were read for it.
func (l *loader) hashContracts(n *node) [sha256.Size]byte {
	h := sha256.New()
	if n != nil {
		n.hash(h)
	}
	for _, f := range l.files[min(1, len(l.files)):] { // secrets among them: they change rarely
		fmt.Fprintf(h, "%q %s\n", f.Path, f.SHA256)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// contract reads what is said of one channel. The contract is fit for a
// registry even where there are problems.
func (l *loader) contract(key, name string, e entry) filterd.Contract {
	c := filterd.Contract{Channel: name}
	if e.value.blank() {
		return c // the channel is declared, and that is all
	}
	s, ok := l.section(key, e.value, channelKeys)
	if !ok {
		return c
	}
	contractKey, contract := s.get("contract")
	schemaKey, schema := s.get("schema")
	l.labels[name] = label(name, schema, contract)
	if contract != nil {
		if _, ok := l.oneOf(contractKey, contract, contractNames...); ok {
			if c, ok = channels.Contract(name); !ok {
				c = filterd.Contract{Channel: name}
				l.fail(contractKey, contract, "there are some for "+builtinNames(), "no ready-made contract for %s", quote(name))
			}
		}
		if schema != nil {
			l.fail(schemaKey, schema, "leave one of them out", "contract: builtin brings its own schema")
		}
	}
	if key, n := s.get("envelope"); n != nil {
		if value, ok := l.oneOf(key, n, envelopes...); ok {
			c.Envelope = filterd.Envelope(value)
		}
	}
	if schema != nil && contract == nil {
		c.Schema = l.schema(schemaKey, schema)
	}
	if key, n := s.get("validate"); n != nil {
		l.validation(key, n, &c)
		if schema == nil && contract == nil {
			offset, length := l.problems.text.whole(n)
			l.warnings.add(offset, length, key, "add schema or contract: builtin", "there is no schema to validate with")
		}
	}
	if key, n := s.get("stamped"); n != nil {
		c.Stamped, _ = l.boolean(key, n)
		if c.Stamped && (c.Envelope == filterd.EnvelopeRaw || c.Envelope == filterd.EnvelopeBytes) {
			l.fail(key, n, "take envelope cloudevents or auto", "stamps are a part of events, and envelope is %s", c.Envelope)
			c.Stamped = false
		}
	}
	if key, n := s.get("max_size"); n != nil {
		c.MaxSize = l.byteSize(key, n)
		if c.MaxSize > l.config.MaxMessage {
			l.fail(key, n, "raise redis.max_message, or lower this", "messages of this size are not read: redis.max_message is %s", sizeText(l.config.MaxMessage))
		}
	}
	if key, n := s.get("dead_letter"); n != nil {
		to := l.deadLetter(key, n)
		if filterd.IsGlob(to.Channel) {
			l.fail(key, n, "", "want a channel, not a pattern")
			to.Channel = ""
		}
		c.DeadLetter, c.DeadLetterStream, c.DeadLetterMaxLen = to.Channel+to.Stream, to.Stream != "", to.MaxLen
	}
	return c
}

func builtinNames() string {
	var names []string
	for _, c := range channels.Contracts() {
		names = append(names, c.Channel)
	}
	return strings.Join(names, ", ")
}

// schema loads a schema from a file, or from the config itself.
func (l *loader) schema(key string, n *node) *filterd.Schema {
	switch {
	case n.kind == mappingNode:
		var text bytes.Buffer
		if !l.json(key, n, &text) {
			return nil
		}
		l.noteRefs(".", "", text.Bytes())
		schema, err := filterd.ParseSchemaIn(l.folder, key, text.Bytes())
		if err != nil {
			message := strings.TrimLeft(strings.TrimPrefix(err.Error(), "schema "+key), ": ")
			l.fail(key, n, "", "%s", l.conceal(message, key, n))
		}
		return schema
	case n.kind != scalarNode || n.tag != tagText:
		l.want(key, n, "", "the path of a schema's file, or the schema itself as a mapping")
		return nil
	}
	name, ok := l.text(key, n)
	if !ok {
		return nil
	}
	if name == "" {
		l.fail(key, n, "", "want the path of a schema's file, or the schema itself as a mapping")
		return nil
	}
	loaded, ok := l.schemas[name]
	if !ok {
		var text []byte
		if text, loaded.err = l.readFile(name, maxSize); loaded.err == nil {
			l.noteRefs(filepath.Dir(name), filepath.Base(name), text)
			loaded.schema, loaded.err = filterd.LoadSchema(l.file(name))
			if loaded.err != nil {
				message := strings.TrimPrefix(loaded.err.Error(), "schema "+filepath.Base(name))
				loaded.err = errors.New(quote(name) + message)
			}
		}
		l.schemas[name] = loaded
	}
	switch {
	case loaded.err != nil && name != n.value:
		l.wantReferred(key, n, "the path of a schema's file")
	case loaded.err != nil:
		l.fail(key, n, "", "%v", loaded.err)
	}
	return loaded.schema
}

// validation reads which messages are held against the schema.
func (l *loader) validation(key string, n *node, c *filterd.Contract) {
	if n.kind != mappingNode {
		mode, ok := l.oneOf(key, n, string(filterd.ValidateEnforce), string(filterd.ValidateOff), "{sample: 0.01}")
		if ok {
			c.Validate = filterd.Validation(mode)
		}
		return
	}
	s, ok := l.section(key, n, validateKeys)
	if !ok {
		return
	}
	sampleKey, sample := s.get("sample")
	if sample == nil {
		l.fail(key, n, "write {sample: 0.01} for one in a hundred", "sample is missing")
		return
	}
	value, ok := l.scalar(sampleKey, sample)
	if !ok {
		return
	}
	rate, err := strconv.ParseFloat(value, 64)
	if sample.kind != scalarNode || err != nil || !(rate > 0 && rate <= 1) {
		l.fail(sampleKey, sample, "0.01 is one in a hundred", "want a number above 0 and at most 1")
		return
	}
	c.Validate, c.SampleRate = filterd.ValidateSample, rate
}

// sizeText writes a size as a file has it.
func sizeText(n int) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprint(n)
}

// byteSize reads a size: a number of bytes, or one with a unit.
func (l *loader) byteSize(key string, n *node) int {
	value, ok := l.scalar(key, n)
	if n.kind == scalarNode && n.tag == tagText && value == n.value {
		value, ok = l.text(key, n)
	}
	if !ok {
		return 0
	}
	if n.kind != scalarNode || n.tag != tagText && n.tag != tagInt {
		l.want(key, n, "", "a size such as 64KiB")
		return 0
	}
	digits := strings.TrimRight(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := 0
	switch value[len(digits):] {
	case "", "B":
		unit = 1
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	}
	number, err := strconv.Atoi(strings.ReplaceAll(strings.TrimRight(digits, " "), "_", ""))
	switch {
	case (unit == 0 || err != nil) && value != n.value:
		l.wantReferred(key, n, "a size such as 64KiB")
	case unit == 0 || err != nil:
		l.fail(key, n, "units are B, KiB and MiB", "want a size such as 64KiB")
	case number < 1 || number > maxMaxSize/unit:
		l.fail(key, n, "", "want a size from 1 to %s", sizeText(maxMaxSize))
	default:
		return number * unit
	}
	return 0
}
