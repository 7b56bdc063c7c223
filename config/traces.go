package config

import (
	"net/url"
	"regexp"
	"strconv"

	"github.com/filterd/filterd"
)

// A Traces is the section traces: which messages' way is recorded, and where
// that is sent. The package only reads it.
type Traces struct {
	// Endpoint is the URL that spans are posted to; empty if the file does not
	// say.
	Endpoint string
	// Headers are those of the requests.
	Headers map[string]filterd.Secret
	// Service is the service's name; empty if the file does not say.
	Service string
	// Sample is the part of the messages without a trace that begin one.
	Sample float64
	// Replace is what [engine.Config] calls ReplaceTraceparent.
	Replace bool
}

// tracesPath is where a collector takes spans.
const tracesPath = "/v1/traces"

// headerName is what a header may be called.
var headerName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// traces reads the section traces.
func (l *loader) traces(key string, n *node) {
	s, ok := l.section(key, n, tracesKeys)
	if !ok {
		return
	}
	t := &Traces{Endpoint: l.tracesEndpoint(s), Service: l.optionalText(s, "service")}
	l.config.Traces = t
	if key, n := s.get("headers"); n != nil {
		t.Headers = l.headers(key, n)
	}
	if key, n := s.get("sample"); n != nil {
		t.Sample = l.tracesSample(key, n)
	}
	if key, n := s.get("traceparent"); n != nil {
		word, _ := l.oneOf(key, n, traceparents...)
		t.Replace = word == "replace"
	}
}

// tracesEndpoint reads the collector's URL.
func (l *loader) tracesEndpoint(s section) string {
	text := l.optionalText(s, "endpoint")
	if text == "" {
		return ""
	}
	key, n := s.get("endpoint")
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		const what = "a URL such as http://localhost:4318"
		if text != n.value {
			l.wantReferred(key, n, what)
		} else {
			l.fail(key, n, "", "want %s", what)
		}
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		l.fail(key, n, "write traces.headers: {authorization: ${file:path}}", "a user, a query or a fragment is not sent to a collector")
	case u.Path == "" || u.Path == "/":
		return u.JoinPath(tracesPath).String()
	default:
		return text
	}
	return ""
}

// headers reads headers, whose values may only be referred to.
func (l *loader) headers(key string, n *node) map[string]filterd.Secret {
	if n.kind != mappingNode {
		l.want(key, n, "", "a mapping of headers")
		return nil
	}
	headers := make(map[string]filterd.Secret, len(n.entries))
	for _, e := range n.entries {
		name := e.key.value
		if !headerName.MatchString(name) {
			l.fail(below(key, name), e.key, "", "want at most 64 letters, digits, dashes and underscores")
			continue
		}
		value := l.secret(section{key, n}, name, "a header")
		for _, c := range []byte(value.Reveal()) {
			if c < ' ' || c > '~' {
				l.fail(below(key, name), e.value, "", "a header is of ASCII letters, digits, signs and spaces")
				break
			}
		}
		headers[name] = value
	}
	return headers
}

// tracesSample reads which part of the messages begin a trace.
func (l *loader) tracesSample(key string, n *node) float64 {
	value, ok := l.scalar(key, n)
	if !ok {
		return 0
	}
	part, err := strconv.ParseFloat(value, 64)
	if n.kind != scalarNode || err != nil || !(part >= 0 && part <= 1) {
		l.fail(key, n, "0.01 is one in a hundred", "want a number from 0 to 1")
		return 0
	}
	return part
}
