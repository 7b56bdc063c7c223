package config

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/engine"
	"github.com/filterd/filterd/internal/spelling"
	"github.com/filterd/filterd/webhook"
)

// Bounds of what a webhook's settings can be.
const (
	minWebhookTimeout = 100 * time.Millisecond
	maxWebhookTimeout = 5 * time.Minute
	minBackoff        = time.Millisecond
	maxBackoff        = time.Hour
	maxAttempts       = 10_000
)

// webhookSecrets are the keys of webhooks that take ${file:…}.
var webhookSecrets = regexp.MustCompile(`^webhooks\..*\.(url|secrets(\[\d+\])?)$`)

// A webhookNode is a webhook, and where it stands in the file.
type webhookNode struct {
	endpoint *webhook.Endpoint // nil if something is wrong with it
	key      string
	name     *node
	used     bool // by a rule
}

// webhooks reads the section webhooks.
func (l *loader) webhooks(key string, n *node) {
	if n.kind != mappingNode {
		l.want(key, n, "", "a mapping of webhooks")
		return
	}
	l.byWebhook = make(map[string]*webhookNode, len(n.entries))
	for _, e := range n.entries {
		name := e.key.value
		key := below(key, name)
		node := &webhookNode{key: key, name: e.key}
		l.byWebhook[name] = node
		if name == "" {
			l.fail(key, e.key, "", "a webhook needs a name")
			continue
		}
		if s, ok := l.section(key, e.value, webhookKeys); ok {
			node.endpoint = l.webhook(s, e.key)
		}
	}
}

// webhook reads what is said of one webhook. What fits together is package
// webhook's to say. It returns nil if something is wrong.
func (l *loader) webhook(s section, name *node) *webhook.Endpoint {
	before := len(l.problems.list)
	o := webhook.Options{Name: name.value}
	if key, n := s.get("url"); n == nil {
		l.fail(s.key, name, "add url, where messages are posted to", "url is missing")
	} else if text := l.optionalText(s, "url"); text != "" {
		o.URL = filterd.Secret(text)
	} else if len(l.problems.list) == before { // a variable may be empty
		l.fail(key, n, "", "is empty")
	}
	if key, n := s.get("secrets"); n != nil {
		o.Secrets = l.signingKeys(key, n)
	} else {
		offset, length := l.problems.text.whole(name)
		l.warnings.add(offset, length, s.key, "add secrets", "messages are not signed: nobody can tell who has sent them")
	}
	if key, n := s.get("allow"); n != nil {
		o.Allow = l.networks(key, n)
	}
	if key, n := s.get("timeout"); n != nil {
		o.Timeout, _ = l.duration(key, n, minWebhookTimeout, maxWebhookTimeout)
	}
	if key, n := s.get("attempts"); n != nil {
		o.Attempts, _ = l.integer(key, n, 1, maxAttempts)
	}
	if key, n := s.get("max_backoff"); n != nil {
		o.MaxBackoff, _ = l.duration(key, n, minBackoff, maxBackoff)
	}
	if key, n := s.get("concurrency"); n != nil {
		o.Concurrency, _ = l.integer(key, n, 1, webhook.MaxConcurrency)
	}
	if len(l.problems.list) > before || l.problems.more > 0 {
		return nil
	}
	endpoint, err := webhook.New(o)
	if err != nil {
		for _, err := range unjoin(err) {
			l.webhookError(s, err)
		}
		return nil
	}
	if l.former != nil && l.former.Webhooks[o.Name] != nil {
		endpoint.Replace(l.former.Webhooks[o.Name])
	}
	return endpoint
}

// webhookError reports what package webhook says about an endpoint, at the key
// that it speaks of.
func (l *loader) webhookError(s section, err error) {
	at, message, _ := strings.Cut(err.Error(), ": ")
	name, index, _ := strings.Cut(strings.TrimSuffix(at, "]"), "[")
	key, n := s.get(name)
	if n == nil {
		l.fail(s.key, s.node, "", "%v", err)
		return
	}
	var i int
	if _, err := fmt.Sscan(index, &i); err == nil && n.kind == listNode && i < len(n.items) {
		key, n = element(key, i), n.items[i]
	}
	l.fail(key, n, "", "%s", message)
}

// signingKeys reads keys to sign with, which may only be referred to.
func (l *loader) signingKeys(key string, n *node) []filterd.Secret {
	items := []*node{n}
	if n.kind == listNode {
		items = n.items
	}
	if len(items) == 0 {
		l.fail(key, n, "", "the list is empty")
	}
	var secrets []filterd.Secret
	for i, item := range items {
		at := key
		if n.kind == listNode {
			at = element(key, i)
		}
		if item.kind == scalarNode && !item.blank() && !strings.Contains(item.value, "${") {
			l.fail(at, item, "write ${VARIABLE} or ${file:path}", "a key may not stand in the file")
		} else if text, ok := l.text(at, item); ok {
			secrets = append(secrets, filterd.Secret(text))
		}
	}
	return secrets
}

// networks reads addresses and networks.
func (l *loader) networks(key string, n *node) []netip.Prefix {
	const what = "a network such as 10.1.0.0/16, or an address"
	texts, nodes, _ := l.texts(key, n, what+", or a list of these")
	var networks []netip.Prefix
	for i, text := range texts {
		network, err := netip.ParsePrefix(text)
		if address, alone := netip.ParseAddr(text); alone == nil {
			address = address.Unmap()
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		switch {
		case err != nil && text != nodes[i].value:
			l.wantReferred(key, nodes[i], what)
		case err != nil:
			l.fail(key, nodes[i], "", "want %s, not %s", what, quote(text))
		default:
			networks = append(networks, network)
		}
	}
	return networks
}

// webhookTarget finds the webhook that a rule names.
func (l *loader) webhookTarget(key string, n *node) engine.Target {
	name, ok := l.text(key, n)
	if !ok {
		return noTarget()
	}
	node := l.byWebhook[name]
	if node == nil {
		hint := "declare it under webhooks"
		if near := spelling.Nearest(name, slices.Collect(maps.Keys(l.byWebhook))); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		l.fail(key, n, hint, "there is no webhook %s", quote(name))
		return noTarget()
	}
	node.used = true
	if node.endpoint == nil {
		return noTarget() // what is wrong with it is known
	}
	return engine.Target{Webhook: name}
}

// useWebhooks makes what rules name the config's, and warns of the rest.
func (l *loader) useWebhooks() {
	l.config.Webhooks = make(map[string]*webhook.Endpoint)
	for name, node := range l.byWebhook {
		switch {
		case !node.used:
			offset, length := l.problems.text.whole(node.name)
			l.warnings.add(offset, length, node.key, "", "no rule has this webhook")
		case node.endpoint != nil:
			l.config.Webhooks[name] = node.endpoint
		}
	}
}

// hooks returns the webhooks as the engine takes them.
func (c *Config) hooks() map[string]engine.Webhook {
	hooks := make(map[string]engine.Webhook, len(c.Webhooks))
	for name, endpoint := range c.Webhooks {
		hooks[name] = endpoint
	}
	return hooks
}
