package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/redis/go-redis/v9"
)

// The waits between attempts to find who has a channel's slot.
const (
	minPlacing = 50 * time.Millisecond
	maxPlacing = 500 * time.Millisecond
)

// A ShardedSource delivers the messages of sharded channels, which a Cluster
// keeps on the servers that have their slots: it has a connection to each of
// these. On one server, version 7 or later, sharded channels are channels apart
// from others.
//
// When a slot moves, or a server fails, it asks who has the channel now,
// subscribes there, and reports the span between as a gap. A channel that is
// heard stays where it is. Otherwise it is as [Source]: the connections read
// each on a goroutine of its own, but call the handler one after the other.
type ShardedSource struct {
	rdb     redis.UniversalClient
	options SourceOptions
	logger  *slog.Logger
	outages *outages
	poke    chan struct{} // capacity 1: something may have to be placed
	failed  lograte.Limiter

	mu     sync.Mutex // guards what follows; taken before a ledger's
	wanted map[subscription]bool
	at     map[subscription]string // addresses, of nodes
	nodes  map[string]*node
	left   []*node // that were stopped, and may still have something to handle

	signal  sync.Mutex    // guards changed
	changed chan struct{} // closed, and replaced, on every change
}

var _ filterd.Source = (*ShardedSource)(nil)

// A node is a server with some of the channels.
type node struct {
	source *Source
	stop   context.CancelFunc
	ended  chan struct{}
}

// NewShardedSource makes a source that reads through rdb, a client of a Cluster
// or of one server, which stays the caller's.
func NewShardedSource(rdb redis.UniversalClient, options SourceOptions) *ShardedSource {
	return &ShardedSource{
		rdb:     rdb,
		options: options,
		logger:  cmp.Or(options.Logger, slog.Default()),
		outages: newOutages(),
		poke:    make(chan struct{}, 1),
		at:      make(map[subscription]string),
		nodes:   make(map[string]*node),
		changed: make(chan struct{}),
	}
}

// Subscribe implements [filterd.Source]: it takes what is Sharded. It doesn't
// wait; see [ShardedSource.WaitReady].
func (s *ShardedSource) Subscribe(to filterd.Subscriptions) {
	wanted := make(map[subscription]bool, len(to.Sharded))
	for _, name := range to.Sharded {
		wanted[subscription{name: name, sharded: true}] = true
	}
	s.outages.want(wanted)
	s.mu.Lock()
	s.wanted = wanted
	s.mu.Unlock()
	s.tell()
}

// tell wakes Run and those who wait.
func (s *ShardedSource) tell() {
	select {
	case s.poke <- struct{}{}:
	default: // it is about to
	}
	s.signal.Lock()
	defer s.signal.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// WaitReady waits until Redis has confirmed every subscription, as
// [Source.WaitReady] does.
func (s *ShardedSource) WaitReady(ctx context.Context) error {
	for {
		s.signal.Lock()
		changed := s.changed
		s.signal.Unlock()
		if settled, err := s.settled(); settled {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", s.missing(), ctx.Err())
		}
	}
}

// Ready says, without waiting, why [ShardedSource.WaitReady] would wait, or
// fail; nil if it would do neither.
func (s *ShardedSource) Ready() error {
	if settled, err := s.settled(); settled {
		return err
	}
	return errors.New(s.missing())
}

// settled reports whether every subscription is confirmed or refused, all gaps of
// the confirmed are reported, and what was refused.
func (s *ShardedSource) settled() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.wanted {
		if s.nodes[s.at[sub]] == nil {
			return false, nil
		}
	}
	var errs []error
	for _, address := range slices.Sorted(maps.Keys(s.nodes)) {
		ok, err := s.nodes[address].source.ledger.settled()
		if !ok {
			return false, nil
		}
		errs = append(errs, err)
	}
	return true, errors.Join(errs...)
}

// missing says what is not confirmed.
func (s *ShardedSource) missing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, sub := range slices.SortedFunc(maps.Keys(s.wanted), compareSubscriptions) {
		if n := s.nodes[s.at[sub]]; n == nil || !n.source.ledger.hears(sub) {
			names = append(names, fmt.Sprintf("%q", sub.name))
		}
	}
	const most = 10
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	return "not subscribed to " + strings.Join(names, ", ")
}

// Run implements [filterd.Source], as [Source.Run] does.
func (s *ShardedSource) Run(ctx context.Context, h filterd.Handler) error {
	switch s.rdb.(type) {
	case *redis.Client, *redis.ClusterClient:
	default:
		return fmt.Errorf("sharded channels need a client of a cluster or of one server, not %T", s.rdb)
	}
	s.mu.Lock()
	nothing := len(s.wanted) == 0
	s.mu.Unlock()
	if s.options.FailFast && !nothing {
		if err := s.rdb.Ping(ctx).Err(); err != nil {
			return unreachable(s.rdb, err)
		}
	}
	s.outages.reset()
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	first := make(chan error, 1)
	go func() { // ends with ctx, or Run, which waits for it
		err := s.WaitReady(running)
		if err == nil && s.options.OnReady != nil {
			s.options.OnReady()
		}
		first <- err
	}()
	one := &oneByOne{handler: h}
	err := s.control(running, one, first)
	cancel()
	s.mu.Lock()
	nodes := slices.AppendSeq(s.left, maps.Values(s.nodes))
	s.left = nil
	clear(s.nodes)
	clear(s.at)
	s.mu.Unlock()
	for _, n := range nodes {
		<-n.ended
	}
	<-first
	for _, ending := range s.outages.finish(time.Now()) {
		logGap(s.logger, ending.gap)
		h.Gap(*ending.gap)
	}
	return err
}

// control places subscriptions until ctx ends or it can't go on. What it takes
// from first it puts back.
func (s *ShardedSource) control(ctx context.Context, h filterd.Handler, first chan error) error {
	failFast, pause := s.options.FailFast, minPlacing
	for {
		done, err := s.place(ctx, h)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, redis.ErrClosed):
			return errors.New("the redis client was closed")
		case err != nil:
			if suppressed, ok := s.failed.Allow(); ok {
				s.logger.Warn("no server for a sharded channel, trying again", "error", err, "in", pause, "suppressed", suppressed)
			}
		}
		var again <-chan time.Time
		if done {
			pause = minPlacing
		} else {
			again = time.After(pause)
			pause = min(2*pause, maxPlacing)
		}
		begun := first
		if !failFast {
			begun = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-begun:
			first <- err
			if failFast = false; err != nil && ctx.Err() == nil {
				return err
			}
		case <-again:
		case <-s.poke:
			if done {
				break
			}
			select { // not more often than that, however often a server refuses
			case <-again:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// place sees to it that every subscription has a server, and reports whether
// they all do as far as is known. The error is why one has none. It is Run's:
// nobody else changes nodes.
func (s *ShardedSource) place(ctx context.Context, h filterd.Handler) (done bool, err error) {
	unsettled, ended := s.unsettled()
	if ended && errors.Is(s.rdb.Ping(ctx).Err(), redis.ErrClosed) {
		return false, redis.ErrClosed
	}
	owners := make(map[subscription]*redis.Client, len(unsettled))
	for _, sub := range unsettled { // without mu: it may take as long as a server does
		if owners[sub], err = s.owner(ctx, sub.name); err != nil {
			break // the others would only wait as long
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub, client := range owners {
		address, n := "", s.nodes[s.at[sub]]
		if client != nil {
			address = client.Options().Addr
		}
		switch {
		case client == nil || !s.wanted[sub]:
		case n != nil && s.at[sub] == address:
			n.source.ledger.askAgain(sub)
			n.source.wake()
		default:
			s.at[sub] = address
			if s.nodes[address] == nil {
				s.nodes[address] = s.start(ctx, h, client)
			}
		}
	}
	maps.DeleteFunc(s.at, func(sub subscription, _ string) bool { return !s.wanted[sub] })
	parts := make(map[string]map[subscription]bool)
	for sub, address := range s.at {
		if parts[address] == nil {
			parts[address] = make(map[subscription]bool)
		}
		parts[address][sub] = true
	}
	for address, n := range s.nodes {
		switch part := parts[address]; {
		case part == nil:
			n.stop() // what it has sent is handled
			delete(s.nodes, address)
			s.left = append(s.left, n)
		case n.source.ledger.differs(part):
			n.source.ledger.want(part)
			n.source.wake()
		}
	}
	return len(unsettled) == 0, err
}

// unsettled returns the subscriptions that are neither heard nor asked for
// where they are; and whether a node has ended that was not stopped.
func (s *ShardedSource) unsettled() (subs []subscription, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = slices.DeleteFunc(s.left, func(n *node) bool {
		select {
		case <-n.ended:
			return true
		default:
			return false
		}
	})
	for address, n := range s.nodes {
		select {
		case <-n.ended: // a Cluster's client closes those of servers that have left
			delete(s.nodes, address)
			ended = true
		default:
		}
	}
	stale := false
	for sub := range s.wanted {
		if n := s.nodes[s.at[sub]]; n != nil {
			here, elsewhere := n.source.ledger.place(sub)
			if here && !elsewhere {
				continue
			}
			stale = true
		}
		subs = append(subs, sub)
	}
	if c, ok := s.rdb.(*redis.ClusterClient); ok && stale {
		c.ReloadState(context.Background()) // which goes on by itself
	}
	slices.SortFunc(subs, compareSubscriptions)
	return subs, ended
}

// owner returns a client of the server that has a channel.
func (s *ShardedSource) owner(ctx context.Context, channel string) (*redis.Client, error) {
	if c, ok := s.rdb.(*redis.ClusterClient); ok {
		return c.MasterForKey(ctx, channel)
	}
	return s.rdb.(*redis.Client), nil
}

// maxTags is how many hash tags are tried to find one of a server's.
const maxTags = 4096

// tag returns a hash tag that leads to a server, as {7} does to that of slot
// 4998; empty if there is none.
func (s *ShardedSource) tag(address string) string {
	for n := range maxTags {
		tag := fmt.Sprintf("{%d}", n)
		client, err := s.owner(context.Background(), tag)
		if err != nil {
			return ""
		}
		if client.Options().Addr == address {
			return tag
		}
	}
	return ""
}

// start starts to read from a server. The caller holds mu.
func (s *ShardedSource) start(ctx context.Context, h filterd.Handler, client *redis.Client) *node {
	options := s.options
	options.FailFast, options.OnReady = false, nil
	n := &node{source: NewSource(client, options), ended: make(chan struct{})}
	n.source.of = s
	n.source.ledger.part, n.source.ledger.outages, n.source.ledger.tell = true, s.outages, s.tell
	ctx, n.stop = context.WithCancel(ctx)
	go func() { // ends with ctx; Run waits for those that it has still
		_ = n.source.Run(ctx, h) // its client was closed, if there is an error
		n.stop()
		close(n.ended)
		s.tell()
	}()
	return n
}

// oneByOne is a handler that several sources call.
type oneByOne struct {
	mu      sync.Mutex // held while handler is called
	handler filterd.Handler
}

func (o *oneByOne) Messages(ctx context.Context, batch []*filterd.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handler.Messages(ctx, batch)
}

func (o *oneByOne) Gap(gap filterd.Gap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handler.Gap(gap)
}
