package config

import (
	"regexp"
	"time"

	"github.com/filterd/filterd/pubsub"
)

// An HA is the section ha: several daemons with the same rules, of which one
// sends what becomes of the messages of channels. The package only reads it.
type HA struct {
	// Group names those daemons.
	Group string
	// Lease is how long nobody may send after the daemon that does has died.
	Lease time.Duration
}

// Bounds of ha.lease: below, a machine that is busy for a moment loses it.
const (
	minLease = 500 * time.Millisecond
	maxLease = 5 * time.Minute
)

// groupName is what a group may be called: it becomes a part of a key in Redis.
var groupName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ha reads the section ha.
func (l *loader) ha(key string, n *node) {
	s, ok := l.section(key, n, haKeys)
	if !ok {
		return
	}
	ha := &HA{Group: l.optionalText(s, "group"), Lease: pubsub.DefaultLease}
	l.config.HA = ha
	switch key, n := s.get("group"); {
	case n == nil:
		l.fail(s.key, s.node, "add group, a name that the other daemons with these rules have, too", "group is missing")
	case ha.Group != "" && !groupName.MatchString(ha.Group):
		l.fail(key, n, "", "want at most 64 letters, digits, dots, dashes and underscores")
	}
	if key, n := s.get("lease"); n != nil {
		ha.Lease, _ = l.duration(key, n, minLease, maxLease)
	}
}
