package pubsub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/filterd/filterd"
	"github.com/redis/go-redis/v9"
)

// A StreamBacklog is what a group has before it, all its consumers together.
type StreamBacklog struct {
	Stream, Group string
	Pending       int64 // entries that were delivered to some consumer and are not acknowledged
	Lag           int64 // entries that were not delivered yet; -1 where Redis can't tell, after entries were deleted
	Err           error // why Redis does not say it; nil if it does
}

const (
	// backlogAge is how old what Backlog returns may be.
	backlogAge = 3 * time.Second
	// backlogTimeout is how long Redis has to say it.
	backlogTimeout = time.Second
)

// A backlog is what Redis has said last.
type backlog struct {
	mu     sync.Mutex // held while Redis is asked; guards what follows
	asked  time.Time  // when
	of     []filterd.Stream
	groups []StreamBacklog
}

// Backlog asks Redis what the groups of the streams that are wanted have before
// them, and remembers it for 3 s, in which who asks gets the same: so it takes no
// context. Redis has a second to answer. It needs the permission for XINFO.
func (s *StreamSource) Backlog() []StreamBacklog {
	s.mu.Lock()
	wanted := s.wanted // which nobody changes
	s.mu.Unlock()
	if len(wanted) == 0 {
		return nil
	}
	b := &s.backlog
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.asked) < backlogAge && slices.Equal(b.of, wanted) {
		return b.groups
	}
	ctx, cancel := context.WithTimeout(context.Background(), backlogTimeout)
	defer cancel()
	b.of, b.groups = wanted, make([]StreamBacklog, len(wanted))
	commands := make([]*redis.XInfoGroupsCmd, len(wanted))
	pipeline := s.rdb.Pipeline()
	for i, stream := range wanted {
		commands[i] = pipeline.XInfoGroups(ctx, stream.Name)
	}
	_, _ = pipeline.Exec(ctx) // every command has its own error
	for i, stream := range wanted {
		b.groups[i] = s.backlogOf(stream, commands[i])
	}
	b.asked = time.Now()
	return b.groups
}

func (s *StreamSource) backlogOf(stream filterd.Stream, command *redis.XInfoGroupsCmd) StreamBacklog {
	of := StreamBacklog{Stream: stream.Name, Group: stream.Group, Lag: -1}
	groups, err := command.Result()
	if err != nil {
		of.Err = unreachable(s.rdb, err)
		return of
	}
	i := slices.IndexFunc(groups, func(g redis.XInfoGroup) bool { return g.Name == stream.Group })
	if i < 0 {
		of.Err = fmt.Errorf("there is no group %q", stream.Group)
		return of
	}
	of.Pending, of.Lag = groups[i].Pending, groups[i].Lag
	return of
}
